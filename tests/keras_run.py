"""What Keras does on one backend, printed as JSON: ``KERAS_BACKEND=... python keras_run.py everything FOLDER``.

Keras chooses its backend once per process. What to expect is in test_keras.py, which runs this file.
"""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
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
        # 1 - 0.999 would lose half of the digits of float32
        "adam": lambda rate: keras.optimizers.Adam(rate, beta_2=0.75),
        "adamw": lambda rate: keras.optimizers.AdamW(rate, beta_2=0.75, weight_decay=0.0),
        "nadam": lambda rate: keras.optimizers.Nadam(rate, beta_2=0.75),
        "adamax": lambda rate: keras.optimizers.Adamax(rate, beta_2=0.75),
    }
    result: dict[str, Any] = {}
    for name, make in makers.items():
        optimizer = make(clr.keras.LearningRateSchedule(SCHEDULE))
        before = optimizer.get_config()
        result[name] = weights(optimizer, callbacks=[clr.keras.CycleMomentum(MOMENTUM)])
        result[name]["restored"] = optimizer.get_config() == before
    several: dict[str, Any] = {} if keras.backend.backend() == "torch" else {"several": {"steps_per_execution": 4}}
    for name, options in {**several, "eager": {"run_eagerly": True}, "jit": {"jit_compile": True}}.items():
        optimizer = makers["sgd"](clr.keras.LearningRateSchedule(SCHEDULE))
        result[name] = weights(optimizer, callbacks=[clr.keras.CycleMomentum(MOMENTUM)], **options)
    mirror = clr.momentum(SCHEDULE, low=0.0, high=0.5)
    result["zero"] = weights(
        makers["sgd"](clr.keras.LearningRateSchedule(SCHEDULE)), callbacks=[clr.keras.CycleMomentum(mirror)]
    )
    # Afterwards the optimizer has its own momentum again.
    made = model(makers["sgd"](clr.keras.LearningRateSchedule(clr.constant(0.5))))
    fit(made, 2, clr.keras.CycleMomentum(clr.constant(0.5)))
    after = Weight()
    fit(made, 2, after)
    result["after"] = {"weights": after.values}
    result["stopped"] = stopped()
    for name, optimizer in {"off": sgd(), "none": keras.optimizers.Adagrad()}.items():
        try:
            fit(model(optimizer), 1, clr.keras.CycleMomentum(MOMENTUM))
        except ValueError as error:
            result[name] = str(error)
    return result


class Config(keras.callbacks.Callback):  # type: ignore[misc]
    """The momentum that would be saved after every batch; the second raises."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.values.append(self.model.optimizer.get_config()["momentum"])
        if batch == 1:
            raise KeyboardInterrupt


def stopped() -> dict[str, Any]:
    """A fit that does not come to its end."""
    made = model(keras.optimizers.SGD(1.0, momentum=0.75))
    cycle, config, after = clr.keras.CycleMomentum(clr.constant(0.5)), Config(), Weight()
    with contextlib.suppress(KeyboardInterrupt):
        fit(made, 4, cycle, config)
    cycle.on_train_end()
    fit(made, 1, after)
    return {"configs": config.values, "weights": after.values}


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
        "boards": sorted(board(boards)),
    }


def board(folder: Path) -> Iterator[tuple[str, int, float]]:
    """What TensorBoard shows of the rate and the momentum of each batch."""
    for path in folder.rglob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag in ("batch_learning_rate", "batch_momentum"):
                    yield value.tag, event.step, float(tf.make_ndarray(value.tensor))


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
    for first, last in [(step, step + 1) for step in range(start, stop)] if folder else [(start, stop)]:
        if folder:
            made.save(folder / f"{first}.keras")
        part, target = (values[first:last].reshape(-1, values.shape[-1]) for values in (x, y))
        callbacks = [clr.keras.CycleMomentum(mirror), log]
        made.fit(part, target, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
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


def precision() -> dict[str, Any]:
    """The rate in the precision that Keras is set to."""
    result = {}
    before = keras.config.floatx()
    for name in ("float16", "float32", "float64"):
        keras.config.set_floatx(name)
        optimizer = keras.optimizers.SGD(clr.keras.LearningRateSchedule(clr.triangular(0.001, 0.006, 7)))
        optimizer.iterations.assign(3)
        rate = optimizer.learning_rate
        result[name] = [keras.backend.standardize_dtype(rate.dtype), float(rate)]
    keras.config.set_floatx(before)
    return result


def everything() -> dict[str, Any]:
    scenarios = (rates, accumulation, mixed, momentum, callbacks, mirrored, integers, precision, save)
    return {scenario.__name__: scenario() for scenario in scenarios}


if __name__ == "__main__":
    print(json.dumps({"everything": everything, "resume": resume}[sys.argv[1]]()))
