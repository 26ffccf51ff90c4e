"""Height across cycles: by how much each policy shrinks the cycle (Smith 2017, section 3.1).

A scaling takes what it is bound to (gamma or the user's function), then ``(xp, step, cycle)`` with the cycle counted
from 0, and gives factors from 0 to 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from clr import checks
from clr.arrays.base import A, Arrays, ScaleFn

Scaling = Callable[[Any, Arrays[Any], Any, Any], Any]


def by_factor(gamma: float, xp: Arrays[A], step: A, cycle: A) -> A:
    """Each cycle is ``gamma`` times as high as the one before."""
    return xp.power(gamma, cycle)


def halving(gamma: float, xp: Arrays[A], step: A, cycle: A) -> A:
    """Each cycle is half as high as the one before; as a factor, which goes to 0 where a divisor overflows."""
    return xp.power(0.5, cycle)


def exponential(gamma: Any, xp: Arrays[A], step: A, cycle: A) -> A:
    """The height falls by ``gamma`` at every step."""
    return xp.power(gamma, step)


def by_cycle(scale_fn: ScaleFn, xp: Arrays[A], step: A, cycle: A) -> A:
    """A user's function of the cycle number, counted from 1 as in the paper."""
    return xp.scaled(scale_fn, cycle + 1)


def by_iteration(scale_fn: ScaleFn, xp: Arrays[A], step: A, cycle: A) -> A:
    """A user's function of the step."""
    return xp.scaled(scale_fn, step)


class Mode(NamedTuple):
    """A policy known by name."""

    scaling: Scaling | None  # None for cycles that are all as high
    scale_mode: str
    words: str
    factor: str | None = None  # the argument of the policies that it takes


MODES = {
    "triangular": Mode(None, "cycle", "Every cycle is as high as the first."),
    "triangular2": Mode(halving, "cycle", "Each cycle is half as high as the one before."),
    "exp_range": Mode(exponential, "iterations", "The height falls by the factor {factor!r} at every step.", "gamma"),
    "peak_decay": Mode(by_factor, "cycle", "Each cycle is {factor!r} times as high as the one before.", "peak_decay"),
}

SCALE_MODES: dict[str, Scaling] = {"cycle": by_cycle, "iterations": by_iteration}

_REGISTERED: dict[str, ScaleFn] = {}


def register_scale(name: str, scale_fn: ScaleFn | None = None) -> Any:
    """Gives a scaling function of yours a name, by which schedules that use it can be saved and loaded.

    Args:
        name: The name, the same wherever the schedule is saved and loaded.
        scale_fn: The function. Without it, the result is a decorator.

    Returns:
        The function, or the decorator.

    Raises:
        TypeError, ValueError: The name is not a text, or is another function's; the function is none.

    >>> import clr
    >>> @clr.register_scale("one over cycle")
    ... def one_over_cycle(cycle):
    ...     return 1 / cycle
    >>> schedule = clr.cyclic(0.0, 1.0, step_size=4, scale_fn=one_over_cycle)
    >>> clr.from_json(schedule.to_json()) == schedule
    True
    """
    if scale_fn is None:
        return lambda function: register_scale(name, function)
    checks.scale_name("name", name)
    checks.scale_fn("scale_fn", scale_fn)
    if _REGISTERED.setdefault(name, scale_fn) is not scale_fn:
        other = f"{checks.shown(name)} already: {checks.shown(_REGISTERED[name])}"
        raise ValueError(f"another scaling function is registered as {other}.")
    return scale_fn


def registered(name: str) -> ScaleFn:
    """The scaling function of that name."""
    checks.scale_name("scale_fn", name)
    if name not in _REGISTERED:
        own = checks.shown(name)
        raise ValueError(f"no scaling function is registered as {own}: call clr.register_scale({own}, function).")
    return _REGISTERED[name]


def registered_name(scale_fn: ScaleFn) -> str:
    """The name of that scaling function."""
    for name, function in _REGISTERED.items():
        if function is scale_fn:
            return name
    own = checks.shown(scale_fn)
    raise ValueError(f"only a scaling function that clr.register_scale has named can be saved. Received: {own}.")
