"""Functional tests of `clr.cyclic_learning_rate`, to run by hand, with unittest or with pytest.

    from clr_test import CyclicLearningRateTest

    CyclicLearningRateTest().test_triangular()
    CyclicLearningRateTest().test_triangular2()
    CyclicLearningRateTest().test_exp_range()

Each policy is tried in eager mode, in a ``tf.function``, compiled by XLA and in a session's graph, with a step that is
a number and one that is a variable. What is expected comes from the definition of the policy in exact fractions.
"""

import unittest
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import clr

BASE_LR, MAX_LR, STEP_SIZE, GAMMA = 0.01, 0.1, 20, 0.997
CYCLE = 2 * STEP_SIZE
LATER_CYCLES = (1, 2, 31, 33, 1100)
LARGE_STEPS = (2**24 + 1, 2**31 - 1, 2**31, 2**40 + 3, 2**53 - 1)


def steps() -> Iterator[int]:
    """The first three cycles whole, places in later ones, and steps that float32 cannot tell apart."""
    yield from range(3 * CYCLE + 1)
    for cycle in LATER_CYCLES:
        for offset in (0, 1, STEP_SIZE // 2, STEP_SIZE, STEP_SIZE + 5, CYCLE - 1):
            yield cycle * CYCLE + offset
    yield from LARGE_STEPS


def expected(mode: str, step: int) -> Fraction:
    """The rate by its definition: the corners of the wave joined by straight lines, times the policy's factor."""
    cycle, offset = divmod(step, CYCLE)
    climbed = Fraction(min(offset, CYCLE - offset), STEP_SIZE)
    if mode == "triangular2":
        climbed /= 2 ** min(cycle, 2000)  # the smallest float64 is above 2**-1075
    elif mode == "exp_range":
        with localcontext(prec=60):
            climbed *= Fraction(Decimal(GAMMA) ** step)
    return Fraction(BASE_LR) + (Fraction(MAX_LR) - Fraction(BASE_LR)) * climbed


class CyclicLearningRateTest(unittest.TestCase):
    """The three policies, in every way TensorFlow runs."""

    def test_triangular(self) -> None:
        """Every cycle is as high as the first."""
        self._check("triangular")

    def test_triangular2(self) -> None:
        """Each cycle is half as high as the one before."""
        self._check("triangular2")

    def test_exp_range(self) -> None:
        """The height falls by gamma at every step."""
        self._check("exp_range")

    def _check(self, mode: str) -> None:
        # The bound of the relative error is what the dtype can hold, not what the formula needs.
        for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
            for way in _ways():
                rate_of = way(mode, dtype)
                for step in steps():
                    with self.subTest(mode=mode, way=way.__name__, dtype=dtype, step=step):
                        error = abs(Fraction(rate_of(step)) / expected(mode, step) - 1)
                        self.assertLessEqual(error, tolerance, f"{mode} at step {step}, {way.__name__}, {dtype}")


Way = Callable[[str, str], Callable[[int], float]]


def _ways() -> tuple[Way, ...]:
    """All the ways, or where eager execution is off, those of a graph."""
    import tensorflow as tf

    return (_eager, _eager_number, _function, _compiled, _session) if tf.executing_eagerly() else (_session,)


def _rate(step: Any, mode: str, dtype: str) -> Any:
    """The function under test; the dtype of ``learning_rate`` is that of the result."""
    import tensorflow as tf

    return clr.cyclic_learning_rate(
        step, learning_rate=tf.constant(BASE_LR, dtype), max_lr=MAX_LR, step_size=STEP_SIZE, gamma=GAMMA, mode=mode
    )


def _eager(mode: str, dtype: str) -> Callable[[int], float]:
    """One callable on one variable that moves."""
    import tensorflow as tf

    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = _rate(step, mode, dtype)

    def rate_of(number: int) -> float:
        step.assign(number)
        return float(rate())

    return rate_of


def _eager_number(mode: str, dtype: str) -> Callable[[int], float]:
    """A new callable for each number."""
    return lambda number: float(_rate(number, mode, dtype)())


def _function(mode: str, dtype: str, jit_compile: bool = False) -> Callable[[int], float]:
    """One traced function on one variable that moves."""
    import tensorflow as tf

    step = tf.Variable(0, dtype=tf.int64, trainable=False)

    @tf.function(jit_compile=jit_compile)
    def rate() -> Any:
        return _rate(step, mode, dtype)

    def rate_of(number: int) -> float:
        step.assign(number)
        return float(rate())

    return rate_of


def _compiled(mode: str, dtype: str) -> Callable[[int], float]:
    """The same, compiled by XLA."""
    return _function(mode, dtype, jit_compile=True)


def _session(mode: str, dtype: str) -> Callable[[int], float]:
    """One tensor in a session's graph, with the step assigned by an op between two runs."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        step = tf.compat.v1.Variable(0, dtype=tf.int64, trainable=False, use_resource=True)
        number = tf.compat.v1.placeholder(tf.int64, [])
        move = step.assign(number)
        rate = _rate(step, mode, dtype)
        session = tf.compat.v1.Session(graph=graph)

    def rate_of(value: int) -> float:
        session.run(move, {number: value})
        return float(session.run(rate))

    return rate_of
