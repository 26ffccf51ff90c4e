"""The learning rate by its definition (Smith 2017, section 3), in exact arithmetic: slow, and with no code shared.

cycle, offset = divmod(step, up + down)
height = offset / up while rising, (up + down - offset) / down while falling
rate   = base_lr + (max_lr - base_lr) * height * scale
scale  = 1, 1 / 2 ** cycle or gamma ** step
"""

import math
import struct
from fractions import Fraction

import mpmath

NEGLIGIBLE = 4000  # a factor of 2 ** -4000 leaves nothing of any float64

Length = Fraction | int


def exact_rate(
    step: int,
    base_lr: float,
    max_lr: float,
    up: Length,
    down: Length | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Fraction:
    """The rate before any rounding. Lengths are exact: 20.3 steps are ``Fraction("20.3")``."""
    up = Fraction(up)
    down = up if down is None else Fraction(down)
    cycle, offset = divmod(step, up + down)
    height = offset / up if offset <= up else (up + down - offset) / down
    base, top = Fraction(base_lr), Fraction(max_lr)
    return base + (top - base) * height * exact_scale(mode, step, cycle, gamma)


def exact_scale(mode: str, step: int, cycle: int, gamma: float) -> Fraction:
    match mode:
        case "triangular":
            return Fraction(1)
        case "triangular2":
            return Fraction(1, 2 ** min(cycle, NEGLIGIBLE))
        case "exp_range":
            return power(gamma, step)
    raise ValueError(mode)


def power(gamma: float, step: int) -> Fraction:
    """``gamma ** step`` to 80 digits; the float ``gamma`` itself is taken as exact."""
    with mpmath.workdps(80):
        result = mpmath.power(mpmath.mpf(gamma), step)
        if result < mpmath.mpf(2) ** -NEGLIGIBLE:
            return Fraction(0)
        return Fraction(int(result.man)) * Fraction(2) ** int(result.exp)


def rate(
    step: int,
    base_lr: float,
    max_lr: float,
    up: Length,
    down: Length | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> float:
    """The exact rate, rounded once to float64."""
    return float(exact_rate(step, base_lr, max_lr, up, down, mode, gamma))


def ulps(a: float, b: float) -> int:
    """How many float64 numbers apart ``a`` and ``b`` are; a NaN is far from everything."""
    if math.isnan(a) or math.isnan(b):
        return 1 << 64
    return abs(_place(a) - _place(b))


def _place(value: float) -> int:
    """The place of ``value`` in the ordered row of all float64 numbers, zero at 0."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits + (1 << 63))
