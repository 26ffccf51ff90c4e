"""The sweep over the rates: what it tries, records, and why it stops; and its result as a value."""

import copy
import json
import math
import os
import pickle
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from inspect import signature
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clr
from clr.finder.result import STOPS, Sweep
from clr.finder.sweep import Options
from tests import curves
from tests.curves import measured


@given(
    low=st.floats(1e-9, 1.0),
    ratio=st.floats(1.5, 1e9),
    count=st.integers(2, 400),
    growth=st.sampled_from(["exponential", "linear"]),
)
def test_the_rates_go_from_end_to_end(low: float, ratio: float, count: int, growth: Any) -> None:
    seen: list[float] = []
    high = low * ratio

    def train_step(lr: float) -> float:
        seen.append(lr)
        return 1.0

    test = clr.range_test(train_step, min_lr=low, max_lr=high, num_steps=count, growth=growth)
    assert test.rates == tuple(seen)
    assert (seen[0], seen[-1], len(seen)) == (low, high, count)
    for at, rate in enumerate(seen):
        part = Fraction(at, count - 1)
        exact = (
            float(Fraction(low) + (Fraction(high) - Fraction(low)) * part)
            if growth == "linear"
            else low ** float(1 - part) * high ** float(part)
        )
        assert rate == pytest.approx(exact, rel=1e-12)


def test_each_loss_stands_with_its_rate() -> None:
    test = clr.range_test(lambda lr: -lr, min_lr=0.001, max_lr=0.1, num_steps=5)
    assert test.losses == tuple(-rate for rate in test.rates)
    assert test.stop == "completed"


@pytest.mark.parametrize(
    "value", [1, 1.5, np.float32(1.5), np.array(1.5), np.array([1.5]), np.array([[2]]), Fraction(3, 2)], ids=repr
)
def test_a_loss_may_be_any_number(value: Any) -> None:
    test = clr.range_test(lambda lr: value, num_steps=3)
    assert test.losses == (float(value if isinstance(value, Fraction) else np.asarray(value).item()),) * 3


@pytest.mark.parametrize(
    "value",
    [
        *("1.5", [1.5], np.array([1.0, 2.0]), {"loss": 1.5}, True, 1j, b"1"),
        *(np.bool_(True), np.timedelta64(5), np.array("1")),
    ],
    ids=repr,
)
def test_what_is_no_loss_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="`train_step` must return a number, or an array of one element"):
        clr.range_test(lambda lr: value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_test(bad: float) -> None:
    losses = iter([1.0, 0.5, bad, 0.1])
    test = clr.range_test(lambda lr: next(losses))
    assert test.stop == "non-finite"
    assert repr(test.losses) == repr((1.0, 0.5, bad))
    assert len(test.smoothed) == 2


def ending(test: clr.RangeTest) -> float:
    return math.log10(test.rates[-1])


@pytest.mark.parametrize("offset", [0.0, -100.0, 1000.0])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e6])
def test_divergence_ends_the_test(factor: float, offset: float) -> None:
    # The loss starts at 2 and falls to 0.2; it is back at 2, and as high again above it, soon after 10**-1.
    test = measured(curves.valley, noise=0.05, factor=factor, offset=offset * factor)
    assert test.stop == "diverged"
    assert -0.96 < ending(test) < -0.75
    later = measured(curves.valley, noise=0.05, factor=factor, offset=offset * factor, diverge_at=100)
    assert later.stop == "diverged"
    assert ending(later) > ending(test) + 0.1


def test_spikes_do_not_end_the_test() -> None:
    def curve(x: float) -> float:
        return curves.valley(x) + 1e6 * any(0 <= x - at < 0.05 for at in (-6.9, -6.0, -5.0, -3.0, -1.5))

    assert ending(measured(curve)) == pytest.approx(ending(measured(curves.valley)), abs=0.06)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.1, 10.0])
def test_a_flat_curve_does_not_diverge(noise: float) -> None:
    for seed in range(20):
        assert measured(curves.flat, noise, seed).stop == "completed"


def test_no_update_leaves_no_point() -> None:
    test = clr.range_test(lambda lr: None if lr < 0.9e-5 else 1.0, num_steps=9)
    assert len(test.rates) == 7
    assert min(test.rates) == pytest.approx(1e-5)
    assert clr.range_test(lambda lr: None, num_steps=9).losses == ()


def test_ctrl_c_returns_what_there_is() -> None:
    def train_step(lr: float) -> float:
        if lr > 1e-3:
            raise KeyboardInterrupt
        return 1.0

    test = clr.range_test(train_step)
    assert test.stop == "interrupted"
    assert 1e-3 / 1.1 < test.rates[-1] <= 1e-3


def test_a_real_ctrl_c_ends_the_test() -> None:
    calls = 0

    def train_step(lr: float) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)  # which it cuts short
        return 1.0

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # where this runs it may be ignored
    try:
        test = clr.range_test(train_step)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (test.stop, test.losses) == ("interrupted", (1.0,) * 4)


def test_the_end_of_the_data_ends_the_test() -> None:
    batches = iter(range(5))
    test = clr.range_test(lambda lr: float(next(batches)))
    assert (test.stop, len(test.losses)) == ("data", 5)


@pytest.mark.parametrize("place", ["reset", "evaluate", "evaluate of a search", "reset of a search"])
def test_only_the_step_may_end_the_data(place: str) -> None:
    def step(lr: float) -> float:
        return 1.0

    def ends(*arguments: object) -> Any:
        return next(iter(()))

    calls: dict[str, Callable[[], object]] = {
        "reset": lambda: clr.range_test(step, ends),
        "evaluate": lambda: clr.range_test(step, evaluate=ends),
        "evaluate of a search": lambda: clr.find_bounds(step, lambda seed: None, ends, total_steps=1000),
        "reset of a search": lambda: clr.find_bounds(step, ends, lambda: 1.0, total_steps=1000),
    }
    with pytest.raises(RuntimeError, match="the training raised StopIteration, though no batch was being taken"):
        calls[place]()


def test_an_error_of_the_step_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        clr.range_test(lambda lr: 1 / 0)


def test_the_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def train_step(lr: float) -> float:
        now[0] += 1.0
        return 1.0

    test = clr.range_test(train_step, time_limit=7.5)
    assert (test.stop, len(test.losses)) == ("time", 8)
    test = clr.range_test(train_step, lambda repeat: None, time_limit=7.5, num_steps=5, repeats=3)
    assert [len(sweep.losses) for sweep in test.sweeps] == [5, 3]
    assert test.stop == "time"


def repeated(*repeats: list[Any], **options: Any) -> clr.RangeTest:
    """A test of which each repeat meets the losses given; None is an interruption."""
    current: Iterator[Any] = iter(())

    def reset(repeat: int) -> None:
        nonlocal current
        current = iter(repeats[repeat])

    def train_step(lr: float) -> Any:
        loss = next(current)
        if loss is None:
            raise KeyboardInterrupt
        return loss

    return clr.range_test(train_step, reset, num_steps=len(repeats[0]), repeats=len(repeats), **options)


def test_repeats_give_a_median_and_a_band() -> None:
    test = repeated([1, 2, 3], [2, 4, 9], [6, 3, 4])
    assert list(test.losses) == [2, 3, 4]
    assert list(test.band) == [(1, 6), (2, 4), (3, 9)]
    assert test.stop == "completed"


def test_a_repeat_that_burst_is_the_worst_from_there_on() -> None:
    test = repeated([1, 2, 3, 4], [1, math.nan], [1, 2, math.inf])
    assert list(test.losses) == [1, 2, math.inf, math.inf]
    assert test.stop == "non-finite"
    assert test.curve.ended
    assert len(test.curve.values) == 2


def test_a_repeat_that_was_interrupted_has_no_say_after_that() -> None:
    test = repeated([1, 2, 3], [5, None])
    assert list(test.losses) == [3, 2, 3]
    assert test.stop == "interrupted"
    assert len(test.sweeps) == 2


def test_repeats_calm_the_noise() -> None:
    def confidence(repeats: int) -> float:
        tests = [measured(curves.valley, 0.3, seed, repeats=repeats, reset=lambda repeat: None) for seed in range(10)]
        return mean(test.bounds().confidence for test in tests)

    assert confidence(1) < confidence(5) < confidence(25)


def test_bounds_come_from_the_metric_if_there_is_one() -> None:
    rate = [0.0]

    def train_step(lr: float) -> float:
        rate[0] = math.log10(lr)
        return curves.valley(rate[0])

    # An accuracy that rises from 10**-5 to 10**-3, and falls after 10**-2, where the loss does not.
    def accuracy() -> float:
        return 0.1 + 0.8 * curves.rise(rate[0], -5, -3) - 0.8 * curves.rise(rate[0], -2, -1)

    test = clr.range_test(train_step, evaluate=accuracy, evaluate_every=2, goal="max")
    base_lr, max_lr = test.bounds()
    # It has fallen by a tenth of its rise at 10**-1.9; two fifths of that are 10**-2.298.
    assert math.log10(max_lr) == pytest.approx(-2.298, abs=0.1)
    assert base_lr == pytest.approx(max_lr / 10)
    assert [rate for rate, _ in test.metrics] == list(test.rates[1:-1:2])
    assert max(test.smoothed) == pytest.approx(0.9, abs=0.02)
    negated = clr.range_test(train_step, evaluate=lambda: -accuracy(), evaluate_every=2, goal="min")
    assert tuple(negated.bounds()) == (base_lr, max_lr)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_lr": 0.0}, ValueError, "`min_lr` must be a finite number above 0. Received: 0.0."),
        ({"min_lr": -1.0, "growth": "linear"}, ValueError, "`min_lr` must be a finite number, 0 or more."),
        ({"max_lr": 1e-8}, ValueError, "`max_lr` must be a finite number, `min_lr` or more."),
        ({"max_lr": 1e-7}, ValueError, "`max_lr` must be above `min_lr`."),
        ({"max_lr": math.inf}, ValueError, "`max_lr` must be a finite number"),
        ({"min_lr": "low"}, TypeError, "`min_lr` must be a finite number"),
        ({"num_steps": 1}, ValueError, "`num_steps` must be 2 or more. Received: 1."),
        ({"num_steps": 2.5}, TypeError, "`num_steps` must be a whole number"),
        ({"min_lr": 1.0, "max_lr": 1.0 + 1e-15, "num_steps": 100}, ValueError, "so few that the rates differ"),
        ({"growth": "cubic"}, ValueError, "`growth` must be one of 'exponential', 'linear'. Received: 'cubic'."),
        ({"diverge_at": 0}, ValueError, "`diverge_at` must be a finite number above 0"),
        ({"time_limit": -1}, ValueError, "`time_limit` must be a finite number above 0"),
        ({"evaluate": 3}, TypeError, "`evaluate` must be a function. Received: 3."),
        ({"evaluate_every": 0}, ValueError, "`evaluate_every` must be a whole number, 1 or more"),
        ({"goal": "best"}, ValueError, "`goal` must be one of 'min', 'max'"),
        ({"repeats": 0}, ValueError, "`repeats` must be a whole number, 1 or more"),
        ({"repeats": 10**9}, ValueError, "`repeats` must be at most 1,000. Received: 1000000000."),
        ({"repeats": 2}, TypeError, "`reset` must be a function"),
        ({"steps": 2}, TypeError, "range_test() got an unexpected keyword argument 'steps'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_that_make_no_sense(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refusal:
        clr.range_test(lambda lr: 1 / 0, **options)
    assert message in str(refusal.value)


def test_options_are_those_of_the_range_test_and_check_themselves() -> None:
    parameters = signature(clr.range_test).parameters
    defaults = {
        name: parameter.default for name, parameter in parameters.items() if parameter.kind.name == "KEYWORD_ONLY"
    }
    assert asdict(Options()) == defaults
    with pytest.raises(ValueError, match="`max_lr` must be above `min_lr`"):
        Options(min_lr=1.0, max_lr=1.0)


def test_the_step_must_be_a_function() -> None:
    with pytest.raises(TypeError, match=r"`train_step` must be a function\. Received: 3\."):
        clr.range_test(3)  # type: ignore[arg-type]


def test_an_evaluation_must_be_a_number() -> None:
    with pytest.raises(TypeError, match="`evaluate` must return a number"):
        clr.range_test(lambda lr: 1.0, evaluate=lambda: "good")


@pytest.mark.parametrize(
    "test",
    [
        measured(curves.valley, 0.1),
        measured(curves.nan_tail),
        clr.range_test(lambda lr: None, num_steps=3),
        repeated([1, 2, 3], [2, -math.inf, 9], [6, 3, None]),
        clr.range_test(lambda lr: lr, evaluate=lambda: -math.nan, num_steps=12, min_lr=0, max_lr=1, growth="linear"),
    ],
    ids=["diverged", "NaN", "empty", "repeats", "metrics"],
)
def test_a_test_comes_back_from_json(test: clr.RangeTest) -> None:
    text = test.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = clr.RangeTest.from_json(text)
    for other in (again, copy.deepcopy(test), pickle.loads(pickle.dumps(test))):
        assert other == test
        assert hash(other) == hash(test)
        assert repr(other) == repr(test)
        assert other.to_json() == text


def test_its_settings_are_kept() -> None:
    options: Any = {"min_lr": 0.125, "max_lr": 0.5, "num_steps": 4, "goal": "max"}
    options |= {"diverge_at": 3.0, "evaluate_every": 4, "repeats": 3, "time_limit": 60.0}
    test = clr.range_test(lambda lr: lr, lambda repeat: None, evaluate=lambda: 1.0, growth="linear", **options)
    assert {name: getattr(test, name) for name in options} == options
    assert test.planned_rates == (0.125, 0.25, 0.375, 0.5)
    assert clr.RangeTest.from_json(test.to_json()) == test


def test_the_repeats_that_were_planned_are_kept_when_it_ends_early() -> None:
    test = repeated([1, 2, 3], [5, None, 6], [1, 2, 3])
    assert (test.stop, len(test.sweeps), test.repeats) == ("interrupted", 2, 3)
    assert clr.range_test(lambda lr: lr, num_steps=3).repeats == 1


def spoiled(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(clr.range_test(lambda lr: lr, num_steps=3).to_json())
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "`data` must be a dict with the data"),
        (spoiled(clr=2), "must have version 1"),
        (spoiled(kind="cyclic"), "`kind` must be one of 'range_test'"),
        (spoiled(goal=None), "must have the keys"),
        (spoiled(more=1), "must have the keys"),
        (spoiled(planned_rates=None), "must have the keys"),
        (spoiled(planned_rates=[-1.0, 1.0, 2.0]), "`planned_rates` must be a finite number, 0 or more"),
        (spoiled(planned_rates=[1.0, 3.0, 3.0]), "`planned_rates` must be two or more growing rates"),
        (spoiled(planned_rates=[1.0, "3", 4.0]), "`planned_rates` must be a finite number, 0 or more"),
        (spoiled(planned_rates="abc"), "`planned_rates` must be a list or a tuple"),
        (spoiled(diverge_at=0), "`diverge_at` must be a finite number above 0"),
        (spoiled(evaluate_every=0), "`evaluate_every` must be a whole number"),
        (spoiled(repeats=0), "`repeats` must be a whole number"),
        (spoiled(sweeps=spoiled()["sweeps"] * 2), "no more than `repeats`. Received: 2 with `repeats` 1."),
        (spoiled(time_limit=-1.0), "`time_limit` must be a finite number above 0"),
        (spoiled(sweeps=3), "`sweeps` must be"),
        (spoiled(planned_rates=[1.0, 2.0]), "`losses` must have at most 2 values"),
        (spoiled(sweeps=[]), "with at least one sweep"),
        (spoiled(sweeps=[{"losses": [], "metrics": []}]), "a sweep must have the keys"),
        (spoiled(sweeps=[{"losses": ["x"], "metrics": [], "stop": "time"}]), "`losses` must be a finite number"),
        (spoiled(sweeps=[{"losses": [], "metrics": [True], "stop": "time"}]), "`metrics` must be a finite number"),
        (spoiled(sweeps=[{"losses": [], "metrics": [], "stop": "bored"}]), "`stop` must be one of"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_data_that_is_not_a_test_is_refused(data: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refusal:
        clr.RangeTest.from_json(json.dumps(data))
    assert message in str(refusal.value)


def test_a_key_that_comes_twice_is_refused() -> None:
    text = clr.range_test(lambda lr: lr, num_steps=3).to_json()
    with pytest.raises(ValueError, match="must not have a key twice"):
        clr.RangeTest.from_json(text[:-1] + ', "goal": "min"}')


def test_schedules_between_the_bounds() -> None:
    test = measured(curves.valley)
    base_lr, max_lr = test.bounds()
    for policy, options, expected in [
        ("triangular", {"step_size": 10}, clr.triangular(base_lr, max_lr, 10)),
        ("triangular2", {"step_size": 10}, clr.triangular2(base_lr, max_lr, 10)),
        ("cyclic", {"step_size": 10, "mode": "triangular2"}, clr.triangular2(base_lr, max_lr, 10)),
        ("exp_range", {"step_size": 10, "gamma": 0.9}, clr.exp_range(base_lr, max_lr, 10, gamma=0.9)),
        ("one_cycle", {"total_steps": 99}, clr.one_cycle(max_lr, 99, div_factor=max_lr / base_lr)),
        ("one_cycle", {"total_steps": 99, "div_factor": 5}, clr.one_cycle(max_lr, 99, div_factor=5)),
        ("one_cycle_fastai", {"total_steps": 99}, clr.one_cycle_fastai(max_lr, 99, div=max_lr / base_lr)),
        ("warm_restarts", {"first_cycle": 10}, clr.warm_restarts(max_lr, first_cycle=10, base_lr=base_lr)),
        ("cosine", {"total_steps": 99}, clr.cosine(max_lr, 99)),
        ("linear", {"total_steps": 99, "warmup_steps": 9}, clr.linear(max_lr, 99, 9)),
        ("wsd", {"total_steps": 99, "decay_steps": 30}, clr.wsd(max_lr, 99, decay_steps=30)),
        (clr.triangular, {"step_size": 10, "shape": "cosine"}, clr.triangular(base_lr, max_lr, 10, shape="cosine")),
        (lambda base_lr, max_lr: clr.ramp(base_lr, max_lr, 7), {}, clr.ramp(base_lr, max_lr, 7)),
    ]:
        assert test.schedule(policy, **options) == expected  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'stepsize'"):
        test.schedule("triangular", stepsize=10)
    with pytest.raises(ValueError, match="`policy` must be one of 'triangular'"):
        test.schedule("square")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="`rule` must be one of 'steepest', 'minimum', 'valley', 'slide'"):
        measured(curves.valley).suggest("best")


def test_a_test_is_a_frozen_value() -> None:
    test = measured(curves.valley)
    assert test == measured(curves.valley)
    assert hash(test) == hash(measured(curves.valley))
    with pytest.raises(AttributeError):
        test.goal = "max"  # type: ignore[misc]
    assert Sweep((1.0,), (None,), "time").stop in STOPS


@pytest.mark.parametrize("kind", [list, tuple, np.array, iter, lambda values: [np.float32(v) for v in values]])
def test_a_recorded_curve_is_the_test_that_meets_it(kind: Callable[[list[float]], Any]) -> None:
    rates = [2.0**at for at in range(-20, 20)]
    losses = [2 - 1.75 * curves.rise(at, -12, -4) + curves.explosion(at, 2) for at in range(-20, 20)]
    test = clr.RangeTest.from_losses(kind(rates), kind(losses))
    left = iter(losses)
    met = clr.range_test(lambda lr: next(left), min_lr=rates[0], max_lr=rates[-1], num_steps=40)
    assert test.stop == met.stop == "diverged"
    assert test.rates == tuple(rates[: len(met.rates)])
    assert test.losses == pytest.approx(met.losses, rel=1e-6)
    assert tuple(test.bounds()) == pytest.approx(tuple(met.bounds()), rel=1e-6)
    assert clr.RangeTest.from_json(test.to_json()) == test


@pytest.mark.parametrize("tail", [math.nan, math.inf, -math.inf])
def test_a_recorded_curve_may_have_any_rates_and_end_in_values_that_are_not_finite(tail: float) -> None:
    generator = random.Random(0)
    rates = sorted(10 ** generator.uniform(-7, 0) for _ in range(400))  # neither exponential nor linear
    losses = [curves.nan_tail(math.log10(rate)) for rate in rates]
    test = clr.RangeTest.from_losses(rates, [tail if math.isnan(loss) else loss for loss in losses])
    assert test.stop == "non-finite"
    assert test.rates[-2] < 0.1 <= test.rates[-1]
    # It ends at a tenth; two fifths of the last rate before that is the upper bound.
    assert test.bounds().max_lr == pytest.approx(0.04, rel=0.1)
    assert repr(clr.RangeTest.from_json(test.to_json()).losses) == repr(test.losses)


def test_a_recorded_curve_without_an_end_has_no_bounds() -> None:
    rates = [10 ** (at / 10 - 7) for at in range(50)]
    test = clr.RangeTest.from_losses(rates, [curves.valley(math.log10(rate)) for rate in rates])
    assert (test.stop, test.planned_rates) == ("completed", tuple(rates))
    with pytest.raises(clr.NoBoundsError) as refusal:
        test.bounds()
    assert refusal.value.kind == "endless"


def test_a_recorded_accuracy_counts_upwards() -> None:
    rates = [10 ** (at / 20 - 7) for at in range(160)]
    accuracies = [
        0.1 + 0.8 * curves.rise(x, -5, -3) - 0.8 * curves.rise(x, -2, -1) for x in (math.log10(rate) for rate in rates)
    ]
    test = clr.RangeTest.from_losses(rates, accuracies, goal="max")
    assert test.metrics == tuple(zip(rates, accuracies, strict=True))
    assert math.log10(test.bounds().max_lr) == pytest.approx(-1.9 + math.log10(2 / 5), abs=0.1)
    with pytest.raises(clr.NoBoundsError):
        clr.RangeTest.from_losses(rates, accuracies).bounds()


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        ([1.0, 2.0], [1.0], "`losses` must be as many as `rates`. Received: 1 and 2."),
        ([1.0, 1.0], [1.0, 1.0], "`rates` must be two or more growing rates. Received: [1.0, 1.0]."),
        ([1.0], [1.0], "`rates` must be two or more growing rates"),
        ([-1.0, 1.0], [1.0, 1.0], "`rates` must be a finite number, 0 or more. Received: -1.0."),
        ([1.0, math.nan], [1.0, 1.0], "`rates` must be a finite number, 0 or more. Received: nan."),
        ([1.0, 2.0], [1.0, None], "`losses` must be numbers in order. Received: None among them."),
        ([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]], "`losses` must be numbers in order. Received: [1.0, 2.0] among them."),
        ([1.0, 2.0], 3.0, "`losses` must be numbers in order. Received: 3.0."),
        ("12", [1.0, 1.0], "`rates` must be numbers in order. Received: '12'."),
    ],
)
def test_what_is_no_curve_is_refused(rates: Any, losses: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refusal:
        clr.RangeTest.from_losses(rates, losses)
    assert message in str(refusal.value)
    with pytest.raises(ValueError, match="`goal` must be one of 'min', 'max'"):
        clr.RangeTest.from_losses([1.0, 2.0], [1.0, 1.0], goal="best")  # type: ignore[arg-type]


def test_a_test_in_words() -> None:
    test = measured(curves.valley)
    ended, bounds, reason = test.describe().splitlines()
    number = r"([\d.e+-]*\d)"
    steps, at = re.findall(
        rf"^LR range test from 1e-07 to 10\. It ended after (\d+) of 300 steps, at {number}: the loss diverged\.$",
        ended,
    )[0]
    assert int(steps) == len(test.losses)
    assert float(at) == pytest.approx(test.rates[-1], rel=0.01)
    found = re.findall(rf"^base_lr {number}, max_lr {number}, confidence {number}\.$", bounds)[0]
    assert [*map(float, found)] == pytest.approx([*test.bounds(), test.bounds().confidence], abs=0.005, rel=1e-3)
    assert reason == test.bounds().reason


@pytest.mark.parametrize(
    ("test", "lines"),
    [
        (
            measured(curves.endless),
            [
                "LR range test from 1e-07 to 10. It ended after 300 of 300 steps: all rates were tried.",
                "No bounds: Training never diverges: at 10, where the test ends, the loss has not risen again.",
                "Make `max_lr` larger. If it still does not rise, the model has learned all before: make `num_steps` "
                'smaller. Less sure than bounds is a single rate, `suggest("valley")`: '
                f"{measured(curves.endless).curve.suggest('valley'):.3g}.",
            ],
        ),
        (
            repeated([1, 2, 3], [5, None, 6], [1, 2, 3], time_limit=60),
            [
                "LR range test from 1e-07 to 10. It ended after 3 of 3 steps: it was interrupted.",
                "It made 2 of 3 repeats; the curve is their median.",
                "Its time limit was 60 seconds.",
                "No bounds: The test has 3 finite values, and at least 20 are needed.",
                "Make `num_steps` larger. If `evaluate` was given, make `evaluate_every` smaller.",
            ],
        ),
    ],
    ids=["endless", "repeats"],
)
def test_a_test_without_bounds_in_words(test: clr.RangeTest, lines: list[str]) -> None:
    assert test.describe().splitlines() == lines


def test_words_say_that_the_confidence_is_low() -> None:
    noisy = measured(curves.valley, noise=0.3)
    assert noisy.bounds().confidence < 0.5 < measured(curves.valley).bounds().confidence
    assert noisy.describe().endswith("take larger batches, more steps or several repeats.")


def test_the_repr_is_short() -> None:
    test = repeated([1, 2, 3], [5, None, 6], [1, 2, 3])
    assert repr(test) == "<RangeTest: 3 of 3 steps from 1e-07 to 10, 2 of 3 repeats, interrupted>"
    assert repr(test.sweeps) == "(<Sweep: 3 steps, completed>, <Sweep: 1 steps, interrupted>)"


def test_a_step_need_know_nothing_of_frameworks() -> None:
    # Least squares by hand: the gradient of (w - 3)**2 is 2 (w - 3), so training is stable below a rate of 1.
    weight, generator = 0.0, random.Random(0)

    def train_step(lr: float) -> float:
        nonlocal weight
        target = 3 + 0.1 * generator.gauss(0, 1)
        loss = (weight - target) ** 2
        weight -= lr * 2 * (weight - target)
        return loss

    step: Callable[[float], float] = train_step
    test = clr.range_test(step, min_lr=1e-6, max_lr=100)
    base_lr, max_lr = test.bounds()
    assert test.stop == "diverged"
    assert 1e-4 < base_lr < max_lr < 1


def test_a_loss_beyond_all_floats_is_infinite() -> None:
    for loss, expected in ((10**400, math.inf), (-(10**400), -math.inf), (Fraction(10**400), math.inf)):
        test = clr.range_test(dict.fromkeys([1e-7], loss).get)
        assert (test.stop, test.losses) == ("non-finite", (expected,))


def test_sweeps_are_sweeps_of_numbers_and_few() -> None:
    sweep = Sweep((1.0, 0.5), (), "completed")
    for sweeps, error, message in (
        (5, TypeError, "`sweeps` must be a list or a tuple. Received: 5."),
        ([5], TypeError, "`sweeps` must be a list of sweeps. Received: 5."),
        ([sweep] * 1001, ValueError, "`sweeps` must be at most 1,000 sweeps. Received: '1,001 sweeps'."),
    ):
        with pytest.raises(error, match=f"^{message}$"):
            clr.RangeTest(sweeps, (0.1, 0.2), repeats=2000)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`losses` must be numbers in order. Received: 'a' among them."):
        Sweep(("a",), (), "completed")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`metrics` must be numbers in order. Received: 5."):
        Sweep((), 5, "completed")  # type: ignore[arg-type]


def test_data_of_more_metrics_than_losses_is_refused() -> None:
    sweep = {"losses": [1.0], "metrics": [1.0, 2.0], "stop": "time"}
    with pytest.raises(ValueError, match=r"`metrics` must not be more than `losses`. Received: 2 with 1 `losses`\."):
        clr.from_dict(spoiled(sweeps=[sweep]))


def test_a_version_of_true_is_none() -> None:
    with pytest.raises(ValueError, match=r"the data of a range test must have version 1 as 'clr'\. Received: True\."):
        clr.from_dict(spoiled(clr=True))


def test_options_are_the_numbers_that_were_checked() -> None:
    options = Options(np.float32(0.5), 1, np.int8(100), repeats=np.int8(100), diverge_at=Fraction(1, 2))  # type: ignore[arg-type]
    assert options.repeats * options.num_steps == 10_000
    values = (options.min_lr, options.max_lr, options.num_steps, options.repeats, options.diverge_at)
    assert [type(value) for value in values] == [float, float, int, int, float]


def test_more_steps_than_a_test_can_have_are_refused_at_once() -> None:
    for steps in (30_000_000, 2**62):
        with pytest.raises(ValueError, match=rf"^`num_steps` must be at most 10,000\. Received: {steps}\.$"):
            clr.range_test(lambda lr: lr, num_steps=steps)


def test_longer_curves_than_can_be_read_soon_are_refused() -> None:
    rates = [1e-7 * (1 + at / 1000) for at in range(10_001)]
    assert len(clr.RangeTest.from_losses(rates[:-1], [1.0] * 10_000).rates) == 10_000
    with pytest.raises(ValueError, match=r"^`rates` must be at most 10,000 rates\. Received: '10,001 rates'\.$"):
        clr.RangeTest.from_losses(rates, [1.0] * 10_001)


def test_the_updates_of_all_repeats_are_counted() -> None:
    made = 0

    def train_step(lr: float) -> float | None:
        nonlocal made
        made += 1
        return None if made % 5 == 0 else 1.0  # an update that was skipped counts too

    assert clr.range_test(train_step, lambda repeat: None, num_steps=30, repeats=2).updates == made == 60
