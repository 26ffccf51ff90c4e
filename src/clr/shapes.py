"""Height within a slope of the wave: how the rate climbs from the foot to the top, and so also how it falls.

A shape knows the constants of a slope, ``slope(rise, length)``, computed once and exactly. Its ``climb(xp, slope,
ticks)`` gives the height above the foot, and what rounding took from it, or None where nothing is given back. The last
constant of a slope is the correction of the first: a namespace that rounds at every operation adds the two (`merged`).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from clr import rounding
from clr.namespaces import Namespace

Slope = tuple[Any, ...]


class Shape(NamedTuple):
    """A shape known by name."""

    slope: Callable[[Fraction, Fraction | int], Slope]
    climb: Callable[[Namespace, Slope, Any], tuple[Any, Any]]


def line_slope(rise: Fraction, length: Fraction | int) -> Slope:
    """The gain per tick."""
    return rounding.slope(rise, length)


def line(xp: Namespace, slope: Slope, ticks: Any) -> tuple[Any, Any]:
    """A straight line."""
    if xp.exact:
        return ticks * slope[0], ticks * slope[1]
    return xp.real(ticks) * slope[0], None


def cosine_slope(rise: Fraction, length: Fraction | int) -> Slope:
    """The whole gain, and the angle per tick: a quarter of a turn in all."""
    gain = float(rise)
    return gain, math.pi / 2 / float(length), float(rise - Fraction(gain))


def cosine(xp: Namespace, slope: Slope, ticks: Any) -> tuple[Any, Any]:
    """Half a wave of a cosine: (1 - cos(2 x)) / 2 = sin(x) ** 2, which keeps its digits where it is small."""
    height = xp.sin(xp.real(ticks) * slope[1])
    height = height * height
    return height * slope[0], height * slope[-1] if xp.exact else None


SHAPES = {
    "linear": Shape(line_slope, line),
    "cosine": Shape(cosine_slope, cosine),
}


def merged(slope: Slope) -> Slope:
    """The slope for a namespace that rounds at every operation."""
    return (slope[0] + slope[-1], *slope[1:-1])
