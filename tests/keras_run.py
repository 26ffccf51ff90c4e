"""What Keras does on one backend, printed as JSON: ``KERAS_BACKEND=... python keras_run.py everything FOLDER``.

Keras chooses its backend once per process. What to expect is in test_keras.py, which runs this file.
"""

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if os.environ["KERAS_BACKEND"] == "tensorflow":  # two CPUs, which must be made before Keras is imported
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )

import keras
import numpy as np

import clr

SCHEDULE = clr.triangular(0.25, 1.25, 4)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.75)
STEPS = 12
FOLDER = Path(sys.argv[2])


class Weight(keras.callbacks.Callback):  # type: ignore[misc]
    """The weight after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.values.append(float(self.model.trainable_variables[0].numpy().item()))


def model(optimizer: Any, **options: Any) -> Any:
    """One weight, which starts at 0; the gradient is 1."""
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    result = keras.Model(inputs, outputs)
    result.compile(optimizer, loss=lambda y, output: keras.ops.mean(output), **options)
    return result


def fit(model: Any, steps: int, *callbacks: Any) -> Any:
    ones = np.ones((steps, 1), np.float32)
    return model.fit(ones, ones, batch_size=1, shuffle=False, verbose=0, callbacks=list(callbacks))


def weights(optimizer: Any, steps: int = STEPS, callbacks: Any = (), **options: Any) -> dict[str, Any]:
    """What a fit does to the weight, and what was logged."""
    seen, log = Weight(), clr.keras.LogLearningRate()
    fit(model(optimizer, **options), steps, seen, *callbacks, log)
    return {"weights": seen.values, "log": log.history}


def sgd(**options: Any) -> Any:
    return keras.optimizers.SGD(clr.keras.LearningRateSchedule(SCHEDULE), **options)


def rates() -> dict[str, Any]:
    result = {"plain": weights(sgd()), "jit": weights(sgd(), jit_compile=True)}
    if keras.backend.backend() == "torch":  # the backend's steps are not compiled unless asked for
        result["jit"] = weights(sgd(), jit_compile=False)
    result["eager"] = weights(sgd(), run_eagerly=True)
    if keras.backend.backend() != "torch":  # which makes one step at a time
        result["several"] = weights(sgd(), steps_per_execution=4)
    result["float"] = weights(keras.optimizers.SGD(0.5))
    optimizer = keras.optimizers.SGD()
    optimizer.learning_rate = lambda: SCHEDULE(optimizer.iterations)
    result["callable"] = weights(optimizer)
    return result


def accumulation() -> dict[str, Any]:
    def schedule(value: clr.Schedule) -> Any:
        return clr.keras.LearningRateSchedule(value, gradient_accumulation_steps=3)

    plain = keras.optimizers.SGD(schedule(SCHEDULE), gradient_accumulation_steps=3)
    mirror = clr.keras.CycleMomentum(MOMENTUM)
    cycled = keras.optimizers.SGD(schedule(SCHEDULE), momentum=0.9, gradient_accumulation_steps=3)
    return {"rate": weights(plain, 3 * STEPS), "momentum": weights(cycled, 3 * STEPS, [mirror])}


def mixed() -> dict[str, Any]:
    """Loss scaling, with an infinite gradient in the fourth of the batches, which is skipped."""
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**4)
    seen, log = Weight(), clr.keras.LogLearningRate()
    made = model(optimizer, jit_compile=False)
    x = np.ones((STEPS, 1), np.float32)
    x[3] = np.inf
    made.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[seen, log])
    keras.mixed_precision.set_global_policy("mixed_float16")
    result = weights(sgd(), jit_compile=False)
    keras.mixed_precision.set_global_policy("float32")
    return {"skipped": {"weights": seen.values, "log": log.history}, "float16": result}


def momentum() -> dict[str, Any]:
    makers: dict[str, Callable[..., Any]] = {
        "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        "nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.9),
        "adam": keras.optimizers.Adam,
        "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.0),
        "nadam": keras.optimizers.Nadam,
        "adamax": keras.optimizers.Adamax,
    }
    result: dict[str, Any] = {}
    for name, make in makers.items():
        optimizer = make(clr.keras.LearningRateSchedule(SCHEDULE))
        before = optimizer.get_config()
        result[name] = weights(optimizer, callbacks=[clr.keras.CycleMomentum(MOMENTUM)])
        result[name]["restored"] = optimizer.get_config() == before
    several: dict[str, Any] = {} if keras.backend.backend() == "torch" else {"several": {"steps_per_execution": 4}}
    for name, options in {**several, "eager": {"run_eagerly": True}}.items():
        optimizer = makers["sgd"](clr.keras.LearningRateSchedule(SCHEDULE))
        result[name] = weights(optimizer, callbacks=[clr.keras.CycleMomentum(MOMENTUM)], **options)
    # Afterwards the optimizer has its own momentum again.
    made = model(makers["sgd"](clr.keras.LearningRateSchedule(clr.constant(0.5))))
    fit(made, 2, clr.keras.CycleMomentum(clr.constant(0.5)))
    after = Weight()
    fit(made, 2, after)
    result["after"] = {"weights": after.values}
    for name, optimizer in {"off": sgd(), "none": keras.optimizers.Adagrad()}.items():
        try:
            fit(model(optimizer), 1, clr.keras.CycleMomentum(MOMENTUM))
        except ValueError as error:
            result[name] = str(error)
    return result


def callbacks() -> dict[str, Any]:
    log = clr.keras.LogLearningRate()
    made = model(keras.optimizers.SGD(clr.keras.LearningRateSchedule(SCHEDULE), momentum=0.9))
    ones = np.ones((4, 1), np.float32)
    table, boards = FOLDER / "log.csv", FOLDER / "boards"
    mirror = clr.keras.CycleMomentum(MOMENTUM)
    others = [keras.callbacks.CSVLogger(table)]
    if keras.backend.backend() == "tensorflow":
        others.append(keras.callbacks.TensorBoard(boards, update_freq=1))
    history = made.fit(ones, ones, batch_size=1, epochs=3, verbose=0, callbacks=[mirror, log, *others])
    with table.open() as file:
        rows = [[float(row["learning_rate"]), float(row["momentum"])] for row in csv.DictReader(file)]
    return {
        "csv": rows,
        "history": [history.history["learning_rate"], history.history["momentum"]],
        "boards": len(list(boards.rglob("events*"))),
    }


def mirrored() -> dict[str, Any]:
    """Two replicas, of TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return {}
    strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
    seen, log = Weight(), clr.keras.LogLearningRate()
    with strategy.scope():
        made = model(sgd(momentum=0.9))
    ones = np.ones((2 * STEPS, 1), np.float32)
    callbacks = [clr.keras.CycleMomentum(MOMENTUM), seen, log]
    made.fit(ones, ones, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
    return {"replicas": strategy.num_replicas_in_sync, "weights": seen.values, "log": log.history}


def network() -> Any:
    """A small network on real data, with the momentum cycled beside the rate."""
    schedule = clr.warmup(clr.triangular2(0.01, 0.1, 2.5, 3), 2)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
    made = keras.Sequential(layers)
    made.compile(keras.optimizers.SGD(clr.keras.LearningRateSchedule(schedule), momentum=0.9), "mse")
    return made


def train(made: Any, start: int, stop: int, folder: Path | None = None) -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS, 16, 8)).astype(np.float32)
    y = np.sin(x.sum(-1, keepdims=True))
    mirror = clr.momentum(
        clr.keras.LearningRateSchedule.from_config(made.optimizer.get_config()["learning_rate"]["config"]).schedule
    )
    log = clr.keras.LogLearningRate()
    for step in range(start, stop):
        if folder:
            made.save(folder / f"{step}.keras")
        made.fit(
            x[step], y[step], batch_size=16, shuffle=False, verbose=0, callbacks=[clr.keras.CycleMomentum(mirror), log]
        )
    return [np.asarray(value) for value in made.get_weights()], np.array(
        [log.history["learning_rate"], log.history["momentum"]]
    )


def save() -> dict[str, Any]:
    """Trains on, and saves before every step."""
    values, rates = train(network(), 0, STEPS, FOLDER)
    np.savez(FOLDER / "whole.npz", *values, rates=rates)
    return {"rates": rates.tolist()}


def resume() -> dict[str, Any]:
    """Loads what was saved before each step, and goes on."""
    clr.keras  # noqa: B018  # so that Keras knows its class
    whole = np.load(FOLDER / "whole.npz")
    same = []
    for start in range(STEPS):
        made = keras.saving.load_model(FOLDER / f"{start}.keras")
        values, rates = train(made, start, STEPS)
        equal = [np.array_equal(value, whole[f"arr_{number}"]) for number, value in enumerate(values)]
        same.append(all(equal) and np.array_equal(rates, whole["rates"][:, start:]))
    return {"same": same}


def integers() -> dict[str, Any]:
    """The rate at counts of every integer type that the backend has."""
    schedule = clr.keras.LearningRateSchedule(clr.triangular(0.25, 0.75, 4))
    result = {}
    for dtype in ("int32", "int64"):
        count = keras.Variable(11, dtype=dtype, trainable=False)
        result[str(count.dtype)] = [float(schedule(count)), float(schedule(keras.ops.convert_to_tensor(13, dtype)))]
    return result


def everything() -> dict[str, Any]:
    scenarios = (rates, accumulation, mixed, momentum, callbacks, mirrored, integers, save)
    return {scenario.__name__: scenario() for scenario in scenarios}


if __name__ == "__main__":
    print(json.dumps({"everything": everything, "resume": resume}[sys.argv[1]]()))
