"""Trains in JAX: a schedule is what Optax takes, and is computed inside of the compiled update."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import clr
from clr.demo.training import MOMENTUM, TEST_STEPS, Rates, Run, digits, record, start, test_batches


def network(weights: Any, images: Any) -> Any:
    """The logits of images."""
    kernel, bias, kernel2, bias2, matrix, bias3 = weights
    hidden = jax.nn.relu(_convolution(images, kernel) + bias)
    hidden = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    hidden = jax.nn.relu(_convolution(hidden, kernel2) + bias2)
    return hidden.reshape(len(images), -1) @ matrix + bias3


def loss_of(weights: Any, images: Any, labels: Any) -> Any:
    """The mean loss of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(network(weights, images), labels).mean()


def range_test() -> clr.RangeTest:
    """Finds the rates of the demonstration."""
    weights = [jnp.asarray(part) for part in start(0, 1)[0]]
    optimizer = optax.trace(MOMENTUM)
    state = optimizer.init(weights)
    batches = iter(test_batches())

    @jax.jit
    def updated(rate: Any, weights: Any, state: Any, images: Any, labels: Any) -> tuple[Any, Any, Any]:
        loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
        changes, state = optimizer.update(gradients, state)
        return jax.tree.map(lambda weight, change: weight - rate * change, weights, changes), state, loss

    def train_step(rate: float) -> Any:
        nonlocal weights, state
        weights, state, loss = updated(rate, weights, state, *next(batches))
        return loss

    return clr.range_test(train_step, num_steps=TEST_STEPS)


def train(policy: str, seed: int, steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``steps`` updates; gives the run, grown by one step, after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, steps)
    weights = [jnp.asarray(part) for part in initial]
    # Which is optax.sgd(schedule, MOMENTUM), but keeps the rate that it has applied in its state.
    optimizer = optax.inject_hyperparams(optax.sgd, static_args="momentum")(
        learning_rate=rates.schedule(policy, steps), momentum=MOMENTUM
    )
    state = optimizer.init(weights)

    @jax.jit
    def updated(weights: Any, state: Any, images: Any, labels: Any) -> tuple[Any, Any, Any]:
        loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
        changes, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, changes), state, loss

    def update(images: Any, labels: Any) -> tuple[Any, Any]:
        nonlocal weights, state
        weights, state, loss = updated(weights, state, images, labels)
        return loss, state.hyperparams["learning_rate"]

    @jax.jit
    def accuracy_of(weights: Any) -> Any:
        guesses = network(weights, x_test).argmax(axis=1)
        return (guesses == y_test).mean()

    yield from record(Run("jax", policy, seed), batches, update, lambda: accuracy_of(weights))


def _convolution(images: Any, kernel: Any) -> Any:
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
