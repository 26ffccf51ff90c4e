"""Trains in Keras, on TensorFlow: the schedule of `clr.keras.LearningRateSchedule` follows the optimizer's iterations.

Keras' momentum gathers steps, that is gradients times the rates of their time; that of the other three gathers
gradients, and multiplies the sum by the rate of now. The two are the same as long as the rate is.
"""

import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notices are no part of the demonstration
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers

import clr
from clr.demo.training import MOMENTUM, TEST_STEPS, Rates, Run, digits, record, start, test_batches


class Network(keras.Sequential):  # type: ignore[misc]
    """The network, which tells the rate of each update next to the loss."""

    def train_step(self, batch: Any) -> dict[str, Any]:
        """An update."""
        images, labels, *_ = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(images, labels, self(images, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        applied = tf.identity(self.optimizer.learning_rate)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss, "rate": applied}


def network(weights: Any) -> Network:
    """The network, which gives the logits of images."""
    model = Network(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.set_weights(weights)
    return model


def compiled(weights: Any, rate: Any) -> Network:
    """The network, ready to be trained."""
    model = network(weights)
    optimizer = keras.optimizers.SGD(rate, momentum=MOMENTUM)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def range_test() -> clr.RangeTest:
    """Finds the rates of the demonstration."""
    model = compiled(start(0, 1)[0], 1.0)
    test: clr.RangeTest = clr.keras.range_test(model, test_batches(), num_steps=TEST_STEPS)
    return test


def train(policy: str, seed: int, steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``steps`` updates; gives the run, grown by one step, after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, steps)
    model = compiled(initial, clr.keras.LearningRateSchedule(rates.schedule(policy, steps)))

    def update(images: Any, labels: Any) -> tuple[Any, Any]:
        logs = model.train_on_batch(images, labels, return_dict=True)
        return logs["loss"], logs["rate"]

    def accuracy() -> Any:
        guesses = model.predict_on_batch(x_test).argmax(axis=1)
        return (guesses == y_test).mean()

    yield from record(Run("keras", policy, seed), batches, update, accuracy)
