import math
import operator
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from clr.schedules import wave
from tests import reference
from tests.reference import ulps

MODES = ["triangular", "triangular2", "exp_range"]
LAST = 2**53 - 1
FAR_CYCLES = [0, 1, 31, 32, 33, 52, 53, 63, 64, 1022, 1023, 1024, 1025, 1074, 1075, 10**6, 10**12]
LENGTHS = [
    pytest.param(977.5, None, Fraction("977.5"), Fraction("977.5"), id="977.5"),
    pytest.param(20.3, None, Fraction("20.3"), Fraction("20.3"), id="20.3"),
    pytest.param(1000 / 3, None, Fraction(1000, 3), Fraction(1000, 3), id="1000/3"),
    pytest.param(0.7, None, Fraction("0.7"), Fraction("0.7"), id="0.7"),
    pytest.param(0.001, None, Fraction("0.001"), Fraction("0.001"), id="0.001"),
    pytest.param(2.5, 7.25, Fraction("2.5"), Fraction("7.25"), id="2.5-7.25"),
    pytest.param(20.3, 1000 / 7, Fraction("20.3"), Fraction(1000, 7), id="20.3-1000/7"),
    pytest.param(Fraction(1000, 3), 5, Fraction(1000, 3), Fraction(5), id="Fraction-5"),
    pytest.param(2000, 1, Fraction(2000), Fraction(1), id="2000-1"),
    pytest.param(1, 10**9, Fraction(1), Fraction(10**9), id="1-1e9"),
    pytest.param(LAST, None, Fraction(LAST), Fraction(LAST), id="2**53-1"),
]
SCHEDULES = [
    clr.triangular(0.001, 0.006, 2000),
    clr.triangular(0.0, 1.0, 20.3, step_size_down=5),
    clr.triangular2(0.001, 0.006, 977.5),
    clr.exp_range(1e-05, 0.1, 1000 / 3, gamma=0.999),
    clr.cyclic(0.0, 0.5, 7, mode="exp_range"),
    clr.cyclic(0.0, 0.5, 7, step_size_down=9, scale_fn=abs, scale_mode="iterations"),
    clr.cyclic(0.0, 0.5, 7, step_size_down=9, scale_fn=operator.truth, scale_mode="cycle"),
]
BY_CYCLE = clr.cyclic(0.0, 1.0, 7, scale_fn=lambda cycle: 1 / cycle)


def far_steps(period: Fraction) -> list[int]:
    """Both sides of every turn of the first cycles and of cycles far away, up to step 2**53 - 1."""
    turns = [cycle * period + place for cycle in FAR_CYCLES for place in (0, period / 3, period / 2, period)]
    steps = {int(turn) + shift for turn in turns for shift in (-1, 0, 1)}
    return sorted(step for step in steps | {2**31 - 1, 2**31, 2**32, LAST - 1, LAST} if 0 <= step <= LAST)


# Exactness


@pytest.mark.parametrize("scale", [None, 0.3, 0.7, 1 / 3, 0.99])
@pytest.mark.parametrize("bounds", [(0.0, 0.3), (0.001, 0.006), (0.1, 0.3)], ids=str)
def test_a_rate_is_rounded_only_once(bounds: tuple[float, float], scale: float | None) -> None:
    schedule = clr.cyclic(*bounds, 20.3, scale_fn=None if scale is None else lambda _: scale)
    base = Fraction(bounds[0])
    for step in range(1000):
        height = reference.exact_rate(step, *bounds, Fraction("20.3")) - base
        assert schedule(step) == float(base + height * Fraction(scale or 1)), step


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "size_down", "up", "down"), LENGTHS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.001, 0.006), (0.1, 0.3)], ids=str)
def test_lengths_and_far_steps_are_exact(
    mode: Any, size: float, size_down: float | None, up: Fraction, down: Fraction, bounds: tuple[float, float]
) -> None:
    schedule = clr.cyclic(*bounds, size, step_size_down=size_down, mode=mode, gamma=0.9999)
    steps = far_steps(up + down)
    array = schedule(np.array(steps)).tolist()
    for step, in_array in zip(steps, array, strict=True):
        rate = schedule(step)
        assert ulps(rate, reference.rate(step, *bounds, up, down, mode, 0.9999)) <= 1, step
        assert bounds[0] <= rate <= bounds[1], step
        assert rate == in_array, step


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_lr", [1e-300, 1e-20, 1e20, 1e299, 1e305, 1.7976931348623157e308])
def test_any_finite_bound_stays_exact(mode: Any, max_lr: float) -> None:
    schedule = clr.cyclic(0.0, max_lr, 10, mode=mode)
    for step in range(60):
        assert ulps(schedule(step), reference.rate(step, 0.0, max_lr, 10, 10, mode, 0.99994)) <= 1, step


@pytest.mark.parametrize("max_lr", [5e-324, 7 * 5e-324, 1e-310])
@pytest.mark.parametrize("mode", MODES)
def test_subnormal_rates_stay_in_their_bounds(mode: Any, max_lr: float) -> None:
    schedule = clr.cyclic(0.0, max_lr, 1000, mode=mode)
    assert all(0.0 <= schedule(step) <= max_lr for step in range(0, 4001, 50))


@pytest.mark.parametrize(("mode", "gamma", "end"), [("triangular2", 1.0, 20 * 1090), ("exp_range", 0.96875, 23700)])
def test_the_way_to_0_is_exact_until_float64_thins_out(mode: Any, gamma: float, end: int) -> None:
    schedule = clr.cyclic(0.0, 100.0, 10, mode=mode, gamma=gamma)
    for step in range(end - 900, end, 7):
        exact = reference.rate(step, 0.0, 100.0, 10, 10, mode, gamma)
        # There the factor itself is a subnormal of few digits, or already 0.
        assert ulps(schedule(step), exact) <= 1 or abs(schedule(step) - exact) <= 100 * 2.0**-1074, step


@pytest.mark.parametrize("mode", MODES)
def test_step_beyond_any_float_is_taken(mode: Any) -> None:
    step = 40 * 10**400 + 10
    expected = 1.0 if mode == "triangular" else 0.25
    assert clr.cyclic(0.25, 1.0, 10, mode=mode)(step) == expected


def test_gamma_1_never_fades() -> None:
    assert clr.exp_range(0.25, 1.0, 10, gamma=1.0)(40 * 10**400 + 10) == 1.0


def test_negative_zero_becomes_zero() -> None:
    schedule = clr.triangular(-0.0, -0.0, 10)
    assert schedule == clr.triangular(0.0, 0.0, 10)
    assert {str(limit) for limit in schedule.limits} == {"0.0"}
    assert {str(schedule(step)) for step in range(20)} == {"0.0"}


def test_a_length_is_shown_and_compared_as_it_is_taken() -> None:
    schedule = clr.triangular(0.0, 1.0, 20.0004, step_size_down=30.3)
    assert (schedule.step_size, schedule.step_size_down, schedule.period) == (20, 30.3, 50.3)
    assert schedule == clr.triangular(0.0, 1.0, 20, step_size_down=30.3)
    assert "in 20 steps and falls back in 30.3: a cycle of 50.3 steps" in schedule.describe()


@pytest.mark.parametrize("step", [Fraction(10**400), Fraction(2**53 + 1), 10**400])
def test_a_step_of_any_exact_number_type_is_taken(step: Fraction | int) -> None:
    expected = reference.rate(int(step), 0.25, 1.0, 10)
    assert clr.triangular(0.25, 1.0, 10)(step) == expected


def test_a_fraction_just_off_a_whole_number_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        clr.triangular(0.25, 1.0, 10)(Fraction(2**60 + 1, 2))


@pytest.mark.parametrize("size", [2**52, 2**53])
def test_the_longest_step_sizes_are_taken(size: int) -> None:
    schedule = clr.triangular(0.0, 1.0, size)
    for step in (1, 10**15, size - 1, 2**53 - 1):
        assert ulps(schedule(step), reference.rate(step, 0.0, 1.0, size)) <= 1
        assert schedule(np.array([step])).tolist() == [schedule(step)]


def test_a_cycle_longer_than_the_integers_at_hand_is_refused() -> None:
    schedule = clr.triangular(0.0, 1.0, 2**52 + 0.5, step_size_down=0.001)
    assert ulps(schedule(2**51), reference.rate(2**51, 0.0, 1.0, Fraction(2**52) + Fraction(1, 2))) <= 1
    for ask in (schedule, schedule.cycle, schedule.is_cycle_end):
        with pytest.raises(ValueError, match="cannot be counted in integers up to 2305843009213693951"):
            ask(np.array([2**51]))


@pytest.mark.parametrize(("size", "size_down"), [(1e9, 0.25), (2**29 + 0.5, None)])
def test_a_long_fractional_cycle_keeps_its_length(size: float, size_down: float | None) -> None:
    period = Fraction(size) + Fraction(size if size_down is None else size_down)
    schedule = clr.triangular(0.0, 1.0, size, step_size_down=size_down)
    assert Fraction(schedule.period) == period
    step = 7 * int(period) + 10**6
    expected = reference.rate(step, 0.0, 1.0, Fraction(size), period - Fraction(size))
    assert ulps(schedule(step), expected) <= 1


# The step decides the type


@pytest.mark.parametrize("kind", [int, float, np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_a_number_gives_a_float(kind: type) -> None:
    rate = clr.triangular(0.125, 1.125, 4)(kind(3))
    assert type(rate) is float
    assert rate == 0.875


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, Fraction])
def test_a_whole_float_is_a_step(kind: Any) -> None:
    assert clr.triangular(0.125, 1.125, 4)(kind(3)) == 0.875


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_an_array_of_any_integers(dtype: str) -> None:
    rates = clr.triangular(0.125, 1.125, 4)(np.arange(6, dtype=dtype))
    assert type(rates) is np.ndarray
    assert rates.dtype == np.float64
    assert rates.tolist() == [0.125, 0.375, 0.625, 0.875, 1.125, 0.875]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_an_array_of_whole_floats(dtype: str) -> None:
    rates = clr.triangular(0.125, 1.125, 4)(np.arange(6, dtype=dtype))
    assert rates.dtype == np.float64
    assert rates.tolist() == [0.125, 0.375, 0.625, 0.875, 1.125, 0.875]


@pytest.mark.parametrize("shape", [(), (1,), (12,), (3, 4), (2, 1, 6), (0,), (3, 0)], ids=str)
@pytest.mark.parametrize(
    "schedule",
    [*SCHEDULES[:5], pytest.param(clr.cyclic(0.0, 1.0, 7, scale_fn=lambda cycle: 1 / cycle), id="scale_fn")],
    ids=repr,
)
def test_the_shape_of_an_array_stays(schedule: clr.Schedule, shape: tuple[int, ...]) -> None:
    steps = (977 * np.arange(np.prod(shape, dtype=int))).reshape(shape)
    for result in (schedule(steps), schedule.cycle(steps), schedule.is_cycle_end(steps)):
        assert type(result) is np.ndarray
        assert result.shape == shape
    assert schedule(steps).ravel().tolist() == [schedule(step) for step in steps.ravel().tolist()]


def test_strides_and_byte_order_of_an_array_do_not_matter() -> None:
    schedule = clr.triangular2(0.125, 1.125, 4)
    steps = np.arange(24, dtype=">i4").reshape(4, 6).T[::-1, ::2]
    assert schedule(steps).tolist() == [[schedule(step) for step in row] for row in steps.tolist()]


def test_the_steps_of_an_array_are_left_alone() -> None:
    steps = np.arange(100)
    clr.triangular2(0.0, 1.0, 20.3)(steps)
    assert steps.tolist() == list(range(100))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_of_the_rates(dtype: Any) -> None:
    rates = clr.triangular(0.1, 0.3, 3)(np.array([0, 1, 3]), dtype=dtype)
    assert rates.dtype == dtype
    assert rates.tolist() == [dtype(reference.rate(step, 0.1, 0.3, 3)) for step in (0, 1, 3)]


# Cycles


@pytest.mark.parametrize(("size", "size_down", "up", "down"), LENGTHS)
def test_cycle_and_its_end(size: float, size_down: float | None, up: Fraction, down: Fraction) -> None:
    schedule = clr.triangular(0.0, 1.0, size, step_size_down=size_down)
    steps = far_steps(up + down)
    cycles = [step // (up + down) + 1 for step in steps]
    ends = [(step + 1) // (up + down) + 1 > cycle for step, cycle in zip(steps, cycles, strict=True)]
    assert any(ends) is (up + down <= LAST)
    assert [schedule.cycle(step) for step in steps] == cycles
    assert [schedule.is_cycle_end(step) for step in steps] == ends
    assert schedule.cycle(np.array(steps)).tolist() == cycles
    assert schedule.is_cycle_end(np.array(steps)).tolist() == ends


def test_cycle_is_counted_from_1_and_its_end_comes_once() -> None:
    schedule = clr.triangular2(0.0, 1.0, 3, step_size_down=2)
    assert [schedule.cycle(step) for step in range(11)] == [1] * 5 + [2] * 5 + [3]
    assert [step for step in range(16) if schedule.is_cycle_end(step)] == [4, 9, 14]
    assert type(schedule.cycle(np.int32(5))) is int
    assert schedule.is_cycle_end(np.uint8(4)) is True


@pytest.mark.parametrize(("size", "size_down", "period"), [(10, None, 20), (10.0, 2.5, 12.5), (20.3, None, 40.6)])
def test_period(size: float, size_down: float | None, period: float) -> None:
    assert clr.triangular(0.0, 1.0, size, step_size_down=size_down).period == period


# A schedule is a value


def test_evaluation_leaves_no_trace() -> None:
    schedule = clr.exp_range(0.001, 0.006, 20.3, gamma=0.99)
    forwards = [schedule(step) for step in range(200)]
    backwards = [schedule(step) for step in reversed(range(200))]
    assert forwards == backwards[::-1]
    assert schedule == clr.exp_range(0.001, 0.006, 20.3, gamma=0.99)


# In words


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (
            clr.triangular(0.001, 0.006, 2000),
            "The learning rate rises from 0.001 to 0.006 in 2000 steps and falls back in 2000: a cycle of 4000 steps.\n"
            "Every cycle is as high as the first.",
        ),
        (
            clr.triangular2(0.0, 0.5, 10, step_size_down=2.5),
            "The learning rate rises from 0.0 to 0.5 in 10 steps and falls back in 2.5: a cycle of 12.5 steps.\n"
            "Each cycle is half as high as the one before.",
        ),
        (
            clr.exp_range(0.0, 0.5, 10, gamma=0.99),
            "The learning rate rises from 0.0 to 0.5 in 10 steps and falls back in 10: a cycle of 20 steps.\n"
            "The height falls by the factor 0.99 at every step.",
        ),
        (
            clr.cyclic(0.0, 0.5, 10, scale_fn=operator.truth),
            "The learning rate rises from 0.0 to 0.5 in 10 steps and falls back in 10: a cycle of 20 steps.\n"
            "The height of a cycle is scaled by truth of the number of the cycle, counted from 1.",
        ),
        (
            clr.cyclic(0.0, 0.5, 10, scale_fn=abs, scale_mode="iterations"),
            "The learning rate rises from 0.0 to 0.5 in 10 steps and falls back in 10: a cycle of 20 steps.\n"
            "The height of a cycle is scaled by abs of the step.",
        ),
    ],
)
def test_describe(schedule: clr.Schedule, words: str) -> None:
    assert schedule.describe() == words


def test_masked_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="whole number of steps"):
        clr.triangular(0.25, 1.0, 10)(np.ma.masked_array([1, 2], mask=[False, True]))


@pytest.mark.parametrize("factor", [Fraction("1.001"), Fraction("1.5"), Fraction("0.999"), Fraction("1.1")])
@pytest.mark.parametrize("first", [10, Fraction("33.3")])
def test_cycles_of_other_lengths_begin_at_the_exact_step(first: Fraction | int, factor: Fraction) -> None:
    schedule = clr.warm_restarts(1.0, first_cycle=float(first), cycle_mult=float(factor))
    start, length = Fraction(0), Fraction(first)
    for cycle in range(1, 80):
        step = math.ceil(start)
        assert schedule.cycle(step) == cycle
        assert not step or schedule.is_cycle_end(step - 1)
        height = math.cos(math.pi / 2 * float((step - start) / length)) ** 2
        assert schedule(step) == pytest.approx(height, rel=1e-12)
        start, length = start + length, length * factor


@pytest.mark.parametrize("factor", [Fraction("1.001"), Fraction("0.999")])
def test_many_cycles_are_made_when_they_are_asked_for(factor: Fraction, monkeypatch: pytest.MonkeyPatch) -> None:
    made, legs = [0], wave._cycles

    def counted(*arguments: Any) -> Iterator[wave.Leg]:
        for leg in legs(*arguments):
            made[0] += 1
            yield leg

    monkeypatch.setattr(wave, "_cycles", counted)
    first = 10**6
    schedule = clr.triangular2(0.0, 1.0, first // 2, shape="cosine", cycle_mult=float(factor))
    assert made[0] < 1000  # of more than 10,000
    for number in (0, 100, 255, 256, 257, 300, 1000, 4000):
        start = first * (factor**number - 1) / (factor - 1)
        step = math.ceil(start)
        for given in (step, np.array([step])):
            assert schedule.cycle(given) == number + 1
            assert not step or schedule.is_cycle_end(given - 1)
            height = math.sin(math.pi * float((step - start) / (first * factor**number))) ** 2
            assert schedule(given) == pytest.approx(height * 0.5**number, rel=1e-9, abs=1e-300)
    assert made[0] > 10_000


def test_slopes_shorter_than_a_step_are_scaled_too() -> None:
    # Cycles of 0.2, 0.4, 0.8 and 1.6 steps: step 1 is the top of the third, step 2 lies on the way up of the fourth.
    schedule = clr.triangular2(0.0, 1.0, 0.1, cycle_mult=2)
    assert [schedule(step) for step in range(4)] == pytest.approx([0, 0.25, 0.75 / 8, 0], abs=1e-15)
    assert schedule(np.arange(4)) == pytest.approx([0, 0.25, 0.75 / 8, 0], abs=1e-15)
