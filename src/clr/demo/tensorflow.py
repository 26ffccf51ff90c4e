"""Trains in TensorFlow: the callable of `clr.cyclic_learning_rate` follows the step that the optimizer advances."""

import os
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides the notices of its start

import tensorflow as tf

import clr
from clr.demo.training import MOMENTUM, TEST_STEPS, Rates, Run, digits, record, start, test_batches


def network(weights: Sequence[tf.Variable], images: tf.Tensor) -> tf.Tensor:
    """The logits of images."""
    kernel, bias, kernel2, bias2, matrix, bias3 = weights
    hidden = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME") + bias)
    hidden = tf.nn.max_pool2d(hidden, 2, 2, "VALID")
    hidden = tf.nn.relu(tf.nn.conv2d(hidden, kernel2, 1, "SAME") + bias2)
    return tf.reshape(hidden, (-1, matrix.shape[0])) @ matrix + bias3


def loss_and_gradients(
    weights: list[tf.Variable], images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
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
    def update(value: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        rate.assign(value)
        loss, gradients = loss_and_gradients(weights, images, labels)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    return clr.tensorflow.range_test(
        lambda value: update(value, *next(batches)), [*weights, rate, optimizer], num_steps=TEST_STEPS
    )


def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``total_steps`` updates, and gives the run after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, total_steps)
    weights = [tf.Variable(part) for part in initial]
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = clr.cyclic_learning_rate(step, **rates.arguments(policy, total_steps))
    optimizer = tf.compat.v1.train.MomentumOptimizer(rate, MOMENTUM)

    @tf.function
    def update(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss, gradients = loss_and_gradients(weights, images, labels)
        applied = rate()
        optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=step)
        return loss, applied

    @tf.function
    def accuracy() -> tf.Tensor:
        guesses = tf.argmax(network(weights, x_test), axis=1, output_type=tf.int32)
        return tf.reduce_mean(tf.cast(guesses == y_test, tf.float32))

    yield from record(Run("tensorflow", policy, seed), batches, update, accuracy)
