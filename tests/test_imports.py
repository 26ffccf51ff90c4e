import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clr

GUESTS = ["tensorflow", "keras", "torch", "jax", "optax", "numpy", "matplotlib"]
GUARD = f"import sys; loaded = [name for name in {GUESTS} if name in sys.modules]; assert not loaded, loaded"

# What a schedule may need is not needed to import the package, and takes most of the time that this would take.
LATER = ["typing", "statistics", "inspect", "json", "random", "argparse", "dataclasses", "fractions", "re"]
BARE = f"import sys; loaded = [name for name in {LATER} if name in sys.modules]; assert not loaded, loaded"


def run(*lines: str) -> subprocess.CompletedProcess[str]:
    """Runs the lines in a fresh process that shares no module with this one."""
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["import clr"], id="import"),
        pytest.param(["import clr", "assert clr.triangular(0.0, 1.0, 4)(3) == 0.75"], id="triangular"),
        pytest.param(["import clr", "assert clr.triangular2(0.0, 1.0, 20.3).cycle(41) == 2"], id="triangular2"),
        pytest.param(["import clr", "assert clr.exp_range(0.0, 1.0, 4, gamma=0.5)(4) == 0.0625"], id="exp_range"),
        pytest.param(["import clr", "assert clr.cyclic(0.0, 1.0, 4, scale_fn=lambda x: 0.5)(4) == 0.5"], id="cyclic"),
        pytest.param(
            [
                "import clr, copy, pickle",
                "schedule = clr.triangular(0.0, 1.0, clr.step_size(2, epochs=2))",
                "assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == eval(repr(schedule))",
                "assert schedule.describe() and schedule.is_cycle_end(7) and hash(schedule)",
            ],
            id="a value",
        ),
        pytest.param(
            [
                "import clr",
                "schedule = clr.warmup(clr.warm_restarts(1.0, first_cycle=8, cycle_mult=2) * 0.5, 4).clip(high=0.25)",
                "assert clr.from_json(schedule.to_json()) == schedule and clr.momentum(schedule)(0) == 0.95",
                "assert clr.one_cycle(1.0, 100).after_end('repeat')(100) == 0.04",
            ],
            id="the family",
        ),
        pytest.param(
            [
                "import clr",
                "base_lr, max_lr = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, max_lr=100).bounds()",
                "assert 0 < base_lr < max_lr < 1",
            ],
            id="a range test",
        ),
        pytest.param(
            ["import clr", "try: clr.triangular(0.0, 1.0, 4)('5')", "except TypeError: pass", "else: assert False"],
            id="an error",
        ),
    ],
)
def test_no_guest_is_loaded(lines: list[str]) -> None:
    done = run(*lines, GUARD)
    assert done.returncode == 0, done.stderr


def test_the_import_loads_little_of_the_standard_library_too() -> None:
    # Without `site`, which may load some of it for the environment.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(Path(clr.__file__).parents[1])!r})"]
    for lines, is_bare in ((["import clr"], True), (["import clr", "clr.Schedule"], False)):
        program = "\n".join([command[-1], *lines, BARE])
        done = subprocess.run([*command[:-1], program], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is is_bare, done.stderr


def test_every_public_name_is_in_each_of_the_lists_and_resolves() -> None:
    source = ast.parse(Path(clr.__file__).read_text(encoding="utf-8"))
    typed = next(node for node in source.body if isinstance(node, ast.If))
    places = {
        name.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clr")
        for name in node.names
    }
    modules = {name for name, module in places.items() if module == "clr"}
    assert modules == set(clr._MODULES)
    assert {name: module for name, module in places.items() if name not in modules} == clr._PLACES
    assert clr.__all__ == sorted(clr._PLACES)
    for name, module in clr._PLACES.items():
        assert getattr(clr, name) is getattr(sys.modules[module], name)
    assert {*clr.__all__, *clr._MODULES} <= set(dir(clr))


def test_comparisons_are_loaded_when_they_are_asked_for() -> None:
    loaded = "'clr.comparison' in sys.modules"
    done = run(
        "import clr, sys",
        f"assert not {loaded} and {{'compare', 'Comparison', 'comparison', 'torch', 'triangular'}} <= set(dir(clr))",
        f"assert clr.compare is clr.comparison.compare and clr.Comparison and {loaded}",
        "from clr import *",
        "assert Comparison is clr.Comparison",
        GUARD,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("guest", ["numpy", "matplotlib"])
def test_the_guard_sees_a_guest(guest: str) -> None:
    done = run("import clr", f"import {guest}", GUARD)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("AssertionError: [")
    assert f"'{guest}'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("missing", GUESTS)
def test_works_without_a_guest(missing: str) -> None:
    done = run(f"import sys; sys.modules[{missing!r}] = None", "import clr", "print(clr.triangular(0.0, 1.0, 4)(3))")
    assert (done.returncode, done.stdout) == (0, "0.75\n"), done.stderr


@pytest.mark.parametrize(
    ("missing", "call", "extra"),
    [
        ("tensorflow", "clr.cyclic_learning_rate(0)", "cyclic-learning-rate[tensorflow]"),
        ("tensorflow", "clr.tensorflow.range_test(print, [])", "cyclic-learning-rate[tensorflow]"),
        ("torch", "clr.torch.LRScheduler", "cyclic-learning-rate[torch]"),
        ("keras", "clr.keras.LearningRateSchedule", "cyclic-learning-rate[keras]"),
        ("matplotlib", "clr.triangular(0.0, 1.0, 4).plot()", "cyclic-learning-rate[plot]"),
        ("numpy", "clr.triangular(0.0, 1.0, 4).plot()", "cyclic-learning-rate[plot]"),
    ],
)
def test_a_missing_guest_is_named_with_its_extra(missing: str, call: str, extra: str) -> None:
    done = run(f"import sys; sys.modules[{missing!r}] = None", "import clr", call)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"pip install '{extra}'" in last


def test_tensorflow_is_not_asked_for_before_it_is_needed() -> None:
    done = run("import sys; sys.modules['tensorflow'] = None", "from clr import cyclic_learning_rate")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("adapter", "guest"), [("torch", "torch"), ("keras", "keras")])
def test_an_adapter_is_loaded_when_it_is_asked_for(adapter: str, guest: str) -> None:
    done = run("import clr", GUARD, f"clr.{adapter}", "import sys", f"assert {guest!r} in sys.modules")
    assert done.returncode == 0, done.stderr


def test_an_unknown_attribute_is_an_error() -> None:
    done = run("import clr", "clr.mxnet")
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'clr' has no attribute 'mxnet'"


@pytest.mark.parametrize(("other", "module"), [("pythonnet", "pythonnet.py"), ("clr", "clr/style_builder.py")])
def test_an_attribute_of_another_package_named_clr_says_which_one_this_is(
    tmp_path: Path, other: str, module: str
) -> None:
    shutil.copytree(Path(clr.__file__).parent, tmp_path / "clr", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module).touch()
    done = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", "import clr", "clr.AddReference('System')")
    assert done.stderr.splitlines()[-1] == (
        "AttributeError: module 'clr' has no attribute 'AddReference'. This is cyclic-learning-rate. "
        f"{other}, which is installed beside it, has a module 'clr' too"
    )


@pytest.mark.parametrize("other", ["from clr.style_builder import style", None], ids=["overwritten", "removed"])
@pytest.mark.parametrize("module", ["clr.cli", "clr.torch", "clr.schedules.policies"])
def test_a_package_that_another_one_has_written_over_says_so(tmp_path: Path, other: str | None, module: str) -> None:
    shutil.copytree(Path(clr.__file__).parent, tmp_path / "clr", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "clr" / "__init__.py").unlink()
    if other is not None:  # as `pip install clr` leaves it, and else as `pip uninstall clr` does
        (tmp_path / "clr" / "__init__.py").write_text(other)
        (tmp_path / "clr" / "style_builder.py").write_text("style = None")
    # Without `site`, which would find this checkout beside what is left.
    paths = [str(tmp_path), *(path for path in sys.path if path.endswith("site-packages"))]
    program = f"import sys; sys.path[:0] = {paths}; import {module}"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: the module `clr` is not that of cyclic-learning-rate")
