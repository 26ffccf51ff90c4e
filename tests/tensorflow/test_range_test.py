"""The range test of a TensorFlow training step: what it measures, and that it leaves no trace.

Under a distribution strategy it is tested in `tests.keras.test_replicas`, which has two CPUs.
"""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.promises import ERRORS, STEPS, Failing, check_errors, check_memory, check_options

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf: Any = pytest.importorskip("tensorflow")
keras: Any = pytest.importorskip("keras")

RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": STEPS}
X = np.random.default_rng(0).normal(size=(5, 8, 4)).astype(np.float32)


class Plain(tf.Module):  # type: ignore[misc]
    """Gradient descent without a state."""

    def apply(self, rate: Any, gradients: Any, weights: Any) -> None:
        for gradient, weight in zip(gradients, weights, strict=True):
            weight.assign_sub(tf.cast(rate, weight.dtype) * gradient)


class Momentum(tf.Module):  # type: ignore[misc]
    """Makes its variables in its first step, and does not start them with 0."""

    def apply(self, rate: Any, gradients: Any, weights: Any) -> None:
        if not self.variables:
            self.sums = [tf.Variable(lambda own=own: tf.fill(own.shape, 0.25)) for own in weights]
        for gradient, weight, own in zip(gradients, weights, self.sums, strict=True):
            own.assign(0.9 * own + gradient)
            weight.assign_sub(rate * own)


class Keras(tf.Module):  # type: ignore[misc]
    """An optimizer of Keras, which makes its accumulators in its first step."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        super().__init__()
        self.optimizer = kind()

    @property
    def variables(self) -> Any:
        return self.optimizer.variables

    def apply(self, rate: Any, gradients: Any, weights: Any) -> None:
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply(gradients, weights)


class Old(tf.Module):  # type: ignore[misc]
    """One of TensorFlow 1, whose variables are a method."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = tf.Variable(0.1)
        self.optimizer = tf.compat.v1.train.AdagradOptimizer(lambda: self.rate)

    @property
    def variables(self) -> Any:
        return [self.rate, self.optimizer]

    def apply(self, rate: Any, gradients: Any, weights: Any) -> None:
        self.rate.assign(rate)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "plain": Plain,
    "momentum": Momentum,
    "adagrad": lambda: Keras(keras.optimizers.Adagrad),
    "adam": lambda: Keras(keras.optimizers.Adam),
    "old": Old,
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
each_way = pytest.mark.parametrize("way", ["eager", "function", "jit"])


class Training:
    """A network with dropout, its optimizer, and all that they change."""

    def __init__(self, name: str, way: str = "function") -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        tf.random.set_seed(0)
        self.generator = tf.random.Generator.from_seed(1)
        self.weights = [tf.Variable(np.linspace(-1, 1, 12).reshape(4, 3), dtype=tf.float32), tf.Variable(tf.zeros(3))]
        self.optimizer = OPTIMIZERS[name]()
        self.variables = [*self.weights, self.optimizer, self.generator]
        self.at = self.traced = 0
        self.way = way
        self.update = self._update if way == "eager" else tf.function(self._update, jit_compile=way == "jit")

    def _update(self, rate: Any, x: Any) -> Any:
        self.traced += 1
        noise = 0.0
        if self.way != "jit":  # which has no state to draw from
            x = tf.nn.dropout(x, 0.3)
            noise = self.generator.normal((3,))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(x @ self.weights[0] + self.weights[1] + noise - 1.0))
        self.optimizer.apply(rate, tape.gradient(loss, self.weights), self.weights)
        return loss

    def __call__(self, rate: Any) -> Any:
        self.at += 1
        return self.update(rate, X[self.at % 5])

    def train(self, steps: int) -> list[bytes]:
        self.at = 0
        return [self(tf.constant(0.05)).numpy().tobytes() for _ in range(steps)]

    def trace(self) -> list[Any]:
        """All that a test could have left a trace in."""
        found = [*self.weights, *getattr(self.optimizer, "variables", []), self.generator.state]
        flat = [
            part for one in found for part in (one.variables() if callable(getattr(one, "variables", 0)) else [one])
        ]
        contents = [part.numpy().tobytes() for part in flat]
        draws = tf.random.get_global_generator().state.numpy().tobytes()
        return [contents, draws, random.getstate(), repr(np.random.get_state())]  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:.*AutoGraph.*")
@each_way
@each_optimizer
def test_all_is_as_before(name: str, way: str) -> None:
    training = Training(name, way)
    training.train(2)
    before = training.trace()
    test = clr.tensorflow.range_test(training, training.variables, repeats=2, **RANGE)
    assert training.trace() == before
    assert len(test.losses) == STEPS


@each_way
@each_optimizer
def test_training_goes_on_as_if_there_had_been_no_test(name: str, way: str) -> None:
    without = Training(name, way).train(8)
    training = Training(name, way)
    test = clr.tensorflow.range_test(training, training.variables, repeats=2, **RANGE)
    assert training.train(8) == without
    assert len({losses for sweep in test.sweeps for losses in sweep.losses}) == 2 * STEPS


def drawing(source: str) -> tuple[Callable[[Any], Any], list[Any]]:
    """A step at the same batch each time, whose loss is nothing but what it draws; and its variables."""
    generator, dropout = tf.random.Generator.from_seed(1), keras.layers.Dropout(0.5, seed=1)
    keras.utils.set_random_seed(1)  # that of TensorFlow too
    weights = tf.reshape(2.0 ** tf.range(0.0, -32.0, -1.0), (4, 8))  # a sum for each mask
    variables: dict[str, list[Any]] = {
        "generator": [generator],
        "its state": [generator.state],
        "layer": [dropout],
        "layer's variables": [*dropout.variables],
    }

    def draw(rate: Any) -> Any:
        if source.startswith("layer"):
            return tf.reduce_sum(dropout(weights, training=True))
        if source == "function" or source == "eager":
            return tf.random.normal(())
        if source == "global":
            return tf.random.get_global_generator().normal(())
        if source == "python":
            return tf.constant(random.random() + np.random.random())  # noqa: NPY002
        return generator.normal(())

    in_a_graph = source in ("function", "generator", "layer", "global")
    return tf.function(draw) if in_a_graph else draw, variables.get(source, [])


SOURCES = ["generator", "its state", "global", "layer", "layer's variables", "function", "eager", "python"]


@pytest.mark.parametrize("source", SOURCES)
def test_each_repeat_draws_otherwise_and_again_the_same(source: str) -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))
    train_step, variables = drawing(source)
    options = {**RANGE, "repeats": 3, "diverge_at": 1e9}
    test = clr.tensorflow.range_test(train_step, variables, **options)
    assert len({loss for sweep in test.sweeps for loss in sweep.losses}) == 3 * STEPS
    assert clr.tensorflow.range_test(train_step, variables, **options) == test
    after = [float(train_step(0.1)) for _ in range(STEPS)]
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))
    train_step, _ = drawing(source)
    assert [float(train_step(0.1)) for _ in range(STEPS)] == after


@pytest.mark.parametrize("done", [0, 3])
def test_eager_draws_go_on_where_they_were(done: int) -> None:
    def start() -> list[float]:
        tf.random.set_seed(7)
        return [float(tf.random.normal(())) for _ in range(done)]

    start()
    without = [float(tf.random.normal(())) for _ in range(4)]
    start()
    clr.tensorflow.range_test(lambda rate: tf.random.normal(()), [], repeats=2, **RANGE)
    assert [float(tf.random.normal(())) for _ in range(4)] == without


def test_the_global_generator_goes_on_where_it_was() -> None:
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))
    without = tf.random.Generator.from_seed(3).normal((4,)).numpy()
    clr.tensorflow.range_test(lambda rate: tf.random.get_global_generator().normal(()), [], **RANGE)
    assert np.array_equal(tf.random.get_global_generator().normal((4,)).numpy(), without)


def test_a_seed_that_was_not_set_is_not_set_after() -> None:
    tf.random.set_seed(None)
    clr.tensorflow.range_test(lambda rate: tf.random.normal(()), [], repeats=2, **RANGE)
    assert tf.compat.v1.get_seed(None) == (None, None)


@pytest.mark.parametrize("place", ["before", "within", "after", "evaluate"])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_all_is_as_before_after_an_error_at_any_step(name: str, place: str) -> None:
    fail = Failing(place)
    training = Training(name, "eager" if place == "within" else "function")
    training.train(1)
    apply = training.optimizer.apply

    def applied(*arguments: Any) -> None:
        apply(*arguments)
        fail("within")

    def train_step(rate: Any) -> Any:
        fail("before")
        loss = training(rate)
        fail("after")
        return loss

    def evaluate() -> float:
        fail("evaluate")
        return 1.0

    if place == "within":
        training.optimizer.apply = applied
    errors = [*(error("on purpose") for error in ERRORS), tf.errors.ResourceExhaustedError(None, None, "on purpose")]
    options = {**RANGE, "evaluate": evaluate, "evaluate_every": 1}
    check_errors(
        fail,
        lambda: clr.tensorflow.range_test(train_step, training.variables, **options),
        training.trace,
        itertools.product(range(1, STEPS + 1), errors),
    )


def test_an_error_while_the_first_step_is_traced() -> None:
    training = Training("momentum")
    without = Training("momentum").train(4)

    def fail(*arguments: Any) -> None:
        Momentum.apply(training.optimizer, *arguments)
        raise MemoryError("on purpose")

    training.optimizer.apply = fail
    with pytest.raises(Exception, match="on purpose"):  # AutoGraph makes it one of its own
        clr.tensorflow.range_test(training, training.variables, **RANGE)
    del training.optimizer.apply
    del training.optimizer.sums  # are of a graph that was never finished
    training.update = tf.function(training._update)
    assert training.train(4) == without


def test_rates_and_losses_are_those_of_each_step() -> None:
    weight = tf.Variable(2.0)
    seen = []

    @tf.function
    def train_step(rate: Any) -> Any:
        seen.append((rate.dtype, rate.shape))
        loss = weight**2
        weight.assign_sub(rate * 2.0 * weight)
        return loss

    test = clr.tensorflow.range_test(train_step, [weight], min_lr=0.1, max_lr=0.4, num_steps=3)
    assert seen == [(tf.float32, ())]  # traced once
    assert test.rates == pytest.approx((0.1, 0.2, 0.4))
    assert test.losses == pytest.approx((4.0, 4 * 0.8**2, 4 * 0.8**2 * 0.6**2))
    assert float(weight) == 2.0


def test_what_a_step_may_return() -> None:
    def steps() -> Iterator[Any]:
        yield from (1.0, None, np.float32(3.0), tf.constant([4.0]))

    values = steps()
    test = clr.tensorflow.range_test(lambda rate: next(values), [], **RANGE)
    assert (test.sweeps[0].losses, test.stop) == ((1.0, None, 3.0, 4.0), "data")
    with pytest.raises(TypeError, match="`train_step` must return a number"):
        clr.tensorflow.range_test(lambda rate: tf.zeros(3), [], **RANGE)


def test_variables_that_start_at_random() -> None:
    holder: dict[str, Any] = {}

    def first(initial: Any) -> Callable[[Any], Any]:
        holder.clear()

        def train_step(rate: Any) -> Any:
            if not holder:
                holder["own"] = tf.Variable(initial())
            return holder["own"].assign_add(rate)

        return train_step

    # Made at once, they have a value; in a graph they have none until it is run.
    clr.tensorflow.range_test(first(lambda: tf.random.normal(())), [], **RANGE)
    for initial in (lambda: lambda: tf.random.normal(()), lambda: tf.random.normal(())):
        with pytest.raises(ValueError, match=r"makes the variable .* It has to be made before the test"):
            clr.tensorflow.range_test(tf.function(first(initial)), [], **RANGE)
    clr.tensorflow.range_test(tf.function(first(lambda: 2.0)), [], **RANGE)
    assert float(holder["own"]) == 2.0


def test_models_metrics_and_more_are_what_they_were() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    metric = keras.metrics.Mean()
    module = tf.Module()
    module.count = tf.Variable(5, dtype=tf.int64)
    names = tf.Variable(["a", "b"])

    def train_step(rate: Any) -> Any:
        loss = tf.reduce_mean(model(X[0], training=True))
        metric.update_state(loss)
        module.count.assign_add(1)
        names.assign(["c", "d"])
        return loss

    before = [weight.numpy().tobytes() for weight in model.weights]
    clr.tensorflow.range_test(train_step, [model, metric, module, names], **RANGE)
    assert [weight.numpy().tobytes() for weight in model.weights] == before
    assert (float(metric.result()), int(module.count)) == (0.0, 5)
    assert names.numpy().tolist() == [b"a", b"b"]


def test_the_copy_is_hardly_larger_than_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [tf.Variable(tf.zeros((500, 500))) for _ in range(3)]

    def tested(measure: Callable[[], float]) -> None:
        clr.tensorflow.range_test(lambda rate: measure(), variables, repeats=2, **RANGE)

    check_memory(tested, sum(own.numpy().nbytes for own in variables), tmp_path, monkeypatch)


def test_arguments_that_make_no_sense() -> None:
    weight = tf.Variable(1.0)
    cases: list[Any] = [
        (3, [weight], "`train_step` must be a function. Received: 3"),
        (float, weight, "`variables` must be"),
        (float, [3], "`variables` must be variables, and things that have `variables`. Received: 3"),
        (float, ["ab"], "`variables` must be variables"),
    ]
    for train_step, variables, message in cases:
        with pytest.raises(TypeError, match=message):
            clr.tensorflow.range_test(train_step, variables)
    check_options(partial(clr.tensorflow.range_test, float, [weight]))
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match="needs eager execution"):
        clr.tensorflow.range_test(float, [])
