"""What float64 arithmetic rounds away, found with float64 arithmetic alone (Knuth 1969; Dekker 1971).

The operators are plain, so the same lines serve a Python float and a NumPy array, with equal results bit for bit.
"""

import math
from fractions import Fraction
from typing import NamedTuple

from clr.arrays.base import A, Arrays

_SPLITTER = 2.0**27 + 1.0  # cuts the 53 bits of a float64 into two halves whose products are exact
_HALF_ULP = 2.0**-53


class Slope(NamedTuple):
    """The learning rate gained per tick, as a sum of two floats: far closer to the truth than one.

    ``head`` has so few bits that its product with any number of ticks in this half of the cycle is exact.
    """

    head: float
    tail: float


def slope(rise: Fraction, ticks: Fraction | int) -> Slope:
    """The slope of a half cycle that climbs by ``rise`` in ``ticks``."""
    over, under = rise.numerator * ticks.denominator, rise.denominator * ticks.numerator
    mantissa, exponent = math.frexp(over / under)
    bits = max(53 - (-(-ticks.numerator // ticks.denominator)).bit_length(), 0)
    head = math.ldexp(math.floor(math.ldexp(mantissa, bits)), exponent - bits)
    head_over, head_under = head.as_integer_ratio()
    return Slope(head, (over * head_under - head_over * under) / (under * head_under))


def product_error(xp: Arrays[A], a: A, b: A, product: A) -> A:
    """``a * b - product``, where ``product`` is the rounded ``a * b``; 0 where float64 can't hold it."""
    shifted = a * _SPLITTER
    a_high = shifted - (shifted - a)
    a_low = a - a_high
    shifted = b * _SPLITTER
    b_high = shifted - (shifted - b)
    b_low = b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    # A rounding error is at most half an ulp: anything else is overflow or underflow of the parts.
    return xp.where(abs(error) <= abs(product) * _HALF_ULP, error, 0.0)  # type: ignore[arg-type]
