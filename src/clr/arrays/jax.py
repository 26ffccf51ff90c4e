"""JAX arrays of steps, which may be traced, in 64 bits where those are enabled and else in 32."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Row, ScaleFn, power
from clr.arrays.numpy import NumPy

_FEW = 8  # rows of a table


class Jax64:
    """Where 64-bit types are enabled."""

    exact = scalar = False
    keeps = True
    integer, floating = jnp.int64, jnp.float64
    largest = jnp.iinfo(jnp.int64).max
    divmod = staticmethod(jnp.divmod)
    minimum = staticmethod(jnp.minimum)
    maximum = staticmethod(jnp.maximum)
    sin = staticmethod(jnp.sin)
    sqrt = staticmethod(jnp.sqrt)

    @classmethod
    def steps(cls, value: jax.Array, name: str) -> jax.Array:
        is_number = jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
        if not (isinstance(value, jax.Array) and is_number):
            checks.fail(TypeError, name, "step", value)
        return jnp.maximum(value.astype(cls.integer), 0)

    @classmethod
    def modulo(cls, a: jax.Array, b: int) -> jax.Array:
        return cls.divmod(a, b)[1]  # jax.Array.__mod__ takes no number beyond int32

    @staticmethod
    def where(condition: jax.Array, yes: jax.Array | float, no: jax.Array | float) -> jax.Array:
        return jnp.where(condition, yes, no)

    @classmethod
    def distance(cls, a: jax.Array, b: jax.Array | int, rest: jax.Array | float) -> jax.Array:
        b = jnp.asarray(b, cls.integer)
        return cls.real(jnp.maximum(a, b) - jnp.minimum(a, b)) + rest  # unsigned integers have no negative difference

    @classmethod
    def nearer(cls, place: jax.Array, period: int) -> jax.Array:
        return cls.real(jnp.minimum(place, cls.integer(period) - place))

    @classmethod
    def search(cls, starts: Sequence[int], step: jax.Array) -> jax.Array:
        if len(starts) < 2:
            return step >= cls.integer(starts[0]) if starts else step
        method = "compare_all" if len(starts) <= _FEW else "scan"
        return jnp.searchsorted(jnp.asarray(starts, cls.integer), step, side="right", method=method)

    @classmethod
    def table(cls, rows: Sequence[Row]) -> Columns:
        return Columns(rows, cls._picked)

    @classmethod
    def _picked(cls, column: Sequence[Any], index: jax.Array) -> jax.Array:
        kind = cls.integer if isinstance(column[0], int) else cls.floating
        if len(column) > _FEW:
            return jnp.asarray(column, kind)[index]
        # Of a few, comparisons that XLA fuses with all the rest are faster than a look into memory.
        result = jnp.full(index.shape, column[0], kind)
        for number, (before, value) in enumerate(pairwise(column), 1):
            if value != before:
                result = jnp.where(index >= number, kind(value), result)
        return result

    @classmethod
    def real(cls, integers: jax.Array) -> jax.Array:
        return integers.astype(cls.floating)

    @classmethod
    def power(cls, base: float, exponents: jax.Array) -> jax.Array:
        return jnp.power(cls.floating(base), cls.real(exponents))

    @classmethod
    def scaled(cls, scale_fn: ScaleFn, integers: jax.Array) -> jax.Array:
        return jnp.clip(jnp.asarray(scale_fn(cls.real(integers)), cls.floating), 0, 1)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return bool(jnp.issubdtype(dtype, jnp.floating))

    @classmethod
    def holds(cls, rate: float, dtype: Any) -> bool:
        return all(NumPy.holds(rate, jnp.dtype(kind)) for kind in (dtype or cls.floating, cls.floating))

    @classmethod
    def rates(cls, values: jax.Array, dtype: Any) -> jax.Array:
        return values.astype(dtype or cls.floating)

    @staticmethod
    def plain(values: jax.Array) -> jax.Array:
        return values


class Jax32(Jax64):
    """Where they are not."""

    integer, floating = jnp.int32, jnp.float32
    largest = jnp.iinfo(jnp.int32).max

    @classmethod
    def power(cls, base: float, exponents: jax.Array) -> jax.Array:
        # float32 cannot hold a large exponent, nor its product with log(base), to enough digits. The powers
        # for each of the exponent's four bytes, computed here in float64, need neither.
        result = cls.floating(1)
        for shift in (0, 8, 16, 24):
            powers = [power(base, byte << shift) for byte in range(256)]
            result = result * jnp.asarray(powers, cls.floating)[(exponents >> shift) & 255]
        return result


class JaxUnsigned32(Jax32):
    """And where the step is unsigned, it counts twice as far."""

    integer = jnp.uint32
    largest = jnp.iinfo(jnp.uint32).max

    # JAX reads a Python integer as int32, which cannot hold the larger half of these.

    @classmethod
    def divmod(cls, a: jax.Array, b: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        return jnp.divmod(a, cls._own(b))

    @classmethod
    def minimum(cls, a: jax.Array, b: jax.Array | float) -> jax.Array:
        return jnp.minimum(a, cls._own(b))

    @classmethod
    def maximum(cls, a: jax.Array, b: jax.Array | float) -> jax.Array:
        return jnp.maximum(a, cls._own(b))

    @classmethod
    def distance(cls, a: jax.Array, b: jax.Array | int, rest: jax.Array | float) -> jax.Array:
        return super().distance(a, cls._own(b), rest)

    @classmethod
    def _own(cls, value: Any) -> Any:
        return cls.integer(value) if isinstance(value, int) else value


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: jax.Array, name: str) -> tuple[Arrays[jax.Array], jax.Array]:
    narrow = JaxUnsigned32 if step.dtype == jnp.uint32 else Jax32
    functions = Jax64 if jax.config.jax_enable_x64 else narrow
    return functions, functions.steps(step, name)
