"""Schedules made of schedules: their rates by hand, their cycles by counting, and as values."""

import copy
import operator
import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import clr
from tests.family import CYCLES, Plain, Row, cycles, golden, made, marker

TRIANGULAR = clr.triangular(0.25, 1.25, step_size=2)
RAMP = clr.ramp(0.0, 1.0, steps=4)
ONE_CYCLE = clr.phases((0.25, 1.0, 0.0), (2, 3))
SHRINKING = clr.triangular(0.0, 1.0, step_size=4, cycle_mult=0.5)


def rates(schedule: clr.Schedule, steps: int) -> list[float]:
    return [schedule(step) for step in range(steps)]


# Rates by hand


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (clr.join([clr.constant(0.5), TRIANGULAR], [3]), [0.5, 0.5, 0.5, 0.25, 0.75, 1.25, 0.75, 0.25, 0.75]),
        (clr.join([RAMP, ONE_CYCLE]), [0.0, 0.25, 0.5, 0.75, 1.0, 0.25, 0.625, 1.0, 2 / 3, 1 / 3, 0.0, 0.0]),
        (clr.join([TRIANGULAR, RAMP], [2]), [0.25, 0.75, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        (clr.join([TRIANGULAR]), [0.25, 0.75, 1.25, 0.75, 0.25]),
        (
            clr.join([clr.join([RAMP, clr.constant(3.0)], [2]), clr.join([TRIANGULAR, RAMP], [1])], [4]),
            [0.0, 0.25, 3.0, 3.0, 0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0],
        ),
        (
            clr.join([SHRINKING, clr.constant(2.0)]),
            [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0.5, 1, 0.5, 0, 1, 0, 2, 2],
        ),
        (clr.warmup(TRIANGULAR, 2), [0.0, 0.125, 0.25, 0.75, 1.25, 0.75]),
        (clr.warmup(clr.warm_restarts(1.0, first_cycle=2), 4, start=0.5), [0.5, 0.625, 0.75, 0.875, 1.0, 0.5, 1.0]),
        (clr.warmup(clr.constant(1.0), 4, start=2.0), [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]),
        (clr.warmup(clr.constant(1.0), 2, shape="cosine"), [0.0, 0.5, 1.0, 1.0]),
        (clr.warmup(clr.warmup(TRIANGULAR, 2), 2, start=1.0), [1.0, 0.5, 0.0, 0.125, 0.25, 0.75]),
        (TRIANGULAR * 2, [0.5, 1.5, 2.5, 1.5, 0.5]),
        (0.5 * TRIANGULAR, [0.125, 0.375, 0.625, 0.375, 0.125]),
        (Fraction(1, 2) * TRIANGULAR * 4, [0.5, 1.5, 2.5, 1.5, 0.5]),
        (TRIANGULAR * 0, [0.0, 0.0, 0.0]),
        (TRIANGULAR.clip(0.5, 1.0), [0.5, 0.75, 1.0, 0.75, 0.5]),
        (TRIANGULAR.clip(high=1.0), [0.25, 0.75, 1.0, 0.75, 0.25]),
        (TRIANGULAR.clip(0.5), [0.5, 0.75, 1.25, 0.75, 0.5]),
        (TRIANGULAR.clip(2.0, 3.0), [2.0, 2.0, 2.0]),
        (clr.momentum(TRIANGULAR, 0.5, 0.75), [0.75, 0.625, 0.5, 0.625, 0.75]),
        (
            clr.momentum(clr.triangular2(0.25, 1.25, 2), 0.5, 0.75),
            [0.75, 0.625, 0.5, 0.625, 0.75, 0.6875, 0.625, 0.6875],
        ),
        (clr.momentum(clr.constant(0.1)), [0.95, 0.95]),
        (clr.momentum(TRIANGULAR, 0.75, 0.75), [0.75, 0.75, 0.75]),
        (clr.momentum(clr.join([RAMP, TRIANGULAR * 0.8], [2]), 0.5, 0.75), [0.75, 0.6875, 0.7, 0.6, 0.5, 0.6]),
        (RAMP.after_end("repeat"), [0.0, 0.25, 0.5, 0.75, 1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 0.0]),
        (RAMP.after_end("hold"), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        (clr.ramp(0.0, 1.0, 2.5).after_end("repeat"), [0.0, 0.4, 0.8, 0.0, 0.4, 0.8, 0.0]),
        (
            clr.join([RAMP, clr.constant(2.0)]).after_end("repeat"),
            [0, 0.25, 0.5, 0.75, 1, 2, 0, 0.25, 0.5, 0.75, 1, 2, 0],
        ),
        (
            (clr.warmup(RAMP * 2, 2, start=1.0).after_end("repeat") * 0.5).clip(0.25),
            [0.5, 0.25, 0.25, 0.25, 0.5, 0.75, 1, 0.5],
        ),
    ],
    ids=repr,
)
def test_rates_by_hand(schedule: clr.Schedule, expected: list[float]) -> None:
    assert rates(schedule, len(expected)) == pytest.approx(expected, rel=1e-15, abs=1e-16)
    assert schedule(np.arange(len(expected))).tolist() == rates(schedule, len(expected))


def test_a_join_of_tuples_and_numpy_boundaries_is_equal() -> None:
    schedule = clr.join([RAMP, TRIANGULAR], [5])
    assert clr.join((RAMP, TRIANGULAR), (np.int64(5),)) == schedule  # type: ignore[arg-type]
    assert clr.join([RAMP, TRIANGULAR]) == schedule
    assert clr.warmup(TRIANGULAR, 5) == clr.join([clr.ramp(0.0, 0.25, 5), TRIANGULAR], [5])


@pytest.mark.parametrize("step", [5, 6, 2**60, np.int64(5), np.array([0, 5])])
def test_beyond_the_end_is_an_error_if_so_wished(step: Any) -> None:
    schedule = RAMP.after_end("error")
    assert rates(schedule, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert schedule(np.arange(5)).tolist() == rates(schedule, 5)
    with pytest.raises(ValueError, match=r"^`step` must be below 5, where the schedule ends\. Received: "):
        schedule(step)


@pytest.mark.parametrize("other", ["2", None, [1], 1j, RAMP])
def test_only_a_number_multiplies(other: Any) -> None:
    for multiply in (operator.mul, lambda a, b: b * a):
        with pytest.raises(TypeError):
            multiply(RAMP, other)


def test_a_product_that_leaves_float64_is_refused() -> None:
    assert (clr.constant(1e300) * 1e8)(0) == pytest.approx(1e308)
    with pytest.raises(ValueError, match=r"^`schedule \* factor` must be a finite number, 0 or more\. Received: inf\."):
        clr.constant(1e300) * 1e10


# Cycles


def is_counted(plain: Plain) -> bool:
    """Not so where cycles are shorter than a step, and some are stepped over."""
    if plain["kind"] in CYCLES:
        wave = cycles(plain)
        return wave.up + wave.down >= 2
    parts = plain.get("schedules", [plain["schedule"]] if "schedule" in plain else [])
    return all(map(is_counted, parts))


@pytest.mark.parametrize("row", golden(), ids=str)
def test_cycles_and_their_ends_by_counting(row: Row) -> None:
    schedule, steps = made(row.schedule), 1200
    markers = [marker(row.schedule, step) for step in range(steps + 1)]
    ends = [before != after for before, after in pairwise(markers)]
    numbers = [schedule.cycle(step) for step in range(steps)]
    assert [schedule.is_cycle_end(step) for step in range(steps)] == ends
    assert schedule.cycle(np.arange(steps)).tolist() == numbers
    assert schedule.is_cycle_end(np.arange(steps)).tolist() == ends
    if is_counted(row.schedule):
        assert numbers == [1 + sum(ends[:step]) for step in range(steps)]


def test_cycles_of_a_join_by_hand() -> None:
    schedule = clr.join([TRIANGULAR, clr.warm_restarts(1.0, first_cycle=2, cycle_mult=2), RAMP], [6, 13])
    assert [schedule.cycle(step) for step in range(20)] == [1] * 4 + [2] * 2 + [3] * 2 + [4] * 4 + [5] + [6] * 5 + [
        7
    ] * 2
    assert [step for step in range(30) if schedule.is_cycle_end(step)] == [3, 5, 7, 11, 12, 17]


def test_cycles_of_a_repeat_by_hand() -> None:
    schedule = clr.join([SHRINKING, RAMP]).after_end("repeat")
    assert schedule.cycle(0) == 1
    assert [step for step in range(42) if schedule.is_cycle_end(step)] == [7, 11, 13, 14, 19, 27, 31, 33, 34, 39]
    assert schedule.cycle(20) == schedule.cycle(19) + 1
    assert schedule.cycle(20 * 10**15) == 10**15 * schedule.cycle(19) + 1


# Ends and bounds


@pytest.mark.parametrize(
    ("schedule", "steps", "preview", "limits"),
    [
        (TRIANGULAR, None, 16, (0.25, 1.25)),
        (clr.warm_restarts(1.0, first_cycle=10, cycle_mult=2), None, 150, (0.0, 1.0)),
        (SHRINKING, 15, 15, (0.0, 1.0)),
        (RAMP, 5, 5, (0.0, 1.0)),
        (clr.ramp(0.5, 0.0, 2.5), 3, 3, (0.0, 0.5)),
        (clr.constant(0.5), 1, 1, (0.5, 0.5)),
        (clr.one_cycle(1.0, 100, div_factor=4.0, final_div_factor=2.0), 100, 100, (0.125, 1.0)),
        (clr.one_cycle_fastai(1.0, 100, div=4.0, div_final=2.0), 100, 100, (0.25, 1.0)),
        (clr.wsd(1.0, 100, warmup_steps=1, decay_steps=20, min_lr=0.75), 100, 100, (0.5, 1.0)),
        (clr.linear(1.0, 100), 100, 100, (0.0, 1.0)),
        (clr.cosine(1.0, 100, 3, 0.5), 100, 100, (0.25, 1.0)),
        (clr.join([RAMP, TRIANGULAR], [10]), None, 26, (0.0, 1.25)),
        (clr.join([RAMP, ONE_CYCLE]), 11, 11, (0.0, 1.0)),
        (clr.warmup(TRIANGULAR, 10, start=2.0), None, 26, (0.25, 2.0)),
        (TRIANGULAR * 2, None, 16, (0.5, 2.5)),
        (RAMP * 2, 5, 5, (0.0, 2.0)),
        (TRIANGULAR.clip(0.5, 0.75), None, 16, (0.5, 0.75)),
        (TRIANGULAR.clip(0.5), None, 16, (0.5, 1.25)),
        (TRIANGULAR.clip(5.0), None, 16, (5.0, 5.0)),
        (TRIANGULAR.clip(0.0, 0.125), None, 16, (0.125, 0.125)),
        (clr.momentum(RAMP, 0.5, 0.75), 5, 5, (0.5, 0.75)),
        (RAMP.after_end("repeat"), None, 5, (0.0, 1.0)),
        (RAMP.after_end("hold"), 5, 5, (0.0, 1.0)),
        (RAMP.after_end("error"), 5, 5, (0.0, 1.0)),
    ],
    ids=repr,
)
def test_total_steps_preview_and_bounds(
    schedule: clr.Schedule, steps: int | None, preview: int, limits: tuple[float, float]
) -> None:
    assert (schedule.total_steps, schedule._preview, schedule.limits) == (steps, preview, limits)


# In words

RISES = "The learning rate rises from 0.25 to 1.25 in 2 steps and falls back in 2: a cycle of 4 steps.\n"
SAME = "Every cycle is as high as the first."
GOES = "The learning rate goes from 0.0 to 1.0 in 4 steps, and stays there."


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (clr.constant(0.1), "The learning rate is 0.1 at every step."),
        (RAMP, GOES),
        (
            clr.phases((0.5, 1.0, 0.0), (2, 2.5), shape="cosine"),
            "The learning rate goes from 0.5 to 1.0 in 2 steps, to 0.0 in 2.5 steps (cosine), and stays there.",
        ),
        (
            clr.triangular(0.0, 1.0, 10, step_size_down=5, shape="cosine", cycle_mult=1.5),
            "The learning rate rises from 0.0 to 1.0 in 10 steps and falls back in 5 (cosine): "
            "a first cycle of 15 steps.\nEach cycle is 1.5 times as long as the one before.\n" + SAME,
        ),
        (
            clr.warm_restarts(1.0, first_cycle=100, cycle_mult=0.5, peak_decay=0.9),
            "The learning rate falls from 1.0 to 0.0 in 100 steps and jumps back (cosine): "
            "a first cycle of 100 steps.\n"
            "Each cycle is 0.5 times as long as the one before.\n"
            "After 199 steps they would be shorter than one, and it stays as it is.\n"
            "Each cycle is 0.9 times as high as the one before.",
        ),
        (clr.join([RAMP, TRIANGULAR]), f"From step 0:\n{GOES}\nFrom step 5:\n{RISES}{SAME}"),
        (TRIANGULAR * 0.5, f"{RISES}{SAME}\nEvery rate is multiplied by 0.5."),
        (TRIANGULAR.clip(0.5), f"{RISES}{SAME}\nNo rate is below 0.5."),
        (TRIANGULAR.clip(0.5, 0.75), f"{RISES}{SAME}\nNo rate is below 0.5 or above 0.75."),
        (clr.momentum(TRIANGULAR), f"The momentum, from 0.85 to 0.95, mirrors this:\n{RISES}{SAME}"),
        (RAMP.after_end("hold"), f"{GOES}\nAfter that, the last rate is kept."),
        (RAMP.after_end("repeat"), f"{GOES}\nAfter 5 steps it starts again."),
        (RAMP.after_end("error"), f"{GOES}\nTo go beyond 5 steps is an error."),
    ],
)
def test_describe(schedule: clr.Schedule, words: str) -> None:
    assert schedule.describe() == words


def test_a_part_that_ends_in_an_error_is_asked_for_its_own_steps_alone() -> None:
    schedule = clr.join([clr.ramp(0.0, 1.0, 4).after_end("error"), clr.triangular(0.25, 0.75, 4)], [5])
    expected = [0.0, 0.25, 0.5, 0.75, 1.0, 0.25, 0.375, 0.5]
    assert schedule(np.arange(8)).tolist() == [schedule(step) for step in range(8)] == expected
    ending = clr.join([clr.constant(0.5), clr.ramp(0.0, 1.0, 4).after_end("error")], [3])
    assert ending(np.arange(8)).tolist() == [0.5, 0.5, 0.5, 0.0, 0.25, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match="`step` must be below 5, where the schedule ends"):
        ending(np.arange(9))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda schedule: schedule.clip(high=0.5),
        lambda schedule: schedule * 0.75,
        lambda schedule: schedule.after_end("hold"),
        lambda schedule: clr.warmup(schedule, 2),
        lambda schedule: clr.momentum(schedule, 0.25, 0.5),
        lambda schedule: clr.join([RAMP, schedule]),
    ],
    ids=["clip", "multiple", "after_end", "warmup", "momentum", "join"],
)
def test_fifty_schedules_within_each_other_work_in_every_way(wrap: Callable[[clr.Schedule], clr.Schedule]) -> None:
    schedule: clr.Schedule = RAMP
    for _ in range(49):
        schedule = wrap(schedule)
    copies: list[Any] = [
        clr.from_json(schedule.to_json()),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ]
    for again in copies:
        assert again == schedule
        assert [again(step) for step in (0, 3, 100)] == schedule(np.array([0, 3, 100])).tolist()
    assert schedule.describe()
    assert eval(repr(schedule), {"clr": clr}) == schedule
    with pytest.raises(ValueError, match="must be made of less than 50 schedules within each other"):
        wrap(schedule)


def test_a_schedule_in_many_places_is_looked_at_once() -> None:
    schedule: clr.Schedule = RAMP
    for _ in range(49):
        schedule = clr.join([schedule, schedule], [1])  # of 2**49 parts, if one counts each time
    assert schedule(1) == 0.0
    assert schedule.limits == (0.0, 1.0)
