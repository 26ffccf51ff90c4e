"""Schedules as Optax's own: through every transformation of JAX, on many devices, and resumed."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.reference import exact_rate

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

LOW, HIGH, UP = 0.25, 1.25, 4
SCHEDULE = clr.triangular(LOW, HIGH, UP)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.75)


def rate(step: int) -> Fraction:
    return exact_rate(step, LOW, HIGH, UP)


def momentum(step: int) -> Fraction:
    return Fraction(3, 4) - (rate(step) - Fraction(LOW)) / 4


def train(optimizer: Any, weight: Any, steps: int, wrap: Callable[[Any], Any] = jax.jit) -> list[Any]:
    """The weight after each update with a gradient of 1."""

    def update(weight: Any, state: Any) -> Any:
        updates, state = optimizer.update(jnp.ones_like(weight), state, weight)
        return optax.apply_updates(weight, updates), state

    state = optimizer.init(weight)
    step = wrap(update)
    seen = []
    for _ in range(steps):
        weight, state = step(weight, state)
        seen.append(weight)
    return seen


def sums(steps: int, start: Fraction = Fraction(0)) -> list[float]:
    """What plain gradient descent makes of the weight, exactly: all are binary fractions."""
    return [float(start - sum(rate(step) for step in range(count))) for count in range(1, steps + 1)]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("wrap", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_sgd_takes_a_schedule(wrap: Any, x64: bool) -> None:
    with jax.enable_x64(x64):
        weights = train(optax.sgd(SCHEDULE), jnp.zeros(()), 20, wrap)
        assert weights[-1].dtype == (jnp.float64 if x64 else jnp.float32)
        assert [float(weight) for weight in weights] == sums(20)


def test_bfloat16_weights_stay_so() -> None:
    weights = train(optax.sgd(SCHEDULE), jnp.zeros((), jnp.bfloat16), 3)
    assert weights[-1].dtype == jnp.bfloat16
    assert [float(weight) for weight in weights] == [-0.25, -0.75, -1.5]  # sums that bfloat16 holds


def test_hyperparameters_are_injected_for_the_rate_and_the_momentum() -> None:
    make = optax.inject_hyperparams(optax.sgd)
    optimizer = make(learning_rate=SCHEDULE, momentum=MOMENTUM)

    @jax.jit
    def update(weight: Any, state: Any) -> Any:
        updates, state = optimizer.update(jnp.ones_like(weight), state, weight)
        return optax.apply_updates(weight, updates), state

    weight = jnp.zeros(())
    state = optimizer.init(weight)
    trace, expected = Fraction(0), Fraction(0)
    for step in range(12):
        weight, state = update(weight, state)
        assert float(state.hyperparams["learning_rate"]) == rate(step)
        assert float(state.hyperparams["momentum"]) == momentum(step)
        trace = trace * momentum(step) + 1
        expected -= trace * rate(step)
        assert float(weight) == pytest.approx(float(expected), rel=1e-5)


def test_injected_adam_is_adam() -> None:
    plain = train(optax.adam(SCHEDULE), jnp.zeros(()), 10)
    injected = train(optax.inject_hyperparams(optax.adam)(learning_rate=SCHEDULE), jnp.zeros(()), 10)
    # Optax then has the betas in float32, where 1 - 0.999 keeps four digits.
    assert np.allclose(injected, plain, rtol=1e-4, atol=0)


@pytest.mark.parametrize("schedule", [SCHEDULE, clr.warmup(clr.one_cycle(1.0, 50) * 0.5, 5), MOMENTUM], ids=repr)
def test_transformations_agree(schedule: clr.Schedule) -> None:
    steps = jnp.arange(60)
    one_by_one = np.array([schedule(jnp.asarray(step)) for step in range(60)])
    for rates in (
        jax.jit(schedule)(steps),
        jax.vmap(schedule)(steps),
        jax.vmap(jax.vmap(schedule))(steps.reshape(6, 10)).ravel(),
        jax.lax.scan(lambda carry, step: (carry + 1, schedule(carry)), jnp.asarray(0), steps)[1],
        jax.lax.map(schedule, steps),
    ):
        assert np.allclose(rates, one_by_one, rtol=3e-7, atol=0)


def test_gradients_pass_by_the_step() -> None:
    def loss(weight: Any, step: Any) -> Any:
        return schedule(step) * weight**2

    schedule = clr.warmup(SCHEDULE, 3)
    assert float(jax.jit(jax.grad(loss))(jnp.asarray(3.0), jnp.asarray(5))) == 6 * rate(2)
    # With respect to the step the rate is a constant: it is counted, not measured.
    assert float(jax.grad(schedule)(jnp.asarray(5.0))) == 0.0

    def trained(weight: Any) -> Any:
        return train(optax.sgd(SCHEDULE), weight, 5, lambda function: function)[-1] ** 2

    assert float(jax.grad(trained)(jnp.asarray(1.0))) == 2 * sums(5, Fraction(1))[-1]


def test_a_schedule_is_a_static_argument_and_an_equal_one_compiles_nothing_again() -> None:
    compiled = []

    def scaled(schedule: clr.Schedule, step: Any) -> Any:
        compiled.append(schedule)
        return schedule(step)

    function = jax.jit(scaled, static_argnums=0)
    for _ in range(3):
        assert float(function(pickle.loads(pickle.dumps(SCHEDULE)), jnp.asarray(3))) == rate(3)
    assert len(compiled) == 1


def test_equinox_compiles_once_for_rates_that_are_arrays() -> None:
    eqx = pytest.importorskip("equinox")
    compiled: list[Any] = []

    @eqx.filter_jit  # type: ignore[untyped-decorator, unused-ignore]
    def update(weight: Any, lr: Any) -> Any:
        compiled.append(lr)
        return weight - lr

    for step in range(3):
        assert float(update(jnp.zeros(()), SCHEDULE(jnp.asarray(step)))) == -rate(step)
    assert len(compiled) == 1
    for step in range(3):  # as the guide says of floats
        assert float(update(jnp.zeros(()), SCHEDULE(step))) == -rate(step)
    assert len(compiled) == 4


def run(program: str, *arguments: str, devices: int = 1) -> str:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax, clr
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

assert jax.device_count() == 8
mesh = Mesh(np.array(jax.devices()), ("data",))
shared, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
schedule = clr.triangular(0.25, 1.25, 4)
optimizer = optax.sgd(schedule)
x = jax.device_put(jnp.ones((16, 1)), split)
weight = jax.device_put(jnp.zeros((1,)), shared)
state = jax.device_put(optimizer.init(weight), shared)

@jax.jit
def update(weight, state, x):
    gradient = jax.grad(lambda weight: (x * weight).mean())(weight)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weight, updates), state

for _ in range(20):
    weight, state = update(weight, state, x)
    print(float(weight[0]), len(weight.sharding.device_set))
steps = jax.device_put(jnp.arange(16), split)
rates = jax.jit(schedule)(steps)
assert rates.sharding == split, rates.sharding
print(*np.asarray(rates))
"""


def test_eight_devices_see_the_same_rate() -> None:
    *lines, rates = run(SHARDED, devices=8).splitlines()
    assert [tuple(map(float, line.split())) for line in lines] == [(total, 8.0) for total in sums(20)]
    assert [float(word) for word in rates.split()] == [float(rate(step)) for step in range(16)]


STEPS = 9
RESUMED = """
import pickle, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, optax, clr

folder, first, steps = Path(sys.argv[1]), sys.argv[2] == "first", int(sys.argv[3])
schedule = clr.warmup(clr.triangular2(0.01, 0.1, 2.5, step_size_down=3), 2)
if not first:
    schedule = clr.from_json((folder / "schedule.json").read_text())
optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule, b1=clr.momentum(schedule))
x = jax.random.normal(jax.random.key(1), (64, 8))
y = jnp.sin(x.sum(1, keepdims=True))

@jax.jit
def update(weights, state):
    gradient = jax.grad(lambda weights: ((jnp.tanh(x @ weights[0]) @ weights[1] - y) ** 2).mean())(weights)
    updates, state = optimizer.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state

def train(start, weights, state):
    rates = []
    for step in range(start, steps):
        if first:
            plain = jax.tree.map(np.asarray, (weights, state))
            (folder / f"{step}.pickle").write_bytes(pickle.dumps(plain))
        weights, state = update(weights, state)
        rates.append((float(state.hyperparams["learning_rate"]), float(state.hyperparams["b1"])))
    return jax.tree.map(np.asarray, weights), rates

if first:
    (folder / "schedule.json").write_text(schedule.to_json())
    weights = (jax.random.normal(jax.random.key(2), (8, 16)), jax.random.normal(jax.random.key(3), (16, 1)))
    (folder / "whole.pickle").write_bytes(pickle.dumps(train(0, weights, optimizer.init(weights))))
else:
    whole, rates = pickle.loads((folder / "whole.pickle").read_bytes())
    for start in range(steps):
        saved = jax.tree.map(jnp.asarray, pickle.loads((folder / f"{start}.pickle").read_bytes()))
        weights, later = train(start, *saved)
        assert later == rates[start:], (start, later, rates)
        assert all(np.array_equal(a, b) for a, b in zip(weights, whole, strict=True)), start
        print(start)
"""


def test_resuming_at_any_step_in_another_process_changes_nothing(tmp_path: Path) -> None:
    run(RESUMED, str(tmp_path), "first", str(STEPS))
    done = run(RESUMED, str(tmp_path), "again", str(STEPS))
    assert done.split() == [str(step) for step in range(STEPS)]
