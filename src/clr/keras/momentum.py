"""A callback that cycles the momentum. How it gets into the compiled step is explained in `clr.keras.cycled`."""

import keras

from clr import checks
from clr.keras.cycled import Cycled
from clr.keras.optimizers import inner, momentum_name
from clr.schedules.base import Schedule
from clr.schedules.compose import checked


class CycleMomentum(keras.callbacks.Callback):  # type: ignore[misc]
    """Cycles the momentum while a model is fitted: ``momentum`` of SGD and RMSprop, ``beta_1`` of Adam and its kin.

    The momentum is computed inside the compiled step, from the optimizer's count of updates. If the optimizer
    accumulates gradients, several batches make one update. After the fit the optimizer has its own momentum again. The
    same momentum is in every model that is saved during the fit. If an exception ends the fit, Keras does not call
    `on_train_end`: call it yourself.

    Adam's bias correction assumes that all past updates had the current ``beta_1``.

    Args:
        schedule: The momentum, from 0 to below 1: say ``clr.momentum(schedule)``.

    Raises:
        TypeError, ValueError: An argument makes no sense. When the fit begins: the optimizer has no momentum, or its
            momentum is off (0).

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
        self.schedule = checked("schedule", schedule)
        if schedule.limits[1] >= 1:
            checks.fail(ValueError, "schedule", "momentum", schedule)

    def set_model(self, model: keras.Model) -> None:
        """Refuses a model whose optimizer has no momentum, or one that is off."""
        super().set_model(model)
        optimizer = inner(model.optimizer)
        name = momentum_name(optimizer)
        if name is None:
            raise ValueError(f"`CycleMomentum` needs an optimizer with a momentum. Received: {optimizer.name!r}.")
        own = getattr(optimizer, name)
        if not own:
            raise ValueError(f"`CycleMomentum` needs a momentum that is on. Received: {name} {own!r}.")

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Lets the optimizer take its momentum from the schedule. The training step is compiled again."""
        Cycled.install(inner(self.model.optimizer), self.schedule)
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leaves the optimizer as it was."""
        Cycled.remove(inner(self.model.optimizer))
        self.model.train_function = None  # Keras makes a new one when it needs one
