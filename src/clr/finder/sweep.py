"""The LR range test (Smith 2017, section 3.3): the sweep over the rates, and the rule that ends it."""

import math
import sys
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from clr import checks
from clr.finder.result import DIVERGE_AT, EVALUATE_EVERY, GOALS, RangeTest, Sweep, checked_range

if TYPE_CHECKING:
    pass

_RECENT = 5  # losses whose median is compared: two spikes in a row stop nothing
_WARM = 15  # losses from which the start is known

Step = Callable[[float], Any]


class EndOfSweep(Exception):  # noqa: N818  # as StopIteration, which is no error either
    """Ends a sweep from within a training step, for a reason that is a key of `STOPS`."""

    def __init__(self, stop: str) -> None:
        super().__init__(stop)
        self.stop = stop


class Options(TypedDict, total=False):
    """What every range test takes, whatever the framework. See `range_test`."""

    min_lr: float
    max_lr: float
    num_steps: int
    growth: Literal["exponential", "linear"]
    diverge_at: float
    time_limit: float | None
    evaluate: Callable[[], Any] | None
    evaluate_every: int
    goal: Literal["min", "max"]
    repeats: int
    progress: bool | None


def range_test(train_step: Step, reset: Callable[[int], object] | None = None, **options: Unpack[Options]) -> RangeTest:
    """Raises the learning rate from step to step and records what it does to the loss (Smith 2017, section 3.3).

    Any training can be tested: nothing is asked of a model, a framework or a loader. What trains is changed by it;
    the range tests of `clr.torch`, `clr.keras` and `clr.tensorflow` put everything back.

    Args:
        train_step: Makes one update at the given rate and returns the loss of its batch: a number, or an array of one
            element of any framework. None says that no update was made, and the rate is left out. It may raise
            StopIteration where its data ends.
        reset: Puts everything back to the start before each repeat, and seeds it by the repeat's number: 0, 1, ...
            Needed for more than one repeat.
        min_lr: The first rate, so low that nothing is learned. By default 1e-7.
        max_lr: The last rate, so high that training diverges. By default 10.
        num_steps: How many rates, and so updates at most. By default 300. A longer test tends to find better bounds,
            and costs as much more.
        growth: ``"exponential"``, by the same factor each step (the default), or ``"linear"``.
        diverge_at: The test ends when the loss (a median of the last five) has risen above its start by so many times
            its fall. By default 1.
        time_limit: The test ends after so many seconds.
        evaluate: A function without arguments that gives a validation loss or accuracy. With it, the bounds are read
            from what it gives, as in the paper, and not from the training loss.
        evaluate_every: Steps from one call of ``evaluate`` to the next. By default 5.
        goal: Whether ``evaluate`` gives what should be small (``"min"``, the default) or large (``"max"``).
        repeats: How many times to go over the rates; the curve is the median. By default 1.
        progress: Whether to show a bar on the standard error stream; by default where that is a terminal and rich is
            installed.

    Returns:
        The `RangeTest`. Its ``stop`` says why it ended: on Ctrl-C, too, it returns with what there is.

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
    return _run(train_step, reset, **options)


def _run(
    train_step: Step,
    reset: Callable[[int], object] | None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    growth: Literal["exponential", "linear"] = "exponential",
    diverge_at: float = DIVERGE_AT,
    time_limit: float | None = None,
    evaluate: Callable[[], Any] | None = None,
    evaluate_every: int = EVALUATE_EVERY,
    goal: Literal["min", "max"] = "min",
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    rates = checked_range(min_lr, max_lr, num_steps, growth)
    checks.positive("diverge_at", diverge_at)
    if time_limit is not None:
        checks.positive("time_limit", time_limit)
    if evaluate is not None:
        checks.function("evaluate", evaluate)
    checks.count("evaluate_every", evaluate_every)
    checks.choice("goal", goal, GOALS)
    if checks.count("repeats", repeats) > 1 and not callable(reset):
        raise TypeError("`reset` must be a function that puts everything back, where there are `repeats`.")
    deadline = math.inf if time_limit is None else time.monotonic() + time_limit
    sweeps: list[Sweep] = []
    with _bar(progress, repeats * len(rates)) as show:
        for repeat in range(repeats):
            losses: list[float | None] = []
            metrics: list[float | None] = []
            rule = _StopRule(diverge_at)
            stop = "completed"
            try:
                if reset is not None:
                    reset(repeat)
                for at, rate in enumerate(rates):
                    if time.monotonic() >= deadline:
                        stop = "time"
                        break
                    loss = _loss(train_step(rate))
                    losses.append(loss)
                    show(repeat * len(rates) + at + 1, rate, loss)
                    if loss is not None and (found := rule(loss)):
                        stop = found
                        break
                    due = evaluate is not None and (at + 1) % evaluate_every == 0
                    metrics.append(number("evaluate", evaluate()) if due and evaluate else None)
            except StopIteration:
                stop = "data"
            except EndOfSweep as end:
                stop = end.stop
            except KeyboardInterrupt:
                stop = "interrupted"
            sweeps.append(Sweep(tuple(losses), tuple(metrics[: len(losses)]), stop))
            if stop in ("time", "data", "interrupted"):
                break
    return RangeTest(
        tuple(sweeps),
        min_lr=float(min_lr),
        max_lr=float(max_lr),
        num_steps=len(rates),
        growth=growth,
        goal=goal,
        diverge_at=float(diverge_at),
        evaluate_every=int(evaluate_every),
        repeats=int(repeats),
        time_limit=None if time_limit is None else float(time_limit),
    )


class _StopRule:
    """Says whether training has diverged, loss by loss, without regard to their scale and zero."""

    def __init__(self, diverge_at: float) -> None:
        self._diverge_at = diverge_at
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._first: list[float] = []
        self._best = math.inf
        self._noise: list[float] = []  # the distances of losses from their recent level, in order

    def __call__(self, loss: float) -> str | None:
        """The stop that ``loss`` brings about, if any."""
        if not math.isfinite(loss):
            return "non-finite"
        self._recent.append(loss)
        level = median(self._recent)
        insort(self._noise, abs(loss - level))
        if len(self._first) < _WARM:
            self._first.append(loss)
            self._start = median(self._first)
            self._spread = median(abs(first - self._start) for first in self._first)
            self._rounding = 1e-6 * max(map(abs, self._first))
            return None
        self._best = min(self._best, level)
        noise = 1.4826 * max(self._noise[len(self._noise) // 2], self._spread)
        fall = max(self._start - self._best, 5 * noise, self._rounding)
        return "diverged" if level - self._start > self._diverge_at * fall else None


def _loss(value: Any) -> float | None:
    return None if value is None else number("train_step", value)


def number(name: str, value: Any) -> float:
    """What a function has returned, as a float."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        if not hasattr(value, "item") and hasattr(value, "numpy"):  # of TensorFlow
            value = value.numpy()
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise TypeError(f"`{name}` must return a number, or an array of one element. Received: {value!r}.") from None


@contextmanager
def _bar(wanted: bool | None, total: int) -> Iterator[Callable[[int, float, float | None], None]]:
    """A function that shows how far the test is: on a terminal, and if rich is there."""
    progress_class: Any = None
    if wanted or (wanted is None and sys.stderr is not None and sys.stderr.isatty()):
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError as error:
            if wanted:
                raise ImportError("progress bars need rich: pip install 'cyclic-learning-rate[cli]'") from error
        else:
            progress_class = Progress
    if progress_class is None:
        yield lambda done, rate, loss: None
        return
    columns = (TextColumn("LR range test"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    with progress_class(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total, now="")

        def show(done: int, rate: float, loss: float | None) -> None:
            now = f"rate {rate:.2e}  loss " + ("-" if loss is None else f"{loss:.4g}")
            progress.update(bar, completed=done, now=now)

        yield show
