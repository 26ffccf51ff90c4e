"""MLX arrays of steps, which may be traced: integers of 64 bits, and rates of 32, as on its GPUs."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Row, ScaleFn, power


class MLX:
    """Arrays of any shape, on the default device."""

    exact = scalar = False
    keeps = True
    largest = 2**63 - 1
    where = staticmethod(mx.where)
    minimum = staticmethod(mx.minimum)
    maximum = staticmethod(mx.maximum)
    sin = staticmethod(mx.sin)
    sqrt = staticmethod(mx.sqrt)

    @staticmethod
    def steps(value: Any, name: str) -> Any:
        if not any(mx.issubdtype(value.dtype, kind) for kind in (mx.integer, mx.floating)):
            checks.fail(TypeError, name, "step", value)
        return mx.maximum(value.astype(mx.int64), 0)

    @staticmethod
    def divmod(a: Any, b: int) -> tuple[Any, Any]:
        return a // b, a % b

    @staticmethod
    def modulo(a: Any, b: int) -> Any:
        return a % b

    @staticmethod
    def distance(a: Any, b: Any, rest: Any) -> Any:
        return MLX.real(abs(a - b)) + rest

    @staticmethod
    def nearer(place: Any, period: int) -> Any:
        return MLX.real(mx.minimum(place, period - place))

    @staticmethod
    def search(starts: Sequence[int], step: Any) -> Any:
        if len(starts) < 2:
            return step >= starts[0] if starts else step
        return (step[..., None] >= mx.array(list(starts), mx.int64)).sum(-1)

    @staticmethod
    def table(rows: Sequence[Row]) -> Columns:
        return Columns(rows, MLX._picked)

    @staticmethod
    def _picked(column: Sequence[Any], index: Any) -> Any:
        return mx.array(list(column), mx.int64 if isinstance(column[0], int) else mx.float32)[index.astype(mx.int32)]

    @staticmethod
    def real(integers: Any) -> Any:
        return integers.astype(mx.float32)

    @staticmethod
    def power(base: float, exponents: Any) -> Any:
        # float32 cannot hold a large exponent, nor its product with log(base), to enough digits. The powers for each
        # of the exponent's eight bytes, computed here in float64, need neither.
        result = mx.array(1.0)
        for shift in range(0, 64, 8):
            powers = [power(base, byte << shift) for byte in range(256)]
            result = result * mx.array(powers, mx.float32)[(exponents >> shift) & 255]
        return result

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
        return mx.clip(scale_fn(MLX.real(integers)), 0.0, 1.0)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return bool(mx.issubdtype(dtype, mx.floating))

    @staticmethod
    def holds(rate: float, dtype: Any) -> bool:
        kinds = [mx.finfo(kind) for kind in (dtype or mx.float32, mx.float32)]
        return all(rate < kind.max * (1 + kind.eps / 4) for kind in kinds)

    @staticmethod
    def rates(values: Any, dtype: Any) -> Any:
        return values.astype(dtype or mx.float32)

    @staticmethod
    def plain(values: Any) -> Any:
        return values


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: Any, name: str) -> tuple[Arrays[Any], Any]:
    return MLX, MLX.steps(step, name)
