"""The advice on which schedule to begin with."""

import math

import pytest

import clr
from tests import curves
from tests.curves import measured


def test_one_cycle_over_a_known_length() -> None:
    schedule = clr.advise((0.01, 0.1), total_steps=1000).schedule
    assert (schedule(0), schedule(299)) == (0.01, 0.1)  # three tenths of the way up, as everywhere
    assert schedule(999) < 0.01 / 1000
    assert schedule.total_steps == 1000


def test_cycles_over_an_open_one() -> None:
    advice = clr.advise([0.01, 0.1], steps_per_epoch=50)
    # Half a cycle of four epochs, in the middle of what the paper advises.
    assert [advice.schedule(step) for step in (0, 200, 400, 600)] == pytest.approx([0.01, 0.1, 0.01, 0.1])
    assert "400 steps" in advice.reason


def test_a_range_test_gives_its_bounds() -> None:
    test = measured(curves.valley)
    advice = clr.advise(test, total_steps=1000)
    assert (advice.schedule(0), advice.schedule(299)) == pytest.approx(tuple(test.bounds()))
    assert advice == clr.advise(test.bounds(), total_steps=1000)
    assert "confidence" not in advice.reason


def test_doubtful_bounds_are_called_so() -> None:
    bounds = clr.Bounds(0.01, 0.1, 0.49, "so")
    assert "low (0.49)" in clr.advise(bounds, total_steps=10).reason
    assert "confidence" not in clr.advise(clr.Bounds(0.01, 0.1, 0.5, "so"), total_steps=10).reason


def test_a_refusal_is_passed_on() -> None:
    with pytest.raises(clr.NoBoundsError):
        clr.advise(measured(curves.flat), total_steps=1000)


@pytest.mark.parametrize(
    ("bounds", "options", "error", "message"),
    [
        ((0.01, 0.1), {}, TypeError, "advise takes either `total_steps` or `steps_per_epoch`."),
        (
            (0.01, 0.1),
            {"total_steps": 10, "steps_per_epoch": 5},
            TypeError,
            "advise takes either `total_steps` or `steps_per_epoch`. Received: 10 and 5.",
        ),
        ((0.01, 0.1), {"total_steps": 0}, ValueError, "`total_steps` must be a whole number, 1 or more. Received: 0."),
        ((0.01, 0.1), {"steps_per_epoch": 0}, ValueError, "`steps_per_epoch` must be a whole number, 1 or more."),
        ((0.1, 0.01), {"total_steps": 10}, ValueError, "`max_lr` must be a finite number, `base_lr` or more."),
        ((0.0, 0.01), {"total_steps": 10}, ValueError, "`base_lr` must be a finite number above 0. Received: 0.0."),
        (
            (math.nan, 0.01),
            {"total_steps": 10},
            ValueError,
            "`base_lr` must be a finite number above 0. Received: nan.",
        ),
        (
            (0.1,),
            {"total_steps": 10},
            ValueError,
            "`bounds` must be a range test, a search, or two rates. Received: (0.1,).",
        ),
        (0.1, {"total_steps": 10}, TypeError, "`bounds` must be a range test, a search, or two rates. Received: 0.1."),
        (
            (5e-324, 1e300),
            {"total_steps": 10},
            ValueError,
            "`bounds` must be two rates whose ratio is finite. Received",
        ),
        (
            b"ab",
            {"total_steps": 10},
            TypeError,
            "`bounds` must be a range test, a search, or two rates. Received: b'ab'.",
        ),
        ((0.1, 1), {"total_steps": 2**62}, ValueError, "`total_steps` must be at most 2**53 steps. Received: "),
        (
            "ab",
            {"total_steps": 10},
            TypeError,
            "`bounds` must be a range test, a search, or two rates. Received: 'ab'.",
        ),
    ],
)
def test_bad_arguments(bounds: object, options: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refusal:
        clr.advise(bounds, **options)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(message)
