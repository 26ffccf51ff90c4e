"""Keras' ``fit`` on each backend, on real digits: every update's rate, accumulation, precision, resume, the finders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.integrations.common import in_processes

SCHEDULE = clr.triangular2(0.01, 0.25, step_size=5)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.9)
BACKENDS = ("tensorflow", "jax", "torch")


def digits(first: int = 0, last: int = 640) -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images[first:last] / 16).astype(np.float32), labels[first:last]


def network(rate: Any = SCHEDULE, accumulation: int | None = None, precision: str = "float32") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu", dtype=precision), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    own = clr.keras.LearningRateSchedule(rate, accumulation or 1) if isinstance(rate, clr.Schedule) else rate
    optimizer = keras.optimizers.SGD(own, momentum=0.7, gradient_accumulation_steps=accumulation)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def train(model: Any, epochs: int, *more: Any) -> Any:
    """What the log has of each update, and what the optimizer itself says before each batch."""
    import keras

    before: list[Any] = []

    class Asked(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            own = self.model.optimizer
            before.append((int(own.iterations), float(keras.ops.convert_to_numpy(own.learning_rate))))

    log = clr.keras.LogLearningRate()
    callbacks = [clr.keras.CycleMomentum(MOMENTUM), log, Asked(), *more]
    model.fit(*digits(), batch_size=32, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return [log.history["step"], log.history["learning_rate"], log.history["momentum"], before]


class Stopped(Exception):  # noqa: N818
    """The end of a training."""


def run(folder: Path) -> Any:
    """The first call is stopped in its second epoch, and the next goes on from what ``BackupAndRestore`` has saved."""
    import keras

    if (folder / "backup").exists():
        model = network()
        later = train(model, 3, keras.callbacks.BackupAndRestore(folder / "backup"))
        return [later, model.get_weights()[0].tolist()]
    model = network()
    found: dict[str, Any] = {"whole": [train(model, 3), model.get_weights()[0].tolist()]}
    for name, options in (("two", {"accumulation": 2}), ("half", {"precision": "mixed_bfloat16"})):
        found[name] = train(network(**options), 1)
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=_stop)
    with pytest.raises(Stopped):
        train(network(), 3, keras.callbacks.BackupAndRestore(folder / "backup"), stop)
    return found | {"finders": finders()}


def _stop(batch: int, logs: Any) -> None:
    _stop.batches += 1  # type: ignore[attr-defined]
    if _stop.batches == 33:  # type: ignore[attr-defined]
        raise Stopped


_stop.batches = 0  # type: ignore[attr-defined]


def finders() -> Any:
    """The bounds that the finders find with what ``fit`` takes, and whether they left a trace."""
    model = network(rate=0.1)
    before = [array.tolist() for array in model.get_weights()]
    x, y = digits(0, 1400)
    held_out = digits(1400, 1797)
    by_sample: dict[str, Any] = {"sample_weight": np.linspace(0.5, 1.5, len(x))}
    by_class: dict[str, Any] = {"class_weight": {0: 2.0, 9: 0.5}}  # Keras takes one of the two
    options: dict[str, Any] = {"total_steps": 300, "budget": 300}
    test = clr.keras.range_test(model, x, y, num_steps=100, **by_sample)
    found = clr.keras.find_bounds(model, x, y, validation=(*held_out, np.ones(len(held_out[0]))), **by_class, **options)
    part = clr.keras.find_bounds(model, x, y, validation=0.2, **by_sample, **options)
    bounds = [own.bounds().max_lr for own in (test, found, part)]
    return [bounds, [array.tolist() for array in model.get_weights()] == before, int(model.optimizer.iterations)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_fit_on_each_backend(backend: str, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    (found,) = in_processes(run, tmp_path)
    ((later, resumed),) = in_processes(run, tmp_path)
    (steps, rates, momenta, asked), weights = found["whole"]
    assert steps == list(range(60))
    assert rates == pytest.approx([SCHEDULE(step) for step in steps], rel=1e-6)
    assert momenta == pytest.approx([MOMENTUM(step) for step in steps], rel=1e-6)
    assert asked == [[step, pytest.approx(SCHEDULE(step), rel=1e-6)] for step in steps]
    start = later[0][0]
    assert start == 20  # it was stopped after 33 batches, and saved at the end of each epoch
    assert [*zip(*later[:3], strict=True)] == [*zip(steps[start:], rates[start:], momenta[start:], strict=True)]
    assert resumed == weights
    _check_the_others(found)


def _check_the_others(found: Any) -> None:
    steps, rates, momenta, asked = found["two"]
    assert steps == list(range(10))
    assert rates == pytest.approx([SCHEDULE(step) for step in steps], rel=1e-6)
    assert momenta == pytest.approx([MOMENTUM(step) for step in steps], rel=1e-6)
    assert [rate for _, rate in asked] == pytest.approx([SCHEDULE(batch // 2) for batch in range(20)], rel=1e-6)
    assert found["half"][1] == pytest.approx([SCHEDULE(step) for step in range(20)], rel=1e-6)
    bounds, is_as_before, iterations = found["finders"]
    assert all(0.01 < bound < 5 for bound in bounds)
    assert (is_as_before, iterations) == (True, 0)


def endless(folder: Path) -> Any:
    """Bounds by data sets that have no end."""
    import keras

    class Endless(keras.utils.PyDataset):  # type: ignore[misc]
        @property
        def num_batches(self) -> None:
            return None

        def __getitem__(self, index: int) -> Any:
            first = index * 32 % 352
            return digits(1400 + first, 1432 + first)

    model = network(rate=0.1)
    options: dict[str, Any] = {"total_steps": 100, "budget": 200}
    given: list[Any] = [Endless()]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        given.append(tf.data.Dataset.from_tensor_slices(digits(1400, 1797)).batch(32).repeat())
    found, refused = [], []
    for data in given:
        with pytest.raises(ValueError, match="`validation_steps` must be given, for `validation` has no end"):
            clr.keras.find_bounds(model, *digits(), validation=data, **options)
        refused.append(True)
        found.append(clr.keras.find_bounds(model, *digits(), validation=data, validation_steps=3, **options).start)
    x, y = digits(1400, 1496)  # what three batches have
    return [found, len(refused), float(model.evaluate(x, y, verbose=0))]


def test_a_validation_without_end_needs_a_number_of_batches(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    ((found, refused, loss),) = in_processes(endless, tmp_path)
    assert refused == 2
    assert found == pytest.approx([loss, loss], rel=1e-5)
