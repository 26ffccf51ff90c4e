"""Schedules in TensorFlow's own training loops: compiled, mirrored, and resumed from checkpoints."""

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.reference import exact_rate

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

LOW, HIGH, UP = 0.25, 1.25, 4
SCHEDULE = clr.triangular(LOW, HIGH, UP)
WAYS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda function: function,
    "function": tf.function,
    "xla": tf.function(jit_compile=True),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def rate(step: int) -> Fraction:
    return exact_rate(step, LOW, HIGH, UP)


def total(count: int) -> float:
    """The sum of the first rates, exactly: all are binary fractions."""
    return float(sum(rate(step) for step in range(count)))


@each_way
@pytest.mark.parametrize("integer", ["int32", "int64"])
def test_a_custom_loop(way: Callable[[Any], Any], integer: str) -> None:
    step = tf.Variable(0, dtype=integer, trainable=False)
    weight = tf.Variable(0.0)

    @way
    def update() -> Any:
        with tf.GradientTape() as tape:
            loss = 1.0 * weight
        weight.assign_sub(SCHEDULE(step) * tape.gradient(loss, weight))
        step.assign_add(1)

    for count in range(1, 21):
        update()
        assert float(weight) == -total(count)


@each_way
def test_a_composed_schedule_in_a_loop_of_the_graph(way: Callable[[Any], Any]) -> None:
    schedule = clr.warmup(SCHEDULE * 0.5, 4).clip(high=0.5)

    @way
    def run(steps: Any) -> Any:
        rates = tf.TensorArray(tf.float32, 20)
        for step in tf.range(steps):
            rates = rates.write(step, schedule(step))
        return rates.stack()

    expected = [Fraction(step, 4) * rate(0) / 2 for step in range(4)] + [rate(step) / 2 for step in range(16)]
    assert run(tf.constant(20)).numpy().tolist() == [float(min(value, Fraction(1, 2))) for value in expected]


def test_mirrored_replicas_have_the_same_rate() -> None:
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < 2:
        pytest.skip("TensorFlow has one CPU only, unless tests/test_tensorflow.py was read first")
    strategy = tf.distribute.MirroredStrategy(devices[:2])
    with strategy.scope():
        step = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        weight = tf.Variable(0.0, aggregation=tf.VariableAggregation.MEAN)

    def replica() -> Any:
        now = SCHEDULE(step)
        weight.assign_sub(now)
        step.assign_add(1)
        return now

    @tf.function
    def update() -> Any:
        return strategy.run(replica)

    assert strategy.num_replicas_in_sync == 2
    for number in range(12):
        rates = strategy.experimental_local_results(update())
        assert [float(value) for value in rates] == [float(rate(number))] * 2
    assert float(weight.numpy()) == -total(12)


STEPS = 9
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, tensorflow as tf, clr

folder, first, steps, compiled = Path(sys.argv[1]), sys.argv[2] == "first", int(sys.argv[3]), sys.argv[4] == "xla"
schedule = clr.warmup(clr.triangular2(0.01, 0.1, 2.5, step_size_down=3), 2)
mirror = clr.momentum(schedule)
random = np.random.default_rng(0)
x = tf.constant(random.normal(size=(64, 8)), tf.float32)
y = tf.sin(tf.reduce_sum(x, 1, keepdims=True))
start_weights = [random.normal(size=shape).astype(np.float32) for shape in ((8, 16), (16, 1))]

def make():
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    weights = [tf.Variable(value) for value in start_weights]
    traces = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
    return tf.train.Checkpoint(step=step, weights=weights, traces=traces)

def train(state, count, folder=None):
    @tf.function(jit_compile=compiled)
    def update():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.tanh(x @ state.weights[0]) @ state.weights[1] - y) ** 2)
        rate, momentum = schedule(state.step), mirror(state.step)
        for weight, trace, gradient in zip(state.weights, state.traces, tape.gradient(loss, list(state.weights))):
            trace.assign(momentum * trace + gradient)
            weight.assign_sub(rate * trace)
        state.step.assign_add(1)
        return rate, momentum

    rates = []
    for _ in range(count):
        if folder:
            state.write(str(folder / f"{int(state.step)}"))
        rates.append([float(value) for value in update()])
    return [weight.numpy() for weight in state.weights], np.array(rates)

if first:
    weights, rates = train(make(), steps, folder)
    np.savez(folder / "whole.npz", *weights, rates=rates)
else:
    whole = np.load(folder / "whole.npz")
    for start in range(steps):
        state = make()
        state.read(str(folder / f"{start}")).assert_consumed()
        weights, rates = train(state, steps - start)
        assert np.array_equal(rates, whole["rates"][start:]), (start, rates)
        assert all(np.array_equal(weight, whole[f"arr_{i}"]) for i, weight in enumerate(weights)), start
        print(start)
"""


@pytest.mark.parametrize("way", ["function", "xla"])
def test_resuming_at_any_step_in_another_process_changes_nothing(way: str, tmp_path: Path) -> None:
    for turn in ("first", "again"):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), turn, str(STEPS), way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(step) for step in range(STEPS)]
