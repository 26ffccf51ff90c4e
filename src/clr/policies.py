"""The three policies of the paper, and the general one behind them (Smith 2017, sections 3.1 to 3.3)."""

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from clr import checks
from clr.schedule import GAMMA, Schedule


def triangular(base_lr: float, max_lr: float, step_size: float, step_size_down: float | None = None) -> Schedule:
    """The rate rises and falls in a straight line between two fixed bounds.

    Args:
        base_lr: The lower bound, the rate at the start of each cycle; per update.
        max_lr: The upper bound, the rate at the peak of each cycle; per update.
        step_size: Steps (optimizer updates) from ``base_lr`` to ``max_lr``: half a cycle, or the rising part of it.
            Need not be whole: it is taken as the nearest fraction with a denominator up to 1000. See `clr.step_size`.
        step_size_down: Steps back to ``base_lr``; by default as many.

    Raises:
        TypeError, ValueError: An argument is not a number, or not one that makes sense. The message says which.

    >>> import clr
    >>> schedule = clr.triangular(base_lr=0.001, max_lr=0.006, step_size=2000)
    >>> schedule(0), schedule(1000), schedule(2000), schedule(4000)
    (0.001, 0.0035, 0.006, 0.001)
    """
    return Schedule(base_lr, max_lr, step_size, step_size_down, "triangular")


def triangular2(base_lr: float, max_lr: float, step_size: float, step_size_down: float | None = None) -> Schedule:
    """As `triangular`, and each cycle is half as high above ``base_lr`` as the one before.

    >>> import clr
    >>> schedule = clr.triangular2(base_lr=0.001, max_lr=0.005, step_size=2000)
    >>> schedule(2000), schedule(6000), schedule(10000)
    (0.005, 0.003, 0.002)
    """
    return Schedule(base_lr, max_lr, step_size, step_size_down, "triangular2")


def exp_range(
    base_lr: float, max_lr: float, step_size: float, step_size_down: float | None = None, gamma: float = GAMMA
) -> Schedule:
    """As `triangular`, and the height above ``base_lr`` is multiplied by ``gamma ** step``.

    ``gamma`` is above 0 and at most 1. The default is the paper's; at 1 the rates are those of `triangular`.

    >>> import clr
    >>> schedule = clr.exp_range(base_lr=0.0, max_lr=1.0, step_size=4, gamma=0.5)
    >>> schedule(4), schedule(12)
    (0.0625, 0.000244140625)
    """
    return Schedule(base_lr, max_lr, step_size, step_size_down, "exp_range", gamma)


def cyclic(
    base_lr: float,
    max_lr: float,
    step_size: float,
    step_size_down: float | None = None,
    mode: str = "triangular",
    gamma: float = GAMMA,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    """Any of the policies by name, or one with a scaling function of your own.

    Args:
        base_lr: As in `triangular`.
        max_lr: As in `triangular`.
        step_size: As in `triangular`.
        step_size_down: As in `triangular`.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``; without effect if there is a ``scale_fn``.
        gamma: The factor per step of ``"exp_range"``.
        scale_fn: A function of one number that gives the height of the cycle, from 0 to 1. To follow a traced step
            it must be made of operators or of the framework's own functions; there it is given a float tensor and its
            result is cut to [0, 1] (a NaN stays). Elsewhere it is given ints one at a time, and a bad result is an
            error.
        scale_mode: What ``scale_fn`` is a function of: ``"cycle"``, the number of the cycle counted from 1, or
            ``"iterations"``, the step counted from 0.

    >>> import clr
    >>> schedule = clr.cyclic(0.0, 1.0, step_size=4, scale_fn=lambda cycle: 1 / cycle)
    >>> schedule(4), schedule(12), schedule(28)
    (1.0, 0.5, 0.25)
    """
    return Schedule(base_lr, max_lr, step_size, step_size_down, mode, gamma, scale_fn, scale_mode)


def step_size(
    steps_per_epoch: int | None = None,
    epochs: float = 4,
    *,
    num_samples: int | None = None,
    batch_size: int | None = None,
) -> float:
    """The step size in steps that makes half a cycle last ``epochs`` passes over the data.

    The paper advises 2 to 10 (Smith 2017, section 3.2); outside of that a warning is given.

    Args:
        steps_per_epoch: Optimizer updates in one pass, such as ``len(loader)``.
        epochs: Passes in half a cycle.
        num_samples: Instead of ``steps_per_epoch``, the size of the data.
        batch_size: Goes with ``num_samples``. A last, smaller batch counts as an update.

    Returns:
        The product, an int if it is whole.

    Raises:
        TypeError, ValueError: An argument is missing, or is not a positive number.

    >>> import clr
    >>> clr.step_size(steps_per_epoch=500)
    2000
    >>> clr.step_size(num_samples=1797, batch_size=64, epochs=2.5)
    72.5
    """
    if (steps_per_epoch is None) != (num_samples is not None) or (num_samples is None) != (batch_size is None):
        raise TypeError("step_size takes either `steps_per_epoch`, or `num_samples` and `batch_size`.")
    if steps_per_epoch is None:
        # Floor division of the negative number rounds up, exactly.
        steps_per_epoch = -(-checks.count("num_samples", num_samples) // checks.count("batch_size", batch_size))
    checks.positive("epochs", epochs)
    if not 2 <= epochs <= 10:
        warnings.warn(
            f"half a cycle of {epochs!r} epochs is outside of the 2 to 10 that Smith (2017) advises", stacklevel=2
        )
    # As for a step size, 4.1 stands for 41/10, not for the float nearest to it.
    steps = checks.count("steps_per_epoch", steps_per_epoch) * Fraction(epochs).limit_denominator(1000)
    return checks.steps("steps_per_epoch * epochs", steps)
