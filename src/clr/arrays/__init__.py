"""Finds the functions of the framework that a step belongs to.

The type of the step tells the framework, so nothing is imported only to ask: whoever hands over a tensor has loaded
its framework already. A framework's file, beside this one, is imported when one of its objects arrives. Its function
``enter_of(kind)`` gives what lets in steps of a type.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any

from clr import checks
from clr.arrays.base import Arrays, Enter, Python


def _enter_number(step: object, name: str) -> tuple[Arrays[Any], int]:
    return Python, checks.step(name, step)


def _enter_keras_variable(step: Any, name: str) -> tuple[Arrays[Any], Any]:
    return enter(step.value, name)  # it wraps a tensor or variable of its backend


def _numpy(kind: type) -> Enter:
    from clr.arrays import numpy

    return numpy.enter_of(kind)


def _tensorflow(kind: type) -> Enter:
    from clr.arrays import tensorflow

    return tensorflow.enter_of(kind)


def _torch(kind: type) -> Enter:
    from clr.arrays import torch

    return torch.enter_of(kind)


def _jax(kind: type) -> Enter:
    from clr.arrays import jax

    return jax.enter_of(kind)


def _mlx(kind: type) -> Enter:
    from clr.arrays import mlx

    return mlx.enter_of(kind)


def _paddle(kind: type) -> Enter:
    from clr.arrays import paddle

    return paddle.enter_of(kind)


def _keras(kind: type) -> Enter:
    return _enter_keras_variable if hasattr(kind, "value") else _enter_number


# By the root of the modules that define the type of a step, or what that type derives from.
_FRAMEWORKS: dict[str, Callable[[type], Enter]] = {
    "numpy": _numpy,
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
    "jaxlib": _jax,
    "mlx": _mlx,
    "paddle": _paddle,
    "keras": _keras,
}

_by_type: dict[type, Enter] = {}  # filled as types arrive


def _find(kind: type) -> Enter:
    is_array = hasattr(kind, "dtype") and hasattr(kind, "shape")  # frameworks have classes of other things too
    if is_array and not issubclass(kind, Real):  # as NumPy's own scalars are
        for base in kind.__mro__:
            framework = _FRAMEWORKS.get(base.__module__.partition(".")[0])
            if framework is not None:
                return framework(kind)
    return _enter_number


def enter(step: object, name: str = "step") -> tuple[Arrays[Any], Any]:
    """The functions of the framework of ``step``, and the step as integers of it; ``name`` is for the error message."""
    kind = type(step)
    if kind not in _by_type:
        _by_type[kind] = _find(kind)
    return _by_type[kind](step, name)


def unwrapped(value: Any) -> Any:
    """What a Keras variable wraps: a tensor or variable of its backend; anything else as it is."""
    is_keras = type(value).__module__.partition(".")[0] == "keras"
    return value.value if is_keras and hasattr(value, "value") else value
