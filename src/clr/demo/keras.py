"""Trains in Keras, on TensorFlow: the schedule of `clr.keras.LearningRateSchedule` follows the optimizer's iterations.

Keras' momentum sums up gradients times the rates of their steps. That of the other three sums up gradients, and
multiplies the sum by the present rate. The two are the same as long as the rate stays the same.
"""

import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides the notices of its start
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers

import clr
from clr.demo.training import MOMENTUM, Images, Labels, Rates, Run, Weights, digits, record, search_data, start


class Network(keras.Sequential):  # type: ignore[misc]
    """The network. Its logs have the rate of each update beside the loss."""

    def train_step(self, batch: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """An update."""
        images, labels, *_ = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(images, labels, self(images, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        applied = tf.identity(self.optimizer.learning_rate)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss, "rate": applied}


def network(weights: Weights) -> Network:
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


def compiled(weights: Weights, rate: float | clr.keras.LearningRateSchedule) -> Network:
    """The network, ready to be trained."""
    model = network(weights)
    optimizer = keras.optimizers.SGD(rate, momentum=MOMENTUM)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def search(total_steps: int) -> clr.Search:
    """Searches the bounds of the demonstration, for trainings of ``total_steps``."""
    initial, batches, held_out = search_data()
    return clr.keras.find_bounds(compiled(initial, 1.0), batches, validation=held_out, total_steps=total_steps)


def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``total_steps`` updates, and gives the run after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, total_steps)
    model = compiled(initial, clr.keras.LearningRateSchedule(rates.schedule(policy, total_steps)))

    def update(images: Images, labels: Labels) -> tuple[float, float]:
        logs = model.train_on_batch(images, labels, return_dict=True)
        return logs["loss"], logs["rate"]

    def accuracy() -> float:
        guesses = model.predict_on_batch(x_test).argmax(axis=1)
        return float((guesses == y_test).mean())

    yield from record(Run("keras", policy, seed), batches, update, accuracy)
