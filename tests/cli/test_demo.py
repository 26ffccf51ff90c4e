"""``clr demo``: what it prints, writes, and keeps after Ctrl-C."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    for picture in ("range_test.png", "search.png", "rates.png", "accuracy.png"):
        assert f"clr-demo/{picture}" in out
        assert Path("clr-demo", picture).read_bytes().startswith(b"\x89PNG")

    results = json.loads(Path("clr-demo", "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [
        ("fixed", 0), ("fixed", 1), ("triangular2", 0), ("triangular2", 1),
    ]  # fmt: skip
    for run in results["runs"]:
        assert len(run["losses"]) == len(run["rates"]) == 120
        assert len(run["accuracies"]) == 12
        assert sum(run["losses"][-10:]) < sum(run["losses"][:10]) * 0.5
    fixed, cyclical = results["runs"][0], results["runs"][2]
    search = clr.Search.from_json(Path("clr-demo", "search.json").read_text())
    assert search.total_steps == 120
    assert clr.RangeTest.from_json(Path("clr-demo", "range_test.json").read_text()) == search.range_test
    base_lr, max_lr = search.bounds()
    assert (results["rates"]["base_lr"], results["rates"]["max_lr"]) == (base_lr, max_lr)
    assert f"It cost {search.updates} updates, " in out
    assert fixed["rates"] == [pytest.approx(results["rates"]["fixed"], rel=1e-6)] * 120
    # 1,200 digits in batches of 32 are 38 steps an epoch; half a cycle is two epochs.
    for step, applied in enumerate(cyclical["rates"]):
        assert applied == pytest.approx(rate(step, base_lr, max_lr, 76, mode="triangular2"), rel=1e-6)
    assert fixed["losses"][0] == cyclical["losses"][0], "the same seed starts from the same weights and batch"


def test_the_fixed_rate_is_the_best_of_three_at_the_cost_of_the_search(call: Call) -> None:
    options = ("--total-steps", "20", "--seeds", "1", "--policy", "one_cycle", "--out", "here")
    code, out, _ = call("demo", *options)
    assert code == 0
    results = json.loads(Path("here", "results.json").read_text())
    updates = clr.Search.from_json(Path("here", "search.json").read_text()).updates
    tries = results["tries"]
    assert len(tries) == 3
    assert 0 <= updates - sum(len(run["losses"]) for run in tries) <= 2
    for run, usual in zip(tries, (0.01, 0.03, 0.1), strict=True):
        assert run["rates"] == [pytest.approx(usual, rel=1e-6)] * (updates // 3)
    best = {max(run["accuracies"]): run["rates"][0] for run in reversed(tries)}  # of equals the first
    assert results["rates"]["fixed"] == pytest.approx(best[max(best)], rel=1e-6)
    first, second, third = (f"{100 * max(run['accuracies']):.2f}%" for run in tries)
    line = f"Fixed rate: {results['rates']['fixed']:g}, the best of 0.01 ({first}), 0.03 ({second}) and 0.1 ({third})"
    assert out.splitlines()[1] == (
        f"{line} on the digits for testing, in a run of {updates // 3} updates each. "
        f"They cost {3 * (updates // 3)} updates."
    )
    assert [row["policy"] for row in results["summary"]] == ["fixed", "one_cycle"]


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
    search = clr.Search.from_json(Path("here", "search.json").read_text())
    assert (results["rates"]["base_lr"], results["rates"]["max_lr"]) == tuple(search.bounds())
    assert {run["framework"] for run in results["tries"]} == {framework}
    assert f"Search in {framework}: " in out


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C works, also where a shell's background has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


OPTIONS = ("--total-steps", "20", "--seeds", "3", "--out", "here")


def test_ctrl_c_in_the_search_ends_it_cleanly(call: Call, interrupts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = tensorflow.loss_and_gradients

    def interrupted(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return judge(*given)

    monkeypatch.setattr(tensorflow, "loss_and_gradients", interrupted)
    code, out, err = call("demo", *OPTIONS)
    assert (code, out) == (128 + signal.SIGINT, "")
    assert err.endswith("\nInterrupted in the search.\n")


def test_ctrl_c_in_the_choice_of_the_fixed_rate_keeps_the_search(
    call: Call, interrupts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Rates] = []

    def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
        made.append(rates)
        yield Run("tensorflow", policy, seed, [1.0], [rates.fixed], [0.5])
        if len(made) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tensorflow, "train", train)
    code, out, err = call("demo", *OPTIONS)
    assert code == 128 + signal.SIGINT
    assert "Search in tensorflow: " in out
    assert err.endswith("\nInterrupted in the choice of the fixed rate.\n")
    assert [rates.fixed for rates in made] == [0.01, 0.03]
    assert clr.Search.from_json(Path("here", "search.json").read_text()).trials
    assert not Path("here", "results.json").exists()


def test_a_search_without_bounds_is_refused_and_kept(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = (clr.Trial(1, 0.1, 30, (2.0,) * 30, 3.0, "completed"),)
    search = clr.Search(clr.range_test(lambda lr: 2.0), trials, 2.0, 20, 600)
    monkeypatch.setattr(tensorflow, "search", lambda total_steps: search)
    code, out, err = call("demo", *OPTIONS)
    assert (code, out) == (2, "")
    assert "clr: No trial has made the held-out value better" in err
    assert clr.Search.from_json(Path("here", "search.json").read_text()) == search
    assert Path("here", "search.png").exists()


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
    assert err.endswith("\nInterrupted: 1 of 15 runs are complete.\n")
    results = json.loads(Path("here", "results.json").read_text())
    assert [(run["policy"], run["seed"]) for run in results["runs"]] == [("fixed", 0)]
