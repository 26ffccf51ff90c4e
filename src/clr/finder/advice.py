"""Which schedule to begin with, between bounds that a range test has found. What it says comes from docs/study.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clr import checks
from clr.finder.curve import UNSURE, Bounds
from clr.finder.result import RangeTest
from clr.schedules import policies
from clr.schedules.base import Schedule

EPOCHS = 4  # in half a cycle


@dataclass(frozen=True)
class Advice:
    """A schedule to begin with.

    Attributes:
        schedule: The schedule.
        reason: Why this one, and what to look out for.
    """

    schedule: Schedule
    reason: str


def advise(
    bounds: RangeTest | Bounds | Sequence[float], steps: int | None = None, *, steps_per_epoch: int | None = None
) -> Advice:
    """The schedule to begin with, by what the study of this project has measured.

    Args:
        bounds: What a range test has found: the `RangeTest`, its `Bounds`, or ``(base_lr, max_lr)``; per update.
        steps: The updates of the whole training, if that is known.
        steps_per_epoch: Updates in one pass over the data, for a training that may end at any time. Needed without
            ``steps``.

    Returns:
        The `Advice`. With ``steps``, it is one cycle over all of them; without, cycles between the bounds, at the end
        of any of which training can be stopped. (Cycles that lose height were behind both in the study.)

    Raises:
        NoBoundsError: The range test has found none.
        TypeError, ValueError: An argument makes no sense.

    >>> import clr
    >>> advice = clr.advise((0.01, 0.1), steps=1000)
    >>> advice.schedule == clr.one_cycle(0.1, 1000, div_factor=10)
    True
    >>> clr.advise((0.01, 0.1), steps_per_epoch=500).schedule == clr.triangular(0.01, 0.1, 2000)
    True
    """
    found: Any = bounds.bounds() if isinstance(bounds, RangeTest) else bounds
    if not isinstance(found, Bounds | Sequence) or isinstance(found, str):
        raise TypeError(f"`bounds` must be a range test, or two rates. Received: {found!r}.")
    if len(pair := list(found)) != 2:
        raise ValueError(f"`bounds` must be a range test, or two rates. Received: {found!r}.")
    base_lr = checks.positive("base_lr", pair[0])
    max_lr = checks.max_rate("max_lr", pair[1], "base_lr", base_lr)
    if (steps is None) == (steps_per_epoch is None):
        raise TypeError("advise takes either `steps` or `steps_per_epoch`.")
    schedule: Schedule
    if steps is not None:
        schedule = policies.one_cycle(max_lr, checks.count("steps", steps), div_factor=max_lr / base_lr)
        reason = "The length is known: one cycle over all of it, which ends far below the lower bound."
    else:
        schedule = policies.triangular(base_lr, max_lr, policies.step_size(steps_per_epoch, EPOCHS))
        reason = f"The length is open: stop at the end of a cycle, every {schedule.period} steps."
    if isinstance(found, Bounds) and found.confidence < UNSURE:
        reason += (
            f" The range test is not sure of its bounds (confidence {found.confidence:.2f}): train with a third of"
            " them, too, and judge by held-out data."
        )
    return Advice(schedule, reason)
