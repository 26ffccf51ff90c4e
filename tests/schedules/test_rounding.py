from fractions import Fraction

import numpy as np
import pytest

from clr.arrays.base import Python
from clr.arrays.numpy import NumPy
from clr.schedules.rounding import product_error, slope
from tests.reference import ulps

PAIRS = [
    (0.1, 0.2),
    (0.1, 0.3),
    (1.0, 2.0**-53),
    (1.0, 2.0**-60),
    (2.0**-60, 1.0),
    (1 / 3, 3.0),
    (0.001, 0.006),
    (1e16, 1.0),
    (0.1, 0.0),
    (1 + 2.0**-52, 1 - 2.0**-53),
    (1e-9, 123456789.0),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_product_error_is_what_the_product_lost(a: float, b: float) -> None:
    product = a * b
    assert Fraction(product_error(Python, a, b, product)) == Fraction(a) * Fraction(b) - Fraction(product)


def test_arrays_lose_the_same_bit_for_bit() -> None:
    a, b = (np.array(column) for column in zip(*PAIRS, strict=True))
    assert product_error(NumPy, a, b, a * b).tolist() == [product_error(Python, x, y, x * y) for x, y in PAIRS]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param(1e305, 0.5, id="the splitter overflows"),
        pytest.param(0.3, 1e305, id="the other one"),
        pytest.param(1.1e-160, 1.1e-160, id="the error underflows"),
        pytest.param(5e-324, 0.7, id="the product underflows"),
        pytest.param(0.7, 0.0, id="nothing"),
    ],
)
def test_product_error_is_0_where_float64_cannot_hold_it(a: float, b: float) -> None:
    assert product_error(Python, a, b, a * b) == 0.0


@pytest.mark.parametrize("ticks", [1, 3, 7, 20, 203, 1955, 10**6, 10**9, 2**31 - 1, 2**52, 2**53 + 1, 10**18])
@pytest.mark.parametrize("rise", [0.09, 0.005, 1.0, 1 / 3, 1e-9, 0.0])
def test_slope_is_far_closer_than_one_float(rise: float, ticks: int) -> None:
    exact = Fraction(rise) / ticks
    head, tail = map(Fraction, slope(Fraction(rise), ticks))
    assert abs(head + tail - exact) <= exact / 2**52 / 2 ** max(53 - ticks.bit_length(), 0)


@pytest.mark.parametrize("ticks", [1, 3, 7, 20, 203, 1955, 10**6, 10**9, 2**31 - 1, 2**52])
def test_slope_head_times_any_tick_is_exact(ticks: int) -> None:
    head = slope(Fraction(0.09), ticks).head
    for tick in {0, 1, ticks // 3, ticks // 2, ticks - 1, ticks}:
        assert Fraction(head * tick) == Fraction(head) * tick


def test_ulps_counts_the_numbers_between() -> None:
    assert ulps(1.0, 1.0) == 0
    assert ulps(1.0, 1 + 2.0**-52) == 1
    assert ulps(1.0, 1 - 2.0**-53) == 1
    assert ulps(0.0, -0.0) == 0
    assert ulps(-5e-324, 5e-324) == 2
    assert ulps(1.0, 2.0) == 2**52
    assert ulps(0.5, float("nan")) > 2**63
