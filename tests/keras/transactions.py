"""What the tests of the range test share: models with all that it may change, and what to expect of them."""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

import clr
from tests.keras.models import BACKEND, UNLESS_ASKED
from tests.promises import STEPS, Failing

RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": STEPS}
RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(40, 6)).astype(np.float32)
Y = X[:, :3].argmax(axis=1).astype(np.int32)
SCHEDULE = clr.triangular(0.01, 0.1, 3)
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adamw": lambda: keras.optimizers.AdamW(0.01, amsgrad=True),
    "schedule": lambda: keras.optimizers.SGD(clr.keras.LearningRateSchedule(SCHEDULE), momentum=0.9),
    "callable": lambda: keras.optimizers.RMSprop(lambda: 0.01),
    "accumulation": lambda: keras.optimizers.SGD(
        clr.keras.LearningRateSchedule(SCHEDULE, 2), gradient_accumulation_steps=2
    ),
    "average": lambda: keras.optimizers.SGD(0.05, use_ema=True, ema_overwrite_frequency=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), dynamic_growth_steps=2),
}


class Noise(layers.Layer):  # type: ignore[misc]
    """Draws from Keras' global seeds, as a layer does that has none of its own."""

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or BACKEND == "jax":  # where only a layer's own seeds can be drawn from
            return x
        return x + 0.1 * keras.random.normal(keras.ops.shape(x))


def start(name: str = "momentum", built: bool = True, trained: int = 0, noise: bool = True, **options: Any) -> Any:
    """A compiled model, with all that a test may change."""
    keras.utils.set_random_seed(0)
    parts = [
        layers.Dense(8, kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(0.3),
        *([Noise()] if noise else []),
        layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((6,)), *parts] if built else parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    xla = {} if name == "momentum" else UNLESS_ASKED
    model.compile(OPTIMIZERS[name](), loss, metrics=["accuracy"], **(xla | options))
    if trained:
        fit(model, trained)
    return model


def fit(model: Any, epochs: int) -> Any:
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0).history


def content(value: Any) -> Any:
    """A value of which two are equal where they are equal bit for bit."""
    strategy = getattr(value.value, "distribute_strategy", None)
    parts = [value.value] if strategy is None else strategy.experimental_local_results(value.value)
    arrays = [part.numpy() if BACKEND == "tensorflow" else keras.ops.convert_to_numpy(part) for part in parts]
    return [(str(array.dtype), array.shape, array.tobytes()) for array in arrays]


def number(variable: Any) -> float:
    """The value of a variable."""
    return float(np.frombuffer(content(variable)[0][2], content(variable)[0][0])[0])


def trace(model: Any) -> dict[str, Any]:
    """All that a range test could have left a trace in."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    found = [*model.variables, *optimizer.variables, *model.metrics_variables]
    result = {
        "variables": [content(variable) for variable in found],
        "identities": [*map(id, found)],
        "rate": id(inner._learning_rate),
        "iterations": number(inner._iterations),
        "functions": [model.train_function, model.test_function, model.predict_function],
        "stop": getattr(model, "stop_training", None),
        "random": (random.getstate(), repr(np.random.get_state())),  # noqa: NPY002
        "draws": content(keras.random.SeedGenerator(0).state),
    }
    if "torch" in sys.modules:
        result["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    if BACKEND == "torch":
        result["gradients"] = [id(part.grad) for part in model.parameters()]
        # Not those of the containers of parameters, which Keras replaces as it trains.
        result["modes"] = [part.training for part in model.modules() if isinstance(part, layers.Layer)]
    return result


class Faults(Failing):
    """Places of a training in Keras."""

    def around_each_step(self, model: Any) -> None:
        """Raises before and after what is compiled is run."""
        make = model.make_train_function

        def made(force: bool = False) -> None:
            if model.train_function is None:
                make()
                compiled: Any = model.train_function

                def function(*arguments: Any) -> Any:
                    self("before")
                    result = compiled(*arguments)
                    self("after")
                    return result

                vars(model)["train_function"] = function

        vars(model)["make_train_function"] = made
        model.train_function = None
        made()

    def in_each_step(self, model: Any) -> None:
        """Raises in the midst of a step, which is not compiled."""
        dense, optimizer = model.layers[0], model.optimizer
        call, apply = dense.call, optimizer.apply

        def forward(x: Any, **options: Any) -> Any:
            self("forward")
            return call(x, **options)

        def update(*arguments: Any) -> None:
            apply(*arguments)
            self("update")

        vars(dense)["call"], vars(optimizer)["apply"] = forward, update

    def __iter__(self) -> Iterator[Any]:
        for at in range(0, 40, 8):
            self("batch")
            yield X[at : at + 8], Y[at : at + 8]


def linear(optimizer: Any, before: Any = None, **options: Any) -> Any:
    """A linear model of which each step can be told by hand, after a layer or none."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), *([before] if before else []), layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse", **(UNLESS_ASKED | options))
    return model


TARGETS = X.sum(axis=1, keepdims=True)


def by_hand(model: Any, rates: Any, size: int = 8) -> list[float]:
    """The losses of gradient descent over batches in order, in float64."""
    weights = np.asarray(model.get_weights()[0], np.float64)
    losses = []
    for step, rate in enumerate(rates):
        at = step * size % len(X)
        x, y = X[at : at + size].astype(np.float64), TARGETS[at : at + size].astype(np.float64)
        error = x @ weights - y
        losses.append((error**2).mean())
        weights = weights - rate * 2 * x.T @ error / len(x)
    return losses
