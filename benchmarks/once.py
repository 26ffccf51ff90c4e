"""What is done once and not in every step: whole curves, imports, range tests. Ratios within a round, in turns."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import tensorflow as tf
import torch
from rich.table import Table

import clr
from benchmarks.bounds import cost as torch_tests
from clr.demo import keras as keras_demo
from clr.demo import tensorflow as tensorflow_demo
from clr.demo import training

ROUNDS = 9
CURVE = 10_000_000  # steps
LOOPED = 200_000  # of which a peer makes so many, for it makes one at a time
STEPS = 200
# So small a range that no test ends early.
RANGE: dict[str, Any] = {"min_lr": 1e-7, "max_lr": 1e-5, "num_steps": STEPS}

# Ours, the other, and by what the times are divided, so that both are of the same amount of work.
Pair = tuple[str, Callable[[], Any], str, Callable[[], Any], float, float]


def table() -> Table:
    """A row per comparison: medians over the rounds, and the median of the ratios within a round."""
    result = Table(title=f"What is done once, medians of {ROUNDS} rounds")
    for heading in ("clr", "against", "clr, ms", "against, ms", "clr : against"):
        result.add_column(heading, justify="right" if "ms" in heading or ":" in heading else "left")
    for name, ours, other_name, other, amount, other_amount in pairs():
        times = []
        ours(), other()  # what is compiled is compiled before
        for turn in range(ROUNDS):  # now one goes first, now the other
            own, others = (_time(ours), _time(other)) if turn % 2 else (_time(other), _time(ours))[::-1]
            times.append((own / amount, others / other_amount))
        ratio = statistics.median(one / two for one, two in times)
        shown = f"{ratio:.3f}" if 0.1 < ratio < 10 else f"1 : {1 / ratio:.1f}"
        medians = (f"{1e3 * statistics.median(column):.3g}" for column in zip(*times, strict=True))
        result.add_row(name, other_name, *medians, shown)
    return result


def pairs() -> Iterator[Pair]:
    """Everything that is compared."""
    yield from curves()
    yield from imports()
    yield from range_tests()


def curves() -> Iterator[Pair]:
    """The rates of ten million steps, per million."""
    steps = np.arange(CURVE)
    amount, looped = CURVE / 1e6, LOOPED / 1e6
    peers = torch.optim.lr_scheduler
    optimizers = [torch.optim.SGD([torch.zeros(1)], lr=0.01) for _ in range(2)]
    cyclic = peers.CyclicLR(optimizers[0], 0.01, 0.1, 2000, cycle_momentum=False)
    restarts = peers.CosineAnnealingWarmRestarts(optimizers[1], 2000)
    for optimizer in optimizers:
        optimizer.step()

    def loop(scheduler: Any) -> None:
        for _ in range(LOOPED):
            scheduler.step()

    million = "10,000,000 steps in one call, per million"
    for name, schedule, other_name, other in (
        ("triangular", clr.triangular(0.01, 0.1, 2000), "CyclicLR, looped", cyclic),
        ("warm_restarts", clr.warm_restarts(0.1, 2000), "CosineAnnealingWarmRestarts, looped", restarts),
    ):
        yield f"NumPy, {name}, {million}", partial(schedule, steps), other_name, partial(loop, other), amount, looped
    counts = jnp.arange(CURVE)
    ours, theirs = jax.jit(clr.one_cycle(0.1, CURVE)), jax.jit(jax.vmap(optax.cosine_onecycle_schedule(CURVE, 0.1)))
    yield (
        f"JAX jit, one_cycle, {million}",
        lambda: jax.block_until_ready(ours(counts)),
        "optax.cosine_onecycle_schedule, in vmap",
        lambda: jax.block_until_ready(theirs(counts)),
        amount,
        amount,
    )


def imports() -> Iterator[Pair]:
    """How long a new Python takes to import it."""

    def python(code: str) -> Callable[[], Any]:
        return partial(subprocess.run, [sys.executable, "-c", code], check=True, capture_output=True)

    for other in ("pass", "import optax", "import torch", "import ignite.handlers.param_scheduler"):
        yield "import clr, in a new Python", python("import clr"), other, python(other), 1, 1


def range_tests() -> Iterator[Pair]:
    """A range test and a plain loop of as many steps at as many rates; the loop leaves its traces."""
    for name in torch_tests.TASKS:
        ours = partial(torch_tests.range_test, name)
        yield f"torch range test, {name}", ours, "a plain loop", partial(torch_tests.plain, name), 1, 1
        finder = partial(torch_tests.lr_finder, name)
        yield f"torch range test, {name}", ours, "torch-lr-finder", finder, 1, 1
    batches = training.test_batches()[:STEPS]
    yield _keras(batches)
    yield _tensorflow(batches)
    yield _jax(batches)


def _keras(batches: list[Any]) -> Pair:
    model = keras_demo.compiled(training.start(0, 1)[0], 0.1)

    def plain() -> None:
        for x, y in batches:
            model.optimizer.learning_rate.assign(1e-6)
            float(model.train_on_batch(x, y, return_dict=True)["loss"])

    plain()
    test = partial(clr.keras.range_test, model, batches, **RANGE)
    return f"Keras range test on {keras.backend.backend()}, digits", test, "train_on_batch in a loop", plain, 1, 1


def _tensorflow(batches: list[Any]) -> Pair:
    weights = [tf.Variable(part) for part in training.start(0, 1)[0]]

    @tf.function
    def update(rate: Any, images: Any, labels: Any) -> Any:
        loss, gradients = tensorflow_demo.loss_and_gradients(weights, images, labels)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_sub(rate * gradient)
        return loss

    def plain() -> None:
        for batch in batches:
            float(update(tf.constant(1e-6), *batch))

    def test() -> None:
        following = iter(batches)
        clr.tensorflow.range_test(lambda rate: update(rate, *next(following)), weights, **RANGE)

    return "TensorFlow range test, digits", test, "a plain loop", plain, 1, 1


def _jax(batches: list[Any]) -> Pair:
    from clr.demo.jax import loss_of

    start = [jnp.asarray(part) for part in training.start(0, 1)[0]]

    @jax.jit
    def update(rate: Any, weights: Any, images: Any, labels: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
        return jax.tree.map(lambda weight, gradient: weight - rate * gradient, weights, gradients), loss

    def plain() -> None:
        weights = start
        for batch in batches:
            weights, loss = update(1e-6, weights, *batch)
            float(loss)

    def test() -> None:
        weights, following = start, iter(batches)

        def train_step(rate: float) -> Any:
            nonlocal weights
            weights, loss = update(rate, weights, *next(following))
            return loss

        clr.range_test(train_step, **RANGE)

    return "JAX range test, digits", test, "a plain loop", plain, 1, 1


def _time(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
