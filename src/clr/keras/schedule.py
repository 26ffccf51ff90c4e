"""A schedule as Keras' optimizers take it: computed from their own ``iterations``, inside the compiled step."""

from typing import Any

import keras

from clr import arrays, checks
from clr.arrays import unwrapped
from clr.arrays.base import unconverted
from clr.schedules.base import Schedule, one_step
from clr.schedules.compose import checked
from clr.schedules.serialize import from_dict

_DTYPES: dict[str, Any] = {}  # of the backend, by name


# Keras ends its error with the registered name where nobody has imported this module: so the name says what is missing.
@keras.saving.register_keras_serializable(package="import clr.keras")
class LearningRateSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule as Keras' optimizers take it. It is saved and loaded with the model.

    A compiled model that was saved to ``.keras`` resumes at the same step with the same rates. Write
    ``import clr.keras`` before you load it. To save a scaling function of your own, register it with
    `clr.register_scale`.

    Give it to the optimizer, not to ``keras.callbacks.LearningRateScheduler``, which counts epochs and not updates.

    Keras' own schedules give a tensor for a Python number. This one gives a float, as all schedules of clr do.

    Args:
        schedule: The learning rate of each update.
        gradient_accumulation_steps: The value that the optimizer has. Keras counts batches for a schedule, not
            updates; with this value the rate changes once per update.

    Attributes:
        schedule: The argument.
        gradient_accumulation_steps: The argument, 1 by default.

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
        self.schedule = checked("schedule", schedule)
        self.gradient_accumulation_steps = checks.count("gradient_accumulation_steps", gradient_accumulation_steps)

    @unconverted
    def __call__(self, step: Any, *_more: object) -> Any:
        """The rate at a count of batches.

        Args:
            step: The optimizer's ``iterations``, a number, or integers of any framework.

        Returns:
            A float for a Python number, else a tensor of the step's framework and shape. Tensors of Keras' backend
            have the dtype ``keras.config.floatx()``.

        Raises:
            TypeError, ValueError: The step is not a whole number, 0 or more. Or there are two arguments, such as the
                epoch and the rate that ``keras.callbacks.LearningRateScheduler`` gives.
        """
        one_step(step, _more)
        return value_of(self.schedule, step, self.gradient_accumulation_steps)

    def get_config(self) -> dict[str, Any]:
        """Plain data, from which `from_config` makes an equal schedule."""
        return {
            "schedule": self.schedule.to_dict(),
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSchedule":
        """The schedule that `get_config` described.

        Raises:
            TypeError, ValueError: The data is not that of a schedule.
        """
        names = ("schedule", "gradient_accumulation_steps")
        checks.keys(checks.mapping("config", config), names, "the config of a schedule")
        return cls(from_dict(config["schedule"]), config["gradient_accumulation_steps"])

    def __repr__(self) -> str:
        batches = self.gradient_accumulation_steps
        option = f", gradient_accumulation_steps={batches}" if batches > 1 else ""
        return f"clr.keras.LearningRateSchedule({self.schedule!r}{option})"


keras.saving.get_custom_objects()["clr>LearningRateSchedule"] = LearningRateSchedule  # its name before 0.2


def value_of(schedule: Schedule, count: Any, each: int = 1) -> Any:
    """The value of a schedule of which a step is made of ``each`` counts."""
    count = unwrapped(count)
    xp, step = arrays.enter(count)
    if each > 1:
        step = xp.divmod(step, each)[0]
    return xp.rates(schedule._rate(xp, step), _dtype(keras.config.floatx()) if keras.ops.is_tensor(count) else None)


def _dtype(name: str) -> Any:
    """The backend's own dtype of this name."""
    if name not in _DTYPES:  # a plain dict, for `torch.compile` warns of functools.cache
        _DTYPES[name] = keras.ops.convert_to_tensor(0.0, name).dtype
    return _DTYPES[name]
