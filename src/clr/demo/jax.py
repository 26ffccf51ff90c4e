"""Trains in JAX: Optax takes the schedule as it is, and computes it inside the compiled update."""

from collections.abc import Iterator
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

import clr
from clr.demo.training import MOMENTUM, Images, Labels, Rates, Run, digits, record, search_data, start

Weights: TypeAlias = list[jax.Array]
State: TypeAlias = tuple[Weights, optax.OptState]


def network(weights: Weights, images: jax.Array) -> jax.Array:
    """The logits of images."""
    kernel, bias, kernel2, bias2, matrix, bias3 = weights
    hidden = jax.nn.relu(_convolution(images, kernel) + bias)
    hidden = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    hidden = jax.nn.relu(_convolution(hidden, kernel2) + bias2)
    return hidden.reshape(len(images), -1) @ matrix + bias3


def loss_of(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean loss of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(network(weights, images), labels).mean()


def search(total_steps: int) -> clr.Search:
    """Searches the bounds of the demonstration, for trainings of ``total_steps``."""
    initial, batches, held_out = search_data()
    weights = [jnp.asarray(part) for part in initial]
    optimizer = optax.trace(MOMENTUM)

    @jax.jit
    def update(state: State, batch: tuple[jax.Array, jax.Array], lr: jax.Array) -> tuple[State, jax.Array]:
        weights, trace = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, *batch)
        changes, trace = optimizer.update(gradients, trace)
        return (jax.tree.map(lambda weight, change: weight - lr * change, weights, changes), trace), loss

    @jax.jit
    def held_out_loss(state: State) -> jax.Array:
        return loss_of(state[0], *held_out)

    state = weights, optimizer.init(weights)
    return clr.jax.find_bounds(update, state, batches, held_out_loss, total_steps=total_steps)


def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``total_steps`` updates, and gives the run after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, total_steps)
    # This is optax.sgd(schedule, MOMENTUM) that also keeps the rate that it has applied in its state.
    optimizer = optax.inject_hyperparams(optax.sgd, static_args="momentum")(
        learning_rate=rates.schedule(policy, total_steps), momentum=MOMENTUM
    )
    weights = [jnp.asarray(part) for part in initial]
    state: State = weights, optimizer.init(weights)

    @jax.jit
    def updated(state: State, images: jax.Array, labels: jax.Array) -> tuple[State, jax.Array]:
        weights, opt_state = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
        changes, opt_state = optimizer.update(gradients, opt_state)
        return (optax.apply_updates(weights, changes), opt_state), loss

    def update(images: Images, labels: Labels) -> tuple[jax.Array, jax.Array]:
        nonlocal state
        state, loss = updated(state, images, labels)
        return loss, state[1].hyperparams["learning_rate"]

    @jax.jit
    def accuracy_of(weights: Weights) -> jax.Array:
        guesses = network(weights, x_test).argmax(axis=1)
        return (guesses == y_test).mean()

    yield from record(Run("jax", policy, seed), batches, update, lambda: accuracy_of(state[0]))


def _convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
