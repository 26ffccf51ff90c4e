"""What the other files of this folder read from a Keras optimizer."""

from typing import Any

import keras

from clr.arrays import unwrapped


def inner(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimizer that updates the weights: inside a ``LossScaleOptimizer`` there is another one."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def momentum_name(optimizer: keras.optimizers.Optimizer) -> str | None:
    """The attribute in which the optimizer has its momentum, or None if it has no momentum."""
    names = ("momentum", "beta_1")
    return next((name for name in names if isinstance(getattr(optimizer, name, None), float | int)), None)


def number(value: object) -> float:
    """A tensor or variable of one number as a float. A distribution strategy may have made the variable."""
    return float(unwrapped(value) + 0)
