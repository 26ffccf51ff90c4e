"""The golden rates of every kind of schedule, on the host and in every framework."""

from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from clr.schedules.base import POLICIES
from tests.family import ARGUMENTS, Plain, Row, exact, golden, limits, made, rate, total
from tests.frameworks import (
    FLOAT64,
    JAX,
    LARGEST,
    SMALLEST,
    TENSORFLOW,
    TOLERANCE,
    TORCH,
    Way,
    compiled,
    dynamo_may_warn,
    jax,
    tensor_of,
)
from tests.reference import ulps

GROUPS = {
    "paper": ("triangular", "triangular2", "exp_range"),
    "cycles": ("cyclic", "warm_restarts"),
    "phases": ("constant", "ramp", "phases", "one_cycle", "one_cycle_fastai"),
    "trainings": ("cosine", "linear", "wsd"),
    "join": ("join", "warmup"),
    "of one": ("multiple", "clip", "momentum", "after_end"),
}
LAST = 2**53 - 1
each_row = pytest.mark.parametrize("row", golden(), ids=str)


def most_ulps(plain: Plain) -> int:
    """By how many ulps a rate may be off on the host: straight cycles of one length are rounded once."""
    is_straight = plain["kind"] in GROUPS["paper"] and plain.get("shape", "linear") == "linear"
    return 1 if is_straight and plain.get("cycle_mult", 1) == 1 else 6


def check(row: Row, steps: list[int], rates: Any, floating: str) -> None:
    """Whether rates are as exact as they can be: relative to each, but for momentum.

    That is the difference of its upper bound and a multiple of the rate, so only its error in parts of that bound can
    be small: where it comes near to 0, any rounding of the rate is large in comparison.
    """
    assert rates.dtype == floating
    assert rates.shape == (len(steps),)
    expected = dict(zip(row.steps, row.lrs, strict=True))
    scale = Fraction(row.schedule.get("high", 0.95)) if row.schedule["kind"] == "momentum" else None
    for step, got in zip(steps, rates.tolist(), strict=True):
        if step not in expected:
            continue
        wanted = Fraction(expected[step])
        bound = Fraction(TOLERANCE[floating]) * (wanted if scale is None else scale) + Fraction(SMALLEST[floating])
        error = abs(Fraction(got) - wanted)
        assert error <= bound, (
            f"{row}: {got!r} for {float(wanted)!r} at step {step}, off by {float(error / bound)} bounds"
        )


def test_the_golden_table_is_whole() -> None:
    """A new policy must come into the table, with its arguments written out."""
    rows = golden()
    assert len(rows) == 142
    assert {row.schedule["kind"] for row in rows} == {kind for kinds in GROUPS.values() for kind in kinds}
    assert set(POLICIES) == set(ARGUMENTS) == {row.schedule["kind"] for row in rows}
    assert all(len(row.steps) == len(row.lrs) >= 10 and row.steps[-1] == LAST for row in rows)
    assert len({str(row) for row in rows}) == len(rows)


@each_row
def test_reference_gives_the_golden_rates(row: Row) -> None:
    assert [rate(row.schedule, step) for step in row.steps] == list(row.lrs)


@pytest.mark.parametrize(
    ("plain", "rates"),
    [
        ({"kind": "phases", "levels": [0.0, 1.0, 0.5], "lengths": [2, 4]}, [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.5]),
        ({"kind": "warm_restarts", "max_lr": 1.0, "first_cycle": 2, "cycle_mult": 2}, [1, 0.5, 1, None, 0.5, None, 1]),
        ({"kind": "linear", "max_lr": 1.0, "total_steps": 6, "warmup_steps": 1}, [0.5, 1, 0.75, 0.5, 0.25, 0, 0]),
        ({"kind": "cosine", "max_lr": 1.0, "total_steps": 6, "warmup_steps": 3}, [0.25, 0.5, 0.75, 1, 0.5, 0, 0]),
        ({"kind": "wsd", "max_lr": 1.0, "total_steps": 7, "decay_steps": 4}, [1, 1, 1, 0.5, None, None, 0, 0]),
        (
            {"kind": "wsd", "max_lr": 1.0, "total_steps": 6, "warmup_steps": 1, "decay_steps": 2, "decay": "linear"},
            [0.5, 1, 1, 1, 0.5, 0, 0],
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_reference_gives_rates_known_by_heart(plain: Plain, rates: list[float | None]) -> None:
    for step, wanted in enumerate(rates):
        # Halves of a cosine are found to 80 digits, not as fractions.
        assert wanted is None or abs(exact(plain, step) - Fraction(wanted)) < Fraction(1, 10**70), step


@each_row
def test_the_host_gives_the_golden_rates(row: Row) -> None:
    schedule = made(row.schedule)
    rates = [schedule(step) for step in row.steps]
    assert schedule(np.array(row.steps)).tolist() == rates  # bit for bit
    low, high = schedule.limits
    assert all(low <= rate <= high for rate in rates)
    if row.schedule["kind"] == "momentum":
        check(row, list(row.steps), np.array(rates), "float64")
        return
    for step, got, wanted in zip(row.steps, rates, row.lrs, strict=True):
        assert ulps(got, wanted) <= most_ulps(row.schedule), (step, got, wanted)


@each_row
def test_total_steps_and_limits_are_the_reference_s(row: Row) -> None:
    schedule = made(row.schedule)
    assert schedule.total_steps == total(row.schedule)
    assert schedule.limits == pytest.approx(tuple(map(float, limits(row.schedule))), rel=1e-15, abs=0)


def table() -> list[Any]:
    """Every way of every framework, for each of its integers and each group of kinds."""
    cases = []
    for framework, ways, integers in (
        ("tensorflow", TENSORFLOW, ("int64", "int32")),
        ("torch", TORCH, ("int64", "int32")),
        ("jax", JAX, ("int32", "uint32")),
        ("jax64", JAX, ("int64", "int32")),
    ):
        marks = [dynamo_may_warn] if framework == "torch" else []
        for name, way in ways.items():
            for integer in integers:
                # The second integer takes the same way once it is let in: one way of all groups, all ways of one.
                some = (
                    GROUPS
                    if integer == integers[0] or name in ("jit", "function")
                    else ("paper",)
                    if way is not compiled
                    else ()
                )
                cases += [
                    pytest.param(
                        framework, way, integer, group, id=f"{framework}-{name}-{integer}-{group}", marks=marks
                    )
                    for group in some
                ]
    return cases


@pytest.mark.parametrize(("framework", "way", "integer", "group"), table())
def test_frameworks_give_the_golden_rates(framework: str, way: Way, integer: str, group: str) -> None:
    """All rows of a group at once, at the steps of all of them: compiling them apart would take long."""
    rows = [row for row in golden() if row.schedule["kind"] in GROUPS[group]]
    schedules = [made(row.schedule) for row in rows]
    steps = sorted({step for row in rows for step in row.steps if step <= LARGEST[integer]})
    steps += steps[-1:] * (1280 - len(steps))  # JAX compiles each operation anew for each number of steps
    dtypes = {"float32": None, "float64": FLOAT64.get(framework)}
    if framework == "jax64" or way is compiled:
        del dtypes["float32"]  # compiling takes long, and float32 is a rounding of the same rates
    elif framework == "jax":
        del dtypes["float64"]

    def rates_of(step: Any) -> tuple[Any, ...]:
        return tuple([schedule(step, dtype=dtype) for dtype in dtypes.values() for schedule in schedules])

    with jax.enable_x64(True) if framework == "jax64" else nullcontext():
        rates = [np.asarray(found) for found in way(rates_of, tensor_of(framework, steps, integer))]
    for floating in dtypes:
        for row, schedule in zip(rows, schedules, strict=True):
            found = rates.pop(0)
            check(row, steps, found, floating)
            low, high = np.asarray(schedule.limits, floating)
            assert low <= found.min() <= found.max() <= high, row
    assert not rates


def test_a_row_that_is_wrong_is_seen() -> None:
    row = golden()[0]
    wrong = Row(row.schedule, row.steps, tuple(lr * (1 + 1e-12) for lr in row.lrs))
    rates = np.array([made(row.schedule)(step) for step in row.steps])
    check(row, list(row.steps), rates, "float64")
    with pytest.raises(AssertionError, match="off by"):
        check(wrong, list(row.steps), rates, "float64")


def test_momentum_of_rates_that_all_but_vanish_is_a_number() -> None:
    schedule = clr.momentum(clr.triangular(0, 1e-310, 10))
    expected = [0.95, 0.9, 0.85, 0.9]
    assert [schedule(step) for step in (0, 5, 10, 15)] == pytest.approx(expected)
    for framework in ("tensorflow", "torch", "jax"):
        for way in ({"tensorflow": TENSORFLOW, "torch": TORCH, "jax": JAX}[framework]).values():
            if way is not compiled:
                rates = np.asarray(way(schedule, tensor_of(framework, [0, 5, 10, 15], "int32")))
                assert not np.isnan(rates).any(), framework
                assert ((rates >= np.float32(0.85)) & (rates <= np.float32(0.95))).all()
