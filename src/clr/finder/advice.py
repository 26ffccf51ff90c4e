"""Which schedule to begin with, between bounds that were found. The advice follows docs/study.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clr import checks
from clr.finder.curve import UNSURE, Bounds
from clr.finder.result import RangeTest
from clr.finder.trials import Search
from clr.schedules import policies
from clr.schedules.base import Schedule

EPOCHS = 4  # in half a cycle


@dataclass(frozen=True)
class Advice:
    """A schedule to begin with.

    Attributes:
        schedule: The schedule.
        reason: Why this one, and what to watch for.
    """

    schedule: Schedule
    reason: str


def advise(
    bounds: RangeTest | Search | Bounds | Sequence[float],
    total_steps: int | None = None,
    *,
    steps_per_epoch: int | None = None,
) -> Advice:
    """The schedule to begin with, as the study of this project advises.

    Args:
        bounds: The `RangeTest` or the `Search`, its `Bounds`, or a pair ``(base_lr, max_lr)``; per update.
        total_steps: The updates of the whole training, if you know them. By default those of the search, if there is
            one.
        steps_per_epoch: Updates in one pass over the data, for a training that may end at any time. Give either this
            or ``total_steps``.

    Returns:
        The `Advice`. With ``total_steps``, it is one cycle over the whole training. Without, it is cycles between the
        bounds; you can stop at the end of any of them. (In the study, cycles that lose height were behind both.)

    Raises:
        NoBoundsError: The range test or the search has no bounds.
        TypeError, ValueError: An argument makes no sense.

    >>> import clr
    >>> advice = clr.advise((0.01, 0.1), total_steps=1000)
    >>> advice.schedule == clr.one_cycle(0.1, 1000, div_factor=10)
    True
    >>> clr.advise((0.01, 0.1), steps_per_epoch=500).schedule == clr.triangular(0.01, 0.1, 2000)
    True
    """
    found: object = bounds
    if isinstance(bounds, Search):
        if total_steps is None and steps_per_epoch is None:
            total_steps = bounds.total_steps
        found = bounds.bounds(total_steps)
    elif isinstance(bounds, RangeTest):
        found = bounds.bounds()
    if not isinstance(found, Bounds | Sequence) or isinstance(found, str | bytes | bytearray | range):
        checks.fail(TypeError, "bounds", "a range test, a search, or two rates", found)
    if len(pair := list(found)) != 2:
        checks.fail(ValueError, "bounds", "a range test, a search, or two rates", found)
    base_lr = checks.positive("base_lr", pair[0])
    max_lr = checks.max_rate("max_lr", pair[1], "base_lr", base_lr)
    if math.isinf(max_lr / base_lr):
        checks.fail(ValueError, "bounds", "two rates whose ratio is finite", found)
    if (total_steps is None) == (steps_per_epoch is None):
        received = f"{checks.shown(total_steps)} and {checks.shown(steps_per_epoch)}"
        raise TypeError(f"advise takes either `total_steps` or `steps_per_epoch`. Received: {received}.")
    schedule: Schedule
    if total_steps is not None:
        total = checks.total("total_steps", total_steps)
        schedule = policies.one_cycle(max_lr, total, div_factor=max_lr / base_lr)
        reason = "The length is known: one cycle over the whole training, which ends far below the lower bound."
    else:
        step_size = policies.step_size(steps_per_epoch, EPOCHS)
        schedule = policies.triangular(base_lr, max_lr, step_size)
        reason = f"The length is open: stop at the end of a cycle, every {2 * step_size} steps."
    if isinstance(found, Bounds) and found.confidence < UNSURE:
        reason += (
            f" The confidence is low ({found.confidence:.2f}): train with a third of these bounds, "
            "too, and judge by held-out data."
        )
    return Advice(schedule, reason)
