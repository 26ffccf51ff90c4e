"""NumPy's namespace: arrays of steps, computed on the host in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clr import checks
from clr.namespaces import Enter, Namespace, ScaleFn, by_parts, power


def _each(function: Callable[[Any], float], values: Any) -> Any:
    """``function`` of every element, equal to the scalar call bit for bit (NumPy's own power and sine are not)."""
    results = np.fromiter(map(function, values.ravel().tolist()), np.float64, values.size)
    return results.reshape(values.shape)


class NumPy:
    """Arrays of any shape: the rates leave as an array."""

    exact = True
    largest = np.iinfo(np.int64).max
    divmod = staticmethod(np.divmod)
    where = staticmethod(by_parts(np.where))
    minimum = staticmethod(np.minimum)
    maximum = staticmethod(np.maximum)

    @staticmethod
    def steps(value: Any, name: str) -> Any:
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
    def distance(a: Any, b: Any) -> Any:
        return np.abs(a - b)

    @staticmethod
    def real(integers: Any) -> Any:
        return integers

    @staticmethod
    def sin(values: Any) -> Any:
        return _each(math.sin, values)

    @staticmethod
    def search(starts: Sequence[int], step: Any) -> Any:
        return np.searchsorted(np.asarray(starts), step, side="right") - 1

    @staticmethod
    def take(rows: Sequence[Any], index: Any) -> Any:
        return [np.asarray(column)[index] for column in zip(*rows, strict=True)]

    @staticmethod
    def power(base: float, exponents: Any) -> Any:
        return _each(lambda exponent: power(base, exponent), exponents)

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: Any) -> Any:
        unique, places = np.unique(integers, return_inverse=True)
        values = _each(lambda argument: checks.scale(scale_fn, argument), unique)
        return values[places].reshape(integers.shape)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return not np.issubdtype(dtype, np.integer)

    @staticmethod
    def rates(values: Any, dtype: Any) -> Any:
        return np.asarray(values, dtype)

    @staticmethod
    def plain(values: Any) -> Any:
        return np.asarray(values)


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    return _enter


def _enter(step: Any, name: str) -> tuple[Namespace, Any]:
    return NumPy, NumPy.steps(step, name)
