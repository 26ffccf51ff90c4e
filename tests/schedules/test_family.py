"""The golden rates of the whole family, on the host and in every framework."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from tests.family import Plain, Row, exact, golden, made, rate
from tests.frameworks import (
    FLOAT64,
    JAX,
    LARGEST,
    SMALLEST,
    TENSORFLOW,
    TOLERANCE,
    Way,
    compiled,
    dynamo_may_warn,
    each_torch,
    jax,
    tensor_of,
)

GROUPS = {
    "cycles": ("triangular", "triangular2", "exp_range", "cyclic"),
    "warm_restarts": ("warm_restarts",),
    "phases": ("constant", "ramp", "phases", "trapezoid"),
    "one_cycle": ("one_cycle", "one_cycle_fastai"),
    "join": ("join",),
    "warmup": ("warmup",),
    "multiple": ("multiple", "clip"),
    "momentum": ("momentum",),
    "after_end": ("after_end",),
}
each_row = pytest.mark.parametrize("row", golden(), ids=str)
each_group = pytest.mark.parametrize("group", GROUPS)


def check(row: Row, steps: Sequence[int], rates: Any, floating: str) -> None:
    """Whether rates are as exact as they can be: relative to each, but for momentum.

    That is the difference of its upper bound and a multiple of the rate, so only its error in parts of that bound can
    be small: where it comes near to 0, any rounding of the rate is large in comparison.
    """
    rates = np.asarray(rates)
    assert rates.dtype == floating
    assert rates.shape == (len(steps),)
    expected = dict(zip(row.steps, row.lrs, strict=True))
    scale = Fraction(row.schedule.get("high", 0.95)) if row.schedule["make"] == "momentum" else None
    for step, got in zip(steps, rates.tolist(), strict=True):
        if step not in expected:
            continue
        wanted = Fraction(expected[step])
        bound = Fraction(TOLERANCE[floating]) * (wanted if scale is None else scale) + Fraction(SMALLEST[floating])
        error = abs(Fraction(got) - wanted)
        assert error <= bound, (
            f"{row}: {got!r} for {float(wanted)!r} at step {step}, off by {float(error / bound)} bounds"
        )


def check_group(group: str, way: Way, framework: str, integer: str, dtypes: dict[str, Any]) -> None:
    """All rows of a group at once, at the steps of all of them: compiling them apart would take long."""
    rows = [row for row in golden() if row.schedule["make"] in GROUPS[group]]
    schedules = [made(row.schedule) for row in rows]
    steps = sorted({step for row in rows for step in row.steps if step <= LARGEST[integer]})
    steps += steps[-1:] * (640 - len(steps))  # JAX compiles each operation anew for each number of steps

    def rates_of(step: Any) -> tuple[Any, ...]:
        return tuple([schedule(step, dtype=dtype) for dtype in dtypes.values() for schedule in schedules])

    rates = list(way(rates_of, tensor_of(framework, steps, integer)))
    for floating in dtypes:
        for row, schedule in zip(rows, schedules, strict=True):
            found = np.asarray(rates.pop(0))
            check(row, steps, found, floating)
            low, high = np.asarray(schedule.bounds, floating)
            assert low <= found.min() <= found.max() <= high, row
    assert not rates


def test_the_golden_table_is_whole() -> None:
    rows = golden()
    assert len(rows) == 105
    assert {row.schedule["make"] for row in rows} == {make for makes in GROUPS.values() for make in makes}
    assert all(len(row.steps) == len(row.lrs) >= 10 for row in rows)
    assert all(row.steps[-1] == 2**53 - 1 for row in rows)
    assert len({str(row) for row in rows}) == len(rows)


@each_row
def test_reference_gives_the_golden_rates(row: Row) -> None:
    assert [rate(row.schedule, step) for step in row.steps] == list(row.lrs)


@pytest.mark.parametrize(
    ("plain", "rates"),
    [
        ({"make": "phases", "levels": [0.0, 1.0, 0.5], "lengths": [2, 4]}, [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.5]),
        ({"make": "warm_restarts", "max_lr": 1.0, "first_cycle": 2, "cycle_mult": 2}, [1, 0.5, 1, None, 0.5, None, 1]),
        (
            {"make": "trapezoid", "max_lr": 1.0, "total_steps": 6, "warmup_steps": 2, "decay_steps": 2},
            [0, 0.5, 1, 1, 0.5, 0],
        ),
    ],
    ids=lambda value: value["make"] if isinstance(value, dict) else "",
)
def test_reference_gives_rates_known_by_heart(plain: Plain, rates: list[float | None]) -> None:
    for step, wanted in enumerate(rates):
        # Halves of a cosine are found to 80 digits, not as fractions.
        assert wanted is None or abs(exact(plain, step) - Fraction(wanted)) < Fraction(1, 10**70)


@each_row
def test_golden_rates_at_single_steps(row: Row) -> None:
    schedule = made(row.schedule)
    check(row, row.steps, [schedule(step) for step in row.steps], "float64")


@each_row
def test_an_array_gives_what_single_steps_give_bit_for_bit(row: Row) -> None:
    schedule = made(row.schedule)
    rates = schedule(np.array(row.steps))
    assert rates.dtype == np.float64
    assert rates.tolist() == [schedule(step) for step in row.steps]


@each_row
def test_rates_stay_within_the_bounds(row: Row) -> None:
    schedule = made(row.schedule)
    low, high = schedule.bounds
    assert all(low <= schedule(step) <= high for step in row.steps)


@pytest.mark.parametrize("way", TENSORFLOW.values(), ids=TENSORFLOW)
@each_group
def test_tensorflow_gives_the_golden_rates(group: str, way: Way) -> None:
    check_group(group, way, "tensorflow", "int64", {"float32": None, "float64": FLOAT64["tensorflow"]})


@dynamo_may_warn
@each_torch
@each_group
def test_torch_gives_the_golden_rates(group: str, way: Way) -> None:
    double = {"float64": FLOAT64["torch"]}
    # Compiling takes long, and float32 is a rounding of the same rates.
    check_group(group, way, "torch", "int64", double if way is compiled else {"float32": None, **double})


@pytest.mark.parametrize("way", JAX.values(), ids=JAX)
@each_group
def test_jax_gives_the_golden_rates_in_32_bits(group: str, way: Way) -> None:
    check_group(group, way, "jax", "int32", {"float32": None})


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(
            group,
            marks=[pytest.mark.xfail(raises=OverflowError, reason="JAX takes no number of 2**31 or more there")]
            if group == "join"
            else [],
        )
        for group in GROUPS
    ],
)
def test_jax_gives_the_golden_rates_of_unsigned_steps(group: str) -> None:
    check_group(group, JAX["jit"], "jax", "uint32", {"float32": None})


@pytest.mark.parametrize("way", JAX.values(), ids=JAX)
@each_group
def test_jax_gives_the_golden_rates_in_64_bits(group: str, way: Way) -> None:
    with jax.enable_x64(True):
        check_group(group, way, "jax", "int64", {"float64": None})


@each_row
def test_a_description_makes_a_schedule(row: Row) -> None:
    assert isinstance(made(row.schedule), clr.Schedule)
