"""A model whose weight can be told by hand, and what a fit does to it."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest

import clr
from tests.reference import exact_rate

BACKEND = keras.backend.backend()
SCHEDULE = clr.triangular(0.25, 1.25, 4)
MIRROR = clr.momentum(SCHEDULE, low=0.5, high=0.75)
STEPS = 12
# Keras has not heard of the copies of NumPy 2.
WARNS_OF_COPIES = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
# On TensorFlow, XLA takes far longer to compile a step than all of the test: it is used where a test asks for it.
UNLESS_ASKED: dict[str, object] = {"jit_compile": False} if BACKEND == "tensorflow" else {}


def rate(step: int) -> float:
    return float(exact_rate(step, 0.25, 1.25, 4))


def momentum(step: int) -> float:
    return float(Fraction(3, 4) - (Fraction(rate(step)) - Fraction(1, 4)) / 4)


RATES = [rate(step) for step in range(STEPS)]
MOMENTA = [momentum(step) for step in range(STEPS)]
LOG = {"step": list(range(STEPS)), "learning_rate": RATES}


def sums(rates: Sequence[float] = RATES) -> list[float]:
    """The weight after each update with a gradient of 1, exactly: all are binary fractions."""
    return [-sum(rates[: count + 1]) for count in range(len(rates))]


class Weight(keras.callbacks.Callback):  # type: ignore[misc]
    """The weight after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.values.append(float(self.model.trainable_variables[0].numpy().item()))


def mean_output(y: Any, output: Any) -> Any:
    """A loss whose gradient is 1."""
    return keras.ops.mean(output)


def one_weight(optimizer: keras.optimizers.Optimizer, **options: object) -> keras.Model:
    """One weight, which starts at 0; the gradient is 1."""
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, loss=mean_output, **(UNLESS_ASKED | options))
    return model


def fit(model: keras.Model, steps: int, *callbacks: keras.callbacks.Callback, size: int = 1) -> Any:
    ones = np.ones((steps * size, 1), np.float32)
    return model.fit(ones, ones, batch_size=size, shuffle=False, verbose=0, callbacks=[*callbacks])


def trained(
    optimizer: keras.optimizers.Optimizer, *callbacks: keras.callbacks.Callback, steps: int = STEPS, **options: object
) -> tuple[list[float], dict[str, list[float]]]:
    """What a fit does to the weight, and what was logged."""
    seen, log = Weight(), clr.keras.LogLearningRate()
    fit(one_weight(optimizer, **options), steps, seen, *callbacks, log)
    return seen.values, log.history


def sgd(batches: int = 1, **options: object) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(clr.keras.LearningRateSchedule(SCHEDULE, batches), **options)


def by_definition(optimizer: str, rates: Sequence[float] = RATES, momenta: Sequence[float] = MOMENTA) -> list[float]:
    """The weight after each update with a gradient of 1, by the optimizer's definition with a changing momentum."""
    weight = first = second = 0.0
    product = 1.0
    weights = []
    for step, (lr, beta) in enumerate(zip(rates, momenta, strict=True), start=1):
        match optimizer:
            case "sgd":
                first = beta * first - lr
                weight += first
            case "nesterov":
                first = beta * first - lr
                weight += beta * first - lr
            case "rmsprop":
                second = 0.9 * second + 0.1
                first = beta * first + lr / (second + 1e-7) ** 0.5
                weight -= first
            case "adam" | "adamw":
                first += (1 - first) * (1 - beta)
                second += (1 - second) * 0.25
                alpha = lr * (1 - 0.75**step) ** 0.5 / (1 - beta**step)
                weight -= first * alpha / (second**0.5 + 1e-7)
            case "nadam":
                now, later = (beta * (1 - 0.5 * 0.96**count) for count in (step, step + 1))
                product *= now
                first += (1 - first) * (1 - beta)
                second += (1 - second) * 0.25
                corrected = later * first / (1 - product * later) + (1 - now) / (1 - product)
                weight -= lr * corrected / ((second / (1 - 0.75**step)) ** 0.5 + 1e-7)
            case "adamax":
                first += (1 - first) * (1 - beta)
                second = max(0.75 * second, 1.0)
                weight -= lr / (1 - beta**step) * first / (second + 1e-7)
        weights.append(weight)
    return weights
