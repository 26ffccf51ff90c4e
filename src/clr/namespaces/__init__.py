"""How each framework's integers become steps, its few array functions, and how rates leave again.

The framework is told by the type of the step, never by importing one to ask: whoever hands over a tensor has
loaded its framework already. So the file of a framework, beside this one, is imported only after one of its objects
has arrived. Each has a function ``enter_of(kind)``, what lets in steps of a type, and its namespaces.

A namespace is a class, alike in every framework:

    steps(value, name)      the step as non-negative integers to compute with
    divmod(a, b)            floor quotient and remainder of integers
    where                   of two values, or of two tuples part by part
    minimum, maximum        element by element
    distance(a, b)          the difference of two non-negative integers, without its sign
    real(integers)          the integers as floats of the working precision
    sin                     of such floats
    search(starts, step)    the index of the last of the sorted integers ``starts`` that is not above ``step``
    take(rows, index)       the row at ``index`` of a table of integers and floats
    power(base, exponents)  base ** exponents for a base in (0, 1] and integers of any size
    scaled(scale_fn, x)     the user's own scaling function, applied to each of the integers x
    is_floating(dtype)      whether rates can have this dtype
    rates(values, dtype)    the computed rates as the caller gets them
    plain(values)           the same for cycle numbers and truth values
    largest                 the largest integer to compute with
    exact                   True on the host, where the rate is rounded once and a bad step is an error

On the host all is float64. TensorFlow and PyTorch tensors are computed in float64 too and rounded to the wanted
dtype at the end; JAX does so where 64-bit types are enabled, and works in float32 where they are not. A step whose
value is not known yet (a traced one) cannot be refused: if negative, it counts as 0.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeVar

from clr import checks

Namespace = Any  # a class as above: a Protocol of its members, all Any, would say less
Enter = Callable[[Any, str], tuple[Namespace, Any]]
ScaleFn = Callable[[Any], Any]
F = TypeVar("F", bound=Callable[..., Any])


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` for a base in (0, 1], on the host."""
    try:
        return math.pow(base, exponent)
    except OverflowError:  # an integer beyond float64
        return float(base == 1.0)


def by_parts(where: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """``where`` for tuples too, which may be nested."""

    def by_part(condition: Any, yes: Any, no: Any) -> Any:
        if isinstance(yes, tuple):
            return tuple([by_part(condition, *pair) for pair in zip(yes, no, strict=True)])
        return where(condition, yes, no)

    return by_part


class Python:
    """A plain integer: the rate leaves as a float."""

    exact = True
    largest = 1 << 1024  # there is none; this is beyond any period
    divmod = divmod
    sin = math.sin
    power = staticmethod(power)
    scaled = staticmethod(checks.scale)

    @staticmethod
    def steps(value: Any, name: str) -> int:
        return checks.step(name, value)

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        return a if a < b else b  # in half of the time of the built-in function

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return a if a > b else b

    @staticmethod
    def where(condition: bool, yes: Any, no: Any) -> Any:
        return yes if condition else no

    @staticmethod
    def distance(a: int, b: int) -> int:
        return abs(a - b)

    @staticmethod
    def real(integers: int) -> int:
        return integers  # the product with a float converts it

    @staticmethod
    def search(starts: Sequence[int], step: int) -> int:
        return bisect_right(starts, step) - 1

    @staticmethod
    def take(rows: Sequence[Any], index: int) -> Any:
        return rows[index]

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        raise TypeError(f"`dtype` is for arrays and tensors, a single step gives a float. Received: {dtype!r}.")

    @staticmethod
    def rates(values: float, dtype: Any) -> float:
        return values

    @staticmethod
    def plain(values: Any) -> Any:
        return values


def _enter_number(step: Any, name: str) -> tuple[Namespace, Any]:
    return Python, Python.steps(step, name)


def _enter_keras_variable(step: Any, name: str) -> tuple[Namespace, Any]:
    return enter(step.value, name)  # it wraps a tensor or variable of its backend


def _numpy(kind: type) -> Enter:
    from clr.namespaces import numpy

    return numpy.enter_of(kind)


def _tensorflow(kind: type) -> Enter:
    from clr.namespaces import tensorflow

    return tensorflow.enter_of(kind)


def _torch(kind: type) -> Enter:
    from clr.namespaces import torch

    return torch.enter_of(kind)


def _jax(kind: type) -> Enter:
    from clr.namespaces import jax

    return jax.enter_of(kind)


def _keras(kind: type) -> Enter:
    return _enter_keras_variable if hasattr(kind, "value") else _enter_number


# By the root of the modules that define the type of a step, or what that type derives from.
_FRAMEWORKS = {
    "numpy": _numpy,
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
    "jaxlib": _jax,
    "keras": _keras,
}

_by_type: dict[type, Enter] = {}  # filled as types arrive


def _find(kind: type) -> Enter:
    if not issubclass(kind, Real):  # as NumPy's own scalars are
        for base in kind.__mro__:
            framework = _FRAMEWORKS.get(base.__module__.partition(".")[0])
            if framework is not None:
                return framework(kind)
    return _enter_number


def enter(step: Any, name: str = "step") -> tuple[Namespace, Any]:
    """The namespace of ``step``, and the step as that namespace's integers; ``name`` is for the error message."""
    kind = type(step)
    if kind is int and step >= 0:
        return Python, step
    if kind not in _by_type:
        _by_type[kind] = _find(kind)
    return _by_type[kind](step, name)


def unconverted(function: F) -> F:
    """Marks what TensorFlow's AutoGraph need not convert: nothing in it branches on a traced value.

    The mark is TensorFlow's own, and not public. Its public decorator needs TensorFlow, and slows every call; should
    the mark lose its meaning, the code is converted, to the same effect.
    """
    function.autograph_info__ = None  # type: ignore[attr-defined]
    return function


def unwrapped(value: Any) -> Any:
    """What a Keras variable wraps: a tensor or variable of its backend; anything else as it is."""
    is_keras = type(value).__module__.partition(".")[0] == "keras"
    return value.value if is_keras and hasattr(value, "value") else value
