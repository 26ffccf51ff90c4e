"""What the study with the bounds of a search trains, and what it makes of it, on results whose answers are known."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import clr

pytest.importorskip("torch")
pytest.importorskip("schedulefree")
pytest.importorskip("sklearn")

from benchmarks.bounds.study import Key, Results
from benchmarks.study import searched, study
from benchmarks.study.searched import Pair
from benchmarks.study.study import BEST_FREE, FIXED, Plan
from benchmarks.study.training import Winner

FULL = 400


def search(updates: int, best: float = 0.01) -> clr.Search:
    """A search of so many updates whose best trial is as long as the training."""
    rates = (best / math.sqrt(10), best, best * math.sqrt(10))
    trials = [
        clr.Trial(1, rate, 1000, (1.0,) * made, score, "completed")
        for rate, score, made in zip(rates, (2.0, 1.0, 2.0), (updates, 0, 0), strict=True)
    ]
    return clr.Search(None, tuple(trials), 3.0, FULL, 600)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Results of one pair; its search took 40 updates."""
    monkeypatch.setattr(searched, "PLANS", {"mnist1d_mlp": Plan(FULL, 100, 2)})
    kept = Results(tmp_path / "searched.jsonl")
    kept.add(("search", "mnist1d_mlp", "sgd"), search(40).to_dict())
    return kept


def add(kept: Results, name: str, steps: int, *runs: list[float | None]) -> None:
    """Runs that were evaluated every 100 updates, or at the end if they are shorter."""
    for seed, metrics in enumerate(runs):
        records = [[min(100 * (at + 1), steps), metric] for at, metric in enumerate(metrics)]
        kept.add(("run", "mnist1d_mlp", "sgd", seed, name, steps), records)


def pair(kept: Results) -> Pair:
    return Pair("mnist1d_mlp", "sgd", kept, 2)


def test_the_target_is_the_end_of_the_best_fixed_rate(results: Results) -> None:
    low, high, *rest = study.fixed_rates("sgd")
    add(results, low, FULL, [10, 60, 70, 80], [10, 60, 70, 80])
    add(results, high, FULL, [20, 50, 95, 88], [20, 50, 70, 92])
    for name in rest:
        add(results, name, FULL, [0, 0, 0, 0], [0, 0, None])
    own = pair(results)
    assert own.target == 90
    assert own.chosen(FIXED, FULL) == high
    assert own.value(FIXED, 200) == 60  # another rate is best there
    # The first seed is there after 300 updates, the second after 400.
    assert own.soonest(FIXED) == 350 / FULL


def test_the_search_is_counted_in(results: Results) -> None:
    for name in study.fixed_rates("sgd"):
        add(results, name, FULL, [0, 0, 0, 90], [0, 0, 0, 90])
    add(results, "one_cycle", 100, [91], [91])
    add(results, "one_cycle", FULL, [0, 0, 0, 95], [0, 0, 0, 95])
    add(results, "one_cycle", FULL // 3 - 40, [89], [93])
    add(results, searched.WINNER, 200, [90, 90], [90, 90])
    add(results, "prodigy", 200, [90, 90], [90, 90])
    add(results, "linear", FULL, [90, 90, 90, None], [90, 90, 90, 90])
    own = pair(results)
    assert own.spent == 40
    assert own.soonest("one_cycle") == (100 + 40) / FULL
    assert own.soonest(searched.WINNER) == own.soonest("prodigy") == 100 / FULL  # has its own search, or none
    assert own.third("one_cycle") == 1
    assert math.isnan(own.third("linear"))
    assert own.soonest("linear") == (100 + 40) / FULL
    assert own.value("linear", FULL) == -math.inf  # one of its runs was lost
    assert math.isinf(own.soonest("wsd"))


def test_schedule_free_stands_for_its_best_rate(results: Results) -> None:
    first, second, third = study.free_rates("sgd", 1.0)
    for name, end in ((first, 80), (second, 90), (third, 70)):
        add(results, name, FULL, [0, 0, 85, end], [0, 0, 85, end])
    own = pair(results)
    assert own.chosen(BEST_FREE, FULL) == second
    assert own.value(BEST_FREE, 300) == 85


def test_bounds_are_those_for_the_length_of_the_training() -> None:
    found = search(40)
    assert max(map(searched.schedule_of("one_cycle", found, 1000), range(1000))) == pytest.approx(0.01)
    peer = searched.schedule_of("cosine", found, 1000)
    assert (peer.kind, peer.steps) == ("cosine", 1000)
    assert peer.lr == pytest.approx(0.01)
    assert searched.schedule_of("OneCycleLR", found, 32_000).lr == pytest.approx(0.01 / 32**0.2)


def test_plans_have_four_long_tasks() -> None:
    assert sum(plan.full >= 5000 for plan in searched.PLANS.values()) >= 4
    assert all(plan.full % plan.every == 0 for plan in searched.PLANS.values())


def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Key] = []

    def work(key: Key, own: Any) -> Any:
        done.append(key)
        assert (own is None) == (key[0] == "search")
        return search(40).to_dict() if key[0] == "search" else [[FULL, 1.0]]

    monkeypatch.setattr(searched, "PLANS", {"mnist1d_mlp": Plan(FULL, 100, 1)})
    monkeypatch.setattr(searched, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
    monkeypatch.setattr(searched, "work", work)
    file = tmp_path / "searched.jsonl"
    searched.run(file, 1)
    # For each optimizer a search, seven schedules at three budgets, one from the winner at two, three of schedule-free,
    # and nine fixed rates. A third less the search is shorter than from one evaluation to the next.
    assert len(done) == len(set(done)) == 2 * (1 + 7 * 3 + 2 + 3 + 9)
    searched.run(file, 1)
    assert len(done) == 2 * 36
    assert [own.optimizer for own in searched.load(file, 1)] == ["sgd", "adamw"]
    *rest, _ = file.read_text().splitlines(keepends=True)
    file.write_text("".join(rest))
    assert [own.optimizer for own in searched.load(file, 1)] == [
        optimizer for optimizer in ("sgd", "adamw") if optimizer != done[-1][2]
    ]


@pytest.fixture
def wine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searched, "PLANS", {"wine": Plan(700, 350, 1)})


@pytest.mark.usefixtures("wine")
def test_a_training_goes_on_from_the_winner() -> None:
    found = searched.work(("search", "wine", "adamw"), None)
    own = clr.Search.from_dict(json.loads(json.dumps(found)))
    assert own.total_steps == 700
    assert 0 < own.updates <= 700
    ((step, metric),) = searched.work(("run", "wine", "adamw", 0, searched.WINNER, 700), found)
    assert step == 700  # the search took the first evaluation's place
    assert metric > 80
    assert repr(Winner(700)) == "Winner(steps=700)"


@pytest.mark.usefixtures("wine")
def test_prodigy_is_annealed_at_its_own_rate() -> None:
    pytest.importorskip("prodigyopt")
    ((_, metric),) = searched.work(("run", "wine", "adamw", 0, "prodigy", 350), search(40).to_dict())
    assert metric > 80
