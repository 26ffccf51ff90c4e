"""What holds for any schedule of the family, of random arguments, at any step."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clr
from tests.family import LAST, TRAININGS, Plain, exact, far_steps, limits, made, marker, rate, total
from tests.reference import ulps

PROFILE = settings(deadline=None, derandomize=True, max_examples=200)
MOST_ULPS = 6  # of a rate along a cosine: of the angle, the sine, its square and the sums
SMALLEST = 2.0**-1000  # below it factors and products lose digits

lr = st.one_of(st.just(0.0), st.floats(1e-12, 10.0), st.floats(1e-6, 1.0))
pair = st.tuples(lr, lr).map(sorted)
whole = st.one_of(st.integers(1, 30), st.integers(1, 10**5), st.integers(1, 2**40))
tenths = st.integers(1, 10**5).map(lambda number: number / 10)
thousandths = st.integers(1, 10**6).map(lambda number: number / 1000)
length = st.one_of(whole, tenths, thousandths)
shape = st.sampled_from(["linear", "cosine", "1-sqrt"])
curve = st.sampled_from(["cosine", "1-sqrt"])
mult = st.one_of(st.sampled_from([2, 3, 1.5, 1.1, 0.5, 0.9]), st.floats(1.05, 4.0), st.floats(0.1, 0.95))
decay = st.one_of(st.just(1.0), st.floats(0.5, 1.0), st.floats(0.01, 1.0))


@st.composite
def phases(draw: st.DrawFn) -> Plain:
    lengths = draw(st.lists(length, max_size=5))
    levels = draw(st.lists(lr, min_size=len(lengths) + 1, max_size=len(lengths) + 1))
    return {"kind": "phases", "levels": levels, "lengths": lengths, "shape": draw(shape)}


@st.composite
def curved_cycles(draw: st.DrawFn) -> Plain:
    base_lr, max_lr = draw(pair)
    up, down = draw(st.one_of(st.just(0), length)), draw(length)
    mode, factor = draw(st.sampled_from(["triangular", "triangular2", "exp_range", "peak_decay"])), draw(decay)
    plain = {"kind": "cyclic", "base_lr": base_lr, "max_lr": max_lr, "step_size": up, "step_size_down": down}
    return plain | {"mode": mode, "gamma": factor, "peak_decay": factor, "shape": draw(curve)}


@st.composite
def growing(draw: st.DrawFn) -> Plain:
    return draw(curved_cycles()) | {"shape": draw(shape), "cycle_mult": draw(mult)}


@st.composite
def one_cycles(draw: st.DrawFn) -> Plain:
    three_phase = draw(st.booleans())
    # A part of 1/1000: a rise of less than that many steps is left out.
    part = draw(st.integers(0, 500 if three_phase else 1000)) / 1000
    return {
        "kind": "one_cycle",
        "max_lr": draw(st.floats(1e-6, 10.0)),
        "total_steps": draw(st.one_of(st.integers(2, 100), st.integers(2, 10**9))),
        "pct_start": part,
        "anneal_strategy": draw(st.sampled_from(["cosine", "cos", "linear"])),
        "div_factor": draw(st.floats(1.0, 100.0)),
        "final_div_factor": draw(st.floats(1.0, 1e6)),
        "three_phase": three_phase,
    }


@st.composite
def trainings(draw: st.DrawFn) -> Plain:
    lowest, peak = draw(pair)
    warm, down, stable = draw(st.tuples(st.integers(0, 1000), whole, st.integers(0, 10**6)))
    kind = draw(st.sampled_from(TRAININGS))
    plain = {"kind": kind, "max_lr": peak, "total_steps": warm + down + 1, "warmup_steps": warm, "min_lr": lowest}
    if kind == "wsd":
        plain |= {"total_steps": warm + stable + down + 1, "decay_steps": down, "decay": draw(shape)}
    return plain


@st.composite
def joins(draw: st.DrawFn, parts: st.SearchStrategy[Plain]) -> Plain:
    schedules = draw(st.lists(parts, min_size=1, max_size=3))
    shorts = draw(st.lists(st.integers(1, 2**33), min_size=len(schedules) - 1, max_size=len(schedules) - 1))
    begins = [sum(shorts[: number + 1]) for number in range(len(shorts))]
    return {"kind": "join", "schedules": schedules, "boundaries": begins}


@st.composite
def wrapped(draw: st.DrawFn, parts: st.SearchStrategy[Plain]) -> Plain:
    inner = draw(parts)
    kinds = ["multiple", "clip", "warmup"] + (["after_end"] if total(inner) is not None else [])
    match draw(st.sampled_from(kinds)):
        case "multiple":
            return {"kind": "multiple", "schedule": inner, "factor": draw(st.floats(1e-3, 10.0))}
        case "clip":
            low, high = draw(pair)
            return {"kind": "clip", "schedule": inner, "low": low, "high": draw(st.one_of(st.none(), st.just(high)))}
        case "after_end":
            return {"kind": "after_end", "schedule": inner, "rule": draw(st.sampled_from(["hold", "repeat"]))}
    steps, start = draw(st.integers(1, 10**6)), draw(lr)
    return {"kind": "warmup", "schedule": inner, "steps": steps, "start": start, "shape": draw(shape)}


simple = st.one_of(phases(), curved_cycles(), growing(), one_cycles(), trainings())
composed = st.recursive(simple, lambda parts: st.one_of(joins(parts), wrapped(parts)), max_leaves=4)


@st.composite
def steps_of(draw: st.DrawFn, plain: Plain) -> int:
    """Any step up to 2**53 - 1, one at or beside a turn often among them."""
    return draw(st.one_of(st.integers(0, 1000), st.integers(0, LAST), st.sampled_from(far_steps(plain))))


def located(plains: st.SearchStrategy[Plain]) -> st.SearchStrategy[tuple[Plain, int]]:
    return plains.flatmap(lambda plain: st.tuples(st.just(plain), steps_of(plain)))


def off(plain: Plain, step: int) -> int:
    """By how many ulps the rate is off; those far below its bounds count as next to 0."""
    got, wanted = made(plain)(step), exact(plain, step)
    if abs(Fraction(got) - wanted) <= limits(plain)[1] * Fraction(SMALLEST):
        return 0
    return ulps(got, float(wanted))


@PROFILE
@given(located(phases().map(lambda plain: plain | {"shape": "linear"})))
def test_linear_phases_are_within_2_ulps_of_the_exact_rate(at: tuple[Plain, int]) -> None:
    assert off(*at) <= 2


@PROFILE
@given(st.lists(st.tuples(lr, whole), min_size=1, max_size=5), shape)
def test_corners_at_whole_steps_have_their_levels_bit_for_bit(corners: list[tuple[float, int]], shape: Any) -> None:
    levels, lengths = zip(*corners, strict=True)
    schedule = clr.phases(levels, lengths[1:], shape)
    assert [schedule(sum(lengths[1 : number + 1])) for number in range(len(levels))] == list(levels)


@PROFILE
@pytest.mark.parametrize(
    "plains",
    [
        pytest.param(phases(), id="phases"),
        pytest.param(curved_cycles(), id="cycles"),
        pytest.param(growing(), id="growing"),
        pytest.param(one_cycles(), id="one_cycle"),
        pytest.param(trainings(), id="trainings"),
        pytest.param(composed, id="composed"),
    ],
)
@given(data=st.data())
def test_rates_are_within_a_few_ulps_of_the_exact_rate(plains: st.SearchStrategy[Plain], data: st.DataObject) -> None:
    assert off(*data.draw(located(plains))) <= MOST_ULPS


@PROFILE
@given(located(composed), st.floats(0.0, 0.9, allow_subnormal=False), st.floats(0.1, 0.99))
def test_momentum_is_exact_in_parts_of_its_bounds(at: tuple[Plain, int], low: float, high: float) -> None:
    low, high = sorted((low, high))
    inner, step = at
    lowest, highest = limits(inner)
    if lowest < highest:
        # A rate is as exact as float64 allows, which is nothing if the rates are all but equal.
        lost = highest / (highest - lowest)
        plain = {"kind": "momentum", "schedule": inner, "low": low, "high": high}
        error = abs(Fraction(made(plain)(step)) - exact(plain, step))
        assert error <= Fraction(high) * (1 + lost) * Fraction(1, 2**49)


@PROFILE
@given(located(composed))
def test_rates_stay_within_the_bounds(at: tuple[Plain, int]) -> None:
    plain, step = at
    for schedule in (made(plain), clr.momentum(made(plain), 0.5, 0.9)):
        low, high = schedule.limits
        assert low <= schedule(step) <= high


@PROFILE
@given(composed, st.data())
def test_an_array_gives_what_single_steps_give_bit_for_bit(plain: Plain, data: st.DataObject) -> None:
    steps = data.draw(st.lists(steps_of(plain), max_size=10))
    schedule: Any
    for schedule in (made(plain), clr.momentum(made(plain))):
        array = np.array(steps, np.int64)
        assert schedule(array).tobytes() == np.array([schedule(step) for step in steps], np.float64).tobytes()
        assert schedule.cycle(array).tolist() == [schedule.cycle(step) for step in steps]
        assert schedule.is_cycle_end(array).tolist() == [schedule.is_cycle_end(step) for step in steps]


@PROFILE
@given(composed, st.data())
def test_json_and_text_give_an_equal_schedule(plain: Plain, data: st.DataObject) -> None:
    schedule = made(plain)
    steps = data.draw(st.lists(steps_of(plain), min_size=1, max_size=5))
    for again in (clr.from_json(schedule.to_json()), eval(repr(schedule), {"clr": clr})):
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert [again(step) for step in steps] == [schedule(step) for step in steps]


@PROFILE
@given(located(composed))
def test_a_cycle_ends_where_the_next_step_is_in_another(at: tuple[Plain, int]) -> None:
    plain, step = at
    schedule = made(plain)
    assert 1 <= schedule.cycle(step) <= schedule.cycle(step + 1)
    assert schedule.is_cycle_end(step) is (schedule.cycle(step + 1) != schedule.cycle(step))
    assert schedule.is_cycle_end(step) is (marker(plain, step) != marker(plain, step + 1))


@PROFILE
@given(st.integers(0, LAST), st.floats(0.1, 100.0))
def test_a_constant_is_constant(step: int, level: float) -> None:
    assert clr.constant(level)(step) == level == rate({"kind": "constant", "lr": level}, step)
    assert math.isclose(clr.warmup(clr.constant(level), 5)(step + 5), level, rel_tol=0)
