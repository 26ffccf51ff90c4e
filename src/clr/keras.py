"""Keras 3, on any backend: a schedule for the rate, and callbacks that cycle the momentum and log both.

Glue only: the rate and the momentum are computed by the schedules from the optimizer's own ``iterations``, inside of
the compiled step.
"""

from typing import Any

from clr import checks
from clr.namespaces import unwrapped
from clr.schedule import Schedule
from clr.serialize import from_dict

try:
    import keras
except ImportError as error:
    raise ImportError("clr.keras needs Keras: pip install 'cyclic-learning-rate[keras]'") from error


def _checked(schedule: Any) -> Schedule:
    if not isinstance(schedule, Schedule):
        checks.fail(TypeError, "schedule", "schedule", schedule)
    return schedule


@keras.saving.register_keras_serializable(package="clr")
class LearningRateSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule as Keras' optimizers take it, which is saved and loaded with the model.

    Args:
        schedule: The learning rate, per update.
        gradient_accumulation_steps: Give the optimizer's own, if it accumulates gradients: Keras' ``iterations`` count
            every batch, and then the rate follows the real updates.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    A compiled model that was saved to ``.keras`` goes on at the same step with the same rates. To load it, import
    `clr.keras` first. A scaling function of yours must be registered by `clr.register_scale` to be saved.

    >>> import clr, keras
    >>> schedule = clr.keras.LearningRateSchedule(clr.triangular(0.25, 1.25, step_size=4))
    >>> optimizer = keras.optimizers.SGD(schedule)
    >>> float(optimizer.learning_rate)
    0.25
    """

    def __init__(self, schedule: Schedule, gradient_accumulation_steps: int = 1) -> None:
        super().__init__()
        self.schedule = _checked(schedule)
        self._batches = checks.count("gradient_accumulation_steps", gradient_accumulation_steps)

    def __call__(self, step: Any) -> Any:
        """The rate at a count of batches, in the backend's tensors, or as a float for a number."""
        count = unwrapped(step)
        return self.schedule(count if self._batches == 1 else count // self._batches)

    def get_config(self) -> dict[str, Any]:
        """Plain data, from which `from_config` makes an equal one."""
        return {"schedule": self.schedule.to_dict(), "gradient_accumulation_steps": self._batches}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSchedule":
        """The schedule that `get_config` has described."""
        return cls(from_dict(config["schedule"]), config["gradient_accumulation_steps"])


class CycleMomentum(keras.callbacks.Callback):  # type: ignore[misc]
    """Cycles the momentum while a model is fitted: ``momentum`` of SGD and RMSprop, ``beta_1`` of Adam and its kin.

    The value is computed inside of the compiled step, from the same count of updates as the rate. After the fit the
    optimizer has its own momentum again.

    Args:
        schedule: The momentum, from 0 to below 1: say ``clr.momentum(schedule)``.

    Raises:
        TypeError, ValueError: An argument makes no sense; when the fit begins, the optimizer has no momentum, or one
            that is off (0), which stays so.

    Adam's correction of the bias takes the current ``beta_1`` for all past ones.

    >>> import clr, keras
    >>> schedule = clr.triangular(0.001, 0.006, step_size=2000)
    >>> callbacks = [clr.keras.CycleMomentum(clr.momentum(schedule)), clr.keras.LogLearningRate()]
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = _checked(schedule)
        lowest, highest = schedule.bounds
        if not 0 <= lowest <= highest < 1:
            checks.fail(ValueError, "schedule", "momentum", schedule)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Lets the optimizer take its momentum from the schedule."""
        optimizer = _inner(self.model.optimizer)
        _restore(optimizer)  # after a fit that an exception has ended
        name = _momentum_name(optimizer)
        if name is None:
            raise ValueError(f"`CycleMomentum` needs an optimizer with a momentum. Received: {optimizer.name!r}.")
        own = getattr(optimizer, name)
        if not own:
            raise ValueError(f"`CycleMomentum` needs a momentum that is on. Received: {name} {own!r}.")
        apply, schedule = optimizer.apply, self.schedule

        def cycled(*arguments: Any, **options: Any) -> Any:
            # Not by setattr, which has Keras track what it sets.
            optimizer.__dict__[name] = _now(schedule(unwrapped(optimizer.iterations)))
            try:
                return apply(*arguments, **options)
            finally:
                optimizer.__dict__[name] = own

        cycled.schedule = schedule  # type: ignore[attr-defined]
        optimizer.__dict__["apply"] = cycled
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the optimizer as it was."""
        _restore(_inner(self.model.optimizer))
        self.model.train_function = None


class LogLearningRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the rate that was applied, and the momentum if there is one, for every step and every epoch.

    They appear in ``logs`` as ``learning_rate`` and ``momentum``, for Keras' ``History``, ``CSVLogger`` and
    ``TensorBoard``; put it before those. They are those of the last update that was made, where the optimizer's own
    ``learning_rate`` is then already that of the next.

    Attributes:
        history: Lists of the same length under ``"step"``, ``"learning_rate"`` and, where there is one, ``"momentum"``:
            an entry for every update, from the first fit on.

    On JAX the state is read back after every batch, which costs time.

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

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at where the optimizer is."""
        self._optimizer = _inner(self.model.optimizer)
        self._seen = self._updates()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads a rate that is no function of the step, before it is applied."""
        schedule = self._optimizer._learning_rate
        is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        self._rate = None if is_schedule else _number(self._optimizer.learning_rate)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the updates that were made, of which there may be several."""
        optimizer, now = self._optimizer, self._updates()
        name = _momentum_name(optimizer)
        own = None if name is None else getattr(optimizer, name)
        cycled = getattr(optimizer.__dict__.get("apply"), "schedule", None)
        batches = optimizer.gradient_accumulation_steps or 1
        for update in range(self._seen, now):
            rate = self._rate
            if rate is None:  # a schedule, which Keras gives the count of batches
                last = keras.ops.convert_to_tensor((update + 1) * batches - 1, optimizer._iterations.dtype)
                rate = _number(optimizer._learning_rate(last))
            self.history["step"].append(update)
            self.history["learning_rate"].append(rate)
            if own:
                momentum = own if cycled is None else _number(cycled(keras.ops.convert_to_tensor(update)))
                self.history.setdefault("momentum", []).append(momentum)
        self._seen = now
        self._add_to(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the last update of the epoch."""
        self._add_to(logs)

    def _updates(self) -> int:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return int(_number(self._optimizer.iterations))

    def _add_to(self, logs: dict[str, Any] | None) -> None:
        if logs is not None and self.history["step"]:
            logs |= {name: values[-1] for name, values in self.history.items() if name != "step"}


def _number(value: Any) -> float:
    """A tensor or variable of one number, also of a distribution strategy."""
    tensor = unwrapped(value)
    return float(tensor.numpy() if hasattr(tensor, "values") else tensor)  # as a distributed one has


def _inner(optimizer: Any) -> Any:
    """The optimizer, or the one that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _momentum_name(optimizer: Any) -> str | None:
    """What the optimizer calls its momentum."""
    names = ("momentum", "beta_1")
    return next((name for name in names if isinstance(getattr(optimizer, name, None), float | int)), None)


def _restore(optimizer: Any) -> None:
    optimizer.__dict__.pop("apply", None)


class _Now(keras.Variable):  # type: ignore[misc]
    """A tensor of this step in the place of an optimizer's number: never 0, where the optimizer asks."""

    def __init__(self, tensor: Any) -> None:
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

    __hash__ = None  # type: ignore[assignment]


def _now(momentum: Any) -> Any:
    """The momentum as an optimizer can compute with it: PyTorch's steps are not traced, and take a float."""
    return float(momentum) if keras.backend.backend() == "torch" else _Now(momentum)
