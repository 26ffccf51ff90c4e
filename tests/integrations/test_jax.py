"""Flax NNX and Equinox with Optax, on real digits: every update's rate, accumulation, orbax, and the finders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.integrations.common import in_processes

jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
jnp = jax.numpy
SCHEDULE = clr.triangular2(0.01, 0.25, step_size=5)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.9)
SIZE = 32


def digits(first: int, last: int) -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images[first:last] / 16, jnp.float32), jnp.asarray(labels[first:last])


def batches(first: int, last: int) -> list[Any]:
    x, y = digits(first, last)
    return [(x[at : at + SIZE], y[at : at + SIZE]) for at in range(0, len(x) - SIZE + 1, SIZE)]


def loss_of(model: Any, batch: Any) -> Any:
    logits = model(batch[0]) if not hasattr(model, "layers") else jax.vmap(model)(batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch[1]).mean()


def planned(updates: int) -> list[Any]:
    return [pytest.approx((SCHEDULE(step), MOMENTUM(step)), rel=1e-6) for step in range(updates)]


def nnx_parts(transformation: Any, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Sequential(
        nnx.Linear(64, 32, dtype=dtype, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(32, 10, dtype=dtype, rngs=nnx.Rngs(1))
    )
    return model, nnx.Optimizer(model, transformation, wrt=nnx.Param)


def planned_sgd() -> Any:
    return optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE, momentum=MOMENTUM)


def train(parts: Any, some: list[Any]) -> list[Any]:
    """The rate and the momentum that each update has used."""
    nnx = pytest.importorskip("flax.nnx")

    @nnx.jit
    def update(model: Any, optimizer: Any, batch: Any) -> None:
        optimizer.update(model, nnx.grad(loss_of)(model, batch))

    state = parts[1].opt_state
    inner = getattr(state, "inner_opt_state", state)
    seen: list[Any] = []
    for batch in some:
        before = int(inner.count[...])
        update(*parts, batch)
        if int(inner.count[...]) > before:
            seen.append(tuple(float(inner.hyperparams[name][...]) for name in ("learning_rate", "momentum")))
    return seen


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rate_and_momentum_of_every_update_of_nnx(dtype: str) -> None:
    assert train(nnx_parts(planned_sgd(), jnp.dtype(dtype)), batches(0, 640)) == planned(20)


def test_accumulated_gradients_are_one_update() -> None:
    assert train(nnx_parts(optax.MultiSteps(planned_sgd(), 2)), batches(0, 640)) == planned(10)


def saved_state(parts: Any) -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return nnx.state(parts)


def run(folder: Path) -> Any:
    """Trains on from what orbax has saved in a folder."""
    nnx, checkpoint = pytest.importorskip("flax.nnx"), pytest.importorskip("orbax.checkpoint")
    parts = nnx_parts(optax.MultiSteps(planned_sgd(), 2))
    with checkpoint.StandardCheckpointer() as checkpointer:
        nnx.update(parts, checkpointer.restore(folder / "state", saved_state(parts)))
    seen = train(parts, batches(320 + SIZE, 640))  # eleven batches were trained with: it is amid an update
    return [seen, parts[0].layers[0].kernel[...].tolist()]


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_orbax_resumes_in_a_fresh_process_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    whole = nnx_parts(optax.MultiSteps(planned_sgd(), 2))
    rates = train(whole, batches(0, 640))
    parts = nnx_parts(optax.MultiSteps(planned_sgd(), 2))
    before = train(parts, batches(0, 320 + SIZE))
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved_state(parts))
    ((after, weights),) = in_processes(run, tmp_path)
    assert before + [tuple(pair) for pair in after] == rates
    assert json.loads(json.dumps(weights)) == whole[0].layers[0].kernel[...].tolist()


def nnx_update() -> tuple[Any, Any, Any]:
    nnx = pytest.importorskip("flax.nnx")
    state = nnx_parts(optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.7))

    @nnx.jit
    def update(state: Any, batch: Any, lr: Any) -> Any:
        model, optimizer = state
        loss, gradient = nnx.value_and_grad(loss_of)(model, batch)
        optimizer.opt_state.hyperparams["learning_rate"][...] = lr
        optimizer.update(model, gradient)
        return state, loss

    return update, state, lambda state: jax.tree.map(np.asarray, nnx.state(state))


def equinox_update() -> tuple[Any, Any, Any]:
    eqx = pytest.importorskip("equinox")
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.7)
    model = eqx.nn.MLP(64, 10, 32, 1, key=jax.random.key(0))

    @eqx.filter_jit  # type: ignore[untyped-decorator, unused-ignore]
    def update(state: Any, batch: Any, lr: Any) -> Any:
        model, opt_state = state
        loss, gradient = eqx.filter_value_and_grad(loss_of)(model, batch)
        opt_state.hyperparams["learning_rate"] = lr
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (eqx.apply_updates(model, updates), opt_state), loss

    state = (model, optimizer.init(eqx.filter(model, eqx.is_array)))
    return update, state, lambda state: jax.tree.map(np.asarray, eqx.filter(state, eqx.is_array))


@pytest.mark.parametrize("make", [nnx_update, equinox_update])
def test_finders_take_an_update_function_and_leave_no_trace(make: Any) -> None:
    update, state, held = make()
    before, held_out = held(state), digits(1500, 1797)
    test = clr.jax.range_test(update, state, batches(0, 1500), num_steps=100)
    found = clr.jax.find_bounds(
        update, state, batches(0, 1500), lambda state: loss_of(state[0], held_out), total_steps=300, budget=300
    )
    jax.tree.map(np.testing.assert_array_equal, held(state), before)
    # Where SGD with this momentum trains this network: at 0.001 it barely moves, from 10 on it does not learn.
    assert 0.01 < test.bounds().max_lr < 5
    assert 0.01 < found.bounds().max_lr < 5
