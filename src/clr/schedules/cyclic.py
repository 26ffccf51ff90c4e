"""Schedules whose cycles repeat: the policies of the paper, and warm restarts. The formula is in `wave`."""

import math
from collections.abc import Callable
from dataclasses import field, replace
from fractions import Fraction
from typing import Any

from clr import checks
from clr.arrays.base import A, Arrays, Python
from clr.schedules.base import Schedule, value
from clr.schedules.compose import checked
from clr.schedules.scaling import MODES, SCALE_MODES
from clr.schedules.shapes import SHAPES
from clr.schedules.wave import Wave, growing, length, repeating, whole

GAMMA = 0.99994  # the paper's


class OnWave(Schedule):
    """A schedule on a wave of its own."""

    __slots__ = ()
    _wave: Wave

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        return self._at(step) if xp.scalar else self._wave.formula(xp)(step)  # type: ignore[arg-type,return-value]


@value
class Cyclic(OnWave):
    """What `clr.triangular`, `clr.triangular2`, `clr.exp_range`, `clr.cyclic` and `clr.warm_restarts` make.

    Those describe the arguments. The attributes are the arguments as they were taken: those without effect have their
    default. A ``step_size`` of 0, with a ``step_size_down``, makes cycles that start at their peak.
    """

    base_lr: float
    max_lr: float
    step_size: float
    step_size_down: float | None = None
    mode: str = "triangular"
    gamma: float = GAMMA
    peak_decay: float = 1.0
    scale_fn: Callable[[Any], Any] | None = None
    scale_mode: str = "cycle"
    shape: str = "linear"
    cycle_mult: float = 1
    _at: Callable[[int], float] = field(init=False, compare=False)  # prepared once
    _wave: Wave = field(init=False, compare=False)

    def __post_init__(self) -> None:
        base_lr = checks.base_rate("base_lr", self.base_lr)
        max_lr = checks.max_rate("max_lr", self.max_lr, "base_lr", base_lr)
        starts_at_peak = self.step_size_down is not None and checks.number("step_size", self.step_size, "steps") == 0
        up = length(0 if starts_at_peak else checks.steps("step_size", self.step_size))
        down = up if self.step_size_down is None else length(checks.steps("step_size_down", self.step_size_down))
        mode = checks.choice("mode", self.mode, MODES)
        factors = {name: checks.gamma(name, getattr(self, name)) for name in ("gamma", "peak_decay")}
        scale_mode = checks.choice("scale_mode", self.scale_mode, SCALE_MODES)
        if isinstance(checks.scale_fn("scale_fn", self.scale_fn), Schedule):
            checked("scale_fn", self.scale_fn)
        shape = checks.choice("shape", self.shape, SHAPES)
        factor = checks.cycle_mult("cycle_mult", self.cycle_mult)
        # What has no effect goes back to its default, so that it does not count when schedules are compared.
        if self.scale_fn is None:
            scaling, scale_mode = MODES[mode].scaling, MODES[mode].scale_mode
            bound: Any = factors.get(MODES[mode].factor or "")
        else:
            scaling, mode, bound = SCALE_MODES[scale_mode], "triangular", self.scale_fn
        curve = repeating(base_lr, max_lr, up, down, shape)
        if factor != 1:
            curve = growing(base_lr, max_lr, up, down, factor, shape)
        wave = replace(curve, scaling=scaling, bound=bound)
        self._set(
            base_lr=base_lr,
            max_lr=max_lr,
            step_size=whole(up),
            step_size_down=None if up == down else whole(down),
            mode=mode,
            gamma=factors["gamma"] if MODES[mode].factor == "gamma" else GAMMA,
            peak_decay=factors["peak_decay"] if MODES[mode].factor == "peak_decay" else 1.0,
            scale_mode=scale_mode,
            shape=shape,
            cycle_mult=whole(factor),
            _wave=wave,
            _at=wave.formula(Python),
        )
        if self.scale_fn is not None:
            for step in (0, 1):  # a function that cannot work is refused here, not in the middle of training
                self(step)

    @property
    def _parts(self) -> tuple[Schedule, ...]:
        return (self.scale_fn,) if isinstance(self.scale_fn, Schedule) else ()

    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        return self._wave.cycle(xp, step)

    @property
    def limits(self) -> tuple[float, float]:
        """``base_lr`` and ``max_lr``."""
        return self.base_lr, self.max_lr

    @property
    def period(self) -> float:
        """The length of the first cycle in steps, and of every cycle unless ``cycle_mult`` is given."""
        up = length(self.step_size)
        return whole(up + (up if self.step_size_down is None else length(self.step_size_down)))

    @property
    def total_steps(self) -> int | None:
        """None; with a ``cycle_mult`` below 1, the step from which cycles would be shorter than a step."""
        return self._wave.whole().starts[-1] if self.cycle_mult < 1 else None

    @property
    def _preview(self) -> int:
        if self.total_steps is not None:
            return self.total_steps
        return math.ceil(sum(Fraction(self.period) * Fraction(self.cycle_mult) ** cycle for cycle in range(4)))

    def describe(self) -> str:
        """The schedule in words: see `Schedule.describe`."""
        if self.scale_fn is None:
            words = MODES[self.mode].words.format(factor=self._wave.bound)
        else:
            name = getattr(self.scale_fn, "__name__", self.scale_fn)
            argument = "number of the cycle, counted from 1" if self.scale_mode == "cycle" else "step"
            words = f"The height of a cycle is scaled by {name} of the {argument}."
        down = self.step_size if self.step_size_down is None else self.step_size_down
        first = "a first cycle" if self.cycle_mult != 1 else "a cycle"
        if self.step_size:
            way = (
                f"rises from {self.base_lr!r} to {self.max_lr!r} in {self.step_size!r} steps and falls back in {down!r}"
            )
        else:
            way = f"falls from {self.max_lr!r} to {self.base_lr!r} in {down!r} steps and jumps back"
        lines = [f"The learning rate {way}{along(self.shape)}: {first} of {self.period!r} steps."]
        if self.cycle_mult != 1:
            lines.append(f"Each cycle is {self.cycle_mult!r} times as long as the one before.")
            if self.total_steps is not None:
                lines.append(f"After {self.total_steps} steps they would be shorter than one, and it stays as it is.")
        return "\n".join([*lines, words])


def along(shape: str) -> str:
    """A shape in words."""
    return "" if shape == "linear" else f" ({shape})"
