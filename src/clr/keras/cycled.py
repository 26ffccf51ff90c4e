"""Gives an optimizer another momentum in every update, for `CycleMomentum`.

Why this is needed: Keras computes the rate inside the compiled training step, from the optimizer's ``iterations``. It
has no such thing for the momentum. ``optimizer.momentum`` is a Python number, which TensorFlow and JAX read once, when
they compile the step; after that they ignore what a callback assigns to it. Only code inside the step can change it.

Why ``optimizer.apply``: every training step calls it, on every backend, for every optimizer and for each replica. So
`Cycled` takes its place while a model is fitted. A call sets the momentum to the schedule's value at ``iterations``,
calls the real ``apply``, and sets the momentum back. Where the step is compiled, the call is traced, and the schedule
becomes part of the compiled step. No optimizer is copied or subclassed, and ``get_config`` never sees the change.

Why `Momentum`: a traced value is no Python number, but optimizers ask it questions, such as ``momentum != 0``, that a
traced value cannot answer. `Momentum` wraps the value and answers as a momentum above 0 does.
"""

import math
from typing import Any

import keras

from clr.keras.optimizers import momentum_name
from clr.keras.schedule import value_of
from clr.schedules.base import Schedule


class Cycled:
    """The ``apply`` of an optimizer whose momentum follows a schedule."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, schedule: Schedule) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._apply = optimizer.apply
        self._name = str(momentum_name(optimizer))
        self._own = getattr(optimizer, self._name)
        self._calls = 0  # that are running: each replica makes one

    @classmethod
    def install(cls, optimizer: keras.optimizers.Optimizer, schedule: Schedule) -> None:
        """Lets the optimizer take its momentum from the schedule."""
        cls.remove(optimizer)  # an exception may have ended the last fit before its end
        vars(optimizer)["apply"] = cls(optimizer, schedule)  # `setattr` would make Keras track it

    @staticmethod
    def remove(optimizer: keras.optimizers.Optimizer) -> None:
        """Gives the optimizer its own ``apply`` back."""
        vars(optimizer).pop("apply", None)

    @staticmethod
    def of(optimizer: keras.optimizers.Optimizer) -> "Cycled | None":
        """What `install` has put into the optimizer."""
        found = vars(optimizer).get("apply")
        return found if isinstance(found, Cycled) else None

    def __call__(self, *arguments: object, **options: object) -> None:
        """Makes an update with the momentum of now."""
        attributes = vars(self._optimizer)
        self._calls += 1
        attributes[self._name] = self._now()
        try:
            self._apply(*arguments, **options)
        finally:
            self._calls -= 1
            if not self._calls:  # all replicas set the momentum before the first of them comes here
                attributes[self._name] = self._own

    def value(self, update: Any) -> Any:
        """The momentum of an update: a tensor, or a float on PyTorch, whose optimizers take no tensor for it."""
        if keras.backend.backend() == "torch":
            return self._schedule(int(update))
        return value_of(self._schedule, update)

    def _now(self) -> "float | Momentum":
        value = self.value(self._optimizer.iterations)
        return max(value, math.ulp(0.0)) if isinstance(value, float) else Momentum(value)


class Momentum(keras.Variable):  # type: ignore[misc]
    """A tensor in place of a number. It poses as a Keras variable, since all functions of Keras take variables.

    To the optimizer it is above 0, even where the schedule gives 0: if the optimizer took the momentum for off, it
    would leave the sum of the past updates as it is, and go on with it later.
    """

    def __init__(self, tensor: Any) -> None:  # does not call `super().__init__`, which would make a real variable
        self._tensor = tensor

    @property
    def value(self) -> Any:
        """The tensor."""
        return self._tensor

    @property
    def dtype(self) -> str:
        """Its dtype, by Keras' name."""
        return str(keras.backend.standardize_dtype(self._tensor.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a number."""
        return ()

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<momentum {self._tensor!r}>"

    __hash__ = None  # type: ignore[assignment]
