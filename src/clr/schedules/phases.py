"""Schedules that go from one level to the next and stay at the last."""

import math
from collections.abc import Callable
from dataclasses import field
from fractions import Fraction
from itertools import accumulate

from clr import checks
from clr.arrays.base import A, Arrays, Python
from clr.schedules.base import ended, value
from clr.schedules.cyclic import OnWave, along
from clr.schedules.shapes import SHAPES
from clr.schedules.wave import Leg, Wave, path

_FINEST_LENGTH = 10**6  # parts of a step; a phase is not counted in ticks, so its length may be finer
_ROUNDING = Fraction(1, 2**52)  # by how much lengths that are floats may come to more than their sum


@value
class Phases(OnWave):
    """What `clr.phases`, `clr.one_cycle`, `clr.cosine`, `clr.linear`, `clr.ramp` and `clr.constant` make."""

    levels: tuple[float, ...]
    lengths: tuple[float | Fraction, ...] = ()  # fractions where floats would be other lengths
    shape: str = "linear"
    training_steps: int | None = None  # None for one that may be followed for as long as one likes
    _at: Callable[[int], float] = field(init=False, compare=False)  # prepared once
    _wave: Wave = field(init=False, compare=False)
    _steps: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        levels = tuple(
            checks.base_rate(f"levels[{number}]", level)
            for number, level in enumerate(checks.sequence("levels", self.levels))
        )
        lengths = [
            steps if isinstance(steps, Fraction) else _exact(checks.steps(f"lengths[{number}]", steps))
            for number, steps in enumerate(checks.sequence("lengths", self.lengths))
        ]
        if len(levels) != len(lengths) + 1:
            raise ValueError(
                f"there must be one more of `levels` than of `lengths`. Received: {len(levels)} and {len(lengths)}."
            )
        shape = checks.choice("shape", self.shape, SHAPES)
        starts = list(accumulate(lengths, initial=Fraction(0)))
        least = math.ceil(starts[-1] * (1 - _ROUNDING))
        total, training = math.floor(starts[-1]) + 1, self.training_steps
        if training is not None:
            training = total = checks.total("total_steps", training)
            if total < least:
                checks.fail(ValueError, "total_steps", f"{least} or more, the sum of `lengths`", total)
        parts = math.lcm(*(steps.denominator for steps in lengths))
        places = [int(start * parts) for start in starts]
        # A lone level is a leg of no length.
        ways = zip(places, places[1:] or places, levels, levels[1:] or levels, strict=False)
        wave = path([Leg(start, end, parts, *rates) for start, end, *rates in ways], len(levels) + 1, shape)
        self._set(
            levels=levels,
            lengths=tuple(map(_plain, lengths)),
            shape=shape,
            training_steps=training,
            _wave=wave,
            _at=wave.formula(Python),
            _steps=total,
        )

    @property
    def total_steps(self) -> int:
        """Those that were given, or the sum of the lengths, and 1."""
        return self._steps

    @property
    def _training_steps(self) -> int | None:
        return self.training_steps

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
        ways = [
            f"to {level!r} in {_float(steps)!r} steps"
            for level, steps in zip(self.levels[1:], self.lengths, strict=True)
        ]
        return f"The learning rate goes from {self.levels[0]!r} {', '.join(ways)}{along(self.shape)}, and stays there."


def _exact(steps: float) -> Fraction:
    """A length in steps: 20.3 stands for 203/10, not for the float nearest to it."""
    return Fraction(steps).limit_denominator(_FINEST_LENGTH)


def _plain(steps: Fraction) -> float | Fraction:
    """A length as a number that stands for exactly it: an int or a float, if there is one."""
    plain = _float(steps)
    return plain if _exact(plain) == steps else steps


def _float(steps: float | Fraction) -> float:
    return int(steps) if steps == int(steps) else float(steps)
