"""Trains a small convolutional network on scikit-learn's handwritten digits with TensorFlow."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notices are no part of the demonstration
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

import clr

FIXED = "fixed"
BASE_LR, MAX_LR = 0.01, 0.1  # the fixed rate, which is Keras' default, and the bound that the policies climb to
TEST_SIZE, BATCH_SIZE, MOMENTUM, EVALUATE_EVERY = 597, 32, 0.9, 10


@dataclass
class Run:
    """What one training gave: a loss and the applied rate for every step, and accuracies on held-out digits."""

    policy: str
    seed: int
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)  # after every EVALUATE_EVERY steps


@cache
def digits() -> tuple[Any, Any, Any, Any]:
    """Images of 8 by 8 pixels from 0 to 1, and their digits: for training, then for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=TEST_SIZE, random_state=0, stratify=labels)
    return tuple(tf.constant(part) for part in (x, y, x_test, y_test))


def arguments(policy: str, steps: int) -> dict[str, Any]:
    """What a policy of the demonstration gives to `clr.cyclic_learning_rate`."""
    return {
        "learning_rate": BASE_LR,
        "max_lr": MAX_LR,
        "step_size": clr.step_size(num_samples=len(digits()[0]), batch_size=BATCH_SIZE, epochs=2),
        "gamma": 0.2 ** (1 / steps),  # exp_range ends at a fifth of the height
        "mode": policy,
    }


def network() -> keras.Model:
    """Two convolutions and a classifier: 9,930 weights."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def train(policy: str, seed: int, steps: int) -> Iterator[Run]:
    """Trains for ``steps`` updates; gives the run, grown by one step, after each of them."""
    x, y, x_test, y_test = digits()
    keras.utils.set_random_seed(seed)
    model = network()
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    rate = BASE_LR if policy == FIXED else clr.cyclic_learning_rate(step, **arguments(policy, steps))
    optimizer = keras.optimizers.SGD(rate, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)
    shuffled = np.random.default_rng(seed)
    epochs = -(-steps * BATCH_SIZE // len(x))
    order = np.concatenate([shuffled.permutation(len(x)) for _ in range(epochs)])
    batches = tf.constant(order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE))

    @tf.function
    def update() -> tuple[Any, Any]:
        chosen = batches[step]
        with tf.GradientTape() as tape:
            logits = model(tf.gather(x, chosen), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(y, chosen), logits))
        applied = tf.identity(optimizer.learning_rate)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        step.assign_add(1)
        return loss, applied

    @tf.function
    def accuracy() -> Any:
        guesses = tf.argmax(model(x_test, training=False), axis=1, output_type=tf.int32)
        return tf.reduce_mean(tf.cast(guesses == y_test, tf.float32))

    run = Run(policy, seed)
    for done in range(1, steps + 1):
        loss, applied = update()
        run.losses.append(float(loss))
        run.rates.append(float(applied))
        if done % EVALUATE_EVERY == 0:
            run.accuracies.append(float(accuracy()))
        yield run
