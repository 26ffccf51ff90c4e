"""How a function of a step is run in each framework, eager and traced, and how its rates are compared."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

jax = pytest.importorskip("jax")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
jnp = jax.numpy

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # relative
SMALLEST = {name: float(np.finfo(name).tiny) for name in TOLERANCE}  # what is smaller may be flushed to 0
LARGEST = {name: int(np.iinfo(name).max) for name in ("int32", "uint32", "int64")}

Way = Callable[[Callable[[Any], Any], Any], Any]


# How a function of a step is run: (function, a tensor of steps) -> the tensor of its results.


def graph(function: Callable[[Any], Any], steps: Any) -> Any:
    """A session's graph, which knows neither the steps nor how many there are."""
    with tf.Graph().as_default():
        placeholder = tf.compat.v1.placeholder(steps.dtype, [None] * len(steps.shape))
        result = function(placeholder)
        with tf.compat.v1.Session() as session:
            return session.run(result, {placeholder: np.asarray(steps)})


def scan(function: Callable[[Any], Any], steps: Any) -> Any:
    return jax.lax.scan(lambda carry, step: (carry, function(step)), 0, steps)[1]


def compiled(function: Callable[[Any], Any], steps: Any) -> Any:
    torch.compiler.reset()  # else the limit of recompilations would end the compiling in a long run
    return torch.compile(lambda step: function(step), backend="aot_eager")(steps)


def eager(function: Callable[[Any], Any], steps: Any) -> Any:
    return function(steps)


TENSORFLOW: dict[str, Way] = {
    "eager": eager,
    "function": lambda function, steps: tf.function(lambda step: function(step))(steps),
    "xla": lambda function, steps: tf.function(lambda step: function(step), jit_compile=True)(steps),
    "graph": graph,
}
TORCH: dict[str, Way] = {"eager": eager, "compile": compiled}
JAX: dict[str, Way] = {
    "eager": eager,
    "jit": lambda function, steps: jax.jit(function)(steps),
    "vmap": lambda function, steps: jax.vmap(function)(steps),
    "scan": scan,
}
each_tensorflow = pytest.mark.parametrize("way", TENSORFLOW.values(), ids=TENSORFLOW)
each_torch = pytest.mark.parametrize("way", TORCH.values(), ids=TORCH)
each_jax = pytest.mark.parametrize("way", JAX.values(), ids=JAX)
# What Dynamo says of the caches is one test's matter.
dynamo_may_warn = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")


def tensor_of(framework: str, steps: Any, integer: str) -> Any:
    if framework == "tensorflow":
        return tf.constant(steps, integer)
    if framework == "torch":
        return torch.tensor(steps, dtype=getattr(torch, integer))
    return jnp.asarray(np.asarray(steps, integer))


MATRIX = [
    *(pytest.param("tensorflow", way, id=f"tensorflow-{name}") for name, way in TENSORFLOW.items()),
    *(pytest.param("torch", way, id=f"torch-{name}", marks=dynamo_may_warn) for name, way in TORCH.items()),
    *(pytest.param("jax", way, id=f"jax-{name}") for name, way in JAX.items()),
]
each_way = pytest.mark.parametrize(("framework", "way"), MATRIX)
FRAMEWORKS = ("tensorflow", "torch", "jax")
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
TENSOR = {"tensorflow": tf.Tensor, "torch": torch.Tensor, "jax": jax.Array}
FLOAT64 = {"tensorflow": tf.float64, "torch": torch.float64}


def check_rates(rates: Any, expected: Sequence[float | Fraction], floating: str) -> None:
    rates = np.asarray(rates)
    assert rates.dtype == floating
    assert rates.shape == (len(expected),)
    for index, (rate, wanted) in enumerate(zip(rates.tolist(), expected, strict=True)):
        error = abs(Fraction(rate) - Fraction(wanted))
        bound = Fraction(TOLERANCE[floating]) * Fraction(wanted) + Fraction(SMALLEST[floating])
        assert error <= bound, f"number {index}: {rate!r} for {float(wanted)!r}, relative {float(error / wanted)!r}"
