"""Callbacks that cycle the momentum and log rate and momentum.

Glue only: the schedule computes the momentum from the optimizer's own ``iterations``, inside of the compiled step.
"""

import math
from typing import Any

import keras

from clr import checks
from clr.arrays import unwrapped
from clr.keras.schedule import checked, value_of
from clr.schedules.base import Schedule

Logs = dict[str, Any] | None


class CycleMomentum(keras.callbacks.Callback):  # type: ignore[misc]
    """Cycles the momentum while a model is fitted: ``momentum`` of SGD and RMSprop, ``beta_1`` of Adam and its kin.

    The value is computed inside of the compiled step, from the optimizer's count of updates. Where it accumulates
    gradients, an update is made of several batches. After the fit the optimizer has its own momentum again, which is
    also the one that is saved in between. If an exception ends the fit, call `on_train_end` for that.

    Adam's correction of the bias takes the current ``beta_1`` for all past ones.

    Args:
        schedule: The momentum, from 0 to below 1: say ``clr.momentum(schedule)``.

    Raises:
        TypeError, ValueError: An argument makes no sense; or, when the fit begins, the optimizer has no momentum, or
            one that is off (0).

    >>> import clr, keras, numpy as np
    >>> schedule = clr.triangular(0.25, 1.25, step_size=4)
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(clr.keras.LearningRateSchedule(schedule), momentum=0.9), "mse")
    >>> log = clr.keras.LogLearningRate()
    >>> callbacks = [clr.keras.CycleMomentum(clr.momentum(schedule, 0.5, 0.75)), log]
    >>> _ = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, callbacks=callbacks, verbose=0)
    >>> log.history["momentum"]
    [0.75, 0.6875, 0.625]
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = checked(schedule)
        if schedule.limits[1] >= 1:
            checks.fail(ValueError, "schedule", "momentum", schedule)

    def set_model(self, model: Any) -> None:
        """Refuses a model whose optimizer has no momentum that could be cycled."""
        super().set_model(model)
        optimizer = _inner(model.optimizer)
        name = _momentum_name(optimizer)
        if name is None:
            raise ValueError(f"`CycleMomentum` needs an optimizer with a momentum. Received: {optimizer.name!r}.")
        own = getattr(optimizer, name)
        if not own:
            raise ValueError(f"`CycleMomentum` needs a momentum that is on. Received: {name} {own!r}.")

    def on_train_begin(self, logs: Logs = None) -> None:
        """Lets the optimizer take its momentum from the schedule, in a step that is compiled anew."""
        optimizer = _inner(self.model.optimizer)
        attributes = vars(optimizer)  # written to as such, since Keras keeps track of what is set as an attribute
        attributes.pop("apply", None)  # of a fit that an exception has ended
        attributes["apply"] = _Cycled(optimizer, self.schedule)
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: Logs = None) -> None:
        """Leaves the optimizer as it was."""
        vars(_inner(self.model.optimizer)).pop("apply", None)
        self.model.train_function = None  # is made anew when it is needed


class LogLearningRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the rate that was applied, and the momentum if there is one, for every update and every epoch.

    They appear in ``logs`` as ``learning_rate`` and ``momentum``, for Keras' ``History``, ``CSVLogger``,
    ``TensorBoard`` and others: put it before those, and after what sets the rate. They are those of the last update
    that was made, where the optimizer's own ``learning_rate`` is by then that of the next. (The latter is also what
    ``TensorBoard`` writes as ``epoch_learning_rate``; ``batch_learning_rate`` is the one that was applied.)

    Attributes:
        history: Lists of the same length under ``"step"``, ``"learning_rate"`` and, where there is one, ``"momentum"``:
            an entry for every update, over all fits. A rate that is neither a number nor a Keras schedule is read
            once in each execution, of which ``steps_per_execution`` says how many steps it makes.

    The count of updates is read after every batch, for which the device has to finish it.

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
        self.history: dict[str, list[Any]] = {"step": [], "learning_rate": []}
        self._seen = 0
        self._rate = math.nan

    def on_train_begin(self, logs: Logs = None) -> None:
        """Looks at where the optimizer is."""
        self._seen = self._updates()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Reads the rate before it is applied."""
        self._rate = _number(_inner(self.model.optimizer).learning_rate)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Logs the updates that were made: none, one or several."""
        seen, self._seen = self._seen, self._updates()
        for update in range(seen, self._seen):
            self._append(update)
        self._add_to(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the last update of the epoch."""
        self._add_to(logs)

    def _updates(self) -> int:
        return int(_number(_inner(self.model.optimizer).iterations))

    def _append(self, update: int) -> None:
        optimizer = _inner(self.model.optimizer)
        rate, schedule = self._rate, optimizer._learning_rate
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            batches = optimizer.gradient_accumulation_steps or 1
            rate = _number(schedule(keras.ops.convert_to_tensor((update + 1) * batches - 1, "int")))
        self.history["step"].append(update)
        self.history["learning_rate"].append(rate)
        cycled = vars(optimizer).get("apply")
        name = _momentum_name(optimizer)
        if isinstance(cycled, _Cycled):
            momentum = _number(cycled.value(keras.ops.convert_to_tensor(update, "int")))
            self.history.setdefault("momentum", []).append(momentum)
        elif name is not None and getattr(optimizer, name):
            self.history.setdefault("momentum", []).append(getattr(optimizer, name))

    def _add_to(self, logs: Logs) -> None:
        if logs is not None and self.history["step"]:
            logs |= {name: values[-1] for name, values in self.history.items() if name != "step"}


class _Cycled:
    """The ``apply`` of an optimizer, during which its momentum is that of the step."""

    def __init__(self, optimizer: Any, schedule: Schedule) -> None:
        name = _momentum_name(optimizer)
        self._attributes = vars(optimizer)
        self._name, self._own = name, getattr(optimizer, str(name))
        self._optimizer, self._apply, self._schedule = optimizer, optimizer.apply, schedule
        self._inside = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        # Of several replicas, all come in before the first goes out.
        self._inside += 1
        self._attributes[self._name] = self._now()
        try:
            return self._apply(*arguments, **options)
        finally:
            self._inside -= 1
            if not self._inside:
                self._attributes[self._name] = self._own

    def value(self, update: Any) -> Any:
        """The momentum of an update."""
        if keras.backend.backend() == "torch":  # which adds with plain numbers only
            return self._schedule(int(update))
        return value_of(self._schedule, update)

    def _now(self) -> Any:
        """The same as something that the optimizer can compute with, and that never is 0 where it asks."""
        value = self.value(self._optimizer.iterations)
        return max(value, math.ulp(0.0)) if isinstance(value, float) else _Tensor(value)


class _Tensor(keras.Variable):  # type: ignore[misc]
    """A tensor, traced or not, that stands where an optimizer has a number: all of Keras' functions take variables."""

    def __init__(self, tensor: Any) -> None:  # makes no variable of the backend
        self._tensor = tensor

    @property
    def value(self) -> Any:
        return self._tensor

    @property
    def dtype(self) -> str:
        return str(keras.backend.standardize_dtype(self._tensor.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<momentum {self._tensor!r}>"

    __hash__ = None  # type: ignore[assignment]


def _number(value: Any) -> float:
    """A tensor or variable of one number, also of a distribution strategy."""
    return float(unwrapped(value) + 0)


def _inner(optimizer: Any) -> Any:
    """The optimizer, or the one that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _momentum_name(optimizer: Any) -> str | None:
    """What the optimizer calls its momentum."""
    names = ("momentum", "beta_1")
    return next((name for name in names if isinstance(getattr(optimizer, name, None), float | int)), None)
