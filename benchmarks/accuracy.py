"""How far the rate is from the exact one, from small steps to large."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import keras
import mpmath
import tensorflow as tf
import torch
from rich.table import Table

import clr
from benchmarks.formula import formula

BASE_LR, MAX_LR, STEP_SIZE = 0.01, 0.1, 2000
STEPS = (1_005, 100_005, 10_000_005, 100_000_501, 2_147_483_001, 1_099_511_627_779)


def exact(mode: str, step: int) -> Fraction:
    """The definition, in fractions."""
    cycle, offset = divmod(step, 2 * STEP_SIZE)
    height = Fraction(min(offset, 2 * STEP_SIZE - offset), STEP_SIZE)
    if mode == "triangular2":
        height /= 2 ** min(cycle, 2000)
    return Fraction(BASE_LR) + (Fraction(MAX_LR) - Fraction(BASE_LR)) * height


def _error(expected: Fraction, rate: Callable[[], Any]) -> str:
    """The relative error, or what came in place of a rate."""
    try:
        value = float(rate())
    except OverflowError as problem:
        return type(problem).__name__
    return f"{float(abs(Fraction(value) / expected - 1)):.1e}" if abs(value) < float("inf") else str(value)


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


def table() -> Table:
    """Relative errors by implementation and step."""
    result = Table(
        title="Relative error of the rate: 0.01 to 0.1, step_size 2000; restarts from 0.1 to 0, first_cycle 10"
    )
    result.add_column("")
    for step in STEPS:
        result.add_column(f"step {step:,}", justify="right")
    for mode in ("triangular", "triangular2"):
        schedule = clr.cyclic(BASE_LR, MAX_LR, STEP_SIZE, mode=mode)
        graph = tf.function(schedule)
        ways = {
            "formula in TensorFlow ops": lambda step, mode=mode: formula(
                tf.constant(step, tf.int64), mode, BASE_LR, MAX_LR, STEP_SIZE, 1.0
            ),
            "torch CyclicLR (float64)": lambda step, mode=mode: torch_rate(mode, step),
            "clr, float32 in a tf.function": lambda step, graph=graph: graph(tf.constant(step, tf.int64)),
            "clr, float64 on the host": lambda step, schedule=schedule: schedule(step),
        }
        for name, way in ways.items():
            result.add_row(f"{mode}: {name}", *(_error(exact(mode, step), partial(way, step)) for step in STEPS))
    schedule = clr.warm_restarts(0.1, 10, cycle_mult=2)
    keras_restarts = keras.optimizers.schedules.CosineDecayRestarts(0.1, 10, t_mul=2.0)
    compiled = jax.jit(schedule)
    others: dict[str, Callable[[int], Any]] = {
        "Keras CosineDecayRestarts": lambda step: keras_restarts(tf.constant(step, tf.int64)),
        "torch CosineAnnealingWarmRestarts (float64)": torch_restarts,
        "clr, float32 in a jit of JAX": lambda step: compiled(step) if step < 2**31 else math.nan,
        "clr, float64 on the host": schedule,
    }
    for name, rate in others.items():
        errors = (_error(exact_restarts(step), partial(rate, step)) for step in STEPS)
        result.add_row(f"warm restarts, doubling: {name}", *errors)
    return result
