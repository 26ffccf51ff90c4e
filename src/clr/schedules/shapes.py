"""The constants of a slope of the wave, for each shape in which a rate can climb it.

A shape gives ``(gain, lost, turn)`` for a rise and a length, computed once and exactly. The sign of the distance from
the foot is given too: -1 where the foot is the end of the slope. `clr.schedules.wave` has the formula that uses them:
the rate gained is ``gain`` times the height, and ``lost`` is what rounding took from ``gain``.
"""

import math
from fractions import Fraction

from clr.schedules import rounding

Slope = tuple[float, float, float]


def line(rise: Fraction, length: Fraction, sign: int) -> Slope:
    """A straight line. The height is the distance itself, so the gain is that of a tick."""
    head, tail = rounding.slope(rise, length)
    return sign * head, sign * tail, 0.0


def cosine(rise: Fraction, length: Fraction, sign: int) -> Slope:
    """Half a wave of a cosine: (1 - cos(2 x)) / 2 = sin(x) ** 2, which keeps its digits where it is small.

    ``turn`` is the angle per tick: a quarter of a turn in all.
    """
    gain = float(rise)
    return gain, float(rise - Fraction(gain)), sign * math.pi / 2 / float(length)


def root(rise: Fraction, length: Fraction, sign: int) -> Slope:
    """A square root (Hägele et al. 2024, arXiv:2405.18392, section 4).

    At a part ``x`` of the way up, 1 - sqrt(1 - x) = x / (1 + sqrt(1 - x)), which keeps its digits where it is small.
    ``turn`` is the length: the distance is divided by it, so the whole of it gives exactly 1.
    """
    gain = float(rise)
    return gain, float(rise - Fraction(gain)), sign * float(length)


SHAPES = {"linear": line, "cosine": cosine, "1-sqrt": root}
