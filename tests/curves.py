"""Loss curves whose bounds are known, over the logarithm of the rate."""

import math
import random
from collections.abc import Callable
from typing import Any

import clr


def rise(x: float, start: float, end: float) -> float:
    """From 0 at ``start`` in a straight line to 1 at ``end``."""
    return min(1.0, max(0.0, (x - start) / (end - start)))


def explosion(x: float, start: float) -> float:
    return 1000 * max(0.0, x - start) ** 2


def valley(x: float) -> float:
    return 2 - 1.8 * rise(x, -4, -2) + explosion(x, -1)


def plateau(x: float) -> float:
    return 2 - 1.8 * rise(x, -5, -3.5) + explosion(x, -0.5)


def nan_tail(x: float) -> float:
    return 2 - 1.8 * rise(x, -4, -1.5) if x < -1 else math.nan


def two_valleys(x: float) -> float:
    second = 0.8 * rise(x, -3.5, -3) - 1.2 * rise(x, -3, -1.5)
    return 2 - 1.2 * rise(x, -5, -4) + second + explosion(x, -0.5)


def endless(x: float) -> float:
    return 2 - 1.8 * rise(x, -3, 1)


def rising(x: float) -> float:
    return 2 + 3 * rise(x, -5, 0)


def flat(x: float) -> float:
    return 2.0


def late(x: float) -> float:
    """The valley, of which the test sees but the last two thirds of the fall."""
    return 2 - 1.8 * rise(x, -8, -5) + explosion(x, -4)


def asymmetric(x: float) -> float:
    """Falls fastest where it begins, at 10**-6, and is lowest at 10**-2."""
    return 2 - 1.8 * math.sqrt(rise(x, -6, -2)) + explosion(x, -2)


def sudden(x: float) -> float:
    """Falls and turns within half a decade."""
    return 2 - 1.8 * rise(x, -2.7, -2.5) + explosion(x, -2.2)


def measured(
    curve: Callable[[float], float],
    noise: float | Callable[[float], float] = 0.0,
    seed: int = 0,
    factor: float = 1.0,
    offset: float = 0.0,
    **options: Any,
) -> clr.RangeTest:
    """A range test that meets ``factor * curve + offset``; the noise may depend on the logarithm of the rate, too."""
    generator = random.Random(seed)

    def train_step(lr: float) -> float:
        x = math.log10(lr)
        loudness = noise(x) if callable(noise) else noise
        return factor * (curve(x) + loudness * generator.gauss(0, 1)) + offset

    return clr.range_test(train_step, **options)
