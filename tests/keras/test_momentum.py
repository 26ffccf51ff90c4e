"""The momentum is cycled inside the compiled step, and logged beside the rate."""

import contextlib
import csv
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import clr
from tests.keras.models import (
    BACKEND,
    LOG,
    MIRROR,
    MOMENTA,
    RATES,
    SCHEDULE,
    STEPS,
    WARNS_OF_COPIES,
    Weight,
    by_definition,
    fit,
    momentum,
    one_weight,
    rate,
    sgd,
    trained,
)

pytestmark = WARNS_OF_COPIES

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.9),
    # 1 - 0.999 would lose half of the digits of float32
    "adam": lambda rate: keras.optimizers.Adam(rate, beta_2=0.75),
    "adamw": lambda rate: keras.optimizers.AdamW(rate, beta_2=0.75, weight_decay=0.0),
    "nadam": lambda rate: keras.optimizers.Nadam(rate, beta_2=0.75),
    "adamax": lambda rate: keras.optimizers.Adamax(rate, beta_2=0.75),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_momentum_is_cycled_inside_of_the_step(name: str) -> None:
    optimizer = OPTIMIZERS[name](clr.keras.LearningRateSchedule(SCHEDULE))
    before = optimizer.get_config()
    weights, log = trained(optimizer, clr.keras.CycleMomentum(MIRROR))
    assert weights == pytest.approx(by_definition(name), rel=2e-6)
    assert log == LOG | {"momentum": MOMENTA}
    assert optimizer.get_config() == before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_expected_weights_depend_on_the_momentum(name: str) -> None:
    assert abs(by_definition(name, momenta=[0.75] * STEPS)[-1] / by_definition(name)[-1] - 1) > 0.01


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize("way", ["several", "eager", "jit"])
def test_the_momentum_in_other_steps(way: str) -> None:
    if (BACKEND, way) == ("torch", "several"):
        pytest.skip("Keras makes one step at a time on PyTorch")
    options: dict[str, Any] = {
        "several": {"steps_per_execution": 4},
        "eager": {"run_eagerly": True},
        "jit": {"jit_compile": True},
    }
    weights, log = trained(sgd(momentum=0.9), clr.keras.CycleMomentum(MIRROR), **options[way])
    every = by_definition("sgd")
    assert weights == pytest.approx(every[3::4] if way == "several" else every, rel=1e-6)
    assert log["momentum"] == MOMENTA


def test_a_momentum_of_zero_is_still_a_momentum() -> None:
    """What was summed before a momentum of 0 must not come back after it."""
    momenta = [float((Fraction(5, 4) - Fraction(lr)) / 2) for lr in RATES]
    assert 0 in momenta
    weights, log = trained(sgd(momentum=0.9), clr.keras.CycleMomentum(clr.momentum(SCHEDULE, low=0.0, high=0.5)))
    assert log["momentum"] == momenta
    assert weights == pytest.approx(by_definition("sgd", momenta=momenta), rel=1e-6)


def test_the_optimizer_s_own_momentum_is_what_is_saved_and_what_comes_back() -> None:
    """Also where an exception ends the fit."""
    configs = []

    class Config(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            configs.append(self.model.optimizer.get_config()["momentum"])
            if batch == 1:
                raise KeyboardInterrupt

    model = one_weight(keras.optimizers.SGD(1.0, momentum=0.75))
    cycle, after = clr.keras.CycleMomentum(clr.constant(0.5)), Weight()
    with contextlib.suppress(KeyboardInterrupt):
        fit(model, 4, cycle, Config())
    cycle.on_train_end()
    fit(model, 1, after)
    assert configs == [0.75, 0.75]
    # Gradients of 1 at a rate of 1: the sums are 1, 1 + 0.5 * 1, and 1 + 0.75 * 1.5.
    assert after.values == [-(1 + 1.5 + 2.125)]


def test_after_the_fit_the_optimizer_has_its_own_momentum() -> None:
    model, after = one_weight(keras.optimizers.SGD(0.5, momentum=0.9)), Weight()
    fit(model, 2, clr.keras.CycleMomentum(clr.constant(0.5)))
    fit(model, 2, after)
    assert after.values == pytest.approx(by_definition("sgd", [0.5] * 4, [0.5, 0.5, 0.9, 0.9])[2:], rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sgd, r"a momentum that is on\. Received: momentum 0\.0\."),
        (keras.optimizers.Adagrad, r"an optimizer with a momentum\. Received: 'adagrad.*'\."),
    ],
)
def test_a_momentum_that_is_off_or_missing_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^`CycleMomentum` needs {message}$"):
        fit(one_weight(make()), 1, clr.keras.CycleMomentum(MIRROR))


def test_other_callbacks_show_what_is_logged(tmp_path: Path) -> None:
    table = tmp_path / "log.csv"
    others = [keras.callbacks.CSVLogger(table)]
    if BACKEND == "tensorflow":
        others.append(keras.callbacks.TensorBoard(tmp_path, update_freq=1))
    ones = np.ones((4, 1), np.float32)
    callbacks = [clr.keras.CycleMomentum(MIRROR), clr.keras.LogLearningRate(), *others]
    model = one_weight(sgd(momentum=0.9))
    history = model.fit(ones, ones, batch_size=1, epochs=3, verbose=0, callbacks=callbacks).history
    last = [3, 7, 11]  # of each epoch
    assert history["learning_rate"] == [rate(step) for step in last]
    assert history["momentum"] == [momentum(step) for step in last]
    with table.open() as file:
        rows = [(float(row["learning_rate"]), float(row["momentum"])) for row in csv.DictReader(file)]
    assert rows == [(rate(step), momentum(step)) for step in last]
    if BACKEND == "tensorflow":
        by_tag = {"batch_learning_rate": rate, "batch_momentum": momentum}
        expected = [(tag, step + 1, value(step)) for tag, value in by_tag.items() for step in range(STEPS)]
        assert sorted(board(tmp_path)) == expected


@pytest.mark.parametrize("name", ["CSVLogger", "TensorBoard", "Run"])
def test_a_log_that_comes_too_late_says_so(name: str, tmp_path: Path) -> None:
    if name == "TensorBoard" and BACKEND != "tensorflow":
        pytest.skip("Keras' callback needs TensorFlow")
    tracker = type("Run", (keras.callbacks.Callback,), {"__module__": "wandb.keras"})  # that of another package
    others: dict[str, Callable[[], Any]] = {
        "CSVLogger": lambda: keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        "TensorBoard": lambda: keras.callbacks.TensorBoard(tmp_path),
        "Run": tracker,
    }
    message = rf"^LogLearningRate comes after {name}, where the rate will be missing\. Put it before\.$"
    with pytest.warns(UserWarning, match=message):
        fit(one_weight(sgd()), 1, Weight(), others[name](), clr.keras.LogLearningRate())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(one_weight(sgd()), 1, Weight(), clr.keras.LogLearningRate(), others[name]())


def test_updates_from_before_a_restart_are_not_logged_again(tmp_path: Path) -> None:
    """BackupAndRestore sets the optimizer's count when the fit begins, after this callback was told."""
    ones = np.ones((4, 1), np.float32)
    for epochs, steps in ((2, range(8)), (3, range(8, 12))):
        log = clr.keras.LogLearningRate()
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        one_weight(sgd()).fit(ones, ones, batch_size=1, epochs=epochs, verbose=0, callbacks=[log, backup])
        assert log.history == {"step": [*steps], "learning_rate": [rate(step) for step in steps]}


def board(folder: Path) -> Iterator[tuple[str, int, float]]:
    """What TensorBoard shows of the rate and the momentum of each batch."""
    import tensorflow as tf

    for path in folder.rglob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag in ("batch_learning_rate", "batch_momentum"):
                    yield value.tag, event.step, float(tf.make_ndarray(value.tensor))
