"""How far the rate is from the exact one, from small steps to large."""

from fractions import Fraction
from typing import Any

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


def error(mode: str, step: int, rate: Any) -> str:
    """The relative error, or what came in place of a rate."""
    try:
        value = float(rate())
    except OverflowError as problem:
        return type(problem).__name__
    return f"{float(abs(Fraction(value) / exact(mode, step) - 1)):.1e}" if abs(value) < float("inf") else str(value)


def torch_rate(mode: Any, step: int) -> float:
    """PyTorch's CyclicLR, told that it has come as far as ``step``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, BASE_LR, MAX_LR, STEP_SIZE, mode=mode, cycle_momentum=False
    )
    scheduler.last_epoch = step
    return float(scheduler.get_lr()[0])


def table() -> Table:
    """Relative errors by implementation and step."""
    result = Table(title="Relative error of the rate (base_lr 0.01, max_lr 0.1, step_size 2000)")
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
            result.add_row(
                f"{mode}: {name}", *(error(mode, step, lambda way=way, step=step: way(step)) for step in STEPS)
            )
    return result
