"""Finds bounds by short trainings that are judged on held-out data: a range test, then successive halving.

The range test says where to look. Trials at rates half a decade apart then train from the same start, each under one
annealed cycle, and are judged by the held-out loss. The first rung is many short trials; the second a few long ones
around the best (successive halving: Karnin et al. 2013; Jamieson and Talwalkar 2016, arXiv:1502.07943).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from clr import checks, progress
from clr.finder import sweep
from clr.finder.curve import Divergence, NoBoundsError
from clr.finder.result import GOALS, HUGE, LAST, RangeTest
from clr.finder.trials import FACTOR, Search, Trial
from clr.schedules import policies
from clr.schedules.base import Schedule

FEWEST = 200  # updates that a search needs
TEST = 100  # steps of the range test: where it diverges is known well enough
SHORTEST = 30  # updates of a trial
SHORT, LONG = 1 / 20, 1 / 4  # a trial of the first rung, of the budget; one of the second, of what is left then
WIDEST = 16  # trials of a rung
DIVERGED = 3.0  # the rise of the loss above its start, in times of its fall, that ends a trial

Step = Callable[[float], object]
Reset = Callable[[int], object]
OnBest = Callable[[], object]
C = TypeVar("C")
KEEPS = ("start", "winner")


@dataclass(frozen=True)
class Options:
    """The options that every search has, in every framework. See `find_bounds`.

    They are checked when they are made: a wrong one raises a TypeError or a ValueError.
    """

    total_steps: int
    budget: int | None = None
    goal: Literal["min", "max"] = "min"
    min_lr: float = 1e-7
    max_lr: float = 10.0
    progress: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "total_steps", checks.count("total_steps", self.total_steps))
        if self.budget is not None:
            object.__setattr__(self, "budget", checks.count("budget", self.budget))
            if self.budget < FEWEST:
                checks.fail(ValueError, "budget", f"{FEWEST} updates or more", self.budget)
        checks.choice("goal", self.goal, GOALS)
        if self.progress is not None:
            checks.flag("progress", self.progress)
        self.test()

    @property
    def updates(self) -> int:
        """How many updates the search may make."""
        if self.budget is not None:
            return int(self.budget)
        return max(600, min(self.total_steps, 800), self.total_steps // 10)

    @property
    def cost(self) -> str:
        """What the search costs, in words."""
        return f"A search of at most {self.updates:,} updates, for a training of {self.total_steps:,}."

    def test(self) -> sweep.Options:
        """The range test that says where to look."""
        return sweep.Options(self.min_lr, self.max_lr, TEST, progress=False)


def find_bounds(
    train_step: Step,
    reset: Reset,
    evaluate: Callable[[], object],
    *,
    total_steps: int,
    budget: int | None = None,
    goal: Literal["min", "max"] = "min",
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate by short trainings that are judged on held-out data.

    A range test of 100 steps says where to look. Then trials begin at the same start, at rates half a decade apart.
    Each is one annealed cycle and is judged by ``evaluate``. While the best rate is the lowest or the highest tried,
    the next one on that side is tried. Then the best rate and its neighbours are tried again at greater length.

    It can search for any training. The rate is a Python float. It asks nothing of the model, the framework or the
    data. It does not undo what ``train_step`` changes at its end; the searches of `clr.torch`, `clr.keras`,
    `clr.tensorflow` and `clr.jax` do.

    Args:
        train_step: Makes one update at the given rate and returns the loss of its batch: a number, or an array of one
            element of any framework. None means that it made no update. It may raise StopIteration where its data
            ends.
        reset: Puts everything back to the start, and seeds it by the given number: trials with the same number should
            see the same batches, so that chance does not decide between them.
        evaluate: A function without arguments that returns the loss (or another metric) on held-out data.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make. By default 600 for a training of up to 600 steps,
            ``total_steps`` for one of up to 800, 800 for one of up to 8,000, and else a tenth of ``total_steps``.
        goal: ``"min"`` (the default) where a smaller value of ``evaluate`` is better, ``"max"`` where a larger one is.
        min_lr: The first rate of the range test. By default 1e-7.
        max_lr: The last rate of the range test. By default 10. Trials may go beyond it.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `Search`. Its ``stop`` says why it ended. After Ctrl-C it has what is known so far.

    Raises:
        TypeError, ValueError: An argument makes no sense, or a loss is not a number.

    >>> import clr
    >>> weight = 1.0
    >>> def train_step(lr):  # downhill on a parabola
    ...     global weight
    ...     loss = weight**2
    ...     weight -= lr * 2 * weight
    ...     return loss
    >>> def reset(seed):
    ...     global weight
    ...     weight = 1.0
    >>> search = clr.find_bounds(train_step, reset, lambda: weight**2, total_steps=1000)
    >>> base_lr, max_lr = search.bounds()
    >>> 0.1 < max_lr < 1  # it diverges from 1 on
    True
    """
    for name, function in (("train_step", train_step), ("reset", reset), ("evaluate", evaluate)):
        checks.function(name, function)
    return run(sweep.ending(train_step), reset, evaluate, Options(total_steps, budget, goal, min_lr, max_lr, progress))


def check_judge(validation: object, evaluate: object, goal: str) -> None:
    """Checks that there is one judge: the loss of held-out data, or a function of the user's."""
    if (validation is None) == (evaluate is None):
        raise TypeError("find_bounds takes either `validation` or `evaluate`.")
    if evaluate is not None:
        checks.function("evaluate", evaluate)
    elif goal != "min":
        raise TypeError("find_bounds takes `goal` with `evaluate`; a loss is best when it is smallest.")


class Winner(Generic[C]):
    """What ``copy`` returned after the trial that is the best so far: one copy, or none before there is a trial."""

    def __init__(self, copy: Callable[[], C]) -> None:
        self._copy = copy
        self.copies: list[C] = []

    def __call__(self) -> None:
        """Takes the copy of a new best trial."""
        self.copies.clear()  # first, so that there is one at a time
        self.copies.append(self._copy())


def run(
    step: Step, reset: Reset, evaluate: Callable[[], object], options: Options, on_best: OnBest | None = None
) -> Search:
    """The search that ``options`` describe. For the functions see `find_bounds`.

    ``on_best`` is called after each trial that is the best so far, when everything still is as the trial has left it.
    """
    with progress.bar(options.progress, options.updates, "Search", before=options.cost) as show:
        return _Finder(step, reset, evaluate, options, on_best, show).run()


class Spent(Exception):  # noqa: N818  # it is no error
    """The budget does not allow another trial."""


class Rungs(ABC):
    """The rule of a search: which rates it tries, and for how long. How a trial is made, its children know."""

    def __init__(self, options: Options, show: progress.Show) -> None:
        self._options, self._show = options, show
        self._spent = 0
        self._test: RangeTest | None = None
        self._start: float | None = None
        self._trials: list[Trial] = []

    def run(self) -> Search:
        """Looks where to begin, and tries."""
        try:
            stop = self._search()
        except StopIteration as error:
            sweep.no_end(error)
        except sweep.EndOfSweep as end:
            stop = end.stop
        except KeyboardInterrupt:
            stop = "interrupted"
        return self._known(stop)

    def _known(self, stop: str = "completed") -> Search:
        """What is known so far."""
        options = self._options
        return Search(
            self._test, tuple(self._trials), self._start, options.total_steps, options.updates, options.goal, stop
        )

    def _search(self) -> str:
        length = min(max(SHORTEST, int(self._options.updates * SHORT)), self._options.total_steps)
        try:
            centre = self._rung(1, self._look(length), length)
            left = self._options.updates - self._spent
            self._rung(2, centre, min(max(length, int(left * LONG)), self._options.total_steps))
        except Spent:
            return "budget"
        return "completed"

    def _rung(self, number: int, centre: float, length: int, factor: float = FACTOR) -> float:
        """Tries a rate and its neighbours, and widens until the best has one on both sides. Returns the best rate.

        Where the neighbour above does not come to its end, the best rate is often close below it. So the last rung
        tries the middle too.
        """
        tried = [trial.max_lr for trial in self._trials if trial.rung == number]
        rates = [rate for rate in (centre, centre / factor, centre * factor) if rate not in tried]
        best = None
        while rates:
            self._try(number, rates, length)
            known = self._known()
            own, best = known.rung(number), known.best(number)
            rates = []
            if best is None or best is own[0]:
                rates = [own[0].max_lr / factor]
            elif best is own[-1]:
                rates = [own[-1].max_lr * factor]
            elif number > 1:
                above = own[own.index(best) + 1]
                if above.score is None and above.max_lr > 2 * best.max_lr:
                    rates = [math.sqrt(best.max_lr) * math.sqrt(above.max_lr)]
            if len(own) >= WIDEST or not all(1e-300 < rate < HUGE for rate in rates):
                break
        return centre if best is None else best.max_lr

    @abstractmethod
    def _look(self, length: int) -> float:
        """Where to begin, for trials of a length."""

    @abstractmethod
    def _try(self, rung: int, rates: list[float], length: int) -> None:
        """Makes a trial at each rate, and raises `Spent` where the budget does not allow it."""


class _Finder(Rungs):
    """A search that makes its trials itself, step by step, after a range test."""

    def __init__(
        self,
        step: Step,
        reset: Reset,
        evaluate: Callable[[], object],
        options: Options,
        on_best: OnBest | None,
        show: progress.Show,
    ) -> None:
        super().__init__(options, show)
        self._step, self._reset, self._evaluate, self._on_best = step, reset, evaluate, on_best

    def _look(self, length: int) -> float:
        self._show(0, "held-out value before any training")
        self._reset(0)
        self._start = self._judged()  # first, so that a wrong ``evaluate`` costs no update
        self._test = sweep.run(self._tested, self._reset, self._options.test())
        if self._test.stop in LAST:
            raise sweep.EndOfSweep(self._test.stop)
        return starting_rate(self._test)

    def _try(self, rung: int, rates: list[float], length: int) -> None:
        for rate in rates:
            self._try_one(rung, rate, length)

    def _try_one(self, rung: int, max_lr: float, length: int) -> None:
        """Trains from the start under one annealed cycle, and judges the end."""
        if self._spent + length > self._options.updates:
            raise Spent
        self._reset(rung)
        diverged = Divergence(DIVERGED)
        schedule = cycle(max_lr, length)
        losses: list[float | None] = []
        stop = None
        for at in range(length):
            loss = self._counted(schedule(at))
            self._show(self._spent, f"rung {rung}  rate {max_lr:.2e}  step {at + 1} of {length}")
            losses.append(loss)
            if loss is not None:
                stop = diverged(loss) if abs(loss) < HUGE else "non-finite"
            if stop is not None:
                break
        score = self._judged() if stop is None else None
        if stop is None and score is None:
            stop = "non-finite"
        trial = Trial(rung, max_lr, length, tuple(losses), score, stop or "completed")
        self._trials.append(trial)
        if self._on_best is not None and self._known().winner is trial:
            self._on_best()

    def _judged(self) -> float | None:
        """What ``evaluate`` returns, or None if that is not finite."""
        score = sweep.returned_float("evaluate", self._evaluate())
        return score if abs(score) < HUGE else None

    def _tested(self, rate: float) -> float | None:
        self._show(self._spent + 1, f"range test  rate {rate:.2e}")
        return self._counted(rate)

    def _counted(self, rate: float) -> float | None:
        self._spent += 1
        value = self._step(rate)
        return None if value is None else sweep.returned_float("train_step", value)


def cycle(max_lr: float, length: int) -> Schedule:
    """The one annealed cycle of a trial."""
    return policies.linear(max_lr, length + 1, warmup_steps=length // 4)  # whose last rate, zero, is left out


def starting_rate(test: RangeTest) -> float:
    """Where to look first: the upper bound of a range test; or what it tells where it has no bounds."""
    try:
        return test.bounds().max_lr
    except NoBoundsError:
        curve = test.curve
        if not curve.rates:
            return test.min_lr
        return curve.rates[-1] / FACTOR**3 if curve.ended else curve.rates[curve.lowest]
