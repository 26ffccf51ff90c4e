"""Schedules that go from one level to the next and stay at the last."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from typing import ClassVar

from clr import checks
from clr.arrays.base import A, Arrays, Python
from clr.schedules.base import ended
from clr.schedules.cyclic import OnWave, along
from clr.schedules.shapes import SHAPES
from clr.schedules.wave import Leg, Wave, path, whole

_FINEST_LENGTH = 10**6  # parts of a step; a phase is not counted in ticks, so its length may be finer
_ROUNDING = Fraction(1, 2**52)  # by how much lengths that are floats may come to more than their sum


@dataclass(frozen=True, repr=False, slots=True)
class Phases(OnWave):
    """What `clr.phases`, `clr.one_cycle`, `clr.cosine`, `clr.linear`, `clr.ramp` and `clr.constant` make."""

    _policy: ClassVar[str] = "phases"
    levels: tuple[float, ...]
    lengths: tuple[float, ...] = ()
    shape: str = "linear"
    total_steps: int = None  # type: ignore[assignment]  # by default the sum of the lengths, and 1
    _at: Callable[[int], float] = field(init=False, compare=False)  # prepared once
    _wave: Wave = field(init=False, compare=False)
    _training_steps: int | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        levels = tuple(
            checks.base_rate(f"levels[{number}]", level)
            for number, level in enumerate(checks.sequence("levels", self.levels))
        )
        lengths = [
            Fraction(checks.steps(f"lengths[{number}]", steps)).limit_denominator(_FINEST_LENGTH)
            for number, steps in enumerate(checks.sequence("lengths", self.lengths))
        ]
        if len(levels) != len(lengths) + 1:
            raise ValueError(
                f"there must be one more of `levels` than of `lengths`. Received: {len(levels)} and {len(lengths)}."
            )
        shape = checks.choice("shape", self.shape, SHAPES)
        starts = list(accumulate(lengths, initial=Fraction(0)))
        least = math.ceil(starts[-1] * (1 - _ROUNDING))
        total = math.floor(starts[-1]) + 1
        given = self.total_steps is not None
        if given:
            total = checks.count("total_steps", self.total_steps)
            if total < least:
                checks.fail(ValueError, "total_steps", f"{least} or more, the sum of `lengths`", total)
        # A lone level is a leg of no length.
        legs = zip(starts, starts[1:] or starts, levels, levels[1:] or levels, strict=False)
        wave = path(map(Leg._make, legs), len(levels) + 1, shape)
        self._set(
            levels=levels,
            lengths=tuple(map(whole, lengths)),
            shape=shape,
            total_steps=total,
            _wave=wave,
            _at=wave.formula(Python),
            _training_steps=total if given else None,
        )

    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        return ended(xp, step, self.total_steps if self.lengths else xp.largest + 1)  # a constant has no cycle to end

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        return min(self.levels), max(self.levels)

    @property
    def _preview(self) -> int:
        return self.total_steps

    def describe(self) -> str:
        """The schedule in words: see `Schedule.describe`."""
        if not self.lengths:
            return f"The learning rate is {self.levels[0]!r} at every step."
        ways = [f"to {level!r} in {steps!r} steps" for level, steps in zip(self.levels[1:], self.lengths, strict=True)]
        return f"The learning rate goes from {self.levels[0]!r} {', '.join(ways)}{along(self.shape)}, and stays there."
