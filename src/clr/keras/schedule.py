"""A schedule as Keras' optimizers take it.

Glue only: the schedule computes the rate from the optimizer's own ``iterations``, inside of the compiled step.
"""

from functools import cache
from typing import Any

import keras

from clr import arrays, checks
from clr.arrays import unwrapped
from clr.arrays.base import unconverted
from clr.schedules.base import Schedule
from clr.schedules.serialize import from_dict


@keras.saving.register_keras_serializable(package="clr")
class LearningRateSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule as Keras' optimizers take it, which is saved and loaded with the model.

    A compiled model that was saved to ``.keras`` goes on at the same step with the same rates. To load it, import
    `clr.keras` first. A scaling function of yours must be registered by `clr.register_scale` to be saved.

    Args:
        schedule: The learning rate, per update.
        gradient_accumulation_steps: The optimizer's own, if it has one. Keras hands a schedule the count of batches;
            with this, the rate follows the updates that are made of them.

    Attributes:
        schedule: The same.
        gradient_accumulation_steps: The same, 1 by default.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr, keras
    >>> schedule = clr.keras.LearningRateSchedule(clr.triangular(0.25, 1.25, step_size=4))
    >>> optimizer = keras.optimizers.SGD(schedule)
    >>> float(optimizer.learning_rate)
    0.25
    """

    def __init__(self, schedule: Schedule, gradient_accumulation_steps: int = 1) -> None:
        super().__init__()
        self.schedule = checked(schedule)
        self.gradient_accumulation_steps = checks.count("gradient_accumulation_steps", gradient_accumulation_steps)

    @unconverted
    def __call__(self, step: Any) -> Any:
        """The rate at a count of batches.

        Args:
            step: Whatever a schedule takes: ``iterations`` of an optimizer, a number, integers of any framework.

        Returns:
            A tensor of the step's framework and shape; from Keras' backend in the dtype of Keras' own rates
            (``keras.config.floatx()``). A float for a number.

        Raises:
            TypeError, ValueError: The step is no whole number of batches, 0 or more.
        """
        return value_of(self.schedule, step, self.gradient_accumulation_steps)

    def get_config(self) -> dict[str, Any]:
        """Plain data, from which `from_config` makes an equal one."""
        return {
            "schedule": self.schedule.to_dict(),
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSchedule":
        """The schedule that `get_config` has described."""
        return cls(from_dict(config["schedule"]), config["gradient_accumulation_steps"])

    def __repr__(self) -> str:
        batches = self.gradient_accumulation_steps
        option = f", gradient_accumulation_steps={batches}" if batches > 1 else ""
        return f"clr.keras.LearningRateSchedule({self.schedule!r}{option})"


def checked(schedule: Any) -> Schedule:
    if not isinstance(schedule, Schedule):
        checks.fail(TypeError, "schedule", "schedule", schedule)
    return schedule


def value_of(schedule: Schedule, count: Any, each: int = 1) -> Any:
    """What a schedule gives where ``each`` of the counted make a step."""
    count = unwrapped(count)
    xp, step = arrays.enter(count)
    if each > 1:
        step = xp.divmod(step, each)[0]
    return xp.rates(schedule._rate(xp, step), _dtype(keras.config.floatx()) if keras.ops.is_tensor(count) else None)


@cache
def _dtype(name: str) -> Any:
    """The backend's own dtype of this name."""
    return keras.ops.convert_to_tensor(0.0, name).dtype
