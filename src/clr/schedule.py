"""What a schedule is: a frozen value that maps a step to a rate, alike in every framework.

`Schedule` is what all have in common. `Cyclic` and `Phases` are the two that stand on a wave of their own (see
`clr.wave`); those made of other schedules are in `clr.compose`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from fractions import Fraction
from itertools import accumulate
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, overload

from clr import checks, namespaces
from clr.namespaces import Namespace, Python, unconverted
from clr.scaling import MODES, SCALE_MODES, Scaling
from clr.shapes import SHAPES
from clr.wave import Leg, Track, Wave, evaluate, growing, length, plain, track, wave

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAMMA = 0.99994  # the paper's
POLICIES = ("triangular", "triangular2", "exp_range")  # the modes that have a function of their own
_FINEST_LENGTH = 10**6  # parts of a step; a phase is not counted in ticks, so its length may be finer
_ROUNDING = Fraction(1, 2**52)  # by how much lengths that are floats may come to more than their sum


class Schedule(ABC):
    """A value that gives the rate of any step, alike in every framework.

    Schedules are immutable, hashable, equal if they were made of equal arguments, and picklable (a scaling function of
    yours must then be picklable too). They are made by functions such as `clr.triangular2` and `clr.one_cycle`, and of
    each other: by `clr.join`, `clr.warmup`, `clr.momentum`, a factor (``schedule * 0.1``), `clip` and `after_end`.

    >>> import clr
    >>> schedule = clr.triangular(base_lr=0.125, max_lr=1.125, step_size=4)
    >>> [schedule(step) for step in range(9)]
    [0.125, 0.375, 0.625, 0.875, 1.125, 0.875, 0.625, 0.375, 0.125]
    """

    kind: ClassVar[str]  # the name by which it is saved
    autograph_info__: ClassVar[None] = None  # what `namespaces.unconverted` sets, for calls of a schedule

    # What each kind of schedule says of itself. A step comes as a namespace's integers, and the rate leaves in that
    # namespace's working precision.

    @abstractmethod
    def rate(self, xp: Namespace, step: Any) -> Any:
        """The rate at ``step``."""

    @abstractmethod
    def cycle_at(self, xp: Namespace, step: Any) -> Any:
        """The number of the cycle at ``step``, counted from 0."""

    @abstractmethod
    def ends_cycle(self, xp: Namespace, step: Any) -> Any:
        """Whether ``step`` is the last of a cycle."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """A lower and an upper bound of the rates."""

    @property
    @abstractmethod
    def total_steps(self) -> int | None:
        """The number of steps until it has come to its end, after which the rate stays; None if it has no end."""

    @property
    @abstractmethod
    def preview(self) -> int:
        """The number of steps that show what it is like."""

    @abstractmethod
    def describe(self) -> str:
        """The schedule in words: its lengths in steps, its bounds, and what happens over the cycles.

        >>> import clr
        >>> print(clr.triangular2(base_lr=0.001, max_lr=0.006, step_size=2000).describe())
        The learning rate rises from 0.001 to 0.006 in 2000 steps and falls back in 2000: a cycle of 4000 steps.
        Each cycle is half as high as the one before.
        """

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: Any, *, dtype: Any = None) -> Any: ...
    def __call__(self, step: Any, *, dtype: Any = None) -> Any:
        """The learning rate of update number ``step``, counted from 0.

        Args:
            step: A Python or NumPy integer, or an integer array or tensor of any shape from NumPy, TensorFlow,
                PyTorch or JAX, traced or not. Floats that hold whole numbers are taken too.
            dtype: The dtype of the rates, for arrays and tensors. By default float64 from NumPy, and elsewhere what
                the framework makes of a Python float.

        Returns:
            A float for a single step, else an array or tensor of the step's framework and shape.

        Raises:
            TypeError: The step is not a number, such as a bool or a list.
            ValueError: The step is negative or fractional. Where it is traced, or a PyTorch or JAX tensor, which may
                be, nothing is raised and a negative step counts as 0.
        """
        if type(step) is int and step >= 0 and dtype is None:  # the way of training loops, at half of the cost
            return self.rate(Python, step)
        xp, steps = namespaces.enter(step)
        if dtype is not None:
            checks.floating(xp.is_floating(dtype), dtype)
        return xp.rates(self.rate(xp, steps), dtype)

    @unconverted
    def cycle(self, step: Any) -> Any:
        """The number of the cycle that ``step`` lies in, counted from 1 as in the paper.

        Takes whatever the schedule takes, and gives an int, or integers in the step's framework and shape.

        >>> import clr
        >>> clr.triangular(0.001, 0.006, step_size=10).cycle(20)
        2
        """
        xp, steps = namespaces.enter(step)
        return xp.plain(self.cycle_at(xp, steps) + 1)

    @unconverted
    def is_cycle_end(self, step: Any) -> Any:
        """Whether ``step`` is the last of its cycle: after it the rate is at its lowest, the time for a snapshot.

        Takes whatever the schedule takes, and gives a bool, or truth values in the step's framework and shape.

        >>> import clr
        >>> schedule = clr.triangular(0.001, 0.006, step_size=10)
        >>> [step for step in range(60) if schedule.is_cycle_end(step)]
        [19, 39, 59]
        """
        xp, steps = namespaces.enter(step)
        return xp.plain(self.ends_cycle(xp, steps))

    def __mul__(self, factor: Any) -> "Schedule":
        """The schedule with every rate times ``factor``, a finite number, 0 or more: say, for a group of parameters.

        >>> import clr
        >>> (clr.triangular(0.0, 1.0, step_size=4) * 0.5)(2)
        0.25
        """
        from clr.compose import Multiple

        if not isinstance(factor, Real):
            return NotImplemented
        return Multiple(self, factor)  # type: ignore[arg-type]

    __rmul__ = __mul__

    def clip(self, low: float = 0.0, high: float | None = None) -> "Schedule":
        """The schedule with no rate below ``low`` nor above ``high``.

        >>> import clr
        >>> schedule = clr.triangular(0.0, 1.0, step_size=4).clip(0.5, 0.75)
        >>> [schedule(step) for step in range(5)]
        [0.5, 0.5, 0.5, 0.75, 0.75]
        """
        from clr.compose import Clip

        return Clip(self, low, high)

    def after_end(self, rule: str) -> "Schedule":
        """The schedule with another rule for steps from `total_steps` on.

        ``"hold"`` keeps the last rate, as all schedules do that come to an end; ``"repeat"`` starts again; and
        ``"error"`` raises a ValueError, except where the step is traced: there the last rate is kept.

        >>> import clr
        >>> schedule = clr.one_cycle(max_lr=1.0, total_steps=100)
        >>> schedule.after_end("repeat")(100) == schedule(0)
        True
        """
        from clr.compose import AfterEnd

        return AfterEnd(self, rule)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain data, from which `clr.from_dict` makes an equal one.

        Raises a ValueError if it has a scaling function that `clr.register_scale` has not given a name.

        >>> import clr
        >>> clr.triangular2(0.25, 0.75, 4).clip(high=0.5).to_dict()["kind"]
        'clip'
        """
        from clr.serialize import to_dict

        return to_dict(self)

    def to_json(self) -> str:
        """The same as JSON text, for `clr.from_json`."""
        from clr.serialize import to_json

        return to_json(self)

    def plot(self, steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the rate of every step below ``steps``, on ``ax`` or a new figure.

        By default those are as many as show what it is like (`preview`).

        Returns the Axes. Raises an ImportError without the extra ``plot``, and a TypeError or ValueError if ``steps``
        is not a positive whole number.
        """
        from clr.plot import plot

        return plot(self, steps, ax)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self.arguments().values())

    def arguments(self) -> dict[str, Any]:
        """What it is made of, by name: everything that counts when schedules are compared."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}  # type: ignore[arg-type]

    def _set(self, **values: Any) -> None:
        """Sets attributes of the frozen dataclass while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def shown_arguments(schedule: Schedule) -> dict[str, Any]:
    """The arguments of a schedule without those that have their default."""
    defaults = {item.name: item.default for item in fields(schedule)}  # type: ignore[arg-type]
    return {name: value for name, value in schedule.arguments().items() if value != defaults[name]}


def call(name: str, arguments: dict[str, Any]) -> str:
    """The text of a call of this package's function ``name``."""
    return f"clr.{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


class _OnWave(Schedule):
    """A schedule on a wave of its own."""

    _wave: Wave | Track
    _scaling: Scaling | None = None
    _bound: Any = None

    def rate(self, xp: Namespace, step: Any) -> Any:
        wave = self._wave if issubclass(xp, Python) else self._wave.within(xp)
        return evaluate(xp, wave, self._scaling, self._bound, step)


@dataclass(frozen=True, repr=False, slots=True)
class Cyclic(_OnWave):
    """The schedules of `clr.triangular`, `clr.triangular2`, `clr.exp_range`, `clr.cyclic` and `clr.warm_restarts`.

    Those describe the arguments. The attributes are the arguments as they were taken: those without effect have their
    default. A ``step_size`` of 0, with a ``step_size_down``, makes cycles that start at their peak.
    """

    kind: ClassVar[str] = "cyclic"
    base_lr: float
    max_lr: float
    step_size: float
    step_size_down: float | None = None
    mode: str = "triangular"
    gamma: float = GAMMA
    scale_fn: Callable[[Any], Any] | None = None
    scale_mode: str = "cycle"
    shape: str = "linear"
    cycle_mult: float = 1
    _wave: Wave | Track = field(init=False, compare=False)
    _scaling: Scaling | None = field(init=False, compare=False)
    _bound: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        base_lr = checks.base_rate("base_lr", self.base_lr)
        max_lr = checks.max_rate("max_lr", self.max_lr, "base_lr", base_lr)
        starts_at_peak = self.step_size_down is not None and checks.number("step_size", self.step_size, "steps") == 0
        up = length(0 if starts_at_peak else checks.steps("step_size", self.step_size))
        down = up if self.step_size_down is None else length(checks.steps("step_size_down", self.step_size_down))
        mode = checks.choice("mode", self.mode, MODES)
        gamma = checks.gamma("gamma", self.gamma)
        scale_mode = checks.choice("scale_mode", self.scale_mode, SCALE_MODES)
        checks.scale_fn("scale_fn", self.scale_fn)
        shape = checks.choice("shape", self.shape, SHAPES)
        factor = checks.cycle_mult("cycle_mult", self.cycle_mult)
        # What has no effect goes back to its default, so that it does not count when schedules are compared.
        if self.scale_fn is None:
            scaling, scale_mode = MODES[mode].scaling, MODES[mode].scale_mode
        else:
            scaling, mode = SCALE_MODES[scale_mode], "triangular"
        self._set(
            base_lr=base_lr,
            max_lr=max_lr,
            step_size=plain(up),
            step_size_down=None if up == down else plain(down),
            mode=mode,
            gamma=gamma if MODES[mode].has_gamma else GAMMA,
            scale_mode=scale_mode,
            shape=shape,
            cycle_mult=plain(factor),
            _wave=(
                wave(base_lr, max_lr, up, down, shape)
                if factor == 1
                else growing(base_lr, max_lr, up, down, factor, shape)
            ),
            _scaling=scaling,
            _bound=gamma if self.scale_fn is None else self.scale_fn,
        )
        if self.scale_fn is not None:
            for step in (0, 1):  # a function that cannot work is refused here, not in the middle of training
                self(step)

    def cycle_at(self, xp: Namespace, step: Any) -> Any:
        return self._wave.within(xp).at(xp, step)[0]

    def ends_cycle(self, xp: Namespace, step: Any) -> Any:
        return self._wave.within(xp).is_cycle_end(xp, step)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.base_lr, self.max_lr

    @property
    def period(self) -> float:
        """The length of the first cycle in steps, and of every cycle unless ``cycle_mult`` is given."""
        return plain(self._halves[0] + self._halves[1])

    @property
    def _halves(self) -> tuple[Fraction, Fraction]:
        up = length(self.step_size)
        return up, up if self.step_size_down is None else length(self.step_size_down)

    @property
    def total_steps(self) -> int | None:
        return self._wave.first[-1] if self.cycle_mult < 1 else None  # type: ignore[union-attr]

    @property
    def preview(self) -> int:
        if self.total_steps is not None:
            return self.total_steps
        return math.ceil(sum(Fraction(self.period) * Fraction(self.cycle_mult) ** cycle for cycle in range(4)))

    def describe(self) -> str:
        if self.scale_fn is None:
            words = MODES[self.mode].words.format(gamma=self.gamma)
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
        lines = [f"The learning rate {way}{_along(self.shape)}: {first} of {self.period!r} steps."]
        if self.cycle_mult != 1:
            lines.append(f"Each cycle is {self.cycle_mult!r} times as long as the one before.")
            if self.total_steps is not None:
                lines.append(f"After {self.total_steps} steps they would be shorter than one, and it stays as it is.")
        return "\n".join([*lines, words])

    def __repr__(self) -> str:
        shown = shown_arguments(self)
        if self.scale_fn is not None:
            return call("cyclic", shown | {"scale_mode": self.scale_mode})
        if self.mode not in POLICIES:
            return call("cyclic", shown)
        shown = {name: value for name, value in shown.items() if name not in ("mode", "scale_mode")}
        return call(self.mode, shown | {"gamma": self.gamma} if self.mode == "exp_range" else shown)


@dataclass(frozen=True, repr=False, slots=True)
class Phases(_OnWave):
    """The schedules of `clr.phases`, `clr.one_cycle`, `clr.trapezoid`, `clr.ramp` and `clr.constant`."""

    kind: ClassVar[str] = "phases"
    levels: tuple[float, ...]
    lengths: tuple[float, ...] = ()
    shape: str = "linear"
    total_steps: int = None  # type: ignore[assignment]  # by default the sum of the lengths, and 1
    _wave: Track = field(init=False, compare=False)

    def __post_init__(self) -> None:
        levels = tuple(
            checks.base_rate(f"levels[{number}]", level)
            for number, level in enumerate(checks.sequence("levels", self.levels))
        )
        lengths = [
            Fraction(checks.steps(f"lengths[{number}]", steps)).limit_denominator(_FINEST_LENGTH)
            for number, steps in enumerate(checks.sequence("lengths", self.lengths))
        ]
        if len(levels) != len(lengths) + 1:
            raise ValueError(
                f"there must be one more of `levels` than of `lengths`. Received: {len(levels)} and {len(lengths)}."
            )
        shape = checks.choice("shape", self.shape, SHAPES)
        starts = list(accumulate(lengths, initial=Fraction(0)))
        least = math.ceil(starts[-1] * (1 - _ROUNDING))
        total = math.floor(starts[-1]) + 1
        if self.total_steps is not None:
            total = checks.count("total_steps", self.total_steps)
            if total < least:
                raise ValueError(f"`total_steps` must be {least} or more, the sum of `lengths`. Received: {total}.")
        # A lone level is a leg of no length.
        legs = zip(starts, starts[1:] or starts, levels, levels[1:] or levels, strict=False)
        self._set(
            levels=levels,
            lengths=tuple(map(plain, lengths)),
            shape=shape,
            total_steps=total,
            _wave=track(map(Leg._make, legs), len(levels) + 1, shape),
        )

    def cycle_at(self, xp: Namespace, step: Any) -> Any:
        return step * 0

    def ends_cycle(self, xp: Namespace, step: Any) -> Any:
        return is_step(xp, step, self.total_steps - 1) if self.lengths else step < 0  # a constant has no cycle to end

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.levels), max(self.levels)

    @property
    def preview(self) -> int:
        return self.total_steps

    def describe(self) -> str:
        if not self.lengths:
            return f"The learning rate is {self.levels[0]!r} at every step."
        ways = [f"to {level!r} in {steps!r} steps" for level, steps in zip(self.levels[1:], self.lengths, strict=True)]
        return f"The learning rate goes from {self.levels[0]!r} {', '.join(ways)}{_along(self.shape)}, and stays there."

    def __repr__(self) -> str:
        return call("phases", shown_arguments(self))


def is_step(xp: Namespace, step: Any, wanted: int) -> Any:
    """Whether ``step`` is a certain one, which the integers at hand may not reach."""
    return step == wanted if wanted <= xp.largest else step < 0


def _along(shape: str) -> str:
    return "" if shape == "linear" else f" ({shape})"
