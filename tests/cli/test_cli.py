"""The command: what it prints, writes and refuses."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from clr.schedule import POLICIES

import clr
from clr import cli
from tests.reference import rate, ulps

COMMAND = [sys.executable, "-c", "from clr.cli import main; main()"]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clr", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def test_policies_of_the_command_are_those_of_the_library() -> None:
    assert [policy.value for policy in cli.Policy] == list(POLICIES)


@pytest.mark.parametrize("mode", list(POLICIES))
def test_values_as_csv_are_exact(call: Call, mode: str) -> None:
    code, out, _ = call(
        "values", mode, "--base-lr", "0.001", "--max-lr", "0.006", "--step-size", "20.5", "--step-size-down", "30",
        "--gamma", "0.99", "--start", "90", "--steps", "60", "--every", "7",
    )  # fmt: skip
    rows = list(csv.reader(io.StringIO(out)))
    assert code == 0
    assert rows[0] == ["step", "learning_rate"]
    assert [int(step) for step, _ in rows[1:]] == list(range(90, 150, 7))
    for step, printed in rows[1:]:
        exact = rate(int(step), 0.001, 0.006, Fraction("20.5"), 30, mode, 0.99)
        assert ulps(float(printed), exact) <= 1


def test_values_as_json_of_one_cycle_by_default(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("values", "--step-size", "2", "--format", "json", "--out", str(tmp_path / "rates.json"))
    assert (code, out) == (0, "")
    rows = json.loads((tmp_path / "rates.json").read_text())
    assert rows == [{"step": step, "learning_rate": value} for step, value in enumerate([0.01, 0.055, 0.1, 0.055])]


def test_values_end_quietly_when_the_reader_does() -> None:
    command = " ".join(f"'{part}'" for part in COMMAND)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} values --steps 1000000 | head -2"], capture_output=True, text=True
    )
    assert done.stdout == "step,learning_rate\n0,0.01\n"
    assert done.stderr == ""


def test_plot_writes_a_picture_and_describes(call: Call, tmp_path: Path) -> None:
    picture = tmp_path / "rates.png"
    code, out, _ = call("plot", "triangular2", "--step-size", "50", "--out", str(picture))
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "from 0.01 to 0.1 in 50 steps" in out
    assert str(picture) in out


def test_version_and_help(call: Call) -> None:
    assert call("--version")[:2] == (0, "0.1.0\n")
    code, out, _ = call("demo", "--help")
    assert code == 0
    assert all(option in out for option in ("--steps", "--seeds", "--policy", "--out", "--json"))
    assert all(name in call()[1] for name in ("demo", "plot", "values"))


REFUSED = {
    "values --step-size 0": "`step_size` must be a positive number of steps. Received: 0.0.",
    "values --base-lr nan": "`base_lr` must be a finite number, 0 or more. Received: nan.",
    "values --max-lr 0.001": "`max_lr` must be a finite number, `base_lr` or more. "
    "Received: 0.001 with `base_lr` 0.01.",
    "values exp_range --gamma 2": "`gamma` must be a number above 0 and at most 1. Received: 2.0.",
    "values --steps 0": "Invalid value for '--steps': .*greater than or equal to 1",
    "values --every x": "Invalid value for '--every': .*integer",
    "values triangular3": "Invalid value for 'policy': .*'triangular3' is not one of .*",
    "values --out {missing}/rates.csv": "cannot write {missing}/rates.csv: No such file or directory",
    "plot --out {missing}/rates.png": "cannot write {missing}/rates.png: No such file or directory",
    "plot --out {file}.nonsense": "Format 'nonsense' is not supported .*",
    "demo --steps 1": "Invalid value for '--steps': .*greater than or equal to 20",
    "demo --seeds 0": "Invalid value for '--seeds': .*greater than or equal to 1",
    "demo --policy cosine": "Invalid value for '--policy': .*'cosine' is not one of .*",
    "demo --out {file}": "cannot write {file}: File exists",
    "demo --out {file}/folder": "cannot write {file}/folder: Not a directory",
    "nonsense": "No such command 'nonsense'.",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_wrong_use_is_one_line_and_exit_code_2(call: Call, arguments: str, tmp_path: Path) -> None:
    places = {"missing": str(tmp_path / "missing"), "file": str(tmp_path / "file")}
    (tmp_path / "file").touch()
    code, out, err = call(*arguments.format(**places).split())
    assert (code, out) == (2, "")
    message = REFUSED[arguments].format(**places)
    pattern = message if ".*" in message else re.escape(message)
    assert re.fullmatch(f"clr: {pattern}\n", err)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("tensorflow", "demo", "clr: demo needs TensorFlow: pip install 'cyclic-learning-rate[demo]'\n"),
        ("sklearn", "demo", "clr: demo needs scikit-learn: pip install 'cyclic-learning-rate[demo]'\n"),
        ("matplotlib", "plot", "clr: plots need matplotlib: pip install 'cyclic-learning-rate[plot]'\n"),
        ("typer", "values", "clr: the command needs Typer and rich: pip install 'cyclic-learning-rate[cli]'\n"),
    ],
)
def test_missing_extra_is_named(module: str, arguments: str, message: str, tmp_path: Path) -> None:
    hide = f"import sys; sys.modules[{module!r}] = None; sys.argv = ['clr', {arguments!r}]; {COMMAND[-1]}"
    done = subprocess.run([sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def demo(*arguments: str, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "demo", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        **options,
    )


def test_demo_trains_reports_and_keeps_its_numbers(tmp_path: Path) -> None:
    with demo("--steps", "120", "--seeds", "2", "--policy", "triangular2", folder=tmp_path) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    for text in (
        "fixed",
        "triangular2",
        "clr-demo/range_test.png",
        "clr-demo/rates.png",
        "clr-demo/accuracy.png",
        "clr-demo/results.json",
    ):
        assert text in out
    for picture in ("range_test.png", "rates.png", "accuracy.png"):
        assert (tmp_path / "clr-demo" / picture).read_bytes().startswith(b"\x89PNG")

    results = json.loads((tmp_path / "clr-demo" / "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [
        ("fixed", 0), ("fixed", 1), ("triangular2", 0), ("triangular2", 1),
    ]  # fmt: skip
    for run in results["runs"]:
        assert len(run["losses"]) == len(run["rates"]) == 120
        assert len(run["accuracies"]) == 12
        # The fixed rate, by the rule of others, is a low one.
        assert sum(run["losses"][-10:]) < sum(run["losses"][:10]) * (0.9 if run["policy"] == "fixed" else 0.5)
    fixed, cyclical = results["runs"][0], results["runs"][2]
    test = clr.RangeTest.from_json((tmp_path / "clr-demo" / "range_test.json").read_text())
    base_lr, max_lr = test.bounds()
    assert results["rates"] == {"fixed": test.suggest("valley"), "base_lr": base_lr, "max_lr": max_lr}
    assert f"{len(test.rates)} of 300 steps" in out
    assert fixed["rates"] == [pytest.approx(results["rates"]["fixed"], rel=1e-6)] * 120
    # 1,200 digits in batches of 32 are 38 steps an epoch; half a cycle is two epochs.
    for step, applied in enumerate(cyclical["rates"]):
        assert applied == pytest.approx(rate(step, base_lr, max_lr, 76, mode="triangular2"), rel=1e-6)
    assert fixed["losses"][0] == cyclical["losses"][0], "the same seed starts from the same weights and batch"


def test_demo_as_json_prints_nothing_else(tmp_path: Path) -> None:
    options = ("--steps", "20", "--seeds", "1", "--policy", "exp_range", "--out", "here", "--json")
    with demo(*options, folder=tmp_path) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    assert [row["policy"] for row in json.loads(out)] == ["fixed", "exp_range"]


def test_summary_finds_the_steps_to_the_best_of_the_fixed_rate() -> None:
    from clr.demo import report
    from clr.demo.training import Rates, Run

    runs = [
        Run("torch", "fixed", 0, accuracies=[0.5, 0.8, 0.7]),
        Run("torch", "fixed", 1, accuracies=[0.5, 0.6, 0.7]),
        Run("torch", "triangular", 0, accuracies=[0.6, 0.9, 0.9]),
        Run("torch", "triangular", 1, accuracies=[0.6, 0.7, 0.5]),
        Run("torch", "exp_range", 0, accuracies=[0.1, 0.1, 0.69]),
    ]
    fixed, triangular, exp_range = report.summary(runs, Rates(0.1, 0.1, 0.2))
    assert fixed["best_accuracy"] == pytest.approx(70)
    assert (fixed["steps_to_fixed_best"], triangular["steps_to_fixed_best"]) == (20, 20)
    assert exp_range["steps_to_fixed_best"] is None
    assert triangular["final_accuracy"] == pytest.approx(70)
    assert triangular["final_accuracy_range"] == pytest.approx([50, 90])
    assert [row["seeds"] for row in (fixed, triangular, exp_range)] == [2, 2, 1]


def test_ctrl_c_ends_the_range_test_of_the_demo(tmp_path: Path) -> None:
    watch = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
from clr.demo import tensorflow as training
def batches():
    signal.raise_signal(signal.SIGINT)
training.test_batches = batches
sys.argv = ["clr", "demo", "--out", "here"]
from clr.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", watch], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("framework", ["keras", "torch", "jax"])
def test_demo_in_another_framework(call: Call, framework: str, tmp_path: Path) -> None:
    arguments = ("--framework", framework, "--steps", "20", "--seeds", "1", "--policy", "triangular2")
    code, out, _ = call("demo", *arguments, "--out", str(tmp_path))
    assert code == 0
    assert "The 20 applied rates of each run" in out
    results = json.loads((tmp_path / "results.json").read_text())
    assert {run["framework"] for run in results["runs"]} == {framework}
    test = clr.RangeTest.from_json((tmp_path / "range_test.json").read_text())
    base_lr, max_lr = test.bounds()
    assert results["rates"] == {"fixed": test.suggest("valley"), "base_lr": base_lr, "max_lr": max_lr}


@pytest.mark.parametrize(("framework", "module", "name"), [("torch", "torch", "PyTorch"), ("jax", "optax", "Optax")])
def test_demo_without_its_framework_says_what_to_install(framework: str, module: str, name: str) -> None:
    hidden = f"""
import sys
from importlib import util
found = util.find_spec
util.find_spec = lambda module: None if module == {module!r} else found(module)
sys.argv = ["clr", "demo", "--framework", {framework!r}]
from clr.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"clr: demo --framework {framework} needs {name}: pip install 'cyclic-learning-rate[demo,{framework}]'\n"
    )


def test_ctrl_c_ends_the_demo_cleanly_and_keeps_complete_runs(tmp_path: Path) -> None:
    # Run by run on a terminal's progress bar: the bar names the second run once the first is complete.
    watch = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
from clr.demo import tensorflow as training
trained = training.train
def train(policy, seed, steps, rates):
    for run in trained(policy, seed, steps, rates):
        if seed == 1 and len(run.losses) == 5:
            signal.raise_signal(signal.SIGINT)  # in this thread, and at once
        yield run
training.train = train
sys.argv = ["clr", "demo", "--steps", "20", "--seeds", "3", "--out", "here"]
from clr.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", watch], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert "Interrupted: 1 of 12 runs are complete." in done.stderr
    assert "Traceback" not in done.stderr
    results = json.loads((tmp_path / "here" / "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [("fixed", 0)]
