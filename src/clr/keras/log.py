"""A callback that logs the rate and the momentum."""

import itertools
import math
import sys
import warnings
from collections.abc import Iterable

import keras

from clr.keras.cycled import Cycled
from clr.keras.optimizers import inner, momentum_name, number

Logs = dict[str, float] | None
# Callbacks that keep or show what is in ``logs``, and other packages that have some.
READERS = tuple(getattr(keras.callbacks, name) for name in ("History", "CSVLogger", "TensorBoard", "RemoteMonitor"))
TRACKERS = ("wandb", "mlflow", "comet_ml", "neptune", "clearml")


class LogLearningRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the learning rate of every update and every epoch, and the momentum if the optimizer has one.

    It adds them to ``logs`` as ``learning_rate`` and ``momentum``, where Keras' ``History``, ``CSVLogger``,
    ``TensorBoard`` and other callbacks find them. Put it before those, and after callbacks that set the rate. It warns
    if it comes after one that it knows. It logs the rate that the last update used. The optimizer's own
    ``learning_rate`` is by then the rate of the next update. (``TensorBoard`` also writes the latter, as
    ``epoch_learning_rate``; ``batch_learning_rate`` is the logged rate.)

    Attributes:
        history: Lists of equal length under ``"step"``, ``"learning_rate"`` and, if the optimizer has one,
            ``"momentum"``. They have an entry for every update, over all fits. A rate that is neither a number nor a
            Keras schedule is read once per execution; ``steps_per_execution`` says how many steps that is.

    It reads the count of updates around every batch, and waits until the device has finished the batch.

    >>> import clr, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> schedule = clr.keras.LearningRateSchedule(clr.triangular(0.25, 1.25, step_size=4))
    >>> model.compile(keras.optimizers.SGD(schedule), "mse")
    >>> log = clr.keras.LogLearningRate()
    >>> _ = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, callbacks=[log], verbose=0)
    >>> log.history
    {'step': [0, 1, 2], 'learning_rate': [0.25, 0.5, 0.75]}
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {"step": [], "learning_rate": []}
        self._seen = 0  # the count of updates before the batch
        self._rate = math.nan

    def set_params(self, params: dict[str, object]) -> None:
        """Warns if a callback that reads the logs comes before this one. Keras calls it when the fit begins."""
        super().set_params(params)
        caller = sys._getframe(1).f_locals.get("self")  # the list of callbacks, which Keras shows to none of them
        if isinstance(caller, keras.callbacks.CallbackList) and (missed := _missed(self, caller.callbacks)):
            warnings.warn(
                f"LogLearningRate comes after {', '.join(missed)}, where the rate will be missing. Put it before.",
                stacklevel=2,
            )

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Reads the rate and the count of updates. When the fit begins, BackupAndRestore may not have set them yet."""
        self._seen = self._updates()
        self._rate = number(inner(self.model.optimizer).learning_rate)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Logs the updates that were made: none, one or several."""
        for update in range(self._seen, self._updates()):
            self._append(update)
        self._add_to(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the last update of the epoch."""
        self._add_to(logs)

    def _updates(self) -> int:
        return int(number(inner(self.model.optimizer).iterations))

    def _append(self, update: int) -> None:
        self.history["step"].append(update)
        self.history["learning_rate"].append(self._rate_of(update))
        momentum = self._momentum_of(update)
        if momentum is not None:
            self.history.setdefault("momentum", []).append(momentum)

    def _rate_of(self, update: int) -> float:
        optimizer = inner(self.model.optimizer)
        schedule = optimizer._learning_rate
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            return self._rate
        batches = optimizer.gradient_accumulation_steps or 1  # Keras counts batches for a schedule
        return number(schedule(keras.ops.convert_to_tensor((update + 1) * batches - 1, "int")))

    def _momentum_of(self, update: int) -> float | None:
        """The momentum of an update, or None where the optimizer has none."""
        optimizer = inner(self.model.optimizer)
        if cycled := Cycled.of(optimizer):
            return number(cycled.value(keras.ops.convert_to_tensor(update, "int")))
        name = momentum_name(optimizer)
        return None if name is None else getattr(optimizer, name) or None

    def _add_to(self, logs: Logs) -> None:
        if logs is not None and self.history["step"]:
            logs |= {name: values[-1] for name, values in self.history.items() if name != "step"}


def _missed(log: LogLearningRate, callbacks: Iterable[keras.callbacks.Callback]) -> list[str]:
    """The callbacks before ``log`` that read the logs."""
    before = itertools.takewhile(lambda callback: callback is not log, callbacks)
    return [
        type(callback).__name__
        for callback in before
        if isinstance(callback, READERS) or type(callback).__module__.partition(".")[0] in TRACKERS
    ]
