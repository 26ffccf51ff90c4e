"""The range test of an update function: what it measures, and that the state is as it was."""

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import clr
from tests.promises import ERRORS, STEPS, Failing, check_errors, check_options

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

RANGE: dict[str, Any] = {"min_lr": 1e-3, "max_lr": 1e-1, "num_steps": STEPS}
X = np.random.default_rng(0).normal(size=(4, 8, 3)).astype(np.float32)
BATCHES = [(x, x.sum(1, keepdims=True)) for x in X]

Make = Callable[[], tuple[Callable[..., Any], Any]]


def _optax(wrap: Callable[..., Any]) -> tuple[Callable[..., Any], Any]:
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)

    def update(state: Any, batch: Any, lr: Any) -> Any:
        weights, opt_state, key = state
        key, own = jax.random.split(key)
        x = batch[0] + 0.1 * jax.random.normal(own, batch[0].shape)
        loss, gradient = jax.value_and_grad(lambda weights: ((x @ weights["w"] - batch[1]) ** 2).mean())(weights)
        opt_state = opt_state._replace(hyperparams=opt_state.hyperparams | {"learning_rate": lr})
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(weights, updates), opt_state, key), loss

    weights = {"w": jnp.full((3, 1), 0.5)}
    return wrap(update), (weights, optimizer.init(weights), jax.random.key(3))


def _in_place() -> tuple[Callable[..., Any], Any]:
    """NumPy's arrays and a list, which the update changes."""

    def update(state: Any, batch: Any, lr: Any) -> Any:
        x, y = batch
        error = x @ state["w"] - y
        state["w"] -= float(lr) * 2 * x.T @ error / len(x)
        state["seen"].append(float(lr))
        return state, (error**2).mean()

    return update, {"w": np.full((3, 1), 0.5, np.float32), "seen": [7.0], "of": {"kind"}}


def _ref() -> tuple[Callable[..., Any], Any]:
    """A mutable array, which the update knows without its argument too."""
    weights = jax.new_ref(jnp.full((3, 1), 0.5))

    @jax.jit
    def step(weights: Any, batch: Any, lr: Any) -> Any:
        x, y = batch
        error = x @ weights[...] - y
        weights[...] = weights[...] - lr * 2 * x.T @ error / len(x)
        return (error**2).mean()

    return lambda state, batch, lr: (state, step(weights, batch, lr)), (weights, jax.random.key(3))


def _nnx(way: str) -> tuple[Callable[..., Any], Any]:
    """A module with batch normalization, dropout, a tied weight, and an array, that gets new attributes."""
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.linear = nnx.Linear(3, 3, rngs=rngs)
            self.blocks = nnx.List([nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)])
            self.tied = self.linear.kernel
            self.called = False
            self.scale = jnp.ones(3)

        def __call__(self, x: Any) -> Any:
            x = self.linear(x)
            for block in self.blocks:
                x = block(x)
            if way != "split":  # a pytree must keep its structure
                self.called = True
                self.hidden = nnx.Intermediate(x.mean())
            return (x * self.scale) @ self.tied.sum(1, keepdims=True)

    model = Model()
    optimizer = nnx.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=0.0), wrt=nnx.Param)
    metric = nnx.metrics.Average()

    def step(model: Any, optimizer: Any, metric: Any, batch: Any, lr: Any) -> Any:
        loss, gradient = nnx.value_and_grad(lambda model: ((model(batch[0]) - batch[1]) ** 2).mean())(model)
        optimizer.opt_state.hyperparams["learning_rate"][...] = lr
        optimizer.update(model, gradient)
        metric.update(values=loss)
        return loss

    change: Any = step
    if way == "split":
        graph, state = nnx.split((model, optimizer, metric))

        @jax.jit
        def split(state: Any, batch: Any, lr: Any) -> Any:
            parts = nnx.merge(graph, state)
            loss = change(*parts, batch, lr)
            return nnx.split(parts)[1], loss

        return split, state
    if way != "eager":
        change = nnx.jit(step, donate_argnums=(0, 1, 2) if way == "donated" else ())
    if way == "captured":
        return lambda state, batch, lr: (state, change(model, optimizer, metric, batch, lr)), (model, optimizer, metric)
    return lambda state, batch, lr: (state, change(*state, batch, lr)), (model, optimizer, metric)


def _equinox() -> tuple[Callable[..., Any], Any]:
    eqx = pytest.importorskip("equinox")
    model, statistics = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="ema")
    model = (eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0)), model)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)

    def forward(model: Any, statistics: Any, x: Any) -> Any:
        x, statistics = model[1](x, statistics)
        return model[0](x), statistics

    @eqx.filter_jit(donate="all-except-first")  # type: ignore[untyped-decorator, unused-ignore]
    def update_with(batch: Any, state: Any, lr: Any) -> Any:
        model, statistics, opt_state = state

        def loss_of(model: Any) -> Any:
            result, after = jax.vmap(forward, axis_name="batch", in_axes=(None, None, 0), out_axes=(0, None))(
                model, statistics, batch[0]
            )
            return ((result - batch[1]) ** 2).mean(), after

        (loss, statistics), gradient = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
        opt_state.hyperparams["learning_rate"] = lr
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (eqx.apply_updates(model, updates), statistics, opt_state), loss

    state = (model, statistics, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
    return lambda state, batch, lr: update_with(batch, state, lr), state


KINDS: dict[str, Make] = {
    "optax": lambda: _optax(lambda update: update),
    "optax-jit": lambda: _optax(jax.jit),
    "optax-donated": lambda: _optax(lambda update: jax.jit(update, donate_argnums=0)),
    "in-place": _in_place,
    "ref": _ref,
    **{f"nnx-{way}": partial(_nnx, way) for way in ("eager", "donated", "captured", "split")},
    "equinox": _equinox,
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def trace(state: Any) -> list[Any]:
    """All that a test could have changed: values, and the names and other contents of modules."""
    found: list[Any] = [jax.tree.structure(state)]
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        is_array = isinstance(leaf, jax.Array | np.ndarray | jax.Ref)
        found.append(np.asarray(leaf[...]).tobytes() if is_array else repr(leaf))
    return [*found, random.getstate(), repr(np.random.get_state())]  # noqa: NPY002


def train(update: Callable[..., Any], state: Any, rates: Any) -> list[float]:
    losses = []
    for at, lr in enumerate(rates):
        random.random()
        state, loss = update(state, BATCHES[at % 4], jnp.asarray(lr, jnp.float32))
        losses.append(float(loss))
    return losses


@each_kind
def test_the_state_is_as_before_and_training_goes_on_as_if_there_had_been_no_test(make: Make) -> None:
    update, state = make()
    before = trace(state)
    test = clr.jax.range_test(update, state, BATCHES, repeats=2, diverge_at=1e9, **RANGE)
    assert trace(state) == before
    assert [len(sweep.losses) for sweep in test.sweeps] == [STEPS, STEPS]
    expected = train(*make(), test.rates)
    assert list(test.sweeps[0].losses) == expected
    assert train(update, state, test.rates) == expected


@each_kind
def test_the_state_is_as_before_after_an_error_at_any_step(make: Make) -> None:
    update, state = make()
    fail = Failing("update")

    def failing(state: Any, batch: Any, lr: Any) -> Any:
        random.random()
        result = update(state, batch, lr)
        fail("update")
        return result

    failures = [(at, error("on purpose")) for at in (1, 3) for error in ERRORS]
    check_errors(fail, lambda: clr.jax.range_test(failing, state, BATCHES, **RANGE), lambda: trace(state), failures)


def test_rates_are_float32_arrays_and_compile_once() -> None:
    compiled = []

    @jax.jit
    def update(weight: Any, batch: Any, lr: Any) -> Any:
        compiled.append((lr.dtype, lr.shape, lr.weak_type))
        return weight - lr * 2 * weight, weight**2

    weight = jnp.full((), 2.0, jnp.float32)
    test = clr.jax.range_test(update, weight, [None], min_lr=0.1, max_lr=0.4, num_steps=3)
    assert compiled == [(jnp.dtype("float32"), (), False)]
    assert test.rates == pytest.approx((0.1, 0.2, 0.4))
    assert test.losses == pytest.approx((4.0, 4 * 0.8**2, 4 * 0.8**2 * 0.6**2))


def test_equinox_compiles_once() -> None:
    eqx = pytest.importorskip("equinox")
    compiled = []

    @eqx.filter_jit  # type: ignore[untyped-decorator, unused-ignore]
    def update(state: Any, batch: Any, lr: Any) -> Any:
        compiled.append(lr)
        return state, (state[0](batch) * lr).sum()

    state = (eqx.nn.MLP(3, 1, 4, 1, activation=jax.nn.relu, key=jax.random.key(0)), jax.nn.relu)
    clr.jax.range_test(update, state, jnp.ones((2, 3)), repeats=2, **RANGE)
    update(state, jnp.ones(3), jnp.asarray(0.5, jnp.float32))
    assert len(compiled) == 1


def test_batches_come_in_order_and_begin_again() -> None:
    seen: list[int] = []

    def update(state: Any, batch: int, lr: Any) -> Any:
        seen.append(batch)
        return state, float(batch)

    clr.jax.range_test(update, None, [1, 2, 3, 4], repeats=2, diverge_at=1e9, **RANGE)
    assert seen == [1, 2, 3, 4, 1, 2] * 2
    test = clr.jax.range_test(update, None, iter([1, 2, 3]), **RANGE)
    assert (test.losses, test.stop) == ((1.0, 2.0, 3.0), "data")
    assert clr.jax.range_test(update, None, [], **RANGE).stop == "data"


@pytest.mark.parametrize("source", ["key", "python", "numpy"])
def test_each_repeat_draws_otherwise_and_again_the_same(source: str) -> None:
    def update(key: Any, batch: Any, lr: Any) -> Any:
        key, own = jax.random.split(key)
        draws: dict[str, Callable[[], Any]] = {
            "key": lambda: jax.random.normal(own),
            "python": random.random,
            "numpy": np.random.random,
        }
        return key, draws[source]()

    options: dict[str, Any] = {**RANGE, "repeats": 3, "diverge_at": 1e9}
    test = clr.jax.range_test(update, jax.random.key(0), [0], **options)
    assert len({loss for sweep in test.sweeps for loss in sweep.losses}) == 3 * STEPS
    assert clr.jax.range_test(update, jax.random.key(0), [0], **options) == test


def test_an_old_key_and_the_parameters_are_the_same_in_each_repeat() -> None:
    def update(state: Any, batch: Any, lr: Any) -> Any:
        return state, jax.random.normal(state[0]) + state[1]

    state = (jax.random.PRNGKey(0), jnp.asarray(1.0))
    test = clr.jax.range_test(update, state, [0], repeats=2, **RANGE)
    assert test.sweeps[0].losses == test.sweeps[1].losses


def test_evaluate_sees_the_state_of_the_test() -> None:
    seen: list[float] = []

    def evaluate(weight: Any) -> Any:
        seen.append(float(weight))
        return weight

    options: dict[str, Any] = {**RANGE, "evaluate": evaluate, "evaluate_every": 2}
    test = clr.jax.range_test(lambda weight, batch, lr: (weight + 1, 0.0), jnp.asarray(0.0), [0], **options)
    assert seen == [2.0, 4.0, 6.0]
    assert test.sweeps[0].metrics == (None, 2.0, None, 4.0, None, 6.0)


def test_shardings_and_weak_types_are_kept() -> None:
    seen: list[Any] = []

    def update(state: Any, batch: Any, lr: Any) -> Any:
        seen.append([(leaf.sharding, leaf.weak_type, leaf.committed) for leaf in state])
        return state, None

    state = [jnp.asarray(1.0), jax.device_put(jnp.ones(2), jax.devices()[0]), jnp.ones(2, jnp.bfloat16)]
    expected = [(leaf.sharding, leaf.weak_type, leaf.committed) for leaf in state]
    test = clr.jax.range_test(update, state, [0], **RANGE)
    assert seen == [expected] * STEPS
    assert test.sweeps[0].losses == (None,) * STEPS


def _rows() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": 3}, "`update` must be a function. Received: 3"),
        ({"batches": 3}, "`batches` must be something to iterate over. Received: 3"),
        ({"batches": _rows(), "repeats": 2}, "`batches` must be no iterator where there are `repeats`"),
        ({"state": [threading.Lock()]}, "`state` must be made of values that can be copied"),
        ({"update": lambda *arguments: 1.0}, "`update` must return a new state and the loss. Received: 1.0"),
        ({"update": lambda *arguments: (0, jnp.ones(2))}, "must return a number"),
    ],
)
def test_arguments_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    arguments = {"update": lambda state, batch, lr: (state, 1.0), "state": 0, "batches": [0], **changes}
    with pytest.raises(TypeError, match=message):
        clr.jax.range_test(**arguments)


def test_options_that_make_no_sense() -> None:
    check_options(partial(clr.jax.range_test, lambda state, batch, lr: (state, 1.0), 0, [0]))
