"""What a cyclical learning rate is: a frozen value that maps a step to a rate.

The rate is found in two moves. ``locate`` finds the cycle and the place in it with ``//`` and ``%`` on the
framework's own integers, so step 2**31 is as exact as step 5. ``rate`` turns that small place into a float. Both
are written once, here, and serve every framework through its namespace.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, overload

from clr import checks, namespaces, rounding
from clr.namespaces import Namespace, Python, unconverted
from clr.scaling import MODES, SCALE_MODES, Scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAMMA = 0.99994  # the paper's
_FINEST_TICK = 1000  # parts of a step


class Wave(NamedTuple):
    """The numbers of the formula. Lengths are in ticks; a whole step has ``ticks`` of them.

    Python numbers, or tensors where an adapter is given tensors.
    """

    base_lr: Any
    max_lr: Any
    ticks: int
    up: Any
    period: Any
    rising: tuple[Any, ...]  # the slope of the first half, exact as a rounding.Slope or rounded to one number
    falling: tuple[Any, ...]  # and of the second, the same object if both are equally long

    def within(self, xp: Namespace) -> "Wave":
        """The wave as a namespace can compute it: each slope a single number, if it rounds at every operation.

        Raises a ValueError if its integers end before a cycle does.
        """
        largest = xp.largest if self.ticks == 1 else xp.largest >> 2  # fractions need room for a product in `locate`
        if self.period > largest:
            raise ValueError(
                f"a cycle of {self.period} ticks of 1/{self.ticks} step cannot be counted in integers up to "
                f"{largest}: use a shorter or a whole step size, or 64-bit integers (in JAX, jax_enable_x64)"
            )
        if xp.exact:
            return self
        rising = (sum(self.rising),)
        falling = rising if self.falling is self.rising else (sum(self.falling),)
        return self._replace(rising=rising, falling=falling)


def wave(base_lr: float, max_lr: float, step_size: float, step_size_down: float) -> Wave:
    """The wave of a schedule.

    A half cycle need not be whole: 20.3 steps are 203 ticks of 1/10 step.
    """
    up = Fraction(step_size).limit_denominator(_FINEST_TICK)
    down = Fraction(step_size_down).limit_denominator(_FINEST_TICK)
    ticks = math.lcm(up.denominator, down.denominator)
    rise = Fraction(max_lr) - Fraction(base_lr)
    rising = rounding.slope(rise, int(up * ticks))
    falling = rising if up == down else rounding.slope(rise, int(down * ticks))
    return Wave(base_lr, max_lr, ticks, int(up * ticks), int((up + down) * ticks), rising, falling)


def _steps(ticks: int, wave: Wave) -> float:
    """A length in steps, an int if it is whole."""
    steps = Fraction(ticks, wave.ticks)
    return int(steps) if steps.denominator == 1 else float(steps)


def locate(xp: Namespace, wave: Wave, step: Any) -> tuple[Any, Any]:
    """The cycle that ``step`` lies in, counted from 0, and the ticks from its start."""
    cycle, offset = xp.divmod(step, wave.period)
    if wave.ticks == 1:
        return cycle, offset
    # step * ticks = (cycle * ticks) * period + offset * ticks. The last product may pass the largest integer, so
    # it is taken digit by digit, in a base small enough that nothing does.
    base = xp.largest // (2 * wave.period)
    inner = rest = 0
    for digit in _digits(wave.ticks, base):
        carry, rest = xp.divmod(rest * base + offset * digit, wave.period)
        inner = inner * base + carry
    return cycle * wave.ticks + inner, rest


def _digits(number: int, base: int) -> Iterator[int]:
    """The digits of ``number``, most significant first."""
    higher, digit = divmod(number, base)
    if higher:
        yield from _digits(higher, base)
    yield digit


def rate(xp: Namespace, wave: Wave, offset: Any, scale: Any) -> Any:
    """base_lr + (max_lr - base_lr) * height * scale (Smith 2017, section 3.1), ``offset`` ticks into a cycle.

    The height grows from 0 to 1 over the first half of the cycle and shrinks back over the second, so
    (max_lr - base_lr) * height is the slope times the ticks to the nearer foot of the wave.
    """
    base_lr, max_lr, _, up, period, rising, falling = wave
    foot = period - offset
    if rising is falling:
        ticks, slope = xp.minimum(offset, foot), rising
    else:
        is_rising = offset <= up
        ticks = xp.where(is_rising, offset, foot)
        slope = tuple([xp.where(is_rising, *pair) for pair in zip(rising, falling, strict=True)])
    rise = xp.real(ticks) * slope[0]
    scaled = rise if scale is None else rise * scale
    result = base_lr + scaled
    if xp.exact:  # give back what these lines rounded away, so that the result is rounded only once
        lost = ticks * slope[1]
        if scale is not None:
            lost = lost * scale + rounding.product_error(xp, rise, scale, scaled)
        result = result + (lost + rounding.sum_error(base_lr, scaled, result))
    return xp.minimum(result, max_lr)


def evaluate(xp: Namespace, wave: Wave, scaling: Scaling, bound: Any, step: Any) -> Any:
    """The rate at ``step``: locate, scale, rate."""
    cycle, offset = locate(xp, wave, step)
    return rate(xp, wave, offset, scaling(bound, xp, step, cycle))


class _Bare:
    """Gives a slotted class weak references and a ``__dict__``, an empty one: PyTorch's LambdaLR saves it."""


@dataclass(frozen=True, repr=False, slots=True)
class Schedule(_Bare):
    """A cyclical learning rate: a value that gives the rate of any step, alike in every framework.

    Made by `clr.triangular`, `clr.triangular2`, `clr.exp_range` and `clr.cyclic`, which describe the arguments.
    The attributes are the arguments as they were taken: those without effect have their default.

    Schedules are immutable, hashable, equal if their attributes are, and picklable (a ``scale_fn`` of yours must then
    be picklable too).

    >>> import clr
    >>> schedule = clr.triangular(base_lr=0.125, max_lr=1.125, step_size=4)
    >>> [schedule(step) for step in range(9)]
    [0.125, 0.375, 0.625, 0.875, 1.125, 0.875, 0.625, 0.375, 0.125]
    """

    base_lr: float
    max_lr: float
    step_size: float
    step_size_down: float | None = None
    mode: str = "triangular"
    gamma: float = GAMMA
    scale_fn: Callable[[Any], Any] | None = None
    scale_mode: str = "cycle"
    _wave: Wave = field(init=False, compare=False)
    _scaling: Scaling = field(init=False, compare=False)
    autograph_info__: ClassVar[None] = None  # what `namespaces.unconverted` sets, for calls of a schedule

    def __post_init__(self) -> None:
        base_lr = checks.base_rate("base_lr", self.base_lr)
        max_lr = checks.max_rate("max_lr", self.max_lr, "base_lr", base_lr)
        up = checks.steps("step_size", self.step_size)
        down = up if self.step_size_down is None else checks.steps("step_size_down", self.step_size_down)
        mode = checks.choice("mode", self.mode, MODES)
        gamma = checks.gamma("gamma", self.gamma)
        scale_mode = checks.choice("scale_mode", self.scale_mode, SCALE_MODES)
        checks.scale_fn("scale_fn", self.scale_fn)
        shape = wave(base_lr, max_lr, up, down)
        # What has no effect goes back to its default, so that it does not count when schedules are compared.
        if self.scale_fn is None:
            scaling, scale_mode = MODES[mode].scaling, MODES[mode].scale_mode
        else:
            scaling, mode = SCALE_MODES[scale_mode], "triangular"
        values = {
            "base_lr": base_lr,
            "max_lr": max_lr,
            "step_size": _steps(shape.up, shape),
            "step_size_down": None if shape.rising is shape.falling else _steps(shape.period - shape.up, shape),
            "mode": mode,
            "gamma": gamma if mode == "exp_range" else GAMMA,
            "scale_mode": scale_mode,
            "_wave": shape,
            "_scaling": scaling,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.scale_fn is not None:
            for step in (0, 1):  # a function that cannot work is refused here, not in the middle of training
                self(step)

    def rates(self, xp: Namespace, step: Any, dtype: Any = None) -> Any:
        """For adapters: the rates of a step that `clr.namespaces.enter` has let in."""
        wave = self._wave if xp is Python else self._wave.within(xp)
        bound = self.gamma if self.scale_fn is None else self.scale_fn
        return xp.rates(evaluate(xp, wave, self._scaling, bound, step), dtype)

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
        xp, steps = namespaces.enter(step)
        if dtype is not None:
            checks.floating(xp.is_floating(dtype), dtype)
        return self.rates(xp, steps, dtype)

    @unconverted
    def cycle(self, step: Any) -> Any:
        """The number of the cycle that ``step`` lies in, counted from 1 as in the paper.

        Takes whatever the schedule takes, and gives an int, or integers in the step's framework and shape.

        >>> import clr
        >>> clr.triangular(0.001, 0.006, step_size=10).cycle(20)
        2
        """
        xp, steps = namespaces.enter(step)
        return xp.plain(locate(xp, self._wave.within(xp), steps)[0] + 1)

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
        _, offset = locate(xp, self._wave.within(xp), steps)
        return xp.plain(offset >= self._wave.period - self._wave.ticks)

    @property
    def period(self) -> float:
        """The length of a cycle in steps."""
        return _steps(self._wave.period, self._wave)

    def describe(self) -> str:
        """The schedule in words: its lengths in steps, its bounds, and what happens over the cycles.

        >>> import clr
        >>> print(clr.triangular2(base_lr=0.001, max_lr=0.006, step_size=2000).describe())
        The learning rate rises from 0.001 to 0.006 in 2000 steps and falls back in 2000: a cycle of 4000 steps.
        Each cycle is half as high as the one before.
        """
        if self.scale_fn is None:
            words = MODES[self.mode].words.format(gamma=self.gamma)
        else:
            name = getattr(self.scale_fn, "__name__", self.scale_fn)
            argument = "number of the cycle, counted from 1" if self.scale_mode == "cycle" else "step"
            words = f"The height of a cycle is scaled by {name} of the {argument}."
        down = self.step_size if self.step_size_down is None else self.step_size_down
        return (
            f"The learning rate rises from {self.base_lr!r} to {self.max_lr!r} in {self.step_size!r} steps "
            f"and falls back in {down!r}: a cycle of {self.period!r} steps.\n{words}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, item.name) for item in fields(self) if item.init)

    def __repr__(self) -> str:
        arguments: dict[str, Any] = {"base_lr": self.base_lr, "max_lr": self.max_lr, "step_size": self.step_size}
        if self.step_size_down is not None:
            arguments["step_size_down"] = self.step_size_down
        name = self.mode
        if self.mode == "exp_range":
            arguments["gamma"] = self.gamma
        if self.scale_fn is not None:
            name = "cyclic"
            arguments |= {"scale_fn": self.scale_fn, "scale_mode": self.scale_mode}
        return f"clr.{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"

    def plot(self, steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draws the rate of every step below ``steps`` (by default four cycles), on ``ax`` or a new figure.

        Returns the Axes. Raises an ImportError without the extra ``plot``, and a TypeError or ValueError if ``steps``
        is not a positive whole number.
        """
        from clr.plot import plot

        return plot(self, steps, ax)
