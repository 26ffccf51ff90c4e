"""The original TensorFlow function: a callable in eager mode, a tensor in a graph.

Glue only: it reads the arguments, hands them to a schedule and names the result. TensorFlow is imported when the
function is called.
"""

import math
from functools import lru_cache
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from clr import arrays, checks
from clr.arrays.base import unconverted
from clr.schedules.cyclic import GAMMA, Cyclic
from clr.schedules.policies import cyclic
from clr.schedules.scaling import MODES
from clr.schedules.wave import Row, Wave, length

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    Scalar: TypeAlias = float | NDArray[Any] | tf.Tensor | tf.Variable | keras.Variable

POLICIES = ("triangular", "triangular2", "exp_range")


@unconverted
def cyclic_learning_rate(
    global_step: "Scalar | None",
    learning_rate: "Scalar" = 0.01,
    max_lr: "Scalar" = 0.1,
    step_size: "Scalar" = 20.0,
    gamma: "Scalar" = GAMMA,
    mode: str = "triangular",
    name: str | None = None,
) -> Any:
    """A cyclical learning rate for TensorFlow (Smith 2017), under the name and defaults it has long had.

    The numbers may be Python or NumPy numbers, scalar tensors or variables, of any float or integer dtypes.

    Args:
        global_step: The number of the update, counted from 0: a Python number, or an integer scalar tensor,
            ``tf.Variable`` or Keras variable. A float that holds a whole number is taken too. A variable is read
            anew at every call or run, so the rate follows it.
        learning_rate: The lower bound, per update. Its dtype (float16, bfloat16, float32 or float64) is the
            result's; a Python number gives float32.
        max_lr: The upper bound, per update.
        step_size: Steps in half a cycle.
        gamma: The factor per step of ``"exp_range"``, above 0 and at most 1.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
        name: The name of the tensor in a graph, by default ``"CyclicLearningRate"``.

    Returns:
        In eager mode a callable without arguments that returns the rate as a scalar tensor. Called while a
        ``tf.function`` is traced, it returns a tensor that follows the variable at every run. In a graph, such as
        a ``tf.function`` or a ``tf.compat.v1`` session's, that tensor at once.

    Raises:
        ImportError: TensorFlow is missing.
        TypeError, ValueError: An argument makes no sense; in a graph, as far as its value is known. Where it is not,
            an upper bound below the lower one counts as equal to it, a step size below 0.001 as 0.001, gamma is cut
            to [0, 1], and a negative step counts as 0.

    >>> import clr, tensorflow as tf
    >>> step = tf.Variable(0, dtype=tf.int64)
    >>> rate = clr.cyclic_learning_rate(step)
    >>> float(rate())
    0.009999999776482582
    >>> _ = step.assign(20)
    >>> float(rate())
    0.10000000149011612
    """
    if global_step is None:
        raise ValueError("global_step is required for cyclic_learning_rate.")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "cyclic_learning_rate needs TensorFlow: pip install 'cyclic-learning-rate[tensorflow]'"
        ) from error

    mode = checks.choice("mode", mode, POLICIES)
    counted: tf.Tensor = arrays.unwrapped(global_step)
    if not tf.is_tensor(counted):  # as a variable is too
        _, number = arrays.enter(counted, "global_step")
        if isinstance(number, int) and number > tf.int64.max:
            checks.fail(ValueError, "global_step", "far_step", number)
        counted = tf.constant(number, tf.int64)
    if counted.shape.rank:
        checks.fail(ValueError, "global_step", "a scalar", counted)
    arguments = [arrays.unwrapped(value) for value in (learning_rate, max_lr, step_size, gamma)]
    rate_dtype = _dtype(tf, arguments[0])
    numbers = _numbers(tf, arguments)  # checks now what can be known now
    may_change = any(isinstance(value, tf.Variable) for value in arguments) or any(map(tf.is_tensor, numbers))
    fixed = None if may_change else _schedule(*numbers, mode)

    @unconverted
    def rate() -> "tf.Tensor":
        xp, step = arrays.enter(counted, "global_step")
        if xp.exact:
            schedule = fixed or _schedule(*_numbers(tf, arguments), mode)
            return xp.rates(schedule._rate(xp, step), rate_dtype)
        with tf.name_scope(name or "CyclicLearningRate") as scope:
            result = fixed._rate(xp, step) if fixed else _traced(tf, xp, step, _numbers(tf, arguments), mode)
            return tf.identity(xp.rates(result, rate_dtype), name=scope)

    def as_tensor(dtype: "tf.DType | None" = None, name: str | None = None) -> "tf.Tensor":
        return tf.cast(rate(), dtype or rate_dtype, name)

    rate.__tf_tensor__ = as_tensor  # type: ignore[attr-defined]  # for optimizers that convert and do not call
    return rate if tf.executing_eagerly() else rate()


@lru_cache(maxsize=128, typed=True)
def _schedule(base_lr: float, max_lr: float, step_size: float, gamma: float, mode: str) -> Cyclic:
    return cyclic(base_lr, max_lr, step_size, mode=mode, gamma=gamma)  # type: ignore[arg-type]  # it is checked


def _dtype(tf: ModuleType, learning_rate: object) -> "tf.DType":
    """The dtype of the result: a float tensor's own, float32 for everything else."""
    try:
        dtype = tf.as_dtype(getattr(learning_rate, "dtype", tf.float32))
    except TypeError:  # another framework's
        checks.fail(TypeError, "learning_rate", "rate", learning_rate)
    return dtype if dtype.is_floating else tf.float32


def _numbers(tf: ModuleType, arguments: list[object]) -> list[Any]:
    """The arguments as they are now: checked Python numbers where they are known, tensors where not."""
    names = ("learning_rate", "max_lr", "step_size", "gamma")
    base_lr, max_lr, step_size, gamma = (_number(tf, *pair) for pair in zip(names, arguments, strict=True))
    low = 0.0
    if not tf.is_tensor(base_lr):
        base_lr = low = checks.base_rate("learning_rate", base_lr)
    if not tf.is_tensor(max_lr):
        number = checks.number("max_lr", max_lr, "max_rate", low="learning_rate")
        # The same bound may come in two precisions: 0.1 and a float32 tensor of it.
        is_same = number < low and math.isclose(number, low, rel_tol=1e-6)
        max_lr = low if is_same else checks.max_rate("max_lr", max_lr, "learning_rate", low)
    if not tf.is_tensor(step_size):
        step_size = checks.steps("step_size", step_size)
    if not tf.is_tensor(gamma):
        gamma = checks.gamma("gamma", gamma)
    return [base_lr, max_lr, step_size, gamma]


def _number(tf: ModuleType, name: str, value: object) -> Any:
    """A scalar array, tensor or variable as a Python number where its value is known, else as a tensor."""
    if isinstance(value, Real) or not hasattr(value, "shape"):
        return value
    tensor = tf.convert_to_tensor(value)
    known = tf.get_static_value(tensor)
    if known is None:
        if tensor.shape.rank:
            checks.fail(TypeError, name, "a scalar", value)
        return tensor
    if tensor.shape.rank or not (tensor.dtype.is_integer or tensor.dtype.is_floating):
        return known  # not a number: the check says so
    return int(known) if tensor.dtype.is_integer else float(known)


def _traced(tf: ModuleType, xp: Any, step: "tf.Tensor", numbers: list[Any], mode: str) -> "tf.Tensor":
    """The rate where some of the numbers are known only when the graph runs.

    Nothing can be raised then: an upper bound below the lower one counts as equal to it, the shortest step size is
    0.001, and gamma is cut to [0, 1].
    """
    real = xp.real
    base_lr, max_lr, step_size, gamma = numbers
    base_lr = real(base_lr)
    max_lr = tf.maximum(real(max_lr), base_lr)
    gamma = tf.clip_by_value(real(gamma), 0.0, 1.0)
    if tf.is_tensor(step_size):
        # Steps below 2**53 are whole in float64, and its remainder is exact for a fractional step size too.
        xp, step = _FloatSteps(tf, xp), real(step)
        up = tf.maximum(real(step_size), 0.001)
        ticks, period = 1, 2 * up
    else:
        half = length(step_size)
        ticks, up = half.denominator, half.numerator
        period = 2 * up
    gain = (max_lr - base_lr) / real(up)
    slope = Row(0, 0, 0.0, base_lr, max_lr, gain, 0.0, 0.0)
    return Wave((), (slope,), "linear", period, ticks, True, MODES[mode].scaling, gamma).formula(xp)(step)


class _FloatSteps:
    """The graph's functions, for steps and periods in float64."""

    def __init__(self, tf: ModuleType, graph: object) -> None:
        self.tf, self.graph = tf, graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    def modulo(self, a: "tf.Tensor", b: "tf.Tensor") -> "tf.Tensor":
        return self.tf.math.floormod(a, b)

    def divmod(self, a: "tf.Tensor", b: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        offset = self.tf.math.floormod(a, b)
        return self.tf.round((a - offset) / b), offset
