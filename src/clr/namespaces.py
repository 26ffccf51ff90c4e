"""How each framework's integers become steps, its few array functions, and how rates leave again.

The framework is told by the type of the step, never by importing one to ask: whoever hands over a tensor has
loaded its framework already. So a framework is imported here only after one of its objects has arrived.

A namespace is a class, alike in every framework:

    steps(value, name)      the step as non-negative integers to compute with
    divmod(a, b)            floor quotient and remainder of integers
    where, minimum          element by element
    real(integers)          the integers as floats of the working precision
    power(base, exponents)  base ** exponents for a base in (0, 1] and integers of any size
    scaled(scale_fn, x)     the user's own scaling function, applied to each of the integers x
    rates(values, dtype)    the computed rates as the caller gets them
    plain(values)           the same for cycle numbers and truth values
    largest                 the largest integer to compute with
    exact                   True on the host, where the rate is rounded once and a bad step is an error

On the host all is float64. TensorFlow and PyTorch tensors are computed in float64 too and rounded to the wanted
dtype at the end; JAX does so where 64-bit types are enabled, and works in float32 where they are not. A step whose
value is not known yet (a traced one) cannot be refused: if negative, it counts as 0.
"""

import math
from collections.abc import Callable
from functools import cache
from numbers import Real
from typing import Any

from clr import checks

Namespace = Any  # a class as above: a Protocol of ten members, all Any, would say less
Opener = Callable[[Any, str], tuple[Namespace, Any]]
ScaleFn = Callable[[Any], Any]


def _opener(choose: Callable[[Any], Namespace]) -> Opener:
    def enter(step: Any, name: str) -> tuple[Namespace, Any]:
        namespace = choose(step)
        return namespace, namespace.steps(step, name)

    return enter


def _power(base: float, exponent: int) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:  # an integer beyond float64
        return float(base == 1.0)


class Python:
    """A plain integer: the rate leaves as a float."""

    exact = True
    largest = 1 << 1024
    divmod = divmod
    minimum = min
    power = staticmethod(_power)
    scaled = staticmethod(checks.scale)

    @staticmethod
    def steps(value: Any, name: str) -> int:
        return checks.step(name, value)

    @staticmethod
    def where(condition: bool, yes: Any, no: Any) -> Any:
        return yes if condition else no

    @staticmethod
    def real(integers: int) -> int:
        return integers  # the product with a float converts it

    @staticmethod
    def rates(values: float, dtype: Any) -> float:
        if dtype is not None:
            raise TypeError(f"`dtype` is for arrays and tensors, a single step gives a float. Received: {dtype!r}.")
        return values

    @staticmethod
    def plain(values: Any) -> Any:
        return values


@cache
def _numpy() -> Namespace:
    import numpy as np

    def each(function: Callable[[int], float], integers: Any) -> Any:
        """``function`` of every element, equal to the scalar call bit for bit (NumPy's own power is not)."""
        values = np.fromiter(map(function, integers.ravel().tolist()), np.float64, integers.size)
        return values.reshape(integers.shape)

    class NumPy:
        exact = True
        largest = np.iinfo(np.int64).max
        divmod = staticmethod(np.divmod)
        where = staticmethod(np.where)
        minimum = staticmethod(np.minimum)

        @staticmethod
        def steps(value: Any, name: str) -> Any:
            if value.dtype.kind not in "iuf":
                checks.fail(TypeError, name, "step", value)
            if value.size and not (value.min() >= 0 and value.max() <= NumPy.largest and (value == value // 1).all()):
                checks.fail(ValueError, name, "step", value)
            return value.astype(np.int64)

        @staticmethod
        def real(integers: Any) -> Any:
            return integers

        @staticmethod
        def power(base: float, exponents: Any) -> Any:
            return each(lambda exponent: _power(base, exponent), exponents)

        @staticmethod
        def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
            unique, places = np.unique(integers, return_inverse=True)
            values = each(lambda argument: checks.scale(scale_fn, argument), unique)
            return values[places].reshape(integers.shape)

        @staticmethod
        def rates(values: Any, dtype: Any) -> Any:
            return np.asarray(values, dtype)

        @staticmethod
        def plain(values: Any) -> Any:
            return np.asarray(values)

    return NumPy


@cache
def _tensorflow() -> Callable[[type], Opener]:
    import tensorflow as tf

    def tensor(value: Any, name: str) -> Any:
        result = tf.convert_to_tensor(value)
        if not (result.dtype.is_integer or result.dtype.is_floating):
            checks.fail(TypeError, name, "step", value)
        return result

    class Graph:
        exact = False
        largest = tf.int64.max
        minimum = staticmethod(tf.minimum)

        @staticmethod
        def steps(value: Any, name: str) -> Any:
            return tf.maximum(tf.cast(tensor(value, name), tf.int64), 0)

        @staticmethod
        def divmod(a: Any, b: Any) -> Any:
            return a // b, a % b

        @staticmethod
        def where(condition: Any, yes: Any, no: Any) -> Any:
            return tf.where(condition, *(x if tf.is_tensor(x) else Graph.real(x) for x in (yes, no)))

        @staticmethod
        def real(value: Any) -> Any:
            # Without the hint a Python float would pass through float32 on its way.
            return tf.cast(tf.convert_to_tensor(value, dtype_hint=tf.float64), tf.float64)

        @staticmethod
        def power(base: Any, exponents: Any) -> Any:
            return tf.pow(Graph.real(base), Graph.real(exponents))

        @staticmethod
        def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
            return tf.clip_by_value(Graph.real(scale_fn(Graph.real(integers))), 0.0, 1.0)

        @staticmethod
        def rates(values: Any, dtype: Any) -> Any:
            return tf.cast(values, dtype or tf.float32)

        @staticmethod
        def plain(values: Any) -> Any:
            return values

    class EagerScalar(Python):
        """One value at hand, computed on the host: exact, and far cheaper than a dozen small ops."""

        @staticmethod
        def steps(value: Any, name: str) -> int:
            at_hand = tensor(value, name)
            return checks.step(name, int(at_hand) if at_hand.dtype.is_integer else float(at_hand))

        @staticmethod
        def rates(values: float, dtype: Any) -> Any:
            return constant(values, dtype or tf.float32)

        @staticmethod
        def plain(values: Any) -> Any:
            return tf.constant(values)

    class EagerArray(_numpy()):  # type: ignore[misc]
        """Values at hand, computed on the host."""

        @staticmethod
        def steps(value: Any, name: str) -> Any:
            at_hand = tensor(value, name)
            if at_hand.dtype.is_floating:
                at_hand = tf.cast(at_hand, tf.float64)  # NumPy has no bfloat16 of its own
            return _numpy().steps(at_hand.numpy(), name)

        @staticmethod
        def rates(values: Any, dtype: Any) -> Any:
            return tf.cast(values, dtype or tf.float32)

        @staticmethod
        def plain(values: Any) -> Any:
            return tf.constant(values)

    constant, is_eager, read = tf.constant, tf.executing_eagerly, tf.raw_ops.ReadVariableOp

    def choose(step: Any) -> Namespace:
        if not is_eager():
            return Graph
        return EagerArray if step.shape.rank else EagerScalar

    any_step = _opener(choose)

    def variable_step(step: Any, name: str) -> tuple[Namespace, Any]:
        """The short way for what eager training reads at every step: half of the cost of a rate is this read."""
        dtype = step.dtype
        if dtype.is_integer and step.shape.rank == 0 and is_eager():
            return EagerScalar, checks.step(name, int(read(resource=step.handle, dtype=dtype)))
        return any_step(step, name)

    def opener(kind: type) -> Opener:
        is_plain = issubclass(kind, tf.Variable) and not issubclass(kind, tf.distribute.DistributedValues)
        return variable_step if is_plain else any_step

    return opener


@cache
def _torch() -> Callable[[Any], Namespace]:
    import torch

    class Torch:
        exact = False
        largest = torch.iinfo(torch.int64).max

        @staticmethod
        def steps(value: Any, name: str) -> Any:
            if value.dtype == torch.bool or value.is_complex():
                checks.fail(TypeError, name, "step", value)
            return value.to(torch.int64).clamp(min=0)

        @staticmethod
        def divmod(a: Any, b: Any) -> Any:
            return a // b, a % b

        @staticmethod
        def where(condition: Any, yes: Any, no: Any) -> Any:
            return torch.where(
                condition,
                *(
                    x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64, device=condition.device)
                    for x in (yes, no)
                ),
            )

        @staticmethod
        def minimum(a: Any, b: Any) -> Any:
            return torch.minimum(a, b) if isinstance(b, torch.Tensor) else a.clamp(max=b)

        @staticmethod
        def real(integers: Any) -> Any:
            return integers.to(torch.float64)

        @staticmethod
        def power(base: float, exponents: Any) -> Any:
            return torch.pow(base, Torch.real(exponents))

        @staticmethod
        def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
            real = Torch.real(integers)
            return torch.as_tensor(scale_fn(real), dtype=real.dtype, device=real.device).clamp(0.0, 1.0)

        @staticmethod
        def rates(values: Any, dtype: Any) -> Any:
            return values.to(dtype or torch.get_default_dtype())

        @staticmethod
        def plain(values: Any) -> Any:
            return values

    return lambda step: Torch


@cache
def _jax() -> Callable[[Any], Namespace]:
    import jax
    import jax.numpy as jnp

    class Jax64:
        exact = False
        integer, floating = jnp.int64, jnp.float64
        largest = jnp.iinfo(jnp.int64).max
        divmod = staticmethod(jnp.divmod)
        where = staticmethod(jnp.where)
        minimum = staticmethod(jnp.minimum)

        @classmethod
        def steps(cls, value: Any, name: str) -> Any:
            if not (jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)):
                checks.fail(TypeError, name, "step", value)
            integer = value.dtype if value.dtype == jnp.uint32 else cls.integer
            return jnp.maximum(value.astype(integer), 0)

        @classmethod
        def real(cls, integers: Any) -> Any:
            return integers.astype(cls.floating)

        @classmethod
        def power(cls, base: float, exponents: Any) -> Any:
            return jnp.power(cls.floating(base), cls.real(exponents))

        @classmethod
        def scaled(cls, scale_fn: ScaleFn, integers: Any) -> Any:
            return jnp.clip(jnp.asarray(scale_fn(cls.real(integers)), cls.floating), 0, 1)

        @classmethod
        def rates(cls, values: Any, dtype: Any) -> Any:
            return values.astype(dtype or cls.floating)

        @staticmethod
        def plain(values: Any) -> Any:
            return values

    class Jax32(Jax64):
        integer, floating = jnp.int32, jnp.float32
        largest = jnp.iinfo(jnp.int32).max

        @classmethod
        def power(cls, base: float, exponents: Any) -> Any:
            # float32 cannot hold a large exponent, nor its product with log(base), to enough digits. The powers
            # for each of the exponent's four bytes, computed here in float64, need neither.
            result = cls.floating(1)
            for shift in (0, 8, 16, 24):
                powers = [_power(base, byte << shift) for byte in range(256)]
                result = result * jnp.asarray(powers, cls.floating)[(exponents >> shift) & 255]
            return result

    return lambda step: Jax64 if jax.config.jax_enable_x64 else Jax32


# What lets in steps of a type, by the root of the modules that the type and its bases come from.
_FRAMEWORKS: dict[str, Callable[[type], Opener]] = {
    "numpy": lambda kind: _opener(lambda step: _numpy()),
    "tensorflow": lambda kind: _tensorflow()(kind),
    "torch": lambda kind: _opener(_torch()),
    "jax": lambda kind: _opener(_jax()),
    "jaxlib": lambda kind: _opener(_jax()),
    "keras": lambda kind: lambda step, name: enter(step.value, name),  # a variable wraps one of its backend
}


@cache
def _opener_of(kind: type) -> Opener:
    if not issubclass(kind, Real):  # as NumPy's own scalars are
        for base in kind.__mro__:
            root = base.__module__.partition(".")[0]
            if root in _FRAMEWORKS:
                return _FRAMEWORKS[root](kind)
    return _opener(lambda step: Python)


def enter(step: Any, name: str = "step") -> tuple[Namespace, Any]:
    """The namespace of ``step``, and the step as that namespace's integers; ``name`` is for the error message."""
    if type(step) is int and step >= 0:
        return Python, step
    return _opener_of(type(step))(step, name)  # type: ignore[arg-type]


def unwrapped(value: Any) -> Any:
    """What a Keras variable wraps: a tensor or variable of its backend; anything else as it is."""
    is_keras = type(value).__module__.partition(".")[0] == "keras"
    return value.value if is_keras and hasattr(value, "value") else value
