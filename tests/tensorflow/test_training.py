"""Training with `clr.cyclic_learning_rate` on real digits: the rate that is applied is the exact one of its step."""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

import clr
from tests.reference import exact_rate

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
datasets = pytest.importorskip("sklearn.datasets")

v1 = tf.compat.v1
MODES = ("triangular", "triangular2", "exp_range")
each_mode = pytest.mark.parametrize("mode", MODES)
BATCH = 64
DIGITS = 1797


@cache
def _digits() -> tuple[Any, Any]:
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype("float32"), labels[order].astype("int32")


def _batch(step: int) -> tuple[Any, Any]:
    images, labels = _digits()
    places = np.arange(step * BATCH, (step + 1) * BATCH) % len(labels)
    return images[places], labels[places]


def _exact(step: int, mode: str) -> Fraction:
    """At the function's default numbers."""
    return exact_rate(step, 0.01, 0.1, 20, mode=mode, gamma=0.99994)


def _check(rate: float, step: int, mode: str) -> None:
    assert abs(Fraction(float(rate)) / _exact(step, mode) - 1) <= 1e-6, f"step {step}: {rate!r}"


# The original loop


@each_mode
@pytest.mark.parametrize("use_resource", [True, False])
def test_the_original_loop_in_a_session(mode: str, use_resource: bool) -> None:
    """The step is assigned and then used, as the function's first users did."""
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=use_resource):
        v1.set_random_seed(0)
        images = v1.placeholder(tf.float32, [None, 64])
        labels = v1.placeholder(tf.int32, [None])
        hidden = tf.nn.relu(images @ v1.Variable(v1.random_normal([64, 32], stddev=0.2)) + v1.Variable(tf.zeros(32)))
        logits = hidden @ v1.Variable(v1.random_normal([32, 10], stddev=0.2)) + v1.Variable(tf.zeros(10))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        global_step = v1.Variable(0, trainable=False)
        optimizer = v1.train.AdamOptimizer(
            learning_rate=clr.cyclic_learning_rate(global_step=global_step, learning_rate=0.01, mode=mode)
        )
        train_op = optimizer.minimize(loss, global_step=global_step)
        place = v1.placeholder(tf.int32, [])
        assign = global_step.assign(place)
        initializer = v1.global_variables_initializer()

    losses = []
    with v1.Session(graph=graph) as session:
        session.run(initializer)
        for step in range(1, 91):
            session.run(assign, {place: step})
            x, y = _batch(step)
            # The update reads this very tensor, and the step moves on after the update: so it is the applied rate.
            value, applied, _ = session.run([loss, optimizer._lr_t, train_op], {images: x, labels: y})
            _check(applied, step, mode)
            assert session.run(global_step) == step + 1
            losses.append(value)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 4


@each_mode
def test_adam_without_memory_moves_a_weight_by_the_rate_itself(mode: str) -> None:
    with tf.Graph().as_default() as graph:
        global_step = v1.Variable(0, trainable=False)
        weight = v1.Variable(0.0)
        optimizer = v1.train.AdamOptimizer(
            clr.cyclic_learning_rate(global_step, mode=mode), beta1=0.0, beta2=0.0, epsilon=0.0
        )
        train_op = optimizer.minimize(-weight, global_step=global_step, var_list=[weight])
        initializer = v1.global_variables_initializer()
    with v1.Session(graph=graph) as session:
        session.run(initializer)
        for step in (*range(90), 2**31 - 60, 2**31 - 2):
            session.run([global_step.initializer, weight.initializer], {global_step.initial_value: step})
            session.run(train_op)
            _check(session.run(weight), step, mode)


# Every old optimizer

Make = Callable[[Any, Any], Any]  # (rate, global_step) -> optimizer

OPTIMIZERS: dict[str, Make] = {
    "GradientDescent": lambda rate, step: v1.train.GradientDescentOptimizer(rate),
    "Momentum": lambda rate, step: v1.train.MomentumOptimizer(rate, 0.9),
    "Adagrad": lambda rate, step: v1.train.AdagradOptimizer(rate),
    "AdagradDA": lambda rate, step: v1.train.AdagradDAOptimizer(rate, step),
    "Adadelta": lambda rate, step: v1.train.AdadeltaOptimizer(rate),
    "Adam": lambda rate, step: v1.train.AdamOptimizer(rate),
    "Ftrl": lambda rate, step: v1.train.FtrlOptimizer(rate),
    "RMSProp": lambda rate, step: v1.train.RMSPropOptimizer(rate),
    "ProximalGradientDescent": lambda rate, step: v1.train.ProximalGradientDescentOptimizer(rate),
    "ProximalAdagrad": lambda rate, step: v1.train.ProximalAdagradOptimizer(rate),
}


def _in_session(make: Make, start: int, mode: str, updates: int) -> list[float]:
    """What each update takes from a weight whose gradient is 1, and which is put back to 0 before it."""
    with tf.Graph().as_default() as graph:
        step = v1.Variable(start, dtype=tf.int64, trainable=False)
        weight = v1.Variable(0.0)
        optimizer = make(clr.cyclic_learning_rate(step, mode=mode), step)
        train_op = optimizer.minimize(1.0 * weight, global_step=step, var_list=[weight])
        initializer = v1.global_variables_initializer()
    with v1.Session(graph=graph) as session:
        session.run(initializer)
        moves = []
        for _ in range(updates):
            session.run(weight.initializer)
            session.run(train_op)
            moves.append(-float(session.run(weight)))
        assert session.run(step) == start + updates
    return moves


def _in_eager_mode(make: Make, start: int, mode: str, updates: int) -> list[float]:
    step = tf.Variable(start, dtype=tf.int64)
    weight = tf.Variable(0.0)
    optimizer = make(clr.cyclic_learning_rate(step, mode=mode), step)
    moves = []
    for _ in range(updates):
        weight.assign(0.0)
        optimizer.minimize(lambda: 1.0 * weight, global_step=step, var_list=[weight])
        moves.append(-float(weight))
    assert int(step) == start + updates
    return moves


WAYS = {"session": _in_session, "eager": _in_eager_mode}


@pytest.mark.parametrize(
    ("way", "name"),
    [(way, name) for way in WAYS for name in OPTIMIZERS],
)
def test_every_old_optimizer_updates_at_the_rate_of_the_step(way: str, name: str) -> None:
    """Ten times the rate makes the larger first update."""
    low = WAYS[way](OPTIMIZERS[name], 0, "triangular", 2)
    high = WAYS[way](OPTIMIZERS[name], 20, "triangular", 2)
    assert all(np.isfinite([*low, *high]))
    assert low[0] > 0
    assert high[0] == pytest.approx(10 * low[0], rel=1e-5)


@each_mode
@pytest.mark.parametrize("way", WAYS)
def test_gradient_descent_applies_the_exact_rate_at_every_step(way: str, mode: str) -> None:
    for start, updates in ((0, 130), (2**31 - 2, 4)):
        for step, move in enumerate(WAYS[way](OPTIMIZERS["GradientDescent"], start, mode, updates), start):
            _check(move, step, mode)


# Keras


def _moves(optimizer: Any, updates: int) -> list[float]:
    """What each compiled batch of `fit` adds to a weight whose gradient is -1, and which is put back to 0 before it."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Model(inputs, layer(inputs))
    model.compile(optimizer, loss=lambda y_true, y_pred: -keras.ops.mean(y_pred))
    moves: list[float] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            layer.kernel.assign([[0.0]])

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            moves.append(float(layer.kernel.numpy()[0, 0]))

    ones = np.ones((updates, 1), "float32")
    model.fit(ones, ones, batch_size=1, shuffle=False, verbose=0, callbacks=[Watch()])
    assert not model.run_eagerly
    return moves


@each_mode
def test_keras_sgd_follows_its_own_iterations(mode: str) -> None:
    optimizer = keras.optimizers.SGD()
    optimizer.learning_rate = clr.cyclic_learning_rate(optimizer.iterations, mode=mode)
    moves = _moves(optimizer, 90)
    for step, move in enumerate(moves):
        _check(move, step, mode)
    assert int(optimizer.iterations) == len(moves) == 90
    _check(float(optimizer.learning_rate), 90, mode)


def test_keras_sgd_follows_a_variable() -> None:
    step = tf.Variable(5, dtype=tf.int64)
    optimizer = keras.optimizers.SGD(clr.cyclic_learning_rate(step))
    for move in _moves(optimizer, 3):
        _check(move, 5, "triangular")
    step.assign(27)
    _check(float(optimizer.learning_rate), 27, "triangular")
    for move in _moves(keras.optimizers.SGD(clr.cyclic_learning_rate(step)), 3):
        _check(move, 27, "triangular")


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Nadam", "Lion", "Ftrl"])
def test_keras_optimizers_train_on_digits(name: str) -> None:
    keras.utils.set_random_seed(0)
    images, labels = _digits()
    optimizer = getattr(keras.optimizers, name)()
    optimizer.learning_rate = clr.cyclic_learning_rate(optimizer.iterations, 0.0005, 0.005, 56, mode="triangular2")
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    rates: list[float] = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(float(optimizer.learning_rate))
    )
    losses = model.fit(images, labels, batch_size=BATCH, epochs=3, verbose=0, callbacks=[watch]).history["loss"]
    assert losses[-1] < losses[0]
    assert len(rates) == 3 * -(-DIGITS // BATCH)
    for step, rate in enumerate(rates):
        expected = exact_rate(step, 0.0005, 0.005, 56, mode="triangular2")
        assert abs(Fraction(rate) / expected - 1) <= 1e-6
