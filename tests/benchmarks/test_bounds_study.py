"""What the benchmark of the bounds keeps, and what it makes of it, on results of which the answers are known."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import clr
from benchmarks.bounds import rules, study
from benchmarks.bounds.study import Key, Results
from benchmarks.bounds.tasks import TASKS
from tests.kept import unpacked

PAGE = Path(__file__).parents[2] / "docs" / "bounds.md"
RULE = "torch-lr-finder"


@pytest.mark.parametrize("rest", ['["training", "wine", "sgd", 2, 0.1, 1', '["te', "[1, 2]"])
@pytest.mark.parametrize("lines", [0, 2])
def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path, lines: int, rest: str) -> None:
    file = tmp_path / "results.jsonl"
    whole = [
        '["test", "ignite", "wine", "sgd", 0, 0.25]\n',
        '["training", "wine", "sgd", 0, 0.1, 1.0, [97.5, false]]\n',
    ]
    file.write_text("".join(whole[:lines]) + rest)
    kept = Results(file)
    assert kept.get(("test", "ignite", "wine", "sgd", 0)) == (0.25 if lines else None)
    assert kept.get(("training", "wine", "sgd", 0, 0.1, 1.0)) == ([97.5, False] if lines else None)
    kept.add(("training", "wine", "sgd", 2, 0.1, 1.0), [90.0, True])
    assert file.read_text().splitlines(keepends=True) == [
        *whole[:lines],
        '["training", "wine", "sgd", 2, 0.1, 1.0, [90.0, true]]\n',
    ]
    assert Results(file).get(("training", "wine", "sgd", 2, 0.1, 1.0)) == [90.0, True]


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """What was worked on, of a study of one task, one rule and one ratio, in a thread of this process."""
    done: list[Key] = []

    def work(key: Key) -> Any:
        done.append(key)
        return 0.05 if key[0] == "test" else [90.0, False]

    monkeypatch.setattr(study, "TASKS", {"wine": TASKS["wine"]})
    monkeypatch.setattr(study, "MORE", {})
    monkeypatch.setattr(study, "TESTED", (RULE,))
    monkeypatch.setattr(study, "RATIOS", (10,))
    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
    monkeypatch.setattr(study, "work", work)
    return done


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_does_what_is_not_done_yet(tmp_path: Path, worked: list[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    run: Callable[[], None] = partial(study.run, file, 1)
    add = Results.add

    def seven(self: Results, key: Key, value: object) -> None:
        if len(self._lines) == 7:
            raise KeyboardInterrupt
        add(self, key, value)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Results, "add", seven)
        run()
    before = lines(file)
    assert len(before) == 7
    worked.clear()
    run()
    assert not {tuple(key) for *key, _ in before} & set(worked)
    # A test with each optimizer, eight trainings of the grid, two that need no rate, and one between what the test has
    # found. The constants are on the grid.
    everything = lines(file)
    assert len(everything) == len({tuple(key) for *key, _ in everything}) == 2 * (1 + 8 + 2 + 1)
    assert everything[: len(before)] == before
    for optimizer in ("sgd", "adamw"):
        assert ["training", "wine", optimizer, 0, 0.005, 0.05, [90.0, False]] in everything
    *_, last = text = file.read_text().splitlines(keepends=True)
    file.write_text("".join(text)[:-3])
    worked.clear()
    run()
    assert worked == [tuple(json.loads(last)[:-1])]
    study.pack(file)
    file.unlink()
    worked.clear()
    run()
    assert worked == []
    assert file.read_text() == "".join(text)


def test_what_a_peer_raises_is_its_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def suggestion(kind: str, task: str, optimizer: str, seed: int) -> float:
        if seed:
            raise ValueError(f"{kind} {task} {optimizer}")
        return 0.5

    monkeypatch.setattr(rules, "suggestion", suggestion)
    kept = Results(tmp_path / "results.jsonl")
    for seed in (0, 1):
        kept.add(("test", RULE, "wine", "sgd", seed), study.work(("test", RULE, "wine", "sgd", seed)))
    assert study.bounds(kept, RULE, "wine", "sgd", 0) == (0.05, 0.5)
    assert study.bounds(kept, RULE, "wine", "sgd", 1) == "ValueError: torch-lr-finder wine sgd"


def test_the_grid_has_half_decades() -> None:
    for optimizer, first in (("sgd", 1e-3), ("adamw", 1e-4)):
        pairs = list(study.grid(optimizer, 3))
        assert [high for _, high in pairs] == pytest.approx([first * 10 ** (half / 2) for half in range(8)])
        assert [high / low for low, high in pairs] == pytest.approx([3] * 8)


def test_a_summary_has_the_best_that_was_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TASKS", {"wine": TASKS["wine"]})
    monkeypatch.setattr(study, "MORE", {})
    kept = Results(tmp_path / "results.jsonl")
    outcomes = [([80.0, False], [90.0, False]), ([99.0, False], [99.0, True]), ([98.0, False], [None, True])]
    pairs = list(study.grid("sgd", 10))
    for pair, both in zip(pairs, [*outcomes, ([86.0, False], [82.0, False])], strict=False):
        for seed, outcome in enumerate(both):
            kept.add(("training", "wine", "sgd", seed, *pair), outcome)
    for seed, found in enumerate((0.5, "nothing", 0.25)):
        kept.add(("test", RULE, "wine", "sgd", seed), found)
    kept.add(("training", "wine", "sgd", 0, 0.05, 0.5), [88.0, False])
    kept.add(("training", "wine", "sgd", 2, 0.025, 0.25), [None, True])
    kept.add(("free", "prodigy", "wine", "sgd", 1), [70.0, False])
    sgd, adamw = study.summary(kept, 3, [RULE, "prodigy"])
    assert (sgd["best"], sgd["metric"]) == (pairs[0], 85.0)
    assert sgd["rules"][RULE] == {
        "metric": 44.0,  # what was lost counts as nothing
        "failed": ["nothing"],
        "diverged": 1,
        "bounds": [(0.05, 0.5), (0.025, 0.25)],
    }
    assert study._said(sgd, RULE) == "-41.0 (2 lost)"
    assert study._said(sgd, "prodigy") == "-15.0"
    assert "best" not in adamw
    assert adamw["rules"][RULE] == {"metric": None, "failed": [], "diverged": 0, "bounds": []}
    assert study._said(adamw, RULE) == "-"


def test_the_best_constant_is_near_the_best_on_most_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TASKS", {name: TASKS[name] for name in ("wine", "diabetes", "digits_cnn")})
    monkeypatch.setattr(study, "MORE", {})
    monkeypatch.setattr(study, "complete", lambda results, seeds: ["wine", "diabetes", "digits_cnn"])
    kept = Results(tmp_path / "results.jsonl")
    pairs = list(study.grid("sgd", 10))
    metrics = {"wine": (90.0, 89.5, 50.0), "diabetes": (30.0, 40.0, 39.5), "digits_cnn": (95.0, 96.9, 97.5)}
    for task, own in metrics.items():
        for pair, metric in zip(pairs, own, strict=False):
            for seed in range(3):
                kept.add(("training", task, "sgd", seed, *pair), [metric, False])
    assert study.best_constant(kept, "sgd") == pairs[1][1]  # near on two of three, and the others on one or two
    assert study.bounds(kept, rules.CONSTANT, "wine", "sgd", 0) == pairs[1]
    assert study.bounds(kept, rules.TEXTBOOK, "wine", "sgd", 0) == pytest.approx((0.01, 0.1))
    assert study.bounds(kept, rules.TEXTBOOK, "wine", "adamw", 0) == pytest.approx((0.0001, 0.001))


def test_the_tables_are_of_what_is_trained(tmp_path: Path, worked: list[Key]) -> None:
    file = tmp_path / "results.jsonl"
    study.run(file, 1)
    assert study.complete(Results(file), 1) == ["wine"]
    *rest, _ = file.read_text().splitlines(keepends=True)
    kept = [line for line in rest if json.loads(line)[:3] != ["test", RULE, "wine"]]
    file.write_text("".join(kept))
    assert study.complete(Results(file), 1) == []


def test_the_bounds_of_a_search_are_read_from_what_was_kept(tmp_path: Path) -> None:
    trials = tuple(
        clr.Trial(1, rate, 10, (1.0,) * 10, score, "completed")
        for rate, score in ((0.01 / math.sqrt(10), 2.0), (0.01, 1.0), (0.01 * math.sqrt(10), 2.0))
    )
    kept = Results(tmp_path / "results.jsonl")
    kept.add(("test", rules.SEARCH, "wine", "sgd", 0), clr.Search(None, trials, 3.0, 10, 600).to_dict())
    assert study.bounds(kept, rules.SEARCH, "wine", "sgd", 0) == pytest.approx((0.001, 0.01))


def row(metric: float | None, failed: int = 0, diverged: int = 0, best: float | None = 90.0) -> dict[str, Any]:
    outcome = {"metric": metric, "failed": ["no"] * failed, "diverged": diverged}
    return {"task": "wine", "rules": {"rule": outcome}} | ({} if best is None else {"metric": best})


@pytest.mark.parametrize(
    ("rows", "close", "lost"),
    [
        ([row(89.0), row(88.9), row(95.0)], "2 of 3", "0"),
        ([row(90.0, failed=1), row(90.0, diverged=1), row(90.0)], "1 of 3", "2"),
        ([row(None, failed=3), row(None), row(80.0, failed=1, diverged=2)], "0 of 3", "6"),
        ([row(90.0, diverged=1, best=None), row(90.0)], "1 of 1", "0"),  # no rate of the grid trains the first
    ],
)
def test_what_is_close_and_what_is_lost(rows: list[dict[str, Any]], close: str, lost: str) -> None:
    assert study._close(rows, "rule") == close
    assert study._lost(rows, "rule") == lost


def test_the_noise_of_the_seeds_widens_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TASKS", {"wine": TASKS["wine"]})
    monkeypatch.setattr(study, "MORE", {})
    kept = Results(tmp_path / "results.jsonl")
    low, middle, high, *_ = study.grid("sgd", 10)
    for pair, metrics in ((low, (80.0, 86.0)), (middle, (90.0, 90.0)), (high, (89.0, 79.0))):
        for seed, metric in enumerate(metrics):
            kept.add(("training", "wine", "sgd", seed, *pair), [metric, False])
    sgd, _ = study.summary(kept, 2, [])
    # The best is ahead of the one below by 10 and 4, a variance of 18, and of the one above by 1 and 11, one of 50.
    assert sgd["noise"] == pytest.approx(math.sqrt((18 + 50) / 2 / 2))
    assert study.tolerance(sgd) == sgd["noise"]
    assert study.tolerance({"noise": 0.3}) == study.tolerance({}) == 1
    assert study._close([row(86.0) | {"noise": 4.1}, row(86.0) | {"noise": 3.9}], "rule") == "1 of 2"


def test_answers_are_counted_by_their_confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TASKS", {"wine": TASKS["wine"]})
    monkeypatch.setattr(study, "MORE", {})
    monkeypatch.setattr(study, "complete", lambda results, seeds: ["wine"])
    kept = Results(tmp_path / "results.jsonl")
    trials = tuple(
        clr.Trial(1, rate, 10, (1.0,) * 10, score, "completed")
        for rate, score in ((0.01 / math.sqrt(10), 2.0), (0.01, 1.0), (0.01 * math.sqrt(10), 2.0))
    )
    found = clr.Search(None, trials, 3.0, 10, 600)
    for optimizer, metrics in (("sgd", (90.0, 88.0)), ("adamw", (90.0, None))):
        for seed, metric in enumerate(metrics):
            kept.add(("test", rules.SEARCH, "wine", optimizer, seed), found.to_dict())
            kept.add(("training", "wine", optimizer, seed, *found.bounds()), [metric, metric is None])
            kept.add(("training", "wine", optimizer, seed, *next(study.grid(optimizer, 10))), [90.5, False])
    confidence = found.bounds().confidence
    assert study.sure(kept, rules.SEARCH, 2) == [(confidence, near) for near in (True, False, True, False)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results behind the page, unpacked elsewhere."""
    return unpacked(study.RESULTS, tmp_path_factory.mktemp("bounds"))


@pytest.mark.parametrize("table", [study.report, study.reliability, study.lengths, study.smoothers])
def test_the_tables_of_the_page_are_those_of_the_kept_results(
    table: Callable[..., None], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(kept, study.SEEDS, markdown=True)
    printed = capsys.readouterr().out.strip().splitlines()
    page = PAGE.read_text().splitlines()
    start = page.index(printed[0])
    assert page[start : start + len(printed) + 1] == [*printed, ""]
