"""`clr.jax.find_bounds`: the state stays as it was, and all trials begin with it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import clr

X = np.random.default_rng(0).normal(size=(256, 6)).astype(np.float32)
Y = X.sum(axis=1)
BATCHES = [np.arange(at, at + 32) for at in range(0, 192, 32)]
LIMITS: dict[str, Any] = {"total_steps": 300, "budget": 250}
OPTIMIZER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.9)


def loss_of(weights: jax.Array, rows: Any) -> jax.Array:
    return ((jnp.asarray(X)[rows] @ weights - jnp.asarray(Y)[rows]) ** 2).mean()


@jax.jit
def update(state: Any, rows: Any, lr: jax.Array) -> tuple[Any, jax.Array]:
    weights, own = state
    loss, gradient = jax.value_and_grad(loss_of)(weights, jnp.asarray(rows))
    own.hyperparams["learning_rate"] = lr
    updates, own = OPTIMIZER.update(gradient, own)
    return (optax.apply_updates(weights, updates), own), loss


def evaluate(state: Any) -> jax.Array:
    return loss_of(state[0], np.arange(192, 256))


def start() -> Any:
    weights = jnp.full(6, 0.5)
    return weights, OPTIMIZER.init(weights)


def test_the_state_stays_and_bounds_are_found() -> None:
    state = start()
    before = jax.tree.map(np.asarray, state)
    found = clr.jax.find_bounds(update, state, BATCHES, evaluate, **LIMITS)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, state))
    assert found.updates <= 250
    assert 1e-3 < found.bounds().max_lr < 0.5


def test_the_score_of_a_trial_is_that_of_the_same_updates_by_hand() -> None:
    found = clr.jax.find_bounds(update, start(), BATCHES, evaluate, **LIMITS)
    for trial in found.trials:
        if trial.score is None:
            continue
        state, up = start(), trial.num_steps // 4
        for at in range(trial.num_steps):
            rising = trial.max_lr * (at + 1) / (up + 1)
            rate = rising if at <= up else trial.max_lr * (trial.num_steps - at) / (trial.num_steps - up)
            state, _ = update(state, BATCHES[at % len(BATCHES)], jnp.float32(rate))
        assert trial.score == pytest.approx(float(evaluate(state)), rel=1e-3)


def test_modules_of_flax_nnx_get_back_what_they_held() -> None:
    model = nnx.Linear(6, 1, rngs=nnx.Rngs(0))
    own = nnx.Optimizer(model, optax.inject_hyperparams(optax.sgd)(learning_rate=0.0), wrt=nnx.Param)
    before = np.asarray(model.kernel[...])

    @nnx.jit
    def step(model: Any, own: Any, rows: jax.Array, lr: jax.Array) -> jax.Array:
        def loss_fn(model: Any) -> jax.Array:
            return ((model(jnp.asarray(X)[rows])[:, 0] - jnp.asarray(Y)[rows]) ** 2).mean()

        loss, gradients = nnx.value_and_grad(loss_fn)(model)
        own.opt_state.hyperparams["learning_rate"][...] = lr
        own.update(model, gradients)
        return loss

    def train(state: Any, rows: Any, lr: jax.Array) -> tuple[Any, jax.Array]:
        return state, step(*state, jnp.asarray(rows), lr)

    def held_out(state: Any) -> jax.Array:
        return ((state[0](jnp.asarray(X[192:]))[:, 0] - Y[192:]) ** 2).mean()

    found = clr.jax.find_bounds(train, (model, own), BATCHES, held_out, **LIMITS)
    assert np.array_equal(before, np.asarray(model.kernel[...]))
    assert 1e-3 < found.bounds().max_lr < 2


def test_the_state_of_the_winner_can_be_kept() -> None:
    state = start()
    before = jax.tree.map(np.asarray, state)
    limits = LIMITS | {"budget": 500}
    found, kept = clr.jax.find_bounds(update, state, BATCHES, evaluate, **limits, keep="winner")
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, state))
    assert found == clr.jax.find_bounds(update, state, BATCHES, evaluate, **limits)
    assert found.winner is not None
    assert found.trials[-1] is not found.winner
    assert float(evaluate(kept)) == found.winner.score
    assert int(kept[1].count) == found.winner.num_steps


def test_objects_hold_what_the_winner_has_left_in_them() -> None:
    weights = nnx.Param(jnp.full(6, 0.5))

    def train(state: Any, rows: Any, lr: jax.Array) -> tuple[Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(state[...], jnp.asarray(rows))
        state[...] = state[...] - lr * gradient
        return state, loss

    def held_out(state: Any) -> jax.Array:
        return loss_of(state[...], np.arange(192, 256))

    limits = LIMITS | {"budget": 500}
    found, kept = clr.jax.find_bounds(train, weights, BATCHES, held_out, **limits, keep="winner")
    assert kept is weights
    assert found.trials[-1] is not found.winner
    assert found.winner is not None
    assert float(held_out(weights)) == found.winner.score


def test_where_nobody_wins_the_state_is_as_before() -> None:
    state = start()

    def interrupted(state: Any, rows: Any, lr: jax.Array) -> tuple[Any, jax.Array]:
        raise KeyboardInterrupt

    found, kept = clr.jax.find_bounds(interrupted, state, BATCHES, evaluate, **LIMITS, keep="winner")
    assert found.winner is None
    assert kept is state


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batches": iter(BATCHES)}, "`batches` must"),
        ({"batches": 1}, "`batches` must"),
        ({"update": 1}, "`update` must"),
        ({"evaluate": 1}, "`evaluate` must"),
        ({"total_steps": 0}, "`total_steps` must"),
        ({"keep": "best"}, "`keep` must"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"update": update, "state": start(), "batches": BATCHES, "evaluate": evaluate}
    with pytest.raises((TypeError, ValueError), match=message):
        clr.jax.find_bounds(**arguments | LIMITS | changed)
