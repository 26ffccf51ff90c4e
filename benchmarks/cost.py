"""What a rate costs, against what a user would pick instead, taken in turns in one process."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import lrsched
import numpy as np
import optax
import tensorflow as tf
import torch
from ignite.handlers.param_scheduler import LinearCyclicalScheduler
from pytorch_scheduler import CosineAnnealingWarmupRestarts
from sklearn.datasets import load_digits
from transformers import get_cosine_with_hard_restarts_schedule_with_warmup

import clr
from benchmarks.formula import formula
from benchmarks.timing import Pair

ARGUMENTS = {"base_lr": 0.01, "max_lr": 0.1, "step_size": 20.0, "gamma": 0.99994}
ROUNDS = 101


def pairs() -> Iterator[Pair]:
    """Everything that is compared."""
    step = tf.Variable(12_345, dtype=tf.int64, trainable=False)
    for mode in ("triangular", "triangular2", "exp_range"):
        rate = clr.cyclic_learning_rate(step, mode=mode)
        yield Pair(f"eager, {mode}", rate, "formula in ops", partial(formula, step, mode, **ARGUMENTS), 20)
    for jit_compile in (False, True):
        how = "tf.function, XLA" if jit_compile else "tf.function"
        for mode in ("triangular", "triangular2", "exp_range"):
            ours = _advancing(step, clr.cyclic_learning_rate(step, mode=mode), jit_compile)
            constant = _advancing(step, lambda: tf.constant(0.01), jit_compile)
            yield Pair(f"{how}, {mode}, step += 1", ours, "a constant, step += 1", constant, 20)
        # What any rate that follows a variable costs at least.
        floor = _advancing(step, lambda: tf.cast(step, tf.float32), jit_compile)
        yield Pair(f"{how}, only the step as a float, step += 1", floor, "a constant, step += 1", constant, 20)
        mode = "triangular2"
        ours = _training(clr.cyclic_learning_rate, jit_compile)
        constant = _training(lambda step, mode: 0.01, jit_compile)
        yield Pair(f"{how}, training step, {mode}", ours, "at a constant rate", constant, 20)

    schedule = clr.triangular(0.01, 0.1, 2000)
    steps = np.arange(10_000)
    yield Pair(
        "host, 10,000 steps in one call",
        lambda: schedule(steps),
        "the same, step by step",
        lambda: [schedule(step) for step in range(10_000)],
        1,
    )
    restarts = clr.warm_restarts(0.1, 2000, cycle_mult=2)
    yield from host_pairs(schedule)
    yield Pair(
        "Keras schedule, eager, warm_restarts",
        partial(clr.keras.LearningRateSchedule(restarts), step),
        "Keras CosineDecayRestarts",
        partial(keras.optimizers.schedules.CosineDecayRestarts(0.1, 2000), step),
        20,
    )
    yield from torch_pairs(schedule)
    yield from jax_pairs(schedule)


def host_pairs(schedule: clr.Schedule) -> Iterator[Pair]:
    """One rate, without a framework."""
    options: dict[str, Any] = {"pct_start": 0.3, "initial_div": 25.0, "final_div": 1e4}
    policies: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
        "triangular": (schedule, lrsched.triangular(min_lr=0.01, max_lr=0.1, step_size=2000)),
        "one_cycle": (clr.one_cycle(0.1, 10**6), lrsched.one_cycle(max_lr=0.1, total_steps=10**6, **options)),
        "warm_restarts, cycle_mult 2, 10 cycles on": (
            clr.warm_restarts(0.1, 10, cycle_mult=2),
            lrsched.cosine_restarts(base_lr=0.1, min_lr=0.0, period=10, t_mult=2),
        ),
    }
    for what, (ours, other) in policies.items():
        yield Pair(f"host, one step, {what}", partial(ours, 12_345), "lrsched", partial(other, 12_345), 500)


def torch_pairs(schedule: clr.Schedule) -> Iterator[Pair]:
    """One step of a scheduler, in PyTorch."""
    peers = torch.optim.lr_scheduler
    for groups in (1, 8):
        for momentum in (False, True):
            optimizer = _optimizer(groups)
            peer: Any = peers.CyclicLR(optimizer, 0.01, 0.1, 2000, cycle_momentum=momentum)
            optimizer.step()
            ours = clr.torch.LRScheduler(_optimizer(groups), schedule, clr.momentum(schedule) if momentum else None)
            what = f"{groups} group{'s' * (groups > 1)}{', with momentum' * momentum}"
            yield Pair(f"torch scheduler, {what}", ours.step, "CyclicLR", peer.step, 500)
            optimizer = _optimizer(groups)
            peer = peers.ConstantLR(optimizer, 1.0, 10)
            optimizer.step()
            yield Pair(f"torch scheduler, {what}", ours.step, "ConstantLR (no momentum)", peer.step, 500)
    one_cycle = clr.one_cycle(0.1, 10**9)
    others: list[tuple[str, clr.Schedule, clr.Schedule | None, str, Callable[[Any], Any]]] = [
        (
            "one_cycle, with momentum",
            one_cycle,
            clr.momentum(one_cycle),
            "OneCycleLR",
            lambda optimizer: peers.OneCycleLR(optimizer, 0.1, 10**9),
        ),
        (
            "warm_restarts",
            clr.warm_restarts(0.1, 2000),
            None,
            "CosineAnnealingWarmRestarts",
            lambda optimizer: peers.CosineAnnealingWarmRestarts(optimizer, 2000),
        ),
        (
            "warm_restarts",
            clr.warm_restarts(0.1, 2000),
            None,
            "transformers' cosine with hard restarts",
            lambda optimizer: get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 0, 10**6, 500),
        ),
        (
            "warm_restarts",
            clr.warm_restarts(0.1, 2000),
            None,
            "pytorch-scheduler's CosineAnnealingWarmupRestarts",
            lambda optimizer: CosineAnnealingWarmupRestarts(optimizer, 2000),
        ),
        (
            "triangular",
            schedule,
            None,
            "ignite LinearCyclicalScheduler",
            lambda optimizer: _Ignite(LinearCyclicalScheduler(optimizer, "lr", 0.01, 0.1, 4000)),
        ),
    ]
    for what, policy, mirror, name, make in others:
        optimizer = _optimizer(1)
        peer = make(optimizer)
        optimizer.step()
        ours = clr.torch.LRScheduler(_optimizer(1), policy, mirror)
        yield Pair(f"torch scheduler, {what}", ours.step, name, peer.step, 500)


class _Ignite:
    """Ignite's scheduler is called with an engine, which it does not look at."""

    def __init__(self, scheduler: Any) -> None:
        self.step = lambda: scheduler(None)


def _optimizer(groups: int) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(groups)], lr=0.01, momentum=0.9)


def jax_pairs(schedule: clr.Schedule) -> Iterator[Pair]:
    """A call of a schedule, and a training step, both compiled by JAX."""
    count = jnp.asarray(12_345)
    constant = jax.jit(optax.constant_schedule(0.01))
    policies: dict[str, Callable[[Any], Any]] = {
        "triangular": schedule,
        "exp_range": clr.exp_range(0.01, 0.1, 2000),
        "one_cycle": clr.one_cycle(0.1, 100_000),
        "warm_restarts, cycle_mult 2": clr.warm_restarts(0.1, 2000, cycle_mult=2),
    }
    for name, policy in policies.items():
        ours = jax.jit(policy)
        yield Pair(f"JAX jit, {name}", partial(_done, ours, count), "a constant", partial(_done, constant, count), 100)
    cosine = {"init_value": 0.1, "peak_value": 0.1, "warmup_steps": 0, "end_value": 0.0}
    cycles = [cosine | {"decay_steps": 2000 * 2**cycle} for cycle in range(8)]
    theirs = {
        "one_cycle": ("optax.cosine_onecycle_schedule", optax.cosine_onecycle_schedule(100_000, 0.1)),
        "warm_restarts, cycle_mult 2": ("optax.sgdr_schedule, 8 cycles", optax.sgdr_schedule(cycles)),
    }
    for name, (other_name, other) in theirs.items():
        pair = jax.jit(policies[name]), jax.jit(other)
        yield Pair(f"JAX jit, {name}", partial(_done, pair[0], count), other_name, partial(_done, pair[1], count), 100)
    for name, policy in policies.items():
        yield Pair(
            f"JAX jit, training step, {name}", _jax_training(policy), "at a constant rate", _jax_training(0.01), 20
        )


def _done(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.block_until_ready(function(*arguments))


def _jax_training(rate: Any) -> Callable[[], Any]:
    """A compiled training step of a small classifier of handwritten digits, batch 128."""
    data = load_digits()
    x, y = jnp.asarray(data.data[:128] / 16, jnp.float32), jnp.asarray(data.target[:128])
    keys = jax.random.split(jax.random.key(0))
    weights = (0.1 * jax.random.normal(keys[0], (64, 512)), 0.1 * jax.random.normal(keys[1], (512, 10)))
    optimizer = optax.sgd(rate)

    def loss(weights: Any) -> Any:
        logits = jax.nn.relu(x @ weights[0]) @ weights[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def update(weights: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    current = weights, optimizer.init(weights)

    def step() -> None:
        nonlocal current
        current = jax.block_until_ready(update(*current))

    return step


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
