"""What the study makes of its runs, on runs of which the answers can be told by hand."""

import math

import pytest

import clr

pytest.importorskip("torch")
pytest.importorskip("schedulefree")

from benchmarks.medians import Number, plain
from benchmarks.study import study
from benchmarks.study.study import Pair

from clr.comparison.runs import Run

FULL = 400


def run(schedule: str, seed: int, steps: int, metrics: list[float]) -> Run:
    """A run that was evaluated every 100 updates, and was lost at the first NaN."""
    records = tuple((100 * (at + 1), {"metric": value}) for at, value in enumerate(metrics))
    state = "diverged" if any(map(math.isnan, metrics)) else "finished"
    return Run(schedule, steps, seed, state, None, records, 1.0)


def pair(*more: Run, refused: bool = False, task: str = "one") -> Pair:
    """Fixed rates that come to 80 and 90 in the mean, and more; the range test took 50 updates."""
    fixed = [
        run("fixed 1.0e-03", 0, FULL, [10, 60, 70, 80]),
        run("fixed 1.0e-03", 1, FULL, [10, 60, 70, 80]),
        run("fixed 1.0e-02", 0, FULL, [20, 50, 70, 88]),
        run("fixed 1.0e-02", 1, FULL, [20, 50, 95, 92]),
    ]
    runs = [*fixed, *more]
    constant = clr.constant(0.1).to_json()
    descriptions = {(own.schedule, own.steps): constant if own in fixed else "" for own in runs}
    comparison = clr.Comparison.of(runs, descriptions, "metric", "max")
    return Pair(task, "sgd", comparison, 50, refused)


def ours(first: list[float], second: list[float]) -> list[Run]:
    return [run("one_cycle", seed, 100 * len(own), own) for seed, own in enumerate((first, second))]


def test_the_best_fixed_rate_is_named_after_the_fact() -> None:
    found = pair()
    assert found.chosen("best fixed", 1) == "fixed 1.0e-02"
    assert found.chosen("best fixed", 2) == "fixed 1.0e-03"
    assert (found.target, found.final("best fixed", 2), found.final("best fixed", 4)) == (90, 60, 20)
    assert found.best_is_at_edge
    assert found.iterations("best fixed") == math.inf  # the median of 300 updates and never
    assert found.holds("best fixed", 1)


def test_iterations_are_those_of_the_soonest_budget_with_the_test() -> None:
    found = pair(*ours([10, 40, 60, 91], [10, 40, 90, 95]), *ours([10, 91], [90, 80]))
    assert found.iterations("one_cycle") == (150 + 50) / 400  # seeds at 200 and 100
    assert found.iterations("one_cycle", with_test=False) == 150 / 400
    assert found.iterations("one_cycle", shares=(1,)) == (350 + 50) / 400
    assert found.iterations("one_cycle", shares=(4,)) == math.inf
    assert (found.final("one_cycle", 1), found.final("one_cycle", 2)) == (93, 85.5)
    assert found.holds("one_cycle", 1)
    assert not found.holds("one_cycle", 2)


def test_a_lost_run_and_a_refused_test_are_worst() -> None:
    found = pair(*ours([10, 40, 60, 91], [10, math.nan]))
    lost = pair(run("one_cycle", 0, FULL, [10, 40, 60, 91]), run("one_cycle", 1, FULL, [10, math.nan]))
    assert (lost.final("one_cycle", 1), lost.lost("one_cycle", 1)) == (-math.inf, 1)
    assert found.final("one_cycle", 1) == 91
    refused = pair(refused=True)
    for name in ("one_cycle", "cosine", "best schedule-free"):
        assert refused.final(name, 2) == -math.inf
        assert refused.iterations(name) == math.inf
        assert not refused.holds(name, 1)
    assert refused.target == 90


def test_wrong_bounds_are_compared_by_seed() -> None:
    wrong = [run("one_cycle, 3 x", 1, 200, [10, 70])]
    found = pair(*ours([10, 91], [90, 80]), *wrong)
    assert found.off("one_cycle", "3 x") == 70 - 80
    assert math.isnan(found.off("one_cycle", "1/3"))
    lost = pair(*ours([10, 91], [90, 80]), run("one_cycle, 3 x", 0, 200, [10, math.nan]))
    assert lost.off("one_cycle", "3 x") == -math.inf
    assert found.off("best fixed", "3 x") == 50 - 60  # the lower rate is the best at a half
    assert math.isnan(found.off("best fixed", "1/3"))
    free = [run(f"schedule-free, {rate} x", 0, FULL, [0, best, 0, 0]) for rate, best in ((10, 7), (3, 9), (30, 4))]
    assert pair(*free).off("best schedule-free", "3 x") == 7 - 9


def test_the_tables_count_pairs() -> None:
    both = [
        pair(*ours([10, 40, 60, 91], [10, 40, 90, 95]), *ours([91, 91], [90, 80]), task="a"),
        pair(refused=True, task="b"),
    ]
    (_, headings, rows), *_ = study.answers(both)
    row = dict(zip(headings, next(row for row in rows if row[0] == "one_cycle"), strict=True))
    assert row["share of updates"] == "never (0.38, never)"  # the median of 150 of 400 and never
    assert (row["pairs by 1/3"], row["mean there at 1/4"], row["at 1/2"], row["at 1"]) == ("0", "0", "0", "1")


def test_medians_over_tasks() -> None:
    assert Number.of([("a", 1.0), ("a", 2.0), ("b", 6.0)])[0] == 2
    assert str(Number.of([("a", 1.0), ("b", 1.0), ("c", math.nan)])) == "1.00 (1.00, 1.00)"
    assert str(Number.of([("a", 1.0), ("a", 3.0)])) == "2.00"
    value, spread = Number.of([("a", 0.0), ("a", 0.0), ("b", 8.0), ("b", 8.0)])
    assert (value, spread) == (4, (0, 8))
    assert str(Number.of([])) == "-"
    assert (plain(math.inf), plain(-math.inf), plain(0.125)) == ("never", "lost", "0.12")
