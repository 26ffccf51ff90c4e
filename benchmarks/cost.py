"""What a rate costs, against what a user would pick instead, taken in turns in one process."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from rich.table import Table
from sklearn.datasets import load_digits

import clr
from benchmarks.formula import formula

ARGUMENTS = {"base_lr": 0.01, "max_lr": 0.1, "step_size": 20.0, "gamma": 0.99994}
ROUNDS = 101

Pair = tuple[str, Callable[[], Any], str, Callable[[], Any], int]  # ours, the other, and calls per round


def table() -> Table:
    """A row per comparison: medians over the rounds, and the median of the ratios within a round."""
    result = Table(title=f"Cost of a call, medians of {ROUNDS} rounds")
    for heading in ("clr", "against", "clr, us", "against, us", "clr : against"):
        result.add_column(heading, justify="right" if "us" in heading or ":" in heading else "left")
    for name, ours, other_name, other, calls in pairs():
        times = []
        for turn in range(ROUNDS):  # now one goes first, now the other
            first, second = (ours, other) if turn % 2 else (other, ours)
            pair = _time(first, calls), _time(second, calls)
            times.append(pair if turn % 2 else pair[::-1])
        ratio = statistics.median(one / two for one, two in times)
        shown = f"{ratio:.3f}" if 0.1 < ratio < 10 else f"1 : {1 / ratio:.1f}"
        medians = (f"{1e6 * statistics.median(column):.2f}" for column in zip(*times, strict=True))
        result.add_row(name, other_name, *medians, shown)
    return result


def pairs() -> Iterator[Pair]:
    """Everything that is compared."""
    step = tf.Variable(12_345, dtype=tf.int64, trainable=False)
    for mode in ("triangular", "triangular2", "exp_range"):
        rate = clr.cyclic_learning_rate(step, mode=mode)
        yield f"eager, {mode}", rate, "formula in ops", partial(formula, step, mode, **ARGUMENTS), 20
    for jit_compile in (False, True):
        how = "tf.function, XLA" if jit_compile else "tf.function"
        for mode in ("triangular", "triangular2", "exp_range"):
            ours = _advancing(step, clr.cyclic_learning_rate(step, mode=mode), jit_compile)
            constant = _advancing(step, lambda: tf.constant(0.01), jit_compile)
            yield f"{how}, {mode}, step += 1", ours, "a constant, step += 1", constant, 20
        # What any rate that follows a variable costs at least.
        floor = _advancing(step, lambda: tf.cast(step, tf.float32), jit_compile)
        yield f"{how}, only the step as a float, step += 1", floor, "a constant, step += 1", constant, 20
        mode = "triangular2"
        ours = _training(clr.cyclic_learning_rate, jit_compile)
        constant = _training(lambda step, mode: 0.01, jit_compile)
        yield f"{how}, training step, {mode}", ours, "at a constant rate", constant, 20

    schedule = clr.triangular(0.01, 0.1, 2000)
    yield "host, one step", lambda: schedule(12_345), "torch CyclicLR.step()", _torch_step(), 500
    steps = np.arange(10_000)
    yield (
        "host, 10,000 steps in one call",
        lambda: schedule(steps),
        "the same, step by step",
        lambda: [schedule(step) for step in range(10_000)],
        1,
    )


def _time(function: Callable[[], Any], calls: int) -> float:
    function()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def _advancing(step: Any, rate: Callable[[], Any], jit_compile: bool) -> Callable[[], Any]:
    """A compiled function that does what every training step does to the step, and returns the rate."""

    @tf.function(jit_compile=jit_compile)
    def function() -> Any:
        value = tf.identity(rate())
        step.assign_add(1)
        return value

    return function  # type: ignore[no-any-return]


def _training(make_rate: Callable[..., Any], jit_compile: bool) -> Callable[[], Any]:
    """A compiled training step of a small classifier of handwritten digits, batch 64."""
    data = load_digits()
    x, y = tf.constant(data.data[:64] / 16, tf.float32), tf.constant(data.target[:64])
    random = tf.random.Generator.from_seed(0)
    hidden = tf.Variable(random.normal([64, 128], stddev=0.1))
    output = tf.Variable(random.normal([128, 10], stddev=0.1))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = make_rate(step, mode="triangular2")

    @tf.function(jit_compile=jit_compile)
    def function() -> Any:
        with tf.GradientTape() as tape:
            logits = tf.nn.relu(x @ hidden) @ output
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        now = rate() if callable(rate) else rate
        for weights, gradient in zip((hidden, output), tape.gradient(loss, (hidden, output)), strict=True):
            weights.assign_sub(now * gradient)
        step.assign_add(1)
        return loss

    return function  # type: ignore[no-any-return]


def _torch_step() -> Callable[[], Any]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 2000, cycle_momentum=False)
    optimizer.step()
    return scheduler.step
