"""``clr demo``: what it prints, writes, and keeps after Ctrl-C."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import clr
from tests.reference import rate

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_it_trains_reports_and_keeps_its_numbers(call: Call) -> None:
    code, out, _ = call("demo", "--total-steps", "120", "--seeds", "2", "--policy", "triangular2")
    assert code == 0
    assert all(name in out for name in ("fixed", "triangular2", "clr-demo/results.json"))
    for picture in ("range_test.png", "rates.png", "accuracy.png"):
        assert f"clr-demo/{picture}" in out
        assert Path("clr-demo", picture).read_bytes().startswith(b"\x89PNG")

    results = json.loads(Path("clr-demo", "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [
        ("fixed", 0), ("fixed", 1), ("triangular2", 0), ("triangular2", 1),
    ]  # fmt: skip
    for run in results["runs"]:
        assert len(run["losses"]) == len(run["rates"]) == 120
        assert len(run["accuracies"]) == 12
        # The fixed rate of the valley rule is a low one.
        assert sum(run["losses"][-10:]) < sum(run["losses"][:10]) * (0.9 if run["policy"] == "fixed" else 0.5)
    fixed, cyclical = results["runs"][0], results["runs"][2]
    test = clr.RangeTest.from_json(Path("clr-demo", "range_test.json").read_text())
    base_lr, max_lr = test.bounds()
    assert results["rates"] == {"fixed": test.suggest("valley"), "base_lr": base_lr, "max_lr": max_lr}
    assert f"{len(test.rates)} of 300 steps" in out
    assert fixed["rates"] == [pytest.approx(results["rates"]["fixed"], rel=1e-6)] * 120
    # 1,200 digits in batches of 32 are 38 steps an epoch; half a cycle is two epochs.
    for step, applied in enumerate(cyclical["rates"]):
        assert applied == pytest.approx(rate(step, base_lr, max_lr, 76, mode="triangular2"), rel=1e-6)
    assert fixed["losses"][0] == cyclical["losses"][0], "the same seed starts from the same weights and batch"


def test_as_json_it_prints_nothing_else(call: Call) -> None:
    options = ("--total-steps", "20", "--seeds", "1", "--policy", "exp_range", "--out", "here", "--json")
    code, out, _ = call("demo", *options)
    assert code == 0
    assert [row["policy"] for row in json.loads(out)] == ["fixed", "exp_range"]


@pytest.mark.parametrize("framework", ["keras", "torch", "jax"])
def test_another_framework(call: Call, framework: str) -> None:
    options = ("--total-steps", "20", "--seeds", "1", "--policy", "triangular2", "--out", "here")
    code, out, _ = call("demo", "--framework", framework, *options)
    assert code == 0
    assert "The 20 applied rates of each run" in out
    results = json.loads(Path("here", "results.json").read_text())
    assert {run["framework"] for run in results["runs"]} == {framework}
    test = clr.RangeTest.from_json(Path("here", "range_test.json").read_text())
    base_lr, max_lr = test.bounds()
    assert results["rates"] == {"fixed": test.suggest("valley"), "base_lr": base_lr, "max_lr": max_lr}


# Ctrl-C, in the main thread and at once, in the range test or in the second run.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
from clr.demo import tensorflow as training
trained = training.train

def in_the_test():
    yield signal.raise_signal(signal.SIGINT)

def in_the_second_run(policy, seed, total_steps, rates):
    for run in trained(policy, seed, total_steps, rates):
        if seed == 1 and len(run.losses) == 5:
            signal.raise_signal(signal.SIGINT)
        yield run

training.{name} = {function}
sys.argv = ["clr", "demo", "--total-steps", "20", "--seeds", "3", "--out", "here"]
from clr.cli import main
main()
"""


@pytest.mark.parametrize(
    ("name", "function", "said"),
    [
        ("test_batches", "in_the_test", "Interrupted in the LR range test."),
        ("train", "in_the_second_run", "Interrupted: 1 of 12 runs are complete."),
    ],
)
def test_ctrl_c_ends_it_cleanly_and_keeps_complete_runs(name: str, function: str, said: str) -> None:
    program = PROGRAM.format(name=name, function=function)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if name == "train":
        results = json.loads(Path("here", "results.json").read_text())
        assert [(run["policy"], run["seed"]) for run in results["runs"]] == [("fixed", 0)]
