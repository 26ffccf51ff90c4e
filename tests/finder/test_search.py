"""The search on made-up trainings whose best rate is known."""

import json
import math
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clr
from clr.finder import search


class Made:
    """A training whose held-out value is a parabola over the logarithm of the highest rate since the start."""

    def __init__(self, best: float, *, burst: float = math.inf, slope: float = 0.0, scale: float = 1.0) -> None:
        self.best, self.burst, self.slope, self.scale = best, burst, slope, scale
        self.seeds: list[int] = []
        self.updates = 0
        self.reset(0)
        self.seeds.clear()

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self.peak, self.steps = 1e-12, 0

    def step(self, lr: float) -> float:
        self.updates += 1
        self.peak, self.steps = max(self.peak, lr), self.steps + 1
        if lr >= self.burst:
            return math.inf
        part = self.peak / self.best_now
        return self.scale * (2 - 1.5 / (1 + (0.1 / part) ** 2) + (part / 6) ** 4)

    def held_out(self) -> float:
        return self.scale * (1 + math.log10(self.peak / self.best_now) ** 2)

    @property
    def best_now(self) -> float:
        """The best rate of a training of so many steps: it falls by the power ``slope`` of its length."""
        return self.best * math.pow(30 / max(self.steps, 30), self.slope)

    def find(self, **options: Any) -> clr.Search:
        return clr.find_bounds(self.step, self.reset, self.held_out, **{"total_steps": 1000} | options)


@pytest.mark.parametrize("best", [3e-6, 1e-3, 0.05, 0.7, 30.0])
def test_the_best_rate_of_trials_as_long_as_the_training_is_the_upper_bound(best: float) -> None:
    bounds = Made(best).find(total_steps=40).bounds()
    assert bounds.max_lr == pytest.approx(best, rel=1e-6)
    assert bounds.base_lr == pytest.approx(best / 10, rel=1e-6)


def test_a_longer_training_gets_a_lower_rate() -> None:
    found = Made(0.05).find(total_steps=100_000)
    winner = found.winner
    assert winner is not None
    assert found.bounds().max_lr == pytest.approx(0.05 * (winner.num_steps / 100_000) ** 0.2, rel=1e-6)


def test_bounds_may_be_asked_for_another_length() -> None:
    found = Made(0.05).find(total_steps=1000)
    longer = replace(found, total_steps=32_000)
    assert found.bounds(32_000) == longer.bounds()
    assert found.bounds(32_000).max_lr == pytest.approx(found.bounds().max_lr / 2)
    assert found.schedule("linear", total_steps=32_000) == longer.schedule("linear")
    assert clr.advise(found, 32_000).schedule == clr.advise(longer).schedule
    with pytest.raises(ValueError, match="`total_steps`"):
        found.bounds(0)


def test_longer_trials_are_judged_at_their_own_length() -> None:
    found = Made(0.05, slope=0.5).find(total_steps=2000)
    short, long = (next(trial.num_steps for trial in found.trials if trial.rung == rung) for rung in (1, 2))
    assert 30 <= short < long < 2000
    best = 0.05 * (30 / long) ** 0.5
    assert found.bounds().max_lr == pytest.approx(best * (long / 2000) ** 0.2, rel=1e-6)


def test_a_training_that_never_diverges_is_tried_beyond_the_range_test() -> None:
    found = Made(300.0).find(total_steps=40, max_lr=1.0)
    assert found.bounds().max_lr == pytest.approx(300.0, rel=1e-6)
    assert found.edge is None


def test_a_training_that_bursts_early() -> None:
    made = Made(1e-3, burst=2e-5)
    found = made.find(total_steps=40)
    assert found.range_test is not None
    assert found.range_test.stop == "non-finite"
    assert found.bounds().max_lr <= 2e-5
    burst = [trial for trial in found.trials if trial.stop == "non-finite"]
    assert burst
    assert all(trial.score is None and len(trial.losses) < trial.num_steps for trial in burst)
    assert found.updates == made.updates  # a trial that bursts costs no more than what it made


def test_two_valleys_give_the_one_beside_the_range_test() -> None:
    made = Made(0.01)
    near = made.held_out

    def held_out() -> float:  # a deeper valley, four decades away
        return min(near(), 0.5 + math.log10(made.peak / 100) ** 2)

    found = clr.find_bounds(made.step, made.reset, held_out, total_steps=40)
    assert found.bounds().max_lr == pytest.approx(0.01, rel=0.05)


def noisy(held_out: Callable[[], float], dice: random.Random) -> Callable[[], float]:
    return lambda: held_out() + dice.gauss(0, 0.02)


def test_noise_of_the_held_out_value_moves_the_bounds_little() -> None:
    for seed in range(20):
        made, dice = Made(0.05), random.Random(seed)
        found = clr.find_bounds(made.step, made.reset, noisy(made.held_out, dice), total_steps=40)
        assert 0.025 < found.bounds().max_lr < 0.1


def test_larger_may_be_better() -> None:
    made = Made(0.05)
    found = clr.find_bounds(made.step, made.reset, lambda: -made.held_out(), total_steps=40, goal="max")
    assert found.bounds().max_lr == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_factor_on_the_losses_changes_nothing(scale: float) -> None:
    assert Made(0.05, scale=scale).find().bounds().max_lr == pytest.approx(Made(0.05).find().bounds().max_lr, rel=1e-6)


def test_parameters_in_other_units_move_the_bounds() -> None:
    usual, small = (Made(best).find(total_steps=40).bounds().max_lr for best in (0.05, 5e-5))
    assert small == pytest.approx(usual / 1000, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    best=st.floats(1e-6, 1e2), budget=st.integers(200, 3000), total=st.integers(1, 10**6), slope=st.floats(-0.5, 1.0)
)
def test_the_budget_holds_and_the_bounds_are_rates(best: float, budget: int, total: int, slope: float) -> None:
    made = Made(best, slope=slope)
    found = made.find(total_steps=total, budget=budget)
    assert made.updates == found.updates <= budget
    assert all(trial.num_steps <= total for trial in found.trials)
    bounds = found.bounds()
    assert 0 < bounds.base_lr < bounds.max_lr < math.inf
    assert 0 <= bounds.confidence <= 1
    assert clr.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("total", "budget"), [(1, 600), (600, 600), (700, 700), (800, 800), (4000, 800), (8000, 800), (20_000, 2000)]
)
def test_the_default_budget(total: int, budget: int) -> None:
    assert search.Options(total).updates == budget


def test_the_trials_of_a_rung_see_the_same_batches() -> None:
    made = Made(0.05)
    found = made.find()
    rungs = [trial.rung for trial in found.trials]
    assert made.seeds == [0, 0, *rungs]  # the range test, and the value before any training


def test_each_trial_is_one_annealed_cycle() -> None:
    made = Made(0.05)
    rates: list[list[float]] = []

    def reset(seed: int) -> None:
        made.reset(seed)
        rates.append([])

    def step(lr: float) -> float:
        rates[-1].append(lr)
        return made.step(lr)

    found = clr.find_bounds(step, reset, made.held_out, total_steps=1000)
    for trial, own in zip(found.trials, rates[2:], strict=True):
        up = trial.num_steps // 4
        assert len(own) == trial.num_steps
        assert own[up] == max(own) == trial.max_lr
        assert 0 < own[-1] < 2 * trial.max_lr / trial.num_steps
        assert own[: up + 1] == sorted(own[: up + 1])
        assert own[up:] == sorted(own[up:], reverse=True)


def test_the_best_so_far_is_announced_when_it_is_there() -> None:
    made, peaks = Made(0.05), []
    options = search.Options(1000)
    found = search.run(made.step, made.reset, made.held_out, options, lambda: peaks.append(made.peak))
    assert found.winner is not None
    assert peaks[-1] == found.winner.max_lr
    assert peaks[0] == found.trials[0].max_lr


def test_an_edge_is_said() -> None:
    made = Made(1e6)  # so far from where the test ends that the budget does not reach
    found = made.find(budget=250, max_lr=1.0)
    assert found.stop == "budget"
    assert found.edge == "highest"
    assert "a higher one may be better" in found.bounds().reason
    assert found.bounds().confidence < 0.5


def stopping(made: Made, after: int, error: type[BaseException]) -> Callable[[float], float]:
    def step(lr: float) -> float:
        if made.updates == after:
            raise error
        return made.step(lr)

    return step


@pytest.mark.parametrize(("error", "stop"), [(KeyboardInterrupt, "interrupted"), (StopIteration, "data")])
@pytest.mark.parametrize("after", [50, 120, 300])
def test_what_is_known_is_returned(error: type[BaseException], stop: str, after: int) -> None:
    made = Made(0.05)
    found = clr.find_bounds(stopping(made, after, error), made.reset, made.held_out, total_steps=1000)
    assert found.stop == stop
    assert clr.from_json(found.to_json()) == found
    if after == 300:
        assert 0.01 < found.bounds().max_lr < 0.1
    elif after == 50:
        with pytest.raises(clr.NoBoundsError, match="The search ended before any trial did") as refused:
            found.bounds()
        assert refused.value.advice == (
            "Search again, with data that does not end." if stop == "data" else "Search again."
        )
        assert "No bounds" in found.describe()


changed: Callable[..., clr.Trial] = replace
TRIAL = clr.Trial(1, 0.1, 3, (1.0, math.nan), None, "diverged")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: clr.Search(None, (TRIAL,) * 1001, 1.0, 9, 9),
            ValueError,
            "`trials` must be at most 1,000 trials. Rec",
        ),
        (lambda: changed(TRIAL, losses=float), TypeError, "`losses` must be numbers in order. Received: <class"),
        (lambda: changed(TRIAL, losses=["x"]), TypeError, "`losses` must be numbers in order. Received: 'x' among"),
    ],
)
def test_results_of_odd_parts_are_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
    data = clr.Search(None, (TRIAL,), 1.0, 9, 9).to_dict()
    with pytest.raises(ValueError, match=r"`trials` must be at most 1,000 trials. Received: '1,001 trials'"):
        clr.from_dict(data | {"trials": [{"no": "trial"}] * 1001})


def test_numbers_of_numpy_are_taken_as_pythons() -> None:
    made = Made(0.05)
    lengths: dict[str, Any] = {"total_steps": np.int8(3), "budget": np.int16(200)}
    found = clr.find_bounds(made.step, made.reset, made.held_out, **lengths)
    assert (type(found.total_steps), type(found.budget)) == (int, int)
    assert changed(TRIAL, losses=np.array([1.0, np.nan])) == TRIAL
    assert type(changed(TRIAL, losses=[np.float32(0.5)]).losses[0]) is float


def test_an_error_is_the_users() -> None:
    made = Made(0.05)
    with pytest.raises(ZeroDivisionError):
        clr.find_bounds(stopping(made, 150, ZeroDivisionError), made.reset, made.held_out, total_steps=1000)


def test_no_bounds_where_nothing_is_learned() -> None:
    made = Made(0.05)
    found = clr.find_bounds(made.step, made.reset, lambda: 1.0, total_steps=1000)
    with pytest.raises(clr.NoBoundsError, match="before any training"):
        found.bounds()


def test_no_bounds_where_every_trial_bursts() -> None:
    found = clr.find_bounds(lambda lr: math.nan, lambda seed: None, lambda: 1.0, total_steps=1000)
    assert {trial.stop for trial in found.trials} == {"non-finite"}
    assert found.updates < 100
    with pytest.raises(clr.NoBoundsError, match=r"If all diverge.*make the loss infinite") as refused:
        found.bounds()
    assert "budget" not in refused.value.advice  # most of it is left


def test_a_held_out_value_that_is_not_finite_is_no_score() -> None:
    made = Made(0.05)
    found = clr.find_bounds(
        made.step, made.reset, lambda: math.nan if made.peak > 0.1 else made.held_out(), total_steps=40
    )
    assert all(trial.score is None for trial in found.trials if trial.max_lr > 0.1)
    assert found.bounds().max_lr <= 0.1


def test_held_out_rows_that_are_never_finite_are_named() -> None:
    made = Made(0.05)
    found = clr.find_bounds(made.step, made.reset, lambda: math.nan, total_steps=40)
    with pytest.raises(clr.NoBoundsError, match=r"held-out value that is finite\. Look for held-out rows"):
        found.bounds()


def test_a_training_as_long_as_a_trial_lowers_nothing() -> None:
    trials = tuple(
        clr.Trial(1, rate, 50, (2.0,) * 45 + (0.1,) * 5, score, "completed")
        for rate, score in ((0.03, 1.2), (0.1, 1.0), (0.3, 1.2))
    )
    test = clr.RangeTest.from_losses([1e-7 * 1.1**at for at in range(30)], [2.0] * 30)
    same, longer = (clr.Search(test, trials, 2.0, total, 600) for total in (50, 500))
    assert same.overfits
    assert longer.overfits
    assert "max_lr is that, for the training is no longer than a trial" in same.describe()
    assert "go down" not in same.describe()
    assert "the training is 10 times as long" in longer.describe()
    assert "The training overfits" in longer.describe()
    doubted = replace(longer, range_test=None, trials=(*trials[:2], replace(trials[2], losses=(0.05,) * 50)))
    assert doubted.gap is None
    assert "The training may overfit: at the next higher rate" in doubted.describe()
    assert "So the bounds go down" in longer.describe()


def test_an_update_that_was_skipped_has_no_loss() -> None:
    made = Made(0.05)
    found = clr.find_bounds(
        lambda lr: None if made.updates % 3 == 0 and made.step(lr) else made.step(lr),
        made.reset,
        made.held_out,
        total_steps=1000,
    )
    assert 0.005 < found.bounds().max_lr < 0.1


def rung(*trained: tuple[float, float, float]) -> tuple[clr.Trial, ...]:
    """Trials of 100 updates: the rate, the training loss, and the held-out value of each."""
    return tuple(clr.Trial(1, rate, 100, (loss,) * 100, score, "completed") for rate, loss, score in trained)


def test_overfitting_is_seen_and_lowers_the_rate_as_the_training_is_longer() -> None:
    rates = [0.1 / math.sqrt(10), 0.1, 0.1 * math.sqrt(10)]
    fits = clr.Search(None, rung(*zip(rates, (0.9, 0.5, 0.7), (2.0, 1.0, 2.0), strict=True)), 3.0, 1000, 600)
    assert not fits.overfits
    assert fits.bounds().max_lr == pytest.approx(0.1 * 0.1**0.2)
    overfits = clr.Search(None, rung(*zip(rates, (0.9, 0.5, 0.3), (2.0, 1.0, 2.0), strict=True)), 3.0, 1000, 600)
    assert overfits.overfits
    assert "may overfit" in overfits.describe()
    assert overfits.bounds().max_lr == pytest.approx(0.01)
    # A training that is longer still gets a rate that is at most 1.5 decades lower.
    assert replace(overfits, total_steps=10**6).bounds().max_lr == pytest.approx(0.1 / 10**1.5)


def begun(*losses: float) -> clr.RangeTest:
    """A range test whose rates were too low to change anything at its first losses."""
    rates = [1e-7 * 2**step for step in range(len(losses))]
    return clr.RangeTest.from_losses(rates, losses)


@pytest.mark.parametrize(
    ("late", "gap", "power"),
    [
        (1.1, 0.0, 0.2),  # the training loss is above the held-out one
        (0.92, 0.04, 0.2),
        (0.86, 0.07, 0.4),
        (0.78, 0.11, 0.8),
        (0.5, 0.25, 1.0),
    ],
)
def test_the_generalization_gap_lowers_the_rate(late: float, gap: float, power: float) -> None:
    rates = [0.1 / math.sqrt(10), 0.1, 0.1 * math.sqrt(10)]
    trials = rung(*zip(rates, (late, late, late), (2.0, 1.0, 2.0), strict=True))
    found = clr.Search(begun(*[3.0] * 40), trials, 3.0, 1000, 600)
    assert found.gap == pytest.approx(gap)
    assert found.overfits == (gap > 0.1)
    assert found.bounds().max_lr == pytest.approx(0.1 * 0.1**power)


@pytest.mark.parametrize(
    "changed",
    [
        {"range_test": begun(*[1.9] * 40)},  # a loss of fewer rows: its sum is another
        {"range_test": begun(*[4.6] * 40)},
        {"range_test": None},
        {"goal": "max", "start": 0.5},
    ],
)
def test_there_is_no_gap_between_values_in_other_units(changed: dict[str, Any]) -> None:
    trials = rung((0.03, 0.5, 2.0), (0.1, 0.5, 1.0), (0.3, 0.5, 2.0))
    found = clr.Search(begun(*[3.0] * 40), trials, 3.0, 1000, 600)
    assert found.gap == pytest.approx(0.25)
    assert replace(found, **changed).gap is None


def test_on_a_plateau_the_highest_rate_that_does_no_harm_is_best() -> None:
    noisy = begun(*[2.3, 2.31] * 20)  # the standard deviation is 0.005
    flat = rung((0.01, 2.3, 2.3049), (0.03, 2.3, 2.305), (0.1, 2.3, 2.3052), (0.3, 2.3, 2.32))
    search = clr.Search(noisy, flat, 2.305, 1000, 600)
    best = search.best(1)
    assert best is not None
    assert best.max_lr == 0.1
    with pytest.raises(clr.NoBoundsError, match="before any training"):
        search.bounds()
    learned = clr.Search(noisy, (*flat, *rung((0.05, 2.2, 2.2))), 2.305, 1000, 600)
    best = learned.best(1)
    assert best is not None
    assert best.max_lr == 0.05


def test_below_a_rate_that_bursts_the_middle_is_tried_too() -> None:
    made = Made(0.05, burst=0.04)  # it would be best still higher, where it bursts
    found = made.find(total_steps=40)
    last = found.rung(2)
    higher = next(trial for trial in last if trial.score is None)
    below = last[last.index(higher) - 1]
    assert higher.max_lr / below.max_lr == pytest.approx(10**0.25)
    assert found.bounds().max_lr > 0.04 / 10**0.25 / 1.001


def test_the_parabola_is_right_where_the_rates_are_not_equally_far_apart() -> None:
    rates = [0.01, 0.06, 0.1]
    trials = rung(*((rate, 1.0, 1 + math.log10(rate / 0.04) ** 2) for rate in rates))
    assert clr.Search(None, trials, 3.0, 100, 600).bounds().max_lr == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("policy", "schedule"),
    [
        ("one_cycle", lambda low, high: clr.one_cycle(high, 1000, div_factor=high / low)),
        ("triangular", lambda low, high: clr.triangular(low, high, 125)),
        ("linear", lambda low, high: clr.linear(high, 1000, warmup_steps=100)),
        ("wsd", lambda low, high: clr.wsd(high, 1000, warmup_steps=100, decay_steps=200)),
        (clr.triangular2, lambda low, high: clr.triangular2(low, high, 50)),
    ],
)
def test_schedules_over_the_training(policy: Any, schedule: Callable[[float, float], clr.Schedule]) -> None:
    found = Made(0.05).find(total_steps=1000)
    options = {"step_size": 50} if callable(policy) else {}
    assert found.schedule(policy, **options) == schedule(*found.bounds())


def test_what_is_printed_is_short_and_tells_all() -> None:
    found = Made(0.05).find(total_steps=1000)
    assert repr(found) == f"<Search: {len(found.trials)} trials, {found.updates} of 800 updates, completed>"
    text = found.describe()
    for trial in found.trials:
        assert f"{trial.max_lr:.3g} ({trial.score:.4g})" in text
    assert f"max_lr {found.bounds().max_lr:.4g}" in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"total_steps": 0}, "`total_steps` must"),
        ({"budget": 100}, "`budget` must be 200 updates or more"),
        ({"budget": 300.5}, "`budget` must"),
        ({"goal": "low"}, "`goal` must"),
        ({"min_lr": 0}, "`min_lr` must"),
        ({"min_lr": 10}, "`max_lr` must"),
        ({"train_step": 1}, "`train_step` must"),
        ({"reset": None}, "`reset` must"),
        ({"evaluate": 0.5}, "`evaluate` must"),
        ({"evaluate": lambda: "low"}, "`evaluate` must return"),
        ({"train_step": lambda lr: "low"}, "`train_step` must return"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    made = Made(0.05)
    functions = {"train_step": made.step, "reset": made.reset, "evaluate": made.held_out}
    with pytest.raises((TypeError, ValueError), match=message):
        clr.find_bounds(**functions | {"total_steps": 1000} | changed)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("clr",), 2, "must have version 1"),
        (("clr",), True, "must have version 1"),
        (("goal",), "low", "`goal` must"),
        (("stop",), "end", "`stop` must"),
        (("budget",), 0, "`budget` must"),
        (("start",), "low", "`start` must"),
        (("trials",), {}, "`trials` must"),
        (("trials", 0, "rung"), 0, "`rung` must"),
        (("trials", 0, "max_lr"), -1, "`max_lr` must"),
        (("trials", 0, "stop"), "diverged", "`score` must"),
        (("trials", 0, "losses"), ["x"], "`losses` must"),
        (("trials", 0, "losses"), [1.0] * 1000, "`losses` must"),
        (("trials", 0, "score"), 1e200, "`score` must"),
        (("trials", 0, "max_lr"), 1e-310, "`max_lr` must"),
        (("trials",), [1], "`trial` must"),
        (("kind",), "range_test", "must have the keys"),
        (("trials", 0, "more"), 1, "a trial must have the keys"),
        (("more",), 1, "the data of a search must have the keys"),
    ],
)
def test_bad_data_is_refused(path: tuple[Any, ...], value: object, message: str) -> None:
    data = json.loads(Made(0.05).find().to_json())
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises((TypeError, ValueError), match=message):
        clr.from_dict(data)


def test_advice_follows_from_a_search() -> None:
    found = Made(0.05).find(total_steps=1000)
    low, high = found.bounds()
    assert clr.advise(found).schedule == clr.one_cycle(high, 1000, div_factor=high / low)
    shorter = found.bounds(500)
    assert shorter.max_lr > high
    assert clr.advise(found, 500).schedule == clr.one_cycle(shorter.max_lr, 500, div_factor=10)
    assert clr.advise(found, steps_per_epoch=50).schedule == clr.triangular(low, high, 200)


def test_of_equal_scores_the_middle_is_best_and_nothing_overfits() -> None:
    """As where an accuracy is 1 for many rates."""
    rates = [0.01 * 10 ** (half / 2) for half in range(5)]
    scores, losses = (0.9, 1.0, 1.0, 1.0, 0.5), (0.5, 0.3, 0.2, 0.1, 2.0)
    found = clr.Search(None, rung(*zip(rates, losses, scores, strict=True)), 0.1, 100, 600, "max")
    assert not found.overfits
    assert found.bounds().max_lr == pytest.approx(0.1)
    made = Made(0.05)
    found = clr.find_bounds(made.step, made.reset, lambda: float(1e-3 < made.peak < 0.5), total_steps=40, goal="max")
    assert 1e-3 < found.bounds().max_lr < 0.5


def test_the_search_goes_up_where_nothing_is_learned_yet() -> None:
    made = Made(100.0)
    found = clr.find_bounds(
        made.step, made.reset, lambda: float(made.peak > 30), total_steps=40, goal="max", max_lr=1.0
    )
    assert found.bounds().max_lr > 30


def test_bounds_are_refused_where_every_longer_trial_bursts() -> None:
    made = Made(0.05)

    def step(lr: float) -> float:
        loss = made.step(lr)
        return math.inf if made.steps > 60 and made.updates > 160 else loss  # as at a bad row that comes late

    found = clr.find_bounds(step, made.reset, made.held_out, total_steps=5000)
    assert {trial.rung for trial in found.trials if trial.score is not None} == {1}
    with pytest.raises(clr.NoBoundsError, match=r"Longer trials, of \d+ updates, diverge"):
        found.bounds()


def test_a_slope_beside_the_winner_lowers_the_confidence() -> None:
    rates = [0.01 / math.sqrt(10), 0.01, 0.01 * math.sqrt(10)]
    flat = clr.Search(None, rung(*zip(rates, (3.0, 2.0, 3.0), (1.02, 1.0, 1.02), strict=True)), 2.0, 100, 600)
    steep = clr.Search(None, rung(*zip(rates, (3.0, 2.0, 3.0), (1.5, 1.0, 1.5), strict=True)), 2.0, 100, 600)
    cliff = replace(flat, trials=(*flat.trials[:2], clr.Trial(1, rates[2], 100, (3.0,), None, "diverged")))
    assert flat.bounds().confidence == pytest.approx(0.93 / 1.01)
    assert steep.bounds().confidence == cliff.bounds().confidence == pytest.approx(0.93 / 1.25)
    assert replace(flat, start=None).bounds().confidence == cliff.bounds().confidence  # the fall is not known
    assert replace(flat, trials=flat.trials[1:]).bounds().confidence == 0.465


def test_a_search_is_a_value() -> None:
    found = clr.Search(None, rung((0.01, 1.0, 1.0), (0.1, math.nan, 2.0)), 3.0, 100, 600)
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    assert hash(copy) == hash(found)
    assert clr.from_json(found.to_json()) == found
    assert Made(0.05).find(total_steps=np.int64(1000)).to_json() == Made(0.05).find(total_steps=1000).to_json()


def test_options_of_a_schedule_follow_from_the_length_that_is_given() -> None:
    found = Made(0.05).find(total_steps=1000)
    _, high = found.bounds(50)
    assert found.schedule("linear", total_steps=50) == clr.linear(high, 50, warmup_steps=5)
    low, high = found.bounds()
    assert found.schedule("warm_restarts") == clr.warm_restarts(high, base_lr=low, first_cycle=1000)


def test_the_cost_is_told_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    made, told = Made(0.05), list[str]()

    def reset(seed: int) -> None:
        told.append(capsys.readouterr().err)
        made.reset(seed)

    clr.find_bounds(made.step, reset, made.held_out, total_steps=8000, progress=True)
    assert told[0].startswith("A search of at most 800 updates, for a training of 8,000.\n")
    clr.find_bounds(made.step, made.reset, made.held_out, total_steps=8000)  # no terminal, no bar
    capsys.readouterr()
    clr.find_bounds(made.step, made.reset, made.held_out, total_steps=8000, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_rung_candidate_and_time_from_the_first_update_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, str]] = []
    bars: list[tuple[Any, ...]] = []

    @contextmanager
    def bar(wanted: bool | None, total: int, text: str, *, before: str | None = None) -> Iterator[Any]:
        bars.append((wanted, total, text))
        yield lambda done, now="": shown.append((done, now)) if wanted else None

    monkeypatch.setattr("clr.progress.bar", bar)
    found = Made(0.05).find(progress=True)
    assert found.range_test is not None
    assert [bar for bar in bars if bar[0]] == [
        (True, 800, "Search")
    ]  # the time left follows from the total, see the tests of the bar
    assert shown[0] == (0, "held-out value before any training")
    assert [done for done, _ in shown] == list(range(found.updates + 1))
    tested = found.range_test.updates
    assert all(now.startswith("range test  rate ") for _, now in shown[1 : tested + 1])
    steps = [(trial, at) for trial in found.trials for at in range(1, len(trial.losses) + 1)]
    assert [now for _, now in shown[tested + 1 :]] == [
        f"rung {trial.rung}  rate {trial.max_lr:.2e}  step {at} of {trial.num_steps}" for trial, at in steps
    ]


def test_a_trial_takes_a_twentieth_of_the_budget_and_a_long_one_a_quarter_of_what_is_left() -> None:
    found = Made(0.05).find(total_steps=10_000, budget=4000)
    assert found.range_test is not None
    assert (found.range_test.num_steps, found.range_test.min_lr, found.range_test.max_lr) == (100, 1e-7, 10.0)
    lengths = {trial.rung: trial.num_steps for trial in found.trials}
    spent = found.range_test.updates + sum(len(trial.losses) for trial in found.trials if trial.rung == 1)
    assert lengths == {1: 200, 2: (4000 - spent) // 4}
    assert {trial.num_steps for trial in Made(0.05).find(budget=400).trials if trial.rung == 1} == {30}


def test_a_rung_has_at_most_sixteen_trials() -> None:
    found = Made(1e30).find(total_steps=30, budget=10_000, max_lr=1.0)
    rungs = [trial.rung for trial in found.trials]
    assert rungs.count(1) == rungs.count(2) == 16
    assert found.edge == "highest"


@pytest.mark.parametrize(("end", "stop"), [(4.9, "completed"), (5.1, "diverged")])
def test_a_trial_ends_where_the_loss_has_risen_by_three_times_its_fall(end: float, stop: str) -> None:
    made = Made(0.05)

    def step(lr: float) -> float:
        made.step(lr)
        return 2.0 if made.steps <= 20 else 1.0 if made.steps <= 40 else end

    found = clr.find_bounds(step, made.reset, made.held_out, total_steps=10_000, budget=4000)
    assert {trial.stop for trial in found.trials} == {stop}
    assert {len(trial.losses) for trial in found.trials if trial.rung == 1} == {200 if stop == "completed" else 43}


class Descent:
    """Least squares by gradient descent, ``unit`` weights to a step: stable below a rate of 2 / (4 * unit**2)."""

    def __init__(self, unit: float = 1.0, reported: float = 1.0, noise: float = 0.0) -> None:
        self.unit, self.reported, self.noise = unit, reported, noise
        self.updates = 0
        self.reset(0)

    def reset(self, seed: int) -> None:
        self.weights, self.dice = [3.0 / self.unit, 2.0 / self.unit], random.Random(seed)

    def gaps(self) -> list[float]:
        return [self.unit * weight - 1 for weight in self.weights]

    def step(self, lr: float) -> float:
        self.updates += 1
        loss = self.held_out()
        slopes = [curve * gap for curve, gap in zip((4.0, 0.25), self.gaps(), strict=True)]
        noises = [self.noise * self.dice.gauss(0, 1) for _ in slopes]
        self.weights = [
            weight - lr * self.unit * (slope + noise)
            for weight, slope, noise in zip(self.weights, slopes, noises, strict=True)
        ]
        return loss

    def held_out(self) -> float:
        return self.reported * sum(curve * gap**2 / 2 for curve, gap in zip((4.0, 0.25), self.gaps(), strict=True))

    def find(self, **options: Any) -> clr.Bounds:
        found = clr.find_bounds(self.step, self.reset, self.held_out, **{"total_steps": 500} | options)
        return found.bounds()


def test_a_convex_training() -> None:
    """A cycle may stay above the rate from which on a constant one diverges, 0.5, for a while; noise wants less."""
    assert 0.25 < Descent().find().max_lr < 1.0
    assert 0.02 < Descent(noise=0.3).find().max_lr < 0.5


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-20, 20))
def test_the_unit_of_the_loss_does_not_move_the_bounds(power: int) -> None:
    assert list(Descent(reported=2.0**power).find()) == pytest.approx(list(Descent().find()), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-6, 6))
def test_parameters_in_another_unit_move_the_bounds_by_its_square(power: int) -> None:
    usual, factor = Descent().find(min_lr=1e-6, max_lr=10.0), 4.0**-power
    moved = Descent(unit=2.0**power).find(min_lr=1e-6 * factor, max_lr=10.0 * factor)
    assert list(moved) == pytest.approx([factor * rate for rate in usual], rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_order_of_candidates_does_not_matter(data: st.DataObject) -> None:
    found = Made(0.05, slope=0.3).find()
    mixed = replace(found, trials=tuple(data.draw(st.permutations(found.trials))))
    assert mixed.bounds() == found.bounds()
    assert mixed.winner == found.winner
    assert mixed.describe() == found.describe()


def test_a_training_that_overfits_gets_a_rate_lower_by_as_much_as_it_is_longer() -> None:
    """What is learned is the sum of the rates, and more than 0.6 of it is too much for held-out data."""
    learned = 0.0

    def reset(seed: int) -> None:
        nonlocal learned
        learned = 0.0

    def step(lr: float) -> float:
        nonlocal learned
        learned += lr
        return math.exp(-learned) if lr < 3 else 10.0

    for total in (2000, 4000):
        found = clr.find_bounds(
            step, reset, lambda: 1 + math.log10((learned + 1e-6) / 0.6) ** 2, total_steps=total, budget=800
        )
        assert found.overfits
        assert found.winner is not None
        # A cycle is half as high in the mean as at its peak: the training as a whole is to learn 0.6, too.
        assert found.bounds().max_lr == pytest.approx(0.6 / (total / 2), rel=0.3)
