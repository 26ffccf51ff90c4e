"""PaddlePaddle tensors of steps, computed in float64."""

from collections.abc import Sequence
from typing import Any

import paddle

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Row, ScaleFn

_FLOATING = ("bfloat16", "float16", "float32", "float64")


class Paddle:
    """Tensors on any device."""

    exact = scalar = False
    keeps = True
    largest = 2**63 - 1
    sin = staticmethod(paddle.sin)
    sqrt = staticmethod(paddle.sqrt)

    @staticmethod
    def steps(value: Any, name: str) -> Any:
        if value.dtype == paddle.bool or value.is_complex():
            checks.fail(TypeError, name, "step", value)
        return value.astype("int64").clip(min=0)

    @staticmethod
    def divmod(a: Any, b: int) -> tuple[Any, Any]:
        whole = paddle.floor_divide(a, paddle.full([], b, "int64"))  # `//` would give a scalar a dimension
        return whole, a % b

    @staticmethod
    def modulo(a: Any, b: int) -> Any:
        return a % b

    @staticmethod
    def where(condition: Any, yes: Any, no: Any) -> Any:
        return paddle.where(condition, *(x if paddle.is_tensor(x) else Paddle._like(x, condition) for x in (yes, no)))

    @staticmethod
    def _like(value: float, tensor: Any) -> Any:
        return paddle.full_like(tensor, value, "int64" if isinstance(value, int) else "float64")

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        return paddle.minimum(a, b) if paddle.is_tensor(b) else a.clip(max=b)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return paddle.maximum(a, b) if paddle.is_tensor(b) else a.clip(min=b)

    @staticmethod
    def distance(a: Any, b: Any, rest: Any) -> Any:
        return Paddle.real((a - b).abs()) + rest

    @staticmethod
    def nearer(place: Any, period: int) -> Any:
        return Paddle.real(paddle.minimum(place, period - place))

    @staticmethod
    def search(starts: Sequence[int], step: Any) -> Any:
        if len(starts) < 2:
            return step >= starts[0] if starts else step
        return paddle.searchsorted(paddle.to_tensor(list(starts), "int64"), step, right=True)

    @staticmethod
    def table(rows: Sequence[Row]) -> Columns:
        return Columns(rows, Paddle._picked)

    @staticmethod
    def _picked(column: Sequence[Any], index: Any) -> Any:
        kind = "int64" if isinstance(column[0], int) else "float64"
        return paddle.to_tensor(list(column), kind)[index.astype("int64")]

    @staticmethod
    def real(integers: Any) -> Any:
        return integers.astype("float64")

    @staticmethod
    def power(base: float, exponents: Any) -> Any:
        return paddle.pow(Paddle._like(base, Paddle.real(exponents)), Paddle.real(exponents))

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
        return paddle.to_tensor(scale_fn(Paddle.real(integers)), "float64").clip(0.0, 1.0)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return str(dtype).removeprefix("paddle.") in _FLOATING

    @staticmethod
    def holds(rate: float, dtype: Any) -> bool:
        own = paddle.finfo(dtype or paddle.get_default_dtype())
        return bool(rate < own.max * (1 + own.eps / 4))  # half a unit above the largest number, infinity is nearer

    @staticmethod
    def rates(values: Any, dtype: Any) -> Any:
        return values.astype(dtype or paddle.get_default_dtype())

    @staticmethod
    def plain(values: Any) -> Any:
        return values


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: Any, name: str) -> tuple[Arrays[Any], Any]:
    return Paddle, Paddle.steps(step, name)
