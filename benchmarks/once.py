"""What is done once and not in every step: whole curves, imports, range tests and searches."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import tensorflow as tf
import torch

import clr
from benchmarks.bounds import cost as torch_tests
from benchmarks.cost import FLOAT32, FLOAT64
from benchmarks.timing import Pair, alike
from clr.demo import keras as keras_demo
from clr.demo import tensorflow as tensorflow_demo
from clr.demo import training

ROUNDS = 9
TEST_ROUNDS = 31  # of range tests, where a few hundredths matter
CURVE = 10_000_000  # steps
LOOPED = 200_000  # for peers, which make one rate at a time
STEPS = 200
# Rates so low that no test ends early.
RANGE: dict[str, Any] = {"min_lr": 1e-7, "max_lr": 1e-5, "num_steps": STEPS}


def pairs() -> Iterator[Pair]:
    """Whole curves and imports, which take so long that a few rounds are enough."""
    return chain(curves(), imports())


def range_tests() -> Iterator[Pair]:
    """Range tests and searches, each against other ways of as many steps."""
    return chain(torch_range_tests(), torch_searches(), other_range_tests())


def curves() -> Iterator[Pair]:
    """The rates of ten million steps, per million."""
    steps = np.arange(CURVE)
    amount, looped = CURVE / 1e6, LOOPED / 1e6
    peers = torch.optim.lr_scheduler
    optimizers = [torch.optim.SGD([torch.zeros(1)], lr=0.1) for _ in range(2)]
    cyclic = peers.CyclicLR(optimizers[0], 0.01, 0.1, 2000, cycle_momentum=False)
    restarts = peers.CosineAnnealingWarmRestarts(optimizers[1], 2000)
    for optimizer in optimizers:
        optimizer.step()

    def loop(scheduler: Any) -> None:
        for _ in range(LOOPED):
            scheduler.step()

    def rates(scheduler: Any) -> Iterator[float]:
        for _ in range(5000):
            scheduler.step()
            yield scheduler.optimizer.param_groups[0]["lr"]

    million = "10,000,000 steps in one call, per million"
    for name, schedule, other_name, other in (
        ("triangular", clr.triangular(0.01, 0.1, 2000), "CyclicLR, looped", cyclic),
        ("warm_restarts", clr.warm_restarts(0.1, first_cycle=2000), "CosineAnnealingWarmRestarts, looped", restarts),
    ):
        alike(other_name, schedule(steps[1:5001]), rates(other), FLOAT64)
        yield Pair(
            f"NumPy, {name}, {million}", partial(schedule, steps), other_name, partial(loop, other), 1, amount, looped
        )
    counts = jnp.arange(CURVE)
    ours = jax.jit(clr.one_cycle_fastai(0.1, CURVE, 0.3, div_final=25e4))
    theirs = jax.jit(jax.vmap(optax.cosine_onecycle_schedule(CURVE, 0.1)))
    some = counts[:: CURVE // 1000]
    alike("JAX jit, one_cycle_fastai", ours(some).tolist(), theirs(some).tolist(), FLOAT32)
    yield Pair(
        f"JAX jit, one_cycle_fastai, {million}",
        lambda: jax.block_until_ready(ours(counts)),
        "optax.cosine_onecycle_schedule, in vmap",
        lambda: jax.block_until_ready(theirs(counts)),
        1,
        amount,
        amount,
    )


def imports() -> Iterator[Pair]:
    """The time that a new Python takes to import clr, and others."""

    def python(code: str) -> Callable[[], Any]:
        return partial(subprocess.run, [sys.executable, "-c", code], check=True, capture_output=True)

    for other in ("pass", "import numpy", "import optax", "import torch", "import ignite.handlers.param_scheduler"):
        yield Pair("import clr, in a new Python", python("import clr"), other, python(other))


def torch_range_tests() -> Iterator[Pair]:
    """A range test in PyTorch, and other ways of as many steps. The plain loop puts nothing back."""
    for name in torch_tests.TASKS:
        ours = partial(torch_tests.range_test, name)
        for other, make in torch_tests.OTHERS.items():
            yield Pair(f"torch range test, {name}", ours, other, partial(make, name))


def torch_searches() -> Iterator[Pair]:
    """A search in PyTorch, with all that it judges, and a plain loop of as many updates."""
    for name in ("digits_cnn", "mnist1d_cnn"):
        updates = torch_tests.search(name)
        plain = partial(torch_tests.plain, name, updates)
        yield Pair(f"torch search, {name}", partial(torch_tests.search, name), "as many plain updates", plain)


def other_range_tests() -> Iterator[Pair]:
    """A range test in the other frameworks, and a plain loop of as many steps."""
    batches = training.search_data()[1][:STEPS]
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
    return Pair(f"Keras range test on {keras.backend.backend()}, digits", test, "a plain loop of train_on_batch", plain)


def _tensorflow(batches: list[Any]) -> Pair:
    weights = [tf.Variable(part) for part in training.start(0, 1)[0]]

    @tf.function
    def update(rate: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
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

    return Pair("TensorFlow range test, digits", test, "a plain loop", plain)


def _jax(batches: list[Any]) -> Pair:
    from clr.demo.jax import loss_of

    start = [jnp.asarray(part) for part in training.start(0, 1)[0]]

    @jax.jit
    def update(
        weights: list[jax.Array], batch: tuple[jax.Array, jax.Array], rate: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(weights, *batch)
        return jax.tree.map(lambda weight, gradient: weight - rate * gradient, weights, gradients), loss

    def plain() -> None:
        weights = start
        for batch in batches:
            weights, loss = update(weights, batch, 1e-6)
            float(loss)

    test = partial(clr.jax.range_test, update, start, batches, **RANGE)
    return Pair("JAX range test, digits", test, "a plain loop", plain)
