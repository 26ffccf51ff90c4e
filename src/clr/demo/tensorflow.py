"""Trains in TensorFlow: the callable of `clr.cyclic_learning_rate` follows the step that the optimizer advances."""

import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notices are no part of the demonstration

import tensorflow as tf

import clr
from clr.demo.training import MOMENTUM, TEST_STEPS, Rates, Run, digits, record, start, test_batches


def network(weights: Any, images: Any) -> Any:
    """The logits of images."""
    kernel, bias, kernel2, bias2, matrix, bias3 = weights
    hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME") + bias)
    hidden = tf.nn.max_pool2d(hidden, 2, 2, "VALID")
    hidden = tf.nn.relu(tf.nn.conv2d(hidden, kernel2, 1, "SAME") + bias2)
    return tf.reshape(hidden, (-1, matrix.shape[0])) @ matrix + bias3


def loss_and_gradients(weights: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    """The mean loss of a batch, and its gradients."""
    with tf.GradientTape() as tape:
        logits = network(weights, images)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, weights)


def range_test() -> clr.RangeTest:
    """Finds the rates of the demonstration."""
    weights = [tf.Variable(part) for part in start(0, 1)[0]]
    rate = tf.Variable(0.0, trainable=False)
    optimizer = tf.compat.v1.train.MomentumOptimizer(lambda: rate, MOMENTUM)
    batches = iter(test_batches())

    @tf.function
    def update(value: Any, images: Any, labels: Any) -> Any:
        rate.assign(value)
        loss, gradients = loss_and_gradients(weights, images, labels)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    return clr.tensorflow.range_test(
        lambda value: update(value, *next(batches)), [*weights, rate, optimizer], num_steps=TEST_STEPS
    )


def train(policy: str, seed: int, steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``steps`` updates; gives the run, grown by one step, after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, steps)
    weights = [tf.Variable(part) for part in initial]
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = clr.cyclic_learning_rate(step, **rates.arguments(policy, steps))
    optimizer = tf.compat.v1.train.MomentumOptimizer(rate, MOMENTUM)

    @tf.function
    def update(images: Any, labels: Any) -> tuple[Any, Any]:
        loss, gradients = loss_and_gradients(weights, images, labels)
        applied = rate()
        optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=step)
        return loss, applied

    @tf.function
    def accuracy() -> Any:
        guesses = tf.argmax(network(weights, x_test), axis=1, output_type=tf.int32)
        return tf.reduce_mean(tf.cast(guesses == y_test, tf.float32))

    yield from record(Run("tensorflow", policy, seed), batches, update, accuracy)
