"""What differs between frameworks: a Protocol, and what it is for a plain Python number.

On the host all is float64. TensorFlow and PyTorch tensors are computed in float64 too and rounded to the wanted dtype
at the end. JAX does so where 64-bit types are enabled, and works in float32 where they are not. A traced step has no
value yet, so it cannot be refused: a negative one counts as 0.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import mod
from typing import Any, Protocol, TypeVar

from clr import checks

ScaleFn = Callable[[Any], Any]
Row = tuple[Any, ...]
F = TypeVar("F", bound=Callable[..., Any])


class Array(Protocol):
    """What numbers, arrays and tensors of all frameworks have in common: the operators of the formula."""

    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...


A = TypeVar("A", bound=Array)
Index = TypeVar("Index", contravariant=True)


class Table(Protocol[Index]):
    """Rows that an integer, or integers of a framework, can be looked up in."""

    def __getitem__(self, index: Index, /) -> Any: ...


class Arrays(Protocol[A]):
    """The few functions of a framework that the formula needs. Each framework has a class of them."""

    exact: bool
    """True on the host, where the rate is rounded once and a bad step is an error."""
    scalar: bool
    """True for a single number on the host."""
    keeps: bool
    """Whether what was prepared for one call may serve the next."""
    largest: int
    """The largest integer to compute with."""

    def divmod(self, a: A, b: Any, /) -> tuple[A, A]:
        """Floor quotient and remainder of integers."""

    def modulo(self, a: A, b: Any, /) -> A:
        """The remainder alone."""

    def where(self, condition: A, yes: Any, no: Any, /) -> A:
        """``yes`` or ``no``, element by element."""

    def minimum(self, a: A, b: Any, /) -> A:
        """The smaller of two, element by element."""

    def maximum(self, a: A, b: Any, /) -> A:
        """The larger of two, element by element."""

    def distance(self, a: A, b: Any, rest: Any, /) -> A:
        """The distance of two non-negative integers and a rest, as a float of the working precision."""

    def nearer(self, place: A, period: Any, /) -> A:
        """The distance to the nearer end of a period, as a float of the working precision."""

    def sin(self, values: A, /) -> A:
        """The sine of floats."""

    def sqrt(self, values: A, /) -> A:
        """The square root of floats."""

    def search(self, starts: Sequence[int], step: A, /) -> A:
        """How many of the sorted integers ``starts`` are not above ``step``."""

    def table(self, rows: Sequence[Row], /) -> "Table[A]":
        """A table of integers and floats, which has the row at ``index`` as ``table[index]``."""

    def power(self, base: Any, exponents: A, /) -> A:
        """``base ** exponents``, for a base in (0, 1] and integers of any size."""

    def scaled(self, scale_fn: ScaleFn, integers: A, /) -> A:
        """A user's own scaling function, applied to each integer."""

    def is_floating(self, dtype: Any, /) -> bool:
        """Whether rates can have this dtype."""

    def holds(self, rate: float, dtype: Any, /) -> bool:
        """Whether a rate is a number of this dtype, not infinity. None stands for the framework's own."""

    def rates(self, values: A, dtype: Any, /) -> Any:
        """The computed rates as the caller gets them."""

    def plain(self, values: A, /) -> Any:
        """Cycle numbers and truth values as the caller gets them."""


Enter = Callable[[Any, str], tuple[Arrays[Any], Any]]


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` for a base in (0, 1], on the host."""
    try:
        return math.pow(base, exponent)
    except OverflowError:  # an integer beyond float64
        return float(base == 1.0)


class Python:
    """A plain integer: the rate leaves as a float."""

    exact = scalar = keeps = True
    largest = 1 << 1024  # there is none; this is beyond any period
    divmod = divmod
    modulo = mod
    sin = math.sin
    sqrt = math.sqrt
    search = bisect_right
    power = staticmethod(power)
    scaled = staticmethod(checks.scale)

    @staticmethod
    def minimum(a: float, b: float) -> float:
        return a if a < b else b  # in half of the time of the built-in function

    @staticmethod
    def maximum(a: float, b: float) -> float:
        return a if a > b else b

    @staticmethod
    def where(condition: float, yes: float, no: float) -> float:
        return yes if condition else no

    @staticmethod
    def distance(a: float, b: float, rest: float) -> float:
        return abs(a - b) + rest

    @staticmethod
    def nearer(place: float, period: float) -> float:
        return min(place, period - place)

    @staticmethod
    def table(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(map(tuple, rows))  # Python unpacks these faster than named tuples

    @staticmethod
    def is_floating(dtype: object) -> bool:
        return False

    @staticmethod
    def holds(rate: float, dtype: object) -> bool:
        return True

    @staticmethod
    def rates(values: float, dtype: object) -> float:
        return values

    @staticmethod
    def plain(values: float) -> float:
        return values


class Columns:
    """A table that is looked up column by column. One whose values are all the same needs no look."""

    def __init__(self, rows: Sequence[Row], pick: Callable[[Sequence[Any], Any], Any]) -> None:
        self._columns = [(column, _is_one(column)) for column in zip(*rows, strict=True)]
        self._pick = pick

    def __getitem__(self, index: Any) -> list[Any]:
        return [column[0] if is_one else self._pick(column, index) for column, is_one in self._columns]


def _is_one(column: Sequence[Any]) -> bool:
    first = column[0]
    return all(value is first or (type(value) in (int, float) and value == first) for value in column)


def unconverted(function: F) -> F:
    """Marks what TensorFlow's AutoGraph need not convert: nothing in it branches on a traced value.

    The mark is TensorFlow's own, and not public. Its public decorator needs TensorFlow, and slows every call; should
    the mark lose its meaning, the code is converted, to the same effect.
    """
    function.autograph_info__ = None  # type: ignore[attr-defined]
    return function
