"""`clr.cyclic_learning_rate`: what it takes, what it gives and what it refuses, in eager mode and in graphs."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

import clr
from tests.reference import exact_rate

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

if not tf.config.get_logical_device_configuration(tf.config.list_physical_devices("CPU")[0]):
    with suppress(RuntimeError):  # two CPUs, for the strategies; too late if TensorFlow was used before
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )

MODES = ("triangular", "triangular2", "exp_range")
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # relative
LOW_PRECISION = ("float16", "bfloat16")
GAMMA = 0.9994
STEPS = (0, 1, 5, 19, 20, 21, 33, 40, 65, 1_000_003, 2**31 - 1)

each_mode = pytest.mark.parametrize("mode", MODES)


def _exact(step: int, mode: str = "triangular", half: Fraction | int = 20, base: float = 0.01) -> Fraction:
    return exact_rate(step, base, 0.1, half, mode=mode, gamma=GAMMA)


def _check(rate: Any, expected: Fraction, dtype: str = "float32") -> None:
    """``rate``, a scalar tensor or what a session made of one, is the expected rate in that dtype."""
    assert rate.shape == ()
    assert tf.as_dtype(rate.dtype) == dtype
    if dtype in LOW_PRECISION:
        assert float(rate) == float(np.asarray(float(expected)).astype(tf.as_dtype(dtype).as_numpy_dtype))
    else:
        assert abs(Fraction(float(rate)) / expected - 1) <= TOLERANCE[dtype]


# Every way to run it, as a function that moves the step and gives the rate. `make` gives the arguments, made where
# variables have to be made: in the graph that uses them.

Arguments = Callable[[], dict[str, Any]]
Follow = Callable[[int], Any]


def _eager(make: Arguments, integer: str) -> Follow:
    step = tf.Variable(0, dtype=integer)
    rate = clr.cyclic_learning_rate(step, **make())
    assert callable(rate)

    def at(number: int) -> Any:
        step.assign(tf.cast(number, integer))
        return rate()

    return at


def _function(make: Arguments, integer: str, jit_compile: bool = False, made_outside: bool = False) -> Follow:
    """In a function that is traced once. Made outside of it, as an optimizer does, it is a callable."""
    step, arguments, traces = tf.Variable(0, dtype=integer), make(), []
    rate = clr.cyclic_learning_rate(step, **arguments) if made_outside else None

    @tf.function(jit_compile=jit_compile)
    def function() -> Any:
        traces.append(1)
        result = rate() if rate else clr.cyclic_learning_rate(step, **arguments)
        assert tf.is_tensor(result)
        assert result.shape == ()
        return result

    def at(number: int) -> Any:
        step.assign(tf.cast(number, integer))
        result = function()
        assert len(traces) == 1
        return result

    return at


def _session(make: Arguments, integer: str) -> Follow:
    """One tensor in a session's graph."""
    with tf.Graph().as_default() as graph:
        step = tf.compat.v1.Variable(0, dtype=integer, trainable=False)
        move = tf.compat.v1.placeholder(integer, [])
        assign = step.assign(move)
        rate = clr.cyclic_learning_rate(step, **make())
        initializer = tf.compat.v1.global_variables_initializer()
    assert tf.is_tensor(rate)
    session = tf.compat.v1.Session(graph=graph)
    session.run(initializer)

    def at(number: int) -> Any:
        session.run(assign, {move: number})
        return session.run(rate)

    return at


WAYS: dict[str, Callable[[Arguments, str], Follow]] = {
    "eager": _eager,
    "function": _function,
    "xla": partial(_function, jit_compile=True),
    "callable_in_function": partial(_function, made_outside=True),
    "callable_in_xla": partial(_function, jit_compile=True, made_outside=True),
    "session": _session,
}


def each_way(*names: str) -> Any:
    return pytest.mark.parametrize("way", [pytest.param(WAYS[name], id=name) for name in names or WAYS])


# The step


@each_mode
@each_way()
@pytest.mark.parametrize("integer", ["int32", "int64"])
def test_the_rate_follows_a_variable(way: Any, mode: str, integer: str) -> None:
    rate_at = way(lambda: {"step_size": 20, "gamma": GAMMA, "mode": mode}, integer)
    for step in (*STEPS, 3, 0):
        _check(rate_at(step), _exact(step, mode))


@each_way("eager", "function", "session")
@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64"],
)
def test_a_step_of_any_dtype_that_holds_it_is_taken(way: Any, dtype: str) -> None:
    rate_at = way(dict, dtype)
    for step in (0, 1, 20, 33, 127):
        _check(rate_at(step), _exact(step))


STEP_KINDS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "float": float,
    "Fraction": Fraction,
    "int32": np.int32,
    "uint8": np.uint8,
    "float64": np.float64,
    "array": np.array,
    "constant": tf.constant,
    "Variable": tf.Variable,
    "uint64": lambda step: tf.constant(step, tf.uint64),
    "bfloat16": lambda step: tf.constant(step, tf.bfloat16),
    "keras": lambda step: keras.Variable(step, dtype="int64"),
}


@pytest.mark.parametrize("make", STEP_KINDS.values(), ids=STEP_KINDS)
@each_mode
def test_a_step_of_any_kind_is_taken(make: Callable[[int], Any], mode: str) -> None:
    for step in (0, 7, 33, 60):
        rate = clr.cyclic_learning_rate(make(step), gamma=GAMMA, mode=mode)
        _check(rate(), _exact(step, mode))
        in_function = tf.function(lambda: rate())  # noqa: B023 # called in this turn of the loop
        _check(in_function(), _exact(step, mode))


@each_mode
def test_a_step_may_be_the_argument_of_a_function(mode: str) -> None:
    function = tf.function(lambda step: clr.cyclic_learning_rate(step, gamma=GAMMA, mode=mode))
    for step in STEPS:
        _check(function(tf.constant(step)), _exact(step, mode))
    assert function.experimental_get_tracing_count() == 1


def test_a_keras_variable_is_followed() -> None:
    step = keras.Variable(0, dtype="int64")
    rate = clr.cyclic_learning_rate(step)
    function = tf.function(lambda: rate())
    for number in (0, 20, 33):
        step.assign(number)
        _check(rate(), _exact(number))
        _check(function(), _exact(number))


@each_way("function", "xla", "callable_in_function", "session")
def test_a_negative_step_of_a_graph_counts_as_0(way: Any) -> None:
    _check(way(dict, "int64")(-5), _exact(0))


# The dtype


def _variable(value: float, dtype: str) -> Any:
    return tf.compat.v1.Variable(value, dtype=dtype)


RATE_KINDS: dict[str, Callable[[float, str], Any]] = {
    "constant": tf.constant,
    "numpy": lambda value, dtype: tf.as_dtype(dtype).as_numpy_dtype(value),
    "variable": _variable,
    "keras": lambda value, dtype: keras.Variable(value, dtype=dtype),
}


@pytest.mark.parametrize("dtype", [*LOW_PRECISION, *TOLERANCE])
@each_way("eager", "function", "xla", "session")
@pytest.mark.parametrize("kind", RATE_KINDS)
@each_mode
def test_the_result_has_the_dtype_of_learning_rate(way: Any, kind: str, dtype: str, mode: str) -> None:
    """In a low precision it is the exact rate rounded to it: nothing before is computed in it."""
    if kind == "keras" and way is _session:
        pytest.skip("Keras has no variables there")
    base = float(np.asarray(0.01, tf.as_dtype(dtype).as_numpy_dtype))  # what arrives
    rate_at = way(lambda: {"learning_rate": RATE_KINDS[kind](0.01, dtype), "gamma": GAMMA, "mode": mode}, "int64")
    for step in STEPS:
        _check(rate_at(step), _exact(step, mode, base=base), dtype)


@each_way()
@pytest.mark.parametrize("learning_rate", [0, 1, np.int64(0), Fraction(1, 100)])
def test_a_learning_rate_that_is_no_float_gives_float32(way: Any, learning_rate: Any) -> None:
    rate = way(lambda: {"learning_rate": learning_rate, "max_lr": 2}, "int64")(5)
    _check(rate, learning_rate + (2 - Fraction(int(learning_rate * 100), 100)) / 4)


# The other numbers


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "python": lambda: {"learning_rate": 0.01, "max_lr": 0.1, "step_size": 20, "gamma": GAMMA},
    "numpy": lambda: {
        "learning_rate": np.float64(0.01),
        "max_lr": np.float64(0.1),
        "step_size": np.int16(20),
        "gamma": np.array(GAMMA),
    },
    "tensors": lambda: {
        "learning_rate": tf.constant(0.01, tf.float64),
        "max_lr": tf.constant(0.1, tf.float64),
        "step_size": tf.constant(20),
        "gamma": tf.constant(GAMMA, tf.float64),
    },
    "variables": lambda: {
        "learning_rate": _variable(0.01, "float64"),
        "max_lr": _variable(0.1, "float64"),
        "step_size": _variable(20, "int32"),
        "gamma": _variable(GAMMA, "float64"),
    },
    "mixed": lambda: {
        "learning_rate": _variable(0.01, "float64"),
        "max_lr": 0.1,
        "step_size": tf.constant(20, tf.bfloat16),
        "gamma": _variable(GAMMA, "float64"),
    },
}


@each_mode
@each_way()
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_may_be_of_any_kind(way: Any, kind: str, mode: str) -> None:
    dtype = "float32" if kind == "python" else "float64"
    rate_at = way(lambda: KINDS[kind]() | {"mode": mode}, "int64")
    for step in (*STEPS, 2**53 - 1):
        _check(rate_at(step), _exact(step, mode), dtype)


@each_mode
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("size", "half"), [(20, Fraction(20)), (977.5, Fraction(1955, 2)), (0.5, Fraction(1, 2))])
def test_the_numbers_may_be_the_arguments_of_a_function(
    mode: str, jit_compile: bool, size: float, half: Fraction
) -> None:
    """And so unknown when it is traced."""
    real = tf.TensorSpec([], tf.float64)

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec([], tf.int64), real, real, real, real])
    def function(step: Any, base: Any, top: Any, size: Any, gamma: Any) -> Any:
        return clr.cyclic_learning_rate(step, base, top, size, gamma, mode)

    for step in (*STEPS, 977, 978, 1955, 2**53 - 1):
        _check(function(step, 0.01, 0.1, size, GAMMA), _exact(step, mode, half), "float64")
    _check(function(3, 0.02, 0.1, size, GAMMA), _exact(3, mode, half, base=0.02), "float64")


@each_mode
@each_way("eager", "function", "xla", "callable_in_function")
def test_variables_that_move_are_followed(way: Any, mode: str) -> None:
    numbers = KINDS["variables"]()
    rate_at = way(lambda: numbers | {"mode": mode}, "int64")
    _check(rate_at(33), _exact(33, mode), "float64")
    for name, value in (("learning_rate", 0.025), ("max_lr", 0.5), ("step_size", 7), ("gamma", 0.75)):
        numbers[name].assign(value)
    for step in (0, 5, 33, 47):
        expected = exact_rate(step, 0.025, 0.5, 7, mode=mode, gamma=0.75)
        _check(rate_at(step), expected, "float64")


# The graph


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "CyclicLearningRate"), ("", "CyclicLearningRate"), ("speed", "speed")]
)
@pytest.mark.parametrize("moving", [False, True])
def test_the_tensor_is_named(name: str | None, expected: str, moving: bool) -> None:
    with tf.Graph().as_default():
        size = _variable(20.0, "float32") if moving else 20
        assert clr.cyclic_learning_rate(0, step_size=size, name=name).op.name == expected
        assert clr.cyclic_learning_rate(0, step_size=size, name=name).op.name == f"{expected}_1"
        with tf.name_scope("train"):
            assert clr.cyclic_learning_rate(0, name=name).op.name == f"train/{expected}"

    names = []
    tf.function(lambda: names.append(clr.cyclic_learning_rate(0, name=name).op.name))()
    rate = clr.cyclic_learning_rate(0, name=name)
    tf.function(lambda: names.append(rate().op.name))()
    assert names == [expected] * 2


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[_Log]:
    """What TensorFlow and absl log."""
    handler, loggers = _Log(), [logging.getLogger("tensorflow"), logging.getLogger("absl")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def test_the_log_is_seen(log: _Log) -> None:
    """The next test could not fail otherwise."""

    def only_words() -> None:
        """What AutoGraph cannot convert: without the docstring there is no body."""

    tf.function(lambda: only_words())()
    assert any("AutoGraph" in message for message in log.messages)


def test_tracing_logs_nothing(log: _Log) -> None:
    schedules = [
        clr.triangular(0.01, 0.1, 20.3),
        clr.exp_range(0.01, 0.1, 5, step_size_down=9),
        clr.cyclic(0.01, 0.1, 20, scale_fn=lambda cycle: 1 / cycle),
    ]
    step = tf.Variable(3)
    rate = clr.cyclic_learning_rate(step, step_size=_variable(3.5, "float64"), mode="exp_range")

    @tf.function
    def function() -> Any:
        for schedule in schedules:
            schedule(step), schedule.cycle(step), schedule.is_cycle_end(step)
        return rate() + clr.cyclic_learning_rate(step, mode="triangular2")

    function()
    tf.function(schedules[0])(step)
    tf.function(rate)()
    assert log.messages == []


# Refused


def _mode(graph: bool) -> Any:
    return tf.Graph().as_default() if graph else nullcontext()


WHOLE = "`global_step` must be a whole number of steps, 0 or more. Received: {}."
FAR = "`global_step` must be a number of steps below 2**63. Received: {}."
RATE = "`learning_rate` must be a finite number, 0 or more. Received: {}."
TOP = "`max_lr` must be a finite number, `learning_rate` or more. Received: {}."
LENGTH = "`step_size` must be a number of steps from 0.001 to 2**53. Received: {}."
SIZE = "`step_size` must be a positive number of steps. Received: {}."
FACTOR = "`gamma` must be a number above 0 and at most 1. Received: {}."
CHOICE = "`mode` must be one of 'triangular', 'triangular2', 'exp_range'. Received: {}."
each_mode_of_execution = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
NAN, INFINITY = float("nan"), float("inf")
OTHER = pytest.importorskip("torch").tensor(0.01)  # of another framework
REFUSED: list[tuple[str, Any, type[Exception], str]] = [
    *(("global_step", value, TypeError, WHOLE) for value in (True, "a", [1], 1j, np.bool_(True), np.array(True))),
    *(("global_step", value, ValueError, WHOLE) for value in (-1, 1.5, NAN, INFINITY, np.int8(-1), np.array(-1))),
    ("global_step", 2**70, ValueError, FAR),
    *(("learning_rate", value, TypeError, RATE) for value in (True, "a", None, [0.01], np.array([0.01]), 1j)),
    ("learning_rate", OTHER, TypeError, RATE),
    *(("learning_rate", value, ValueError, RATE) for value in (-0.01, NAN, INFINITY, np.float32(-1))),
    *(("max_lr", value, TypeError, TOP) for value in (False, "a", None)),
    *(("max_lr", value, ValueError, TOP) for value in (NAN, INFINITY)),
    ("max_lr", 0.001, ValueError, TOP[:-1] + " with `learning_rate` 0.01."),
    ("max_lr", -1, ValueError, TOP[:-1] + " with `learning_rate` 0.01."),
    *(("step_size", value, TypeError, SIZE) for value in (True, "20", None)),
    *(("step_size", value, ValueError, SIZE) for value in (0, -20, NAN, INFINITY)),
    *(("step_size", value, ValueError, LENGTH) for value in (0.0001, 1e300)),
    *(("gamma", value, TypeError, FACTOR) for value in (True, "1", None)),
    *(("gamma", value, ValueError, FACTOR) for value in (2, 0, -0.5, NAN)),
    ("mode", "x", ValueError, CHOICE),
    ("mode", "Triangular", ValueError, CHOICE),
    *(("mode", value, TypeError, CHOICE) for value in (None, 2)),
]


@each_mode_of_execution
@pytest.mark.parametrize(
    ("name", "value", "error", "message"), REFUSED, ids=[f"{name}-{value!r}" for name, value, _, _ in REFUSED]
)
def test_an_argument_that_makes_no_sense_is_refused_where_it_enters(
    name: str, value: Any, error: type[Exception], message: str, graph: bool
) -> None:
    with _mode(graph), pytest.raises(error) as caught:
        clr.cyclic_learning_rate(**{"global_step": 0, name: value})
    assert str(caught.value) == message.format(repr(value))


@each_mode_of_execution
def test_a_step_is_required(graph: bool) -> None:
    with _mode(graph), pytest.raises(ValueError, match=r"^global_step is required for cyclic_learning_rate\.$"):
        clr.cyclic_learning_rate(None)


AS_TENSORS = [
    (name, value, error)
    for name, value, error, _ in [*REFUSED, ("step_size", [20, 20], TypeError, SIZE)]
    if not (name == "mode" or value is None or value is OTHER or value in ([1], 2**70))
]


@each_mode_of_execution
@pytest.mark.parametrize(
    ("name", "value", "error"), AS_TENSORS, ids=[f"{name}-{value!r}" for name, value, _ in AS_TENSORS]
)
def test_a_tensor_that_makes_no_sense_is_refused(name: str, value: Any, error: type[Exception], graph: bool) -> None:
    dtype = tf.float64 if isinstance(value, float) else None
    with _mode(graph), pytest.raises(error, match=f"^`{name}` must be "):
        clr.cyclic_learning_rate(**{"global_step": 0, name: tf.constant(value, dtype)})()  # a step is read at the call


@pytest.mark.parametrize(
    ("name", "bad"), [("global_step", -1), ("learning_rate", -1), ("max_lr", 0), ("step_size", 0), ("gamma", 2)]
)
def test_a_variable_that_becomes_invalid_is_refused_at_the_next_call(name: str, bad: float) -> None:
    good = {"global_step": 3, "learning_rate": 0.01, "max_lr": 0.1, "step_size": 20, "gamma": 1}[name]
    variable = tf.Variable(good, dtype="int64" if name == "global_step" else "float64")
    rate = clr.cyclic_learning_rate(**{"global_step": 3, name: variable})
    before = float(rate())
    variable.assign(bad)
    with pytest.raises(ValueError, match=f"^`{name}` must be .* Received: {bad}"):
        rate()
    variable.assign(good)
    assert float(rate()) == before


@each_mode_of_execution
def test_a_step_is_a_scalar(graph: bool) -> None:
    with _mode(graph), pytest.raises((TypeError, ValueError), match="global_step"):
        clr.cyclic_learning_rate(tf.constant([1, 2]))


# Strategies


@pytest.mark.parametrize("count", [1, 2])
@each_mode
def test_a_mirrored_variable_is_a_step(count: int, mode: str) -> None:
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < count:
        pytest.skip("TensorFlow was used before it could be given a second CPU")
    strategy = tf.distribute.MirroredStrategy(devices[:count])
    with strategy.scope():
        step = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        rate = clr.cyclic_learning_rate(step, gamma=GAMMA, mode=mode)

    @tf.function
    def on_replicas() -> Any:
        return strategy.run(lambda: rate())

    for number in (0, 7, 20, 45):
        step.assign(number)
        expected = _exact(number, mode)
        _check(rate(), expected)
        with strategy.scope():
            _check(rate(), expected)
        for results in (on_replicas(), strategy.run(lambda: rate())):
            values = strategy.experimental_local_results(results)
            assert len(values) == count
            for value in values:
                _check(value, expected)


# By hand


CALLS = """
from clr_test import CyclicLearningRateTest
CyclicLearningRateTest().test_triangular()
CyclicLearningRateTest().test_triangular2()
CyclicLearningRateTest().test_exp_range()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", CALLS],
        ["-c", "import tensorflow as tf; tf.compat.v1.disable_eager_execution()" + CALLS],
        ["-m", "unittest", "clr_test"],
    ],
    ids=["calls", "calls-in-graph-mode", "unittest"],
)
def test_the_functional_tests_can_be_run_by_hand(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Numbers that only the graph knows, and the same number in two precisions


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"learning_rate": 0.5, "max_lr": 0.1}, 0.5),
        ({"step_size": 0.0}, 0.01),
        ({"step_size": -3.0}, 0.01),
        ({"gamma": 7.0}, 0.1),
        ({"gamma": -1.0}, 0.01),
    ],
    ids=str,
)
def test_what_makes_no_sense_in_a_graph_gives_a_rate_all_the_same(numbers: dict[str, float], expected: float) -> None:
    @tf.function
    def function(numbers: Any) -> Any:
        return clr.cyclic_learning_rate(20, mode="exp_range", **numbers)

    given = {"learning_rate": 0.01, "max_lr": 0.1, "step_size": 20.0, "gamma": 1.0} | numbers
    rate = function({name: tf.constant(value, tf.float64) for name, value in given.items()})
    assert float(rate) == pytest.approx(expected, rel=1e-12)


def test_a_vector_in_a_graph_is_refused() -> None:
    @tf.function
    def function(learning_rate: Any) -> Any:
        return clr.cyclic_learning_rate(0, learning_rate)

    with pytest.raises(TypeError, match=r"`learning_rate` must be a scalar\."):
        function(tf.constant([0.01, 0.02]))


def test_one_bound_in_two_precisions_is_one_bound() -> None:
    rate = clr.cyclic_learning_rate(20, learning_rate=tf.constant(0.1), max_lr=0.1)
    assert float(rate()) == float(np.float32(0.1))
