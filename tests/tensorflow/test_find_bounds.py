"""`clr.tensorflow.find_bounds`: it leaves no trace, and its trials are what a user would train."""

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

import clr

X = tf.random.Generator.from_seed(1).normal((256, 6))
Y = tf.reduce_sum(X, axis=1, keepdims=True)
LIMITS: dict[str, Any] = {"total_steps": 300, "budget": 250}


class Training:
    """A linear model that is trained with momentum on rows drawn at random, and judged on the last 56."""

    def __init__(self) -> None:
        self.weights = tf.Variable(tf.zeros((6, 1)))
        self.speed = tf.Variable(tf.zeros((6, 1)))
        self.random = tf.random.Generator.from_seed(2)
        self.rates: list[float] = []
        self.step: Callable[[tf.Tensor], tf.Tensor] = tf.function(self._step)

    def _step(self, rate: tf.Tensor) -> tf.Tensor:
        rows = self.random.uniform((32,), maxval=200, dtype=tf.int32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.gather(X, rows) @ self.weights - tf.gather(Y, rows)) ** 2)
        self.speed.assign(0.9 * self.speed + tape.gradient(loss, self.weights))
        self.weights.assign_sub(rate * self.speed)
        return loss

    def evaluate(self) -> tf.Tensor:
        return tf.reduce_mean((X[200:] @ self.weights - Y[200:]) ** 2)

    @property
    def variables(self) -> list[Any]:
        return [self.weights, self.speed, self.random]

    def state(self) -> list[bytes]:
        return [part.numpy().tobytes() for part in (self.weights, self.speed, self.random.state)]


def test_it_leaves_no_trace_and_finds_bounds() -> None:
    own = Training()
    for _ in range(3):
        own.step(tf.constant(0.01))
    before = own.state()
    found = clr.tensorflow.find_bounds(own.step, own.variables, own.evaluate, **LIMITS)
    assert own.state() == before
    assert found.updates <= 250
    assert 1e-3 < found.bounds().max_lr < 0.5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("after", [50, 150])
def test_it_leaves_no_trace_where_it_is_ended(error: type[BaseException], after: int) -> None:
    own, calls = Training(), 0
    before = own.state()

    def step(rate: tf.Tensor) -> tf.Tensor:
        nonlocal calls
        calls += 1
        if calls == after:
            raise error
        return own.step(rate)

    if error is KeyboardInterrupt:
        assert clr.tensorflow.find_bounds(step, own.variables, own.evaluate, **LIMITS).stop == "interrupted"
    else:
        with pytest.raises(ZeroDivisionError):
            clr.tensorflow.find_bounds(step, own.variables, own.evaluate, **LIMITS)
    assert own.state() == before


def test_all_trials_begin_with_the_same_variables() -> None:
    own = Training()
    own.weights.assign(tf.ones((6, 1)) * 3)
    sums: list[float] = []

    def step(rate: tf.Tensor) -> tf.Tensor:
        sums.append(float(tf.reduce_sum(own.weights)))
        return own.step(rate)

    found = clr.tensorflow.find_bounds(step, own.variables, own.evaluate, **LIMITS)
    assert found.range_test is not None
    lengths = [len(found.range_test.sweeps[0].losses), *(len(trial.losses) for trial in found.trials)]
    begins = [sums[sum(lengths[:at])] for at in range(len(lengths))]
    assert begins == [18.0] * len(begins)


def test_the_winner_can_be_kept() -> None:
    own, other, limits = Training(), Training(), LIMITS | {"budget": 500}
    found = clr.tensorflow.find_bounds(own.step, own.variables, own.evaluate, **limits, keep="winner")
    assert found == clr.tensorflow.find_bounds(other.step, other.variables, other.evaluate, **limits)
    assert found.winner is not None
    assert found.trials[-1] is not found.winner  # so that it had to be copied
    assert float(own.evaluate()) == found.winner.score
    assert own.state()[1] != other.state()[1]  # the momentum too


def test_where_nobody_wins_the_variables_are_as_before() -> None:
    own = Training()
    before = own.state()

    def interrupted(rate: tf.Tensor) -> tf.Tensor:
        own.step(rate)
        raise KeyboardInterrupt

    found = clr.tensorflow.find_bounds(interrupted, own.variables, own.evaluate, **LIMITS, keep="winner")
    assert found.winner is None
    assert own.state() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"total_steps": 0}, "`total_steps` must"),
        ({"keep": "best"}, "`keep` must"),
        ({"budget": 5}, "`budget` must"),
        ({"goal": "low"}, "`goal` must"),
        ({"evaluate": 1}, "`evaluate` must"),
        ({"train_step": 1}, "`train_step` must"),
        ({"variables": 1}, "`variables` must"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    own = Training()
    arguments: dict[str, Any] = {"train_step": own.step, "variables": own.variables, "evaluate": own.evaluate}
    with pytest.raises((TypeError, ValueError), match=message):
        clr.tensorflow.find_bounds(**arguments | LIMITS | changed)
