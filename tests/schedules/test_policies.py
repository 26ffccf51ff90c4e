import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from tests import reference
from tests.reference import ulps


def test_triangular_rises_and_falls_between_its_bounds() -> None:
    schedule = clr.triangular(base_lr=0.125, max_lr=1.125, step_size=4)
    cycle = [0.125, 0.375, 0.625, 0.875, 1.125, 0.875, 0.625, 0.375]
    assert [schedule(step) for step in range(24)] == cycle * 3


def test_triangular_falls_at_its_own_pace() -> None:
    schedule = clr.triangular(0.0, 1.0, step_size=2, step_size_down=8)
    cycle = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert [schedule(step) for step in range(20)] == cycle * 2


def test_triangular2_halves_each_cycle() -> None:
    schedule = clr.triangular2(0.5, 1.5, step_size=2)
    assert [schedule(step) for step in range(13)] == [
        *(0.5, 1.0, 1.5, 1.0),
        *(0.5, 0.75, 1.0, 0.75),
        *(0.5, 0.625, 0.75, 0.625),
        0.5,
    ]


def test_exp_range_falls_by_gamma_at_every_step() -> None:
    schedule = clr.exp_range(0.0, 1.0, step_size=2, gamma=0.5)
    assert [schedule(step) for step in range(7)] == [0.0, 0.25, 0.25, 0.0625, 0.0, 0.015625, 0.015625]


@pytest.mark.parametrize("step", [0, 1, 1999, 2000, 16667, 10**5, 10**6])
def test_gamma_is_the_paper_s_by_default(step: int) -> None:
    expected = reference.rate(step, 0.001, 0.006, 2000, mode="exp_range", gamma=0.99994)
    assert ulps(clr.exp_range(0.001, 0.006, 2000)(step), expected) <= 1
    assert ulps(clr.cyclic(0.001, 0.006, 2000, mode="exp_range")(step), expected) <= 1


@pytest.mark.parametrize("step", range(0, 50, 3))
def test_gamma_1_is_triangular(step: int) -> None:
    assert clr.exp_range(0.1, 0.3, 7, gamma=1)(step) == clr.triangular(0.1, 0.3, 7)(step)


@pytest.mark.parametrize("policy", [clr.triangular, clr.triangular2, clr.exp_range])
def test_cyclic_knows_the_policies_by_name(policy: Any) -> None:
    assert clr.cyclic(0.1, 0.3, 7.5, step_size_down=3, mode=policy.__name__) == policy(0.1, 0.3, 7.5, step_size_down=3)
    assert policy(base_lr=0.1, max_lr=0.3, step_size=7.5) == policy(0.1, 0.3, 7.5)


def test_cyclic_is_triangular_by_default() -> None:
    assert clr.cyclic(0.1, 0.3, 7) == clr.triangular(0.1, 0.3, 7)


# A scaling function of yours


def test_scale_fn_of_the_cycle_is_counted_from_1() -> None:
    schedule = clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle)
    assert [schedule(step) for step in (4, 12, 28)] == [1.0, 0.5, 0.25]


def test_scale_fn_of_the_step_is_counted_from_0() -> None:
    seen: list[int] = []

    def scale(step: int) -> float:
        seen.append(step)
        return 0.5**step

    schedule = clr.cyclic(0.0, 1.0, 4, scale_fn=scale, scale_mode="iterations")
    seen.clear()
    assert [schedule(step) for step in (0, 1, 4, 7)] == [0.0, 0.125, 0.0625, 0.001953125]
    assert seen == [0, 1, 4, 7]
    assert {type(step) for step in seen} == {int}


@pytest.mark.parametrize("scale_mode", ["cycle", "iterations"])
def test_scale_fn_is_given_the_ints_of_an_array_too(scale_mode: Any) -> None:
    seen: set[int] = set()

    def scale(x: int) -> float:
        seen.add(x)
        assert type(x) is int
        return 1 / (1 + x)

    schedule = clr.cyclic(0.0, 1.0, 2, scale_fn=scale, scale_mode=scale_mode)
    seen.clear()
    steps = np.array([[9, 1], [2, 9]], np.uint8)
    rates = schedule(steps).tolist()
    assert seen == ({1, 3} if scale_mode == "cycle" else {1, 2, 9})
    assert rates == [[schedule(9), schedule(1)], [schedule(2), schedule(9)]]


@pytest.mark.parametrize("value", [0, 1, 0.25, True, Fraction(1, 4), np.float32(0.25), np.float64(1.0)])
def test_scale_fn_may_give_any_number(value: Any) -> None:
    assert clr.cyclic(0.5, 1.5, 10, scale_fn=lambda _: value)(10) == 0.5 + float(value)


@pytest.mark.parametrize("step", range(0, 300, 7))
def test_scale_fn_can_be_any_of_the_policies(step: int) -> None:
    halving = clr.cyclic(0.1, 0.3, 20.3, scale_fn=lambda cycle: 0.5 ** (cycle - 1))
    assert halving(step) == clr.triangular2(0.1, 0.3, 20.3)(step)
    gamma = clr.cyclic(0.1, 0.3, 20.3, scale_fn=lambda step: 0.99**step, scale_mode="iterations")
    assert ulps(gamma(step), reference.rate(step, 0.1, 0.3, Fraction("20.3"), mode="exp_range", gamma=0.99)) <= 1


def test_scale_fn_takes_the_place_of_the_mode() -> None:
    schedules = {
        clr.cyclic(0.1, 0.3, 7, mode=mode, scale_fn=abs) for mode in ("triangular", "triangular2", "exp_range")
    }
    assert len(schedules) == 1


# The step size


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"steps_per_epoch": 500}, 2000),
        ({"steps_per_epoch": 500, "epochs": 2}, 1000),
        ({"steps_per_epoch": 500, "epochs": 10}, 5000),
        ({"steps_per_epoch": 391, "epochs": 2.5}, 977.5),
        ({"steps_per_epoch": 1}, 4),
        ({"steps_per_epoch": np.int64(500)}, 2000),
        ({"num_samples": 50_000, "batch_size": 100}, 2000),
        ({"num_samples": 50_000, "batch_size": 128}, 4 * 391),
        ({"num_samples": 1797, "batch_size": 64, "epochs": 2.5}, 72.5),
        ({"num_samples": 1, "batch_size": 64}, 4),
        ({"num_samples": 128, "batch_size": 64}, 8),
        ({"total_steps": 10_000}, 1250),
        ({"total_steps": 10_000, "cycles": 1}, 5000),
        ({"total_steps": 1001, "cycles": 2}, 250.25),
        ({"total_steps": 100, "cycles": 2.5}, 20),
        ({"total_steps": np.int64(80)}, 10),
    ],
)
def test_step_size(arguments: dict[str, Any], expected: float) -> None:
    steps = clr.step_size(**arguments)
    assert steps == expected
    assert type(steps) is type(expected)


@pytest.mark.parametrize("epochs", [0.5, 1, 1.999, 10.001, 11, 100])
def test_step_size_outside_of_the_paper_s_advice_warns(epochs: float) -> None:
    with pytest.warns(UserWarning, match=rf"^half a cycle of {epochs} epochs .* 2 to 10 .*Smith") as caught:
        steps = clr.step_size(1000, epochs)
    assert steps == 1000 * epochs
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("epochs", [2, 2.0, 4, 7.5, 10, 10.0])
def test_step_size_within_the_paper_s_advice_is_silent(epochs: float) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clr.step_size(1000, epochs)
    assert not caught


def test_step_size_takes_epochs_as_they_are_written() -> None:
    assert clr.step_size(100, 4.1) == 410
    assert clr.step_size(100, 2.3) == 230
    assert isinstance(clr.step_size(100, 4.1), int)


def test_step_size_counts_batches_of_any_data_exactly() -> None:
    assert clr.step_size(num_samples=2**53 + 1, batch_size=4, epochs=2) == 2**52 + 2


def test_a_training_of_whole_cycles_ends_with_the_last() -> None:
    schedule = clr.triangular(0.0, 1.0, clr.step_size(total_steps=999, cycles=3))
    assert [step for step in range(999) if schedule.is_cycle_end(step)] == [332, 665, 998]


def test_step_size_fits_a_schedule() -> None:
    assert clr.triangular(0.0, 1.0, clr.step_size(391, 2.5)) == clr.triangular(0.0, 1.0, 977.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"total_steps": 1000, "epochs": 2}, TypeError, "step_size takes"),
        ({"steps_per_epoch": 500, "cycles": 2}, TypeError, "step_size takes"),
        ({"total_steps": 100, "cycles": 0.0004}, ValueError, "`cycles` must be a number from 0.01 to 500"),
        ({"total_steps": 99991, "cycles": 501}, ValueError, "`cycles` must be a number from 0.01 to 500"),
    ],
)
def test_step_size_ignores_nothing(arguments: dict[str, float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        clr.step_size(**arguments)  # type: ignore[arg-type]
    assert clr.triangular(0, 1, clr.step_size(total_steps=99_991, cycles=500)).is_cycle_end(99_990)
