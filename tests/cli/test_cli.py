"""The command as a whole: its help, and how it refuses wrong use."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import clr

Call = Callable[..., tuple[int, str, str]]
POLICIES = "'triangular', 'triangular2', 'exp_range'"


def test_version_and_help(call: Call) -> None:
    assert call("--version")[:2] == (0, f"{clr.__version__}\n")
    code, out, _ = call("demo", "--help")
    assert code == 0
    assert all(option in out for option in ("--total-steps", "--seeds", "--policy", "--out", "--json"))
    assert set(re.findall(r"│ (\S+)  ", call()[1])) >= {"demo", "compare", "plot", "values", "range-test"}


def test_the_installed_command() -> None:
    done = subprocess.run([Path(sys.executable).with_name("clr"), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{clr.__version__}\n", "")


REFUSED = {
    "values --step-size 0": "`step_size` must be a positive number of steps. Received: 0.0.",
    "values --base-lr nan": "`base_lr` must be a finite number, 0 or more. Received: nan.",
    "values --max-lr 0.001": "`max_lr` must be a finite number, `base_lr` or more. "
    "Received: 0.001 with `base_lr` 0.01.",
    "values exp_range --gamma 2": "`gamma` must be a number above 0 and at most 1. Received: 2.0.",
    "values --steps 0": "Invalid value for '--steps': .*greater than or equal to 1",
    "values --every x": "Invalid value for '--every': .*integer",
    "values triangular3": f"Invalid value for 'policy': .*'triangular3' is not one of {POLICIES}.",
    "values --out {missing}/rates.csv": "cannot write {missing}/rates.csv: No such file or directory",
    "plot --out {missing}/rates.png": "cannot write {missing}/rates.png: No such file or directory",
    "plot --out {file}.nonsense": "cannot write {file}.nonsense: Format 'nonsense' is not supported .*",
    "demo --total-steps 1": "Invalid value for '--total-steps': .*greater than or equal to 20",
    "demo --seeds 0": "Invalid value for '--seeds': .*greater than or equal to 1",
    "demo --policy cosine": f"Invalid value for '--policy': .*'cosine' is not one of {POLICIES}, 'one_cycle'.",
    "demo --out {file}": "cannot write {file}: File exists",
    "demo --out {file}/folder": "cannot write {file}/folder: Not a directory",
    "range-test show {missing}": "cannot read {missing}: No such file or directory",
    "range-test plot {missing}": "cannot read {missing}: No such file or directory",
    "range-test show {file}": "{file} is not a range test: .*",
    "range-test plot {empty}": "{empty} is not a range test: the data .*",
    "compare report": "compare report needs the file of the runs",
    "compare report {missing}": "cannot read {missing}: No such file.*",
    "compare tests.trainings": "compare MODULE:FUNCTION needs --schedules and --total-steps, and no other argument",
    "nonsense": "No such command 'nonsense'.",
    "study": "No such command 'study'.",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_wrong_use_is_one_line_and_exit_code_2(call: Call, arguments: str, tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in ("missing", "file", "empty")}
    (tmp_path / "file").touch()
    (tmp_path / "empty").write_text("{}")
    code, out, err = call(*arguments.format(**places).split())
    assert (code, out) == (2, "")
    message = REFUSED[arguments].format(**places)
    pattern = message if ".*" in message else re.escape(message)
    assert re.fullmatch(f"clr: {pattern}\n", err)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("tensorflow", "demo", "demo needs TensorFlow: pip install 'cyclic-learning-rate[demo]'"),
        ("sklearn", "demo", "demo needs scikit-learn: pip install 'cyclic-learning-rate[demo]'"),
        ("torch", "demo --framework torch", "needs PyTorch: pip install 'cyclic-learning-rate[demo,torch]'"),
        ("optax", "demo --framework jax", "needs Optax: pip install 'cyclic-learning-rate[demo,jax]'"),
        ("matplotlib", "plot", "plots need matplotlib: pip install 'cyclic-learning-rate[plot]'"),
    ],
)
def test_missing_extra_is_named(
    call: Call, module: str, arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = call(*arguments.split())
    command = f"{arguments} " if message.startswith("needs") else ""
    assert (code, out, err) == (2, "", f"clr: {command}{message}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_its_extra_the_command_says_so(module: str) -> None:
    hide = f"import sys; sys.modules[{module!r}] = None; from clr.cli import main"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    message = "clr: the command needs Typer and rich: pip install 'cyclic-learning-rate[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
