"""TensorFlow tensors of steps: a value at hand is computed on the host, a traced one in the graph in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clr import checks
from clr.arrays.base import Arrays, Columns, Enter, Python, Row, ScaleFn
from clr.arrays.numpy import Numbers, NumPy


def _tensor(value: tf.Tensor, name: str) -> tf.Tensor:
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor | tf.TypeSpec):
        checks.fail(TypeError, name, "step", value)
    result = tf.convert_to_tensor(value)
    if not (result.dtype.is_integer or result.dtype.is_floating):
        checks.fail(TypeError, name, "step", value)
    return result


class Graph:
    """Traced: a graph, a function, or what XLA compiles of one."""

    exact = scalar = False
    keeps = True
    largest = tf.int64.max
    minimum = staticmethod(tf.minimum)
    maximum = staticmethod(tf.maximum)
    sin = staticmethod(tf.sin)
    sqrt = staticmethod(tf.sqrt)

    @staticmethod
    def steps(value: tf.Tensor, name: str) -> Any:
        tensor = _tensor(value, name)
        known = tf.get_static_value(tensor)
        if known is not None:
            NumPy.steps(np.asarray(known, np.float64 if tensor.dtype.is_floating else None), name)  # or it raises
        return tf.maximum(tf.cast(tensor, tf.int64), 0)

    @staticmethod
    def divmod(a: tf.Tensor, b: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        return a // b, a % b

    @staticmethod
    def modulo(a: tf.Tensor, b: tf.Tensor | int) -> tf.Tensor:
        return a % b

    @staticmethod
    def where(condition: tf.Tensor, yes: Any, no: Any) -> tf.Tensor:
        return tf.where(condition, *(x if tf.is_tensor(x) else Graph.real(x) for x in (yes, no)))

    @staticmethod
    def real(value: tf.Tensor | float) -> tf.Tensor:
        # Without the hint a Python float would pass through float32 on its way.
        return tf.cast(tf.convert_to_tensor(value, dtype_hint=tf.float64), tf.float64)

    @staticmethod
    def distance(a: tf.Tensor, b: tf.Tensor | int, rest: tf.Tensor | float) -> tf.Tensor:
        whole = Graph.real(tf.abs(a - b))
        return whole if isinstance(rest, float) and not rest else whole + rest

    @staticmethod
    def nearer(place: tf.Tensor, period: tf.Tensor | int) -> tf.Tensor:
        return Graph.real(tf.minimum(place, period - place))

    @staticmethod
    def search(starts: Sequence[Any], step: tf.Tensor) -> tf.Tensor:
        if len(starts) < 2:
            return step >= starts[0] if starts else step
        places = tf.searchsorted(tf.constant(starts, tf.int64), tf.reshape(step, [-1]), "right", tf.int64)
        return tf.reshape(places, tf.shape(step))

    @staticmethod
    def table(rows: Sequence[Row]) -> Columns:
        return Columns(rows, Graph._picked)

    @staticmethod
    def _picked(column: Sequence[Any], index: tf.Tensor) -> tf.Tensor:
        kind = tf.int64 if isinstance(column[0], int) else tf.float64
        if index.dtype == tf.bool:
            no, yes = (value if tf.is_tensor(value) else tf.constant(value, kind) for value in column)
            return tf.where(index, yes, no)
        return tf.gather(tf.constant(column, kind), index)

    @staticmethod
    def power(base: tf.Tensor | float, exponents: tf.Tensor) -> tf.Tensor:
        return tf.pow(Graph.real(base), Graph.real(exponents))

    @staticmethod
    def scaled(scale_fn: ScaleFn, integers: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(Graph.real(scale_fn(Graph.real(integers))), 0.0, 1.0)

    @staticmethod
    def is_floating(dtype: Any) -> bool:
        return bool(tf.as_dtype(dtype).is_floating)

    @staticmethod
    def holds(rate: float, dtype: Any) -> bool:
        return NumPy.holds(rate, tf.as_dtype(dtype or tf.float32).as_numpy_dtype)

    @staticmethod
    def rates(values: Any, dtype: Any) -> tf.Tensor:
        return tf.cast(values, dtype or tf.float32)

    @staticmethod
    def plain(values: tf.Tensor) -> tf.Tensor:
        return values


class EagerScalar(Python):
    """One value at hand, computed on the host: exact, and far cheaper than a dozen small ops."""

    @staticmethod
    def steps(value: tf.Tensor, name: str) -> int:
        at_hand = _tensor(value, name)
        return checks.step(name, int(at_hand) if at_hand.dtype.is_integer else float(at_hand))

    is_floating, holds = Graph.is_floating, Graph.holds

    @staticmethod
    def rates(values: float, dtype: Any) -> tf.Tensor:
        return _constant(values, dtype or tf.float32)

    @staticmethod
    def plain(values: float) -> tf.Tensor:
        return tf.constant(values, tf.bool if isinstance(values, bool) else tf.int64)


class EagerArray(NumPy):
    """Values at hand, computed on the host."""

    @staticmethod
    def steps(value: tf.Tensor, name: str) -> Any:
        at_hand = _tensor(value, name)
        if at_hand.dtype.is_floating:
            at_hand = tf.cast(at_hand, tf.float64)  # NumPy has no bfloat16 of its own
        return NumPy.steps(at_hand.numpy(), name)

    is_floating, holds = Graph.is_floating, Graph.holds

    @staticmethod
    def rates(values: Any, dtype: Any) -> tf.Tensor:
        return tf.cast(values, dtype or tf.float32)

    @staticmethod
    def plain(values: Numbers) -> tf.Tensor:
        return tf.constant(values)


def enter_of(kind: type) -> Enter:
    """What lets in steps of a type."""
    is_plain = issubclass(kind, tf.Variable) and not issubclass(kind, tf.distribute.DistributedValues)
    return _enter_variable if is_plain else _enter


def _enter(step: tf.Tensor, name: str) -> tuple[Arrays[Any], Any]:
    if not tf.executing_eagerly():
        return Graph, Graph.steps(step, name)
    return (
        (EagerArray, EagerArray.steps(step, name)) if step.shape.rank else (EagerScalar, EagerScalar.steps(step, name))
    )


def _enter_variable(step: tf.Variable, name: str) -> tuple[Arrays[Any], Any]:
    """The short way for what eager training reads at every step: half of the cost of a rate is this read."""
    dtype = step.dtype
    if dtype.is_integer and step.shape.rank == 0 and _is_eager():
        return EagerScalar, checks.step(name, int(_read(resource=step.handle, dtype=dtype)))
    return _enter(step, name)


# Names for what is looked up at every step.
_constant, _is_eager, _read = tf.constant, tf.executing_eagerly, tf.raw_ops.ReadVariableOp
