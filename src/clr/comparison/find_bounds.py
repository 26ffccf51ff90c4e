"""The search for bounds over a training that runs in processes of its own. See `find_bounds`."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from clr import checks
from clr import progress as bars
from clr.comparison.result import goal_of, metrics_of
from clr.comparison.runs import ENGINES, REFUSED, Job, Key, Run, Train
from clr.comparison.runs import name as named
from clr.finder.search import Options, Rungs, Spent, cycle
from clr.finder.trials import Search, Trial

if TYPE_CHECKING:
    from clr.comparison.engines import Events

MIDDLE = 0.01  # of the usual rates, 0.001, 0.01 and 0.1, with which a search begins


def find_bounds(
    train: Train,
    *,
    total_steps: int,
    budget: int | None = None,
    metric: str | None = None,
    goal: Literal["min", "max"] | None = None,
    seed: int = 0,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate for a training as `clr.compare` takes it, several trials at a time.

    It searches as `clr.find_bounds` does, but for two things. No range test says where to look: the first trials are at
    usual rates, 0.001, 0.01 and 0.1. While the best of them is the lowest or the highest, the rate a decade further is
    tried, and then those half a decade beside the best. And a trial ends with its training, or at a metric that is not
    finite. The number of workers does not change the answer.

    Args:
        train: A function ``train(schedule, seed, total_steps)``, as in `clr.compare`. The last metrics that it yields
            judge a trial, so they should be of held-out data. If it also yields some at step 0, before any update, the
            bounds are surer: they are then refused where no trial is better than that. A trial that raises has no
            score; the standard error stream says why.
        total_steps: The length of the training that the bounds are for, in updates. Trials are shorter.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        metric: What to judge by. By default the first that ``train`` gives.
        goal: Whether the metric should be small (``"min"``) or large (``"max"``); by default small if its name has
            "loss" or "error" in it.
        seed: The seed of all trials, so that chance does not decide between them.
        engine: ``"local"``, for processes of this machine with one thread each, or ``"ray"``, for the Ray cluster that
            this machine is part of.
        workers: How many processes; by default one per core. At most three are busy at a time. 0 makes all trials in
            this process, one after the other. Ray needs at least 1.
        progress: Whether to show a bar with the time that is left on the standard error stream; by default where that
            is a terminal and rich is installed.

    Returns:
        The `clr.Search`. Its ``stop`` says why it ended. After Ctrl-C it has what is known so far.

    Raises:
        TypeError, ValueError: An argument makes no sense, or there is no such ``metric``.
        RuntimeError: No trial can begin in another process, as ``train`` cannot be imported there.

    >>> import clr
    >>> def train(schedule, seed, total_steps):  # downhill on a parabola
    ...     weight = 1.0 + seed
    ...     yield 0, {"loss": weight**2}
    ...     for step in range(total_steps):
    ...         weight -= schedule(step) * 2 * weight
    ...     yield total_steps, {"loss": weight**2}
    >>> search = clr.comparison.find_bounds(train, total_steps=1000, workers=0)
    >>> base_lr, max_lr = search.bounds()
    >>> 0.1 < max_lr < 1  # it diverges from 1 on
    True
    """
    from clr.comparison import engines

    checks.function("train", train)
    if metric is not None:
        named("metric", metric)
    options = Options(total_steps, budget, "min" if goal is None else goal, progress=progress)
    checks.choice("engine", engine, ENGINES)
    if workers is not None:
        workers = (checks.count if engine == "ray" else checks.whole)("workers", workers)
    seed = checks.whole("seed", seed)
    jobs = _Queue()
    events = (engines.ray if engine == "ray" else engines.local)(train, jobs, metric, workers)
    try:
        with bars.bar(options.progress, options.updates, "Search", before=options.cost) as show:
            return _Finder(events, jobs, options, show, metric, is_open=goal is None, seed=seed).run()
    finally:
        events.close()


class _Queue(deque[Job]):
    """Jobs that wait. As an iterator it has more after each that is put in."""

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        if not self:
            raise StopIteration
        return self.popleft()


class _Finder(Rungs):
    """A search that has its trials made by an engine."""

    def __init__(
        self,
        events: "Events",
        jobs: _Queue,
        options: Options,
        show: bars.Show,
        metric: str | None,
        *,
        is_open: bool,
        seed: int,
    ) -> None:
        super().__init__(options, show)
        self._events, self._jobs, self._metric = events, jobs, metric
        self._is_open, self._seed = is_open, seed

    def _look(self, length: int) -> float:
        return self._rung(1, MIDDLE, length, 10.0)

    def _try(self, rung: int, rates: list[float], length: int) -> None:
        fits = rates[: (self._options.updates - self._spent) // length]
        jobs = {rate: Job(repr(rate), cycle(rate, length), self._seed, length) for rate in fits}
        self._jobs.extend(jobs.values())
        reached: dict[Key, int] = {}
        runs: dict[Key, Run] = {}
        try:
            while len(runs) < len(jobs):
                job, step, run = next(self._events)
                reached[job.key] = min(step, length)
                now = f"rung {rung}  rate {float(job.name):.2e}  step {reached[job.key]} of {length}"
                self._show(self._spent + sum(reached.values()), now)
                if run is not None and run.state == REFUSED:
                    raise ValueError(f"{run.error} Received: {self._metric!r}.")
                if run is not None:
                    runs[job.key] = run
        finally:
            there = {rate: runs[job.key] for rate, job in jobs.items() if job.key in runs}
            self._settle(list(there.values()))
            for rate, run in there.items():  # in the order of the rates, whichever was over first
                self._trials.append(self._trial(rung, rate, run))
                self._spent += len(self._trials[-1].losses)
        if len(fits) < len(rates):
            raise Spent

    def _settle(self, runs: list[Run]) -> None:
        """Takes what is not known before there are runs."""
        if self._metric is None:
            self._metric = next(iter(metrics_of(runs)), None)
        if self._is_open and self._metric is not None:
            self._options = replace(self._options, goal=goal_of(self._metric))
        if self._start is None:
            begins = (run.records[0] for run in runs if run.records)
            self._start = next((metrics.get(self._metric or "") for step, metrics in begins if step == 0), None)

    def _trial(self, rung: int, rate: float, run: Run) -> Trial:
        """The trial that a run was."""
        values = [metrics[self._metric] for _, metrics in run.records if self._metric in metrics]
        made, score, stop = run.records[-1][0] if run.records else 0, None, "failed"
        if run.state == "finished" and values:
            made, score, stop = run.total_steps, values[-1], "completed"
        else:
            reason = run.error.splitlines()[-1] if run.error else f"`train` gave no {self._metric!r}"
            bars.say(f"The trial of rung {rung} at the rate {rate:.3g} has no score: {reason}")
        if run.state == "diverged":
            stop = "non-finite"
        return Trial(rung, rate, run.total_steps, (None,) * min(made, run.total_steps), score, stop)
