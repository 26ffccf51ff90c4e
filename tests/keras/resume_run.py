"""Loads what `save` has saved before every step, trains on, and prints whether all is as without a break, as JSON.

A program, since it has to be another process: ``python -m tests.keras.resume_run FOLDER``.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

import clr

STEPS = 12


def network() -> keras.Model:
    """A small network on real data, with the momentum cycled beside the rate."""
    schedule = clr.warmup(clr.triangular2(0.01, 0.1, 2.5, step_size_down=3), 2)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(clr.keras.LearningRateSchedule(schedule), momentum=0.9)
    model.compile(optimizer, "mse", jit_compile=keras.backend.backend() == "jax")
    return model


def train(model: keras.Model, start: int, stop: int, folder: Path | None = None) -> list[np.ndarray]:
    """The weights after the steps, and the rates and momenta of each."""
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS, 16, 8)).astype(np.float32)
    y = np.sin(x.sum(-1, keepdims=True))
    config = model.optimizer.get_config()["learning_rate"]["config"]
    mirror = clr.momentum(clr.keras.LearningRateSchedule.from_config(config).schedule)
    log = clr.keras.LogLearningRate()
    for first, last in [(step, step + 1) for step in range(start, stop)] if folder else [(start, stop)]:
        if folder:
            model.save(folder / f"{first}.keras")
        part, target = (values[first:last].reshape(-1, values.shape[-1]) for values in (x, y))
        callbacks = [clr.keras.CycleMomentum(mirror), log]
        model.fit(part, target, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
    logged = [np.array(log.history[name]) for name in ("learning_rate", "momentum")]
    return [*logged, *map(np.asarray, model.get_weights())]


def save(folder: Path) -> list[float]:
    """Trains, and saves before every step; gives the rates."""
    rates, *others = train(network(), 0, STEPS, folder)
    np.savez(folder / "whole.npz", rates, *others)
    return list(rates)


def resumed(folder: Path, start: int) -> bool:
    """Whether a model that goes on from a step ends as the one that never stopped."""
    *logged, kernel, bias, last, offset = np.load(folder / "whole.npz").values()
    expected = [*(values[start:] for values in logged), kernel, bias, last, offset]
    found = train(keras.saving.load_model(folder / f"{start}.keras"), start, STEPS)
    return all(map(np.array_equal, found, expected))


if __name__ == "__main__":
    clr.keras  # noqa: B018  # so that Keras knows its class
    print(json.dumps([resumed(Path(sys.argv[1]), start) for start in range(STEPS)]))
