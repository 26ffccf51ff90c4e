"""NumPy arrays of steps, computed on the host in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Row, ScaleFn, power

Numbers = NDArray[Any]


def _each(function: Callable[[Any], float], values: Numbers) -> Numbers:
    """``function`` of every element, equal to the scalar call bit for bit (NumPy's own power and sine are not)."""
    results = np.fromiter(map(function, values.ravel().tolist()), np.float64, values.size)
    return results.reshape(values.shape)


class NumPy:
    """Arrays of any shape: the rates leave as an array."""

    exact = keeps = True
    scalar = False
    largest = np.iinfo(np.int64).max

    @staticmethod
    def steps(value: Numbers, name: str) -> Numbers:
        kind = value.dtype.kind
        if kind not in "iuf" or isinstance(value, np.ma.MaskedArray):  # whose mask would be lost
            checks.fail(TypeError, name, "step", value)
        if kind == "f" and not (np.isfinite(value).all() and (value == np.floor(value)).all()):
            checks.fail(ValueError, name, "step", value)
        if value.size and value.min() < 0:
            checks.fail(ValueError, name, "step", value)
        if value.size and int(value.max()) > NumPy.largest:
            checks.fail(ValueError, name, "far_step", value)
        return value.astype(np.int64)

    @staticmethod
    def divmod(a: Numbers, b: int) -> tuple[Numbers, Numbers]:
        return np.divmod(a, b)

    @staticmethod
    def modulo(a: Numbers, b: int) -> Numbers:
        return a % b

    @staticmethod
    def where(condition: Numbers, yes: Numbers | float, no: Numbers | float) -> Numbers:
        return np.where(condition, yes, no)

    @staticmethod
    def minimum(a: Numbers, b: Numbers | float) -> Numbers:
        return np.minimum(a, b)

    @staticmethod
    def maximum(a: Numbers, b: Numbers | float) -> Numbers:
        return np.maximum(a, b)

    @staticmethod
    def sqrt(values: Numbers) -> Numbers:
        return np.sqrt(values)  # IEEE rounds it as the host does

    @staticmethod
    def distance(a: Numbers, b: Numbers | int, rest: Numbers | float) -> Numbers:
        return np.abs(a - b) + rest

    @staticmethod
    def nearer(place: Numbers, period: int) -> Numbers:
        return NumPy.minimum(place, period - place)

    @staticmethod
    def sin(values: Numbers) -> Numbers:
        return _each(math.sin, values)

    @staticmethod
    def search(starts: Sequence[int], step: Numbers) -> Numbers:
        return np.searchsorted(np.asarray(starts, np.int64), step, side="right")

    @staticmethod
    def table(rows: Sequence[Row]) -> Columns:
        return Columns(rows, lambda column, index: np.asarray(column)[index])

    @staticmethod
    def power(base: float, exponents: Numbers) -> Numbers:
        return _each(lambda exponent: power(base, exponent), exponents)

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: Numbers) -> Numbers:
        unique, places = np.unique(integers, return_inverse=True)
        values = _each(lambda argument: checks.scale(scale_fn, argument), unique)
        return values[places].reshape(integers.shape)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return "float" in np.dtype(dtype).name  # as in bfloat16, which is no kind of NumPy's own

    @staticmethod
    def holds(rate: float, dtype: Any) -> bool:
        with np.errstate(over="ignore"):
            return math.isfinite(np.asarray(rate, dtype))

    @staticmethod
    def rates(values: Numbers, dtype: Any) -> Numbers:
        return np.asarray(values, dtype)

    @staticmethod
    def plain(values: Numbers) -> Numbers:
        return np.asarray(values)


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: Numbers, name: str) -> tuple[Arrays[Numbers], Numbers]:
    return NumPy, NumPy.steps(step, name)
