"""Trains in TensorFlow: the callable of `clr.cyclic_learning_rate` follows the step that the optimizer advances."""

import os
from collections.abc import Iterator, Sequence
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides the notices of its start

import numpy as np
import tensorflow as tf

import clr
from clr.demo.training import MOMENTUM, ONE_CYCLE, Rates, Run, digits, record, search_data, start


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


def search(total_steps: int) -> clr.Search:
    """Searches the bounds of the demonstration, for trainings of ``total_steps``."""
    initial, batches, held_out = search_data()
    weights = [tf.Variable(part) for part in initial]
    images, labels = (tf.constant(np.stack(parts)) for parts in zip(*batches, strict=True))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)  # put back with the rest: each trial has the same batches
    rate = tf.Variable(0.0, trainable=False)
    optimizer = tf.compat.v1.train.MomentumOptimizer(lambda: rate, MOMENTUM)

    @tf.function
    def update(value: tf.Tensor) -> tf.Tensor:
        rate.assign(value)
        at = step % len(batches)
        loss, gradients = loss_and_gradients(weights, images[at], labels[at])
        optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=step)
        return loss

    def held_out_loss() -> tf.Tensor:
        return loss_and_gradients(weights, *held_out)[0]

    variables = [*weights, step, rate, optimizer]
    return clr.tensorflow.find_bounds(update, variables, held_out_loss, total_steps=total_steps)


def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``total_steps`` updates, and gives the run after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, total_steps)
    weights = [tf.Variable(part) for part in initial]
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    if policy == ONE_CYCLE:  # which is no mode of the original function
        rate = partial(rates.schedule(policy, total_steps), step)
    else:
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
