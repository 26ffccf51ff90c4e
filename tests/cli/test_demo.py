"""``clr demo``: what it prints, writes, and keeps after Ctrl-C."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clr
from clr.demo import tensorflow
from clr.demo.training import Rates, Run
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


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C works, also where a shell's background has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


OPTIONS = ("--total-steps", "20", "--seeds", "3", "--out", "here")


def test_ctrl_c_in_the_range_test_ends_it_cleanly(
    call: Call, interrupts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches() -> Iterator[None]:
        signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr("clr.demo.tensorflow.test_batches", batches)
    code, out, err = call("demo", *OPTIONS)
    assert (code, out) == (128 + signal.SIGINT, "")
    assert err.endswith("\nInterrupted in the LR range test.\n")


def test_ctrl_c_in_the_training_keeps_complete_runs(
    call: Call, interrupts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tensorflow.train

    def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
        for run in trained(policy, seed, total_steps, rates):
            if seed == 1 and len(run.losses) == 5:
                signal.raise_signal(signal.SIGINT)
            yield run

    monkeypatch.setattr(tensorflow, "train", train)
    code, _, err = call("demo", *OPTIONS)
    assert code == 128 + signal.SIGINT
    assert err.endswith("\nInterrupted: 1 of 12 runs are complete.\n")
    results = json.loads(Path("here", "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [("fixed", 0)]
