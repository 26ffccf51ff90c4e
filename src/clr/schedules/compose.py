"""Schedules made of schedules: in a row, multiplied, clipped, mirrored, repeated. Each is itself one."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import field
from itertools import accumulate, pairwise
from typing import Any, get_args

from clr import checks
from clr.arrays.base import A, Array, Arrays
from clr.schedules.base import MOST_NESTED, AfterEndRule, Schedule, ended, policy, value


@policy
def join(
    schedules: Sequence[Schedule], boundaries: Sequence[int] | None = None, *, single_cycle: bool = False
) -> "Join":
    """One schedule after the other, each from its own step 0.

    Args:
        schedules: The schedules in order, one or more.
        boundaries: The step at which each schedule begins, but for the first: growing whole numbers. By default, each
            begins at the end of the one before it (its ``total_steps``).
        single_cycle: Whether all of it counts as one cycle, as the stages of `clr.cosine` do.

    Raises:
        TypeError, ValueError: An argument makes no sense, or a schedule without end is followed by another and no
            boundaries are given.

    The same as Optax's ``join_schedules`` and PyTorch's ``SequentialLR``, as a value.

    >>> import clr
    >>> schedule = clr.join([clr.constant(0.5), clr.triangular(0.0, 1.0, step_size=2)], boundaries=[3])
    >>> [schedule(step) for step in range(6)]
    [0.5, 0.5, 0.5, 0.0, 0.5, 1.0]
    """
    return Join(schedules, boundaries, single_cycle)  # type: ignore[arg-type]  # which makes tuples of them


@policy
def momentum(schedule: Schedule, low: float = 0.85, high: float = 0.95) -> "Momentum":
    """The mirror of a schedule, for the momentum: high where the rate is low, and low where it is high.

    Args:
        schedule: The learning rate.
        low: The momentum at the highest rate, from 0 to below 1.
        high: The momentum at the lowest rate, from ``low`` to below 1.

    The lowest and the highest rate are the schedule's ``limits``. Under `clr.triangular2` and `clr.exp_range`, the
    momentum swings less as the rate swings less. The same as the momentum of PyTorch's ``CyclicLR``
    (``base_momentum`` and ``max_momentum``); see Smith 2018, arXiv:1803.09820, section 4.3.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr
    >>> schedule = clr.momentum(clr.triangular(0.001, 0.006, step_size=2), low=0.5, high=0.75)
    >>> [schedule(step) for step in range(5)]
    [0.75, 0.625, 0.5, 0.625, 0.75]
    """
    return Momentum(schedule, low, high)


@policy
def multiple(schedule: Schedule, factor: float) -> "Multiple":
    """See `Schedule.__mul__`."""
    return Multiple(schedule, factor)


@policy
def clip(schedule: Schedule, low: float = 0.0, high: float | None = None) -> "Clip":
    """See `Schedule.clip`."""
    return Clip(schedule, low, high)


@policy
def after_end(schedule: Schedule, rule: AfterEndRule) -> "AfterEnd":
    """See `Schedule.after_end`."""
    return AfterEnd(schedule, rule)


def checked(name: str, value: object) -> Schedule:
    """A schedule that another can be made of."""
    if not isinstance(value, Schedule):
        checks.fail(TypeError, name, "schedule", value)
    depth, layer = 0, [value]
    while layer:
        depth += 1
        layer = list({id(part): part for whole in layer for part in whole._parts}.values())
    if depth >= MOST_NESTED:
        checks.fail(ValueError, name, f"made of less than {MOST_NESTED} schedules within each other", value)
    return value


class OfOne(Schedule):
    """A schedule made of one other: its cycles and its end are that one's."""

    schedule: Schedule

    @property
    def _parts(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        return self.schedule._cycle(xp, step)

    @property
    def total_steps(self) -> int | None:
        return self.schedule.total_steps

    @property
    def _training_steps(self) -> int | None:
        return self.schedule._training_steps

    @property
    def _preview(self) -> int:
        return self.schedule._preview


@value
class Join(Schedule):
    """One schedule after the other: see `clr.join`."""

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...] | None = None
    single_cycle: bool = False
    _starts: tuple[int, ...] = field(init=False, compare=False)
    _cycles: tuple[int, ...] = field(init=False, compare=False)  # how many there are before each schedule
    _limits: tuple[float, float] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        schedules = tuple(
            checked(f"schedules[{number}]", part)
            for number, part in enumerate(checks.sequence("schedules", self.schedules))
        )
        if not schedules:
            checks.fail(ValueError, "schedules", "schedules", self.schedules)
        if self.boundaries is None:
            starts = [0]
            for number, part in enumerate(schedules[:-1]):
                if part.total_steps is None:
                    endless = f"schedules[{number}] has no end: {checks.shown(part)}"
                    raise ValueError(f"`boundaries` must be given, since {endless}.")
                starts.append(starts[-1] + part.total_steps)
        else:
            starts = [0]
            for number, boundary in enumerate(checks.sequence("boundaries", self.boundaries)):
                starts.append(checks.count(f"boundaries[{number}]", boundary))
            if len(starts) != len(schedules) or sorted(set(starts)) != starts:
                checks.fail(ValueError, "boundaries", "boundaries", self.boundaries)
        lengths = [end - start for start, end in pairwise(starts)]
        cycles = [part.cycle(steps - 1) for part, steps in zip(schedules, lengths, strict=False)]
        self._set(
            schedules=schedules,
            single_cycle=checks.flag("single_cycle", self.single_cycle),
            boundaries=tuple(starts[1:]),
            _starts=tuple(starts),
            _cycles=tuple(accumulate(cycles, initial=0)),
            _limits=(min(part.limits[0] for part in schedules), max(part.limits[1] for part in schedules)),
        )

    @property
    def _parts(self) -> tuple[Schedule, ...]:
        return self.schedules

    def _ask(self, xp: Arrays[A], step: Any, ask: Callable[[int, A], A]) -> A:
        """What ``ask`` gives for the number of the schedule at ``step`` and that schedule's own step."""
        if xp.scalar:
            number = bisect_right(self._starts, step) - 1
            return ask(number, step - self._starts[number])
        result: Any = None
        for number, (start, end) in enumerate(zip(self._starts, (*self._starts[1:], None), strict=True)):
            if start <= xp.largest:
                own = step - xp.minimum(step, start)
                if xp.exact and end is not None:  # no part is asked for a step that is not its own
                    own = xp.minimum(own, end - start - 1)
                value = ask(number, own)
                result = xp.where(xp.search((start,), step), value, result) if number else value
        return result  # type: ignore[no-any-return]

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        def ask(number: int, own: Any) -> Any:
            return self.schedules[number]._rate(xp, own)

        return self._ask(xp, step, ask)

    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        if self.single_cycle:
            return ended(xp, step, xp.largest + 1 if self.total_steps is None else self.total_steps)

        def ask(number: int, own: Any) -> Any:
            return self.schedules[number]._cycle(xp, own) + self._cycles[number]

        return self._ask(xp, step, ask)

    @property
    def limits(self) -> tuple[float, float]:
        return self._limits

    @property
    def total_steps(self) -> int | None:
        steps = self.schedules[-1].total_steps
        return None if steps is None else self._starts[-1] + steps

    @property
    def _training_steps(self) -> int | None:
        steps = self.schedules[-1]._training_steps
        return None if steps is None else self._starts[-1] + steps

    @property
    def _preview(self) -> int:
        return self._starts[-1] + self.schedules[-1]._preview

    def describe(self) -> str:
        lines = [
            f"From step {start}:\n{part.describe()}" for start, part in zip(self._starts, self.schedules, strict=True)
        ]
        return "\n".join(lines)


@value
class Multiple(OfOne):
    """A schedule with every rate times a factor: see `Schedule.__mul__`."""

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        factor = checks.base_rate("factor", self.factor)
        highest = checked("schedule", self.schedule).limits[1]
        checks.base_rate("schedule * factor", highest * factor)  # or it would be infinite later
        self._set(factor=factor)

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        rate: Any = self.schedule._rate(xp, step) * self.factor
        if not xp.exact:  # a product of numbers that were rounded may leave the product that is rounded once
            rate = xp.minimum(xp.maximum(rate, self.limits[0]), self.limits[1])
        return rate  # type: ignore[no-any-return]

    @property
    def limits(self) -> tuple[float, float]:
        low, high = self.schedule.limits
        return low * self.factor, high * self.factor

    def describe(self) -> str:
        return f"{self.schedule.describe()}\nEvery rate is multiplied by {self.factor!r}."


@value
class Clip(OfOne):
    """A schedule that keeps to bounds: see `Schedule.clip`."""

    schedule: Schedule
    low: float = 0.0
    high: float | None = None

    def __post_init__(self) -> None:
        low = checks.base_rate("low", self.low)
        self._set(
            schedule=checked("schedule", self.schedule),
            low=low,
            high=None if self.high is None else checks.max_rate("high", self.high, "low", low),
        )

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        rate = xp.maximum(self.schedule._rate(xp, step), self.low)
        return rate if self.high is None else xp.minimum(rate, self.high)

    @property
    def limits(self) -> tuple[float, float]:
        low, high = (max(bound, self.low) for bound in self.schedule.limits)
        return (low, high) if self.high is None else (min(low, self.high), min(high, self.high))

    def describe(self) -> str:
        words = f"{self.schedule.describe()}\nNo rate is below {self.low!r}"
        return f"{words}." if self.high is None else f"{words} or above {self.high!r}."


@value
class Momentum(OfOne):
    """The mirror of a schedule: see `clr.momentum`."""

    schedule: Schedule
    low: float = 0.85
    high: float = 0.95
    _lowest: float = field(init=False, compare=False)
    _swing: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        low = checks.momentum("low", self.low)
        high = checks.momentum("high", self.high)
        checks.max_rate("high", high, "low", low)
        lowest, highest = checked("schedule", self.schedule).limits
        self._set(low=low, high=high, _lowest=lowest, _swing=highest - lowest)

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        return self._mirror(xp, self.schedule._rate(xp, step))

    def _mirror(self, xp: Arrays[A], rate: A) -> A:
        """The momentum that goes with a rate of the schedule."""
        height: Any = rate - self._lowest
        if self._swing:
            part = height / self._swing
            # Frameworks may flush a tiny swing to 0, and 0 / 0 is not a number.
            height = part if xp.exact else xp.where(height > 0, part, 0.0)
        mirrored = xp.maximum(self.high - height * (self.high - self.low), self.low)
        return mirrored if xp.exact else xp.minimum(mirrored, self.high)

    @property
    def limits(self) -> tuple[float, float]:
        return self.low, self.high

    def describe(self) -> str:
        return f"The momentum, from {self.low!r} to {self.high!r}, mirrors this:\n{self.schedule.describe()}"


@value
class AfterEnd(OfOne):
    """A schedule that does not just stay as it is at its end: see `Schedule.after_end`."""

    schedule: Schedule
    rule: str
    _cycles: int = field(init=False, compare=False)  # of the schedule until its end

    def __post_init__(self) -> None:
        checks.choice("rule", self.rule, get_args(AfterEndRule))
        if checked("schedule", self.schedule).total_steps is None:
            checks.fail(ValueError, "schedule", "one that has an end, for `after_end`", self.schedule)
        self._set(_cycles=self.schedule.cycle(self._steps - 1))

    @property
    def _steps(self) -> int:
        return self.schedule.total_steps  # type: ignore[return-value]

    def _rate(self, xp: Arrays[A], step: A, /) -> A:
        if self.rule == "error" and xp.exact and _any(step >= self._steps):
            checks.fail(ValueError, "step", f"below {self._steps}, where the schedule ends", step)
        return self.schedule._rate(xp, self._located(xp, step)[1])

    def _cycle(self, xp: Arrays[A], step: A, /) -> A:
        turn, own = self._located(xp, step)
        return self.schedule._cycle(xp, own) + turn * self._cycles  # type: ignore[no-any-return]

    def _located(self, xp: Arrays[A], step: A) -> tuple[Any, A]:
        """How often it has started again, and the schedule's own step."""
        if self.rule == "repeat" and self._steps <= xp.largest:
            return xp.divmod(step, self._steps)
        return 0, step

    @property
    def limits(self) -> tuple[float, float]:
        return self.schedule.limits

    @property
    def total_steps(self) -> int | None:
        return None if self.rule == "repeat" else self._steps

    @property
    def _training_steps(self) -> int | None:
        return None  # what comes after the end is told

    def describe(self) -> str:
        words = {
            "hold": "After that, the last rate is kept.",
            "repeat": f"After {self._steps} steps it starts again.",
            "error": f"To go beyond {self._steps} steps is an error.",
        }
        return f"{self.schedule.describe()}\n{words[self.rule]}"


def _any(truth: Array) -> bool:
    return bool(truth.any() if hasattr(truth, "any") else truth)
