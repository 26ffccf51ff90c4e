"""Height across cycles: by how much each policy shrinks the cycle (Smith 2017, section 3.1).

A scaling takes what it is bound to (gamma or the user's function), then ``(xp, step, cycle)`` with the cycle counted
from 0, and gives factors from 0 to 1, or None for 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from clr.namespaces import Namespace, ScaleFn

Scaling = Callable[[Any, Namespace, Any, Any], Any]


def constant(gamma: Any, xp: Namespace, step: Any, cycle: Any) -> None:
    """Every cycle is as high as the first."""


def halving(gamma: Any, xp: Namespace, step: Any, cycle: Any) -> Any:
    """Each cycle is half as high as the one before; as a factor, which goes to 0 where a divisor overflows."""
    return xp.power(0.5, cycle)


def exponential(gamma: Any, xp: Namespace, step: Any, cycle: Any) -> Any:
    """The height falls by ``gamma`` at every step."""
    return xp.power(gamma, step)


def by_cycle(scale_fn: ScaleFn, xp: Namespace, step: Any, cycle: Any) -> Any:
    """A user's function of the cycle number, counted from 1 as in the paper."""
    return xp.scaled(scale_fn, cycle + 1)


def by_iteration(scale_fn: ScaleFn, xp: Namespace, step: Any, cycle: Any) -> Any:
    """A user's function of the step."""
    return xp.scaled(scale_fn, step)


class Mode(NamedTuple):
    """A policy known by name."""

    scaling: Scaling
    scale_mode: str
    words: str


MODES = {
    "triangular": Mode(constant, "cycle", "Every cycle is as high as the first."),
    "triangular2": Mode(halving, "cycle", "Each cycle is half as high as the one before."),
    "exp_range": Mode(exponential, "iterations", "The height falls by the factor {gamma!r} at every step."),
}

SCALE_MODES: dict[str, Scaling] = {"cycle": by_cycle, "iterations": by_iteration}
