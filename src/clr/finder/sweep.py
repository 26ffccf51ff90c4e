"""The LR range test (Smith 2017, section 3.3): the sweep over the rates."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NoReturn

from clr import checks, progress
from clr.finder.curve import Divergence
from clr.finder.result import GOALS, LAST, MOST_REPEATS, MOST_STEPS, RangeTest, Sweep, scalar

Step = Callable[[float], object]
Reset = Callable[[int], object]


class EndOfSweep(Exception):  # noqa: N818  # as StopIteration, which is no error either
    """Ends a sweep from within a training step, for a reason that is a key of `STOPS`."""

    def __init__(self, stop: str) -> None:
        super().__init__(stop)
        self.stop = stop


@dataclass(frozen=True)
class Options:
    """The options that every range test has, in every framework. See `range_test`.

    They are checked when they are made: a wrong one raises a TypeError or a ValueError.
    """

    min_lr: float = 1e-7
    max_lr: float = 10.0
    num_steps: int = 300
    growth: Literal["exponential", "linear"] = "exponential"
    diverge_at: float = 1.0
    time_limit: float | None = None
    evaluate: Callable[[], object] | None = None
    evaluate_every: int = 5
    goal: Literal["min", "max"] = "min"
    repeats: int = 1
    progress: bool | None = None

    def __post_init__(self) -> None:
        checks.choice("growth", self.growth, ("exponential", "linear"))
        check_low = checks.base_rate if self.growth == "linear" else checks.positive
        low = check_low("min_lr", self.min_lr)
        checked = {
            "min_lr": low,
            "max_lr": checks.max_rate("max_lr", self.max_lr, "min_lr", low),
            "num_steps": checks.count("num_steps", self.num_steps),
            "diverge_at": checks.positive("diverge_at", self.diverge_at),
            "time_limit": None if self.time_limit is None else checks.positive("time_limit", self.time_limit),
            "evaluate_every": checks.count("evaluate_every", self.evaluate_every),
            "goal": checks.choice("goal", self.goal, GOALS),
            "repeats": checks.count("repeats", self.repeats),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.evaluate is not None:
            checks.function("evaluate", self.evaluate)
        if self.max_lr == low:
            raise ValueError(f"`max_lr` must be above `min_lr`. Received: {self.max_lr!r} with `min_lr` {low!r}.")
        if not 2 <= self.num_steps <= MOST_STEPS:
            rule = "2 or more" if self.num_steps < 2 else f"at most {MOST_STEPS:,}"
            checks.fail(ValueError, "num_steps", rule, self.num_steps)
        if self.repeats > MOST_REPEATS:
            checks.fail(ValueError, "repeats", f"at most {MOST_REPEATS:,}", self.repeats)
        if any(left >= right for left, right in pairwise(self.rates)):
            checks.fail(ValueError, "num_steps", "so few that the rates differ", self.num_steps)

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """The rates to try, in order: exactly ``min_lr`` first and ``max_lr`` last."""
        low, high, last = self.min_lr, self.max_lr, self.num_steps - 1
        if self.growth == "linear":
            inner = [low + (high - low) * at / last for at in range(1, last)]
        else:
            start, end = math.log(low), math.log(high)
            inner = [math.exp(start + (end - start) * at / last) for at in range(1, last)]
        return (low, *inner, high)


def range_test(
    train_step: Step,
    reset: Reset | None = None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    growth: Literal["exponential", "linear"] = "exponential",
    diverge_at: float = 1.0,
    time_limit: float | None = None,
    evaluate: Callable[[], object] | None = None,
    evaluate_every: int = 5,
    goal: Literal["min", "max"] = "min",
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """Raises the learning rate from step to step and records the loss (Smith 2017, section 3.3).

    It can test any training. It asks nothing of the model, the framework or the data. It does not undo what
    ``train_step`` changes; the range tests of `clr.torch`, `clr.keras`, `clr.tensorflow` and `clr.jax` do.

    Args:
        train_step: Makes one update at the given rate and returns the loss of its batch: a number, or an array of one
            element of any framework. None means that it made no update; then the rate is left out. It may raise
            StopIteration where its data ends. The rate is a Python float. A ``tf.function`` or
            ``equinox.filter_jit`` compiles anew for each of them: give it a tensor or an array of the rate.
        reset: Puts everything back to the start before each repeat, and seeds it by the repeat's number: 0, 1, ...
            Needed for more than one repeat.
        min_lr: The first rate, so low that nothing is learned. By default 1e-7.
        max_lr: The last rate, so high that training diverges. By default 10.
        num_steps: How many rates to try, from 2 to 10,000. Each takes one update. By default 300. A longer test tends
            to find better bounds.
        growth: ``"exponential"``, by the same factor each step (the default), or ``"linear"``.
        diverge_at: The test ends when the loss (the median of the last five) has risen above its start by this many
            times its fall. By default 1.
        time_limit: The test ends after so many seconds. By default there is no limit.
        evaluate: A function without arguments that returns a validation loss or accuracy. With it, the bounds are
            read from these values, as in the paper, and not from the training loss.
        evaluate_every: The number of steps from one call of ``evaluate`` to the next. By default 5.
        goal: ``"min"`` (the default) where a smaller value of ``evaluate`` is better, ``"max"`` where a larger one is.
        repeats: How many times to go over the rates, up to 1,000. The curve is the median. By default 1.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `RangeTest`. Its ``stop`` says why the test ended. After Ctrl-C it has the losses so far.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the loss is not a number.

    >>> import clr
    >>> weight = 1.0
    >>> def train_step(lr):
    ...     global weight
    ...     loss = weight**2
    ...     weight -= lr * 2 * weight
    ...     return loss
    >>> test = clr.range_test(train_step, min_lr=1e-5, max_lr=10)
    >>> test.stop, len(test.losses) < 300
    ('diverged', True)
    """
    checks.function("train_step", train_step)
    options = Options(
        min_lr, max_lr, num_steps, growth, diverge_at, time_limit, evaluate, evaluate_every, goal, repeats, progress
    )
    return run(ending(train_step), reset, options)


def ending(train_step: Step) -> Step:
    """A user's step that takes its own batches: StopIteration, which it raises at their end, ends the sweep."""

    def step(rate: float) -> object:
        try:
            return train_step(rate)
        except StopIteration:
            raise EndOfSweep("data") from None

    return step


def no_end(error: StopIteration) -> NoReturn:
    """Refuses to take for the end of the data what code of the user raises elsewhere, as Python does in generators."""
    raise RuntimeError("the training raised StopIteration, though no batch was being taken") from error


def run(step: Step, reset: Reset | None, options: Options) -> RangeTest:
    """The range test that ``options`` describe. For ``step`` and ``reset`` see `range_test`."""
    if options.repeats > 1 and not callable(reset):
        raise TypeError("`reset` must be a function that puts everything back, where there are `repeats`.")
    deadline = math.inf if options.time_limit is None else time.monotonic() + options.time_limit
    sweeps: list[Sweep] = []
    with progress.bar(options.progress, options.repeats * options.num_steps, "LR range test") as show:
        for repeat in range(options.repeats):
            one = _Pass(step, options, deadline, show, repeat)
            sweeps.append(one.run(reset))
            if sweeps[-1].stop in LAST:
                break
    return RangeTest(
        tuple(sweeps),
        options.rates,
        goal=options.goal,
        diverge_at=options.diverge_at,
        evaluate_every=options.evaluate_every,
        repeats=options.repeats,
        time_limit=options.time_limit,
    )


class _Pass:
    """One pass over the rates."""

    def __init__(self, step: Step, options: Options, deadline: float, show: progress.Show, repeat: int) -> None:
        self._step, self._options, self._deadline = step, options, deadline
        self._show, self._repeat = show, repeat
        self._diverged = Divergence(options.diverge_at)
        self._losses: list[float | None] = []
        self._metrics: list[float | None] = []

    def run(self, reset: Reset | None) -> Sweep:
        """Goes over the rates until something ends it."""
        try:
            if reset is not None:
                reset(self._repeat)
            stop = self._over_the_rates()
        except StopIteration as error:
            no_end(error)
        except EndOfSweep as end:
            stop = end.stop
        except KeyboardInterrupt:
            stop = "interrupted"
        return Sweep(tuple(self._losses), tuple(self._metrics), stop)

    def _over_the_rates(self) -> str:
        rates = self._options.rates
        for at, rate in enumerate(rates, 1):
            if time.monotonic() >= self._deadline:
                return "time"
            value = self._step(rate)
            loss = None if value is None else returned_float("train_step", value)
            self._losses.append(loss)
            shown = "-" if loss is None else f"{loss:.4g}"
            self._show(self._repeat * len(rates) + at, f"rate {rate:.2e}  loss {shown}")
            if loss is not None and (stop := self._diverged(loss)):
                return stop
            self._metrics.append(self._metric(at))
        return "completed"

    def _metric(self, at: int) -> float | None:
        """What ``evaluate`` returns after step ``at``, counted from 1, if it is due."""
        evaluate = self._options.evaluate
        if evaluate is None or at % self._options.evaluate_every:
            return None
        return returned_float("evaluate", evaluate())


def returned_float(name: str, value: object) -> float:
    """What the function ``name`` has returned, as a float: a number, or an array of one element of any framework."""
    try:
        return scalar(value)
    except TypeError:
        received = checks.shown(value)
        raise TypeError(f"`{name}` must return a number, or an array of one element. Received: {received}.") from None
