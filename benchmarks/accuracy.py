"""How far the rate is from the exact one, from small steps to large."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import keras
import lrsched
import mpmath
import tensorflow as tf
import torch

import clr
from benchmarks.formula import formula
from benchmarks.timing import Line, ratio

BASE_LR, MAX_LR, STEP_SIZE = 0.01, 0.1, 2000
STEPS = (1_005, 100_005, 10_000_005, 2_147_483_001)


def exact(mode: str, step: int) -> Fraction:
    """The definition, in fractions."""
    cycle, offset = divmod(step, 2 * STEP_SIZE)
    height = Fraction(min(offset, 2 * STEP_SIZE - offset), STEP_SIZE)
    if mode == "triangular2":
        height /= 2 ** min(cycle, 2000)
    return Fraction(BASE_LR) + (Fraction(MAX_LR) - Fraction(BASE_LR)) * height


def _error(expected: Fraction, rate: Callable[[], Any]) -> float | str:
    """The relative error, or what came in place of a rate."""
    try:
        value = float(rate())
    except OverflowError as problem:
        return type(problem).__name__
    return float(abs(Fraction(value) / expected - 1)) if math.isfinite(value) else str(value)


def torch_rate(mode: Any, step: int) -> float:
    """PyTorch's CyclicLR, told that it has come as far as ``step``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, BASE_LR, MAX_LR, STEP_SIZE, mode=mode, cycle_momentum=False
    )
    scheduler.last_epoch = step
    return float(scheduler.get_lr()[0])


def exact_restarts(step: int) -> Fraction:
    """SGDR by its definition: a first cycle of 10 steps, each twice as long as the one before, from 0.1 to 0."""
    start, length = 0, 10
    while step >= start + length:
        start, length = start + length, 2 * length
    with mpmath.workdps(40):
        rate = mpmath.mpf(0.1) * (1 + mpmath.cos(mpmath.pi * (step - start) / length)) / 2
        return Fraction(int(rate.man)) * Fraction(2) ** int(rate.exp)


def torch_restarts(step: int) -> float:
    """PyTorch's CosineAnnealingWarmRestarts, told that it is at ``step``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, T_mult=2)
    scheduler.step(step)
    return float(optimizer.param_groups[0]["lr"])


def lines() -> Iterator[Line]:
    """A line for each policy, implementation and step: the relative errors, and ours as a multiple of the other."""
    modes: dict[Any, Callable[..., Any]] = {"triangular": lrsched.triangular, "triangular2": lrsched.triangular2}
    for mode, theirs in modes.items():
        schedule = clr.cyclic(BASE_LR, MAX_LR, STEP_SIZE, mode=mode)
        other = theirs(min_lr=BASE_LR, max_lr=MAX_LR, step_size=STEP_SIZE)
        yield from _errors(
            f"{mode} in a tf.function, float32",
            partial(exact, mode),
            partial(_in_graph, tf.function(schedule)),
            "formula in TensorFlow's ops",
            partial(_formula, mode),
        )
        host = f"{mode} on the host"
        yield from _errors(host, partial(exact, mode), schedule, "CyclicLR", partial(torch_rate, mode))
        yield from _errors(host, partial(exact, mode), schedule, "lrsched", other)
    schedule = clr.warm_restarts(0.1, 10, cycle_mult=2)
    keras_restarts = keras.optimizers.schedules.CosineDecayRestarts(0.1, 10, t_mul=2.0)
    yield from _errors(
        "warm_restarts, doubling, in a tf.function, float32",
        exact_restarts,
        partial(_in_graph, tf.function(schedule)),
        "Keras CosineDecayRestarts",
        partial(_in_graph, keras_restarts),
    )
    host = "warm_restarts, doubling, on the host"
    yield from _errors(host, exact_restarts, schedule, "CosineAnnealingWarmRestarts", torch_restarts)


def _in_graph(rate: Callable[[Any], Any], step: int) -> Any:
    return rate(tf.constant(step, tf.int64))


def _formula(mode: str, step: int) -> Any:
    return formula(tf.constant(step, tf.int64), mode, BASE_LR, MAX_LR, STEP_SIZE, 1.0)


def _errors(
    name: str,
    exactly: Callable[[int], Fraction],
    ours: Callable[[int], Any],
    other_name: str,
    other: Callable[[int], Any],
) -> Iterator[Line]:
    for step in STEPS:
        expected = exactly(step)
        found = [_error(expected, partial(way, step)) for way in (ours, other)]
        shown = [f"{error:.0e}" if isinstance(error, float) else error for error in found]
        both = [error for error in found if isinstance(error, float)]
        times = ratio(both[0] / both[1]) if len(both) == 2 and both[1] else "-"
        yield Line(f"{name}, step {step:,}", other_name, shown[0], shown[1], times)
