"""Compares schedules on your own training."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clr import checks
from clr.comparison.find_bounds import find_bounds
from clr.comparison.result import Comparison, metrics_of
from clr.comparison.runs import ENGINES, NAME, REFUSED, Job, Key, Run, Train, seen, versions
from clr.comparison.runs import name as named
from clr.finder.result import RangeTest
from clr.progress import bar, say
from clr.schedules.base import Schedule

if TYPE_CHECKING:
    from clr.comparison.engines import Events
    from clr.comparison.store import Store

__all__ = ["Comparison", "Run", "compare", "find_bounds"]

_NAMES = f"a dict of one or more schedules, each under {NAME}"
_MOST = 100_000  # runs


def compare(
    train: Train,
    schedules: Mapping[str, Any],
    *,
    seeds: int | Sequence[int] = 5,
    total_steps: int | Sequence[int],
    metric: str | None = None,
    goal: Literal["min", "max"] | None = None,
    target: float | None = None,
    before: Mapping[str, int] | None = None,
    range_test: RangeTest | None = None,
    file: str | Path | None = None,
    name: str | None = None,
    fresh: bool = False,
    reuse: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Trains under every schedule with every seed and length, and says which does best.

    With a ``file``, each run is kept as soon as it is over. After a crash or Ctrl-C, the same call goes on where it
    was: nothing is lost, and nothing is run twice. SIGTERM counts as Ctrl-C. You can add schedules, seeds and lengths
    to a file at any time. The call says on the standard error stream which runs it reuses. It refuses them where the
    source of ``train``'s module has changed since: choose ``fresh=True`` or ``reuse=True`` then. A run that raises,
    diverges (a metric that is not finite) or takes its worker down is a result too, kept with its error.

    Args:
        train: A function ``train(schedule, seed, total_steps)``. It makes ``total_steps`` updates under a schedule,
            with all randomness drawn from ``seed``. As often as it likes, it yields the number of updates so far and
            the metrics: ``(step, {"accuracy": 0.9})``. It runs in processes of its own, so it must be a function of a
            module; with ``workers=0`` it can be any function. A script that calls `compare` needs
            ``if __name__ == "__main__":``, because the processes import it.
        schedules: A schedule for each name, or a function of ``total_steps`` that gives one. What is not a
            `clr.Schedule` goes to ``train`` as it is. A file knows it again by its ``repr``. A name has up to 100
            printable characters.
        seeds: How many seeds, from 0, or which.
        total_steps: The length of a training in updates, or several lengths.
        metric: What to compare; the first record of each run must have it. By default the first that ``train`` gives.
        goal: Whether the metric should be small (``"min"``) or large (``"max"``); by default small if its name has
            "loss" or "error" in it.
        target: The value of the metric for which iterations are counted; by default the mean final one of the best
            constant schedule at the largest budget.
        before: Updates that a schedule has cost before its training, such as those of a range test, by its name. They
            are counted in. The file keeps them for the schedules that are not named again.
        range_test: The test that has found the bounds, for the report; by default that of the file, if it has one.
        file: Where to keep the runs: an SQLite database. By default nothing is kept after the call.
        name: The name of the training in the file; by default ``module:qualname`` of ``train``.
        fresh: Whether to make all runs anew, and to delete those of the file once the first new one is there.
        reuse: Whether to use runs that another version of the source of ``train`` has made.
        engine: ``"local"``, for processes of this machine with one thread each, or ``"ray"``, for the Ray cluster that
            this machine is part of.
        workers: How many processes; by default one per core. 0 runs all in this process, one after the other. Ray needs
            at least 1.
        progress: Whether to show a bar with the time that is left on the standard error stream; by default where that
            is a terminal and rich is installed.

    Returns:
        The `Comparison` of these runs. On Ctrl-C KeyboardInterrupt is raised, and the file has what is complete.

    Raises:
        TypeError, ValueError: An argument makes no sense; or the file is damaged, in use by another process, has the
            runs of another training, or those of another version of its source; or there is no such ``metric``.
        OSError: The file cannot be written. If runs have been made, the error names a copy with all of them elsewhere,
            and has them in its attribute ``runs``.
        RuntimeError: No run can begin in another process, as ``train`` cannot be imported there.

    >>> import clr
    >>> def train(schedule, seed, total_steps):  # downhill on a parabola
    ...     weight = 1.0 + seed
    ...     for step in range(total_steps):
    ...         weight -= schedule(step) * weight
    ...         yield step + 1, {"loss": weight**2}
    >>> schedules = {"fixed": clr.constant(0.25), "cyclic": lambda steps: clr.triangular(0.25, 0.75, steps // 4)}
    >>> result = clr.compare(train, schedules, seeds=3, total_steps=20, workers=0)
    >>> [(row["schedule"], row["iterations"], row["ratio"]) for row in result.rows()]
    [('fixed', 20, 1.0), ('cyclic', 8, 0.4)]
    """
    from clr.comparison import engines, identity, store

    checks.function("train", train)
    _check_names(schedules)
    if isinstance(seeds, Integral):
        seeds = range(min(checks.count("seeds", seeds), _MOST + 1))
    all_seeds = _numbers("seeds", seeds, 0)
    budgets = _numbers("total_steps", [total_steps] if isinstance(total_steps, Integral) else total_steps, 1)
    if len(schedules) * len(all_seeds) * len(budgets) > _MOST:
        raise ValueError(f"`schedules`, `seeds` and `total_steps` must be for at most {_MOST:,} runs together.")
    if metric is not None:
        named("metric", metric)
    if goal is not None:
        checks.choice("goal", goal, ("min", "max"))
    if target is not None:
        target = checks.number("target", target, "finite")
    before = _costs(before, schedules)
    checks.choice("engine", engine, ENGINES)
    if workers is not None:
        (workers,) = _numbers("workers", [workers], 1 if engine == "ray" else 0)
    if not isinstance(range_test, RangeTest | None):
        checks.fail(TypeError, "range_test", "a range test", range_test)
    for option, value in (("fresh", fresh), ("reuse", reuse), ("progress", progress)):
        if option != "progress" or value is not None:
            checks.flag(option, value)
    if fresh and reuse:
        raise ValueError("`fresh` and `reuse` exclude each other.")
    if file is None and (fresh or reuse or name is not None):
        raise ValueError("`name`, `fresh` and `reuse` go with a `file`.")
    made = {
        (own, budget): value(budget) if callable(value) and not isinstance(value, Schedule) else value
        for budget in budgets
        for own, value in schedules.items()
    }
    jobs = [Job(own, made[own, budget], seed, budget) for budget in budgets for seed in all_seeds for own in schedules]
    texts = {key: identity.description(key[0], value, file is not None) for key, value in made.items()}
    known = ("", None) if file is None else (identity.name_of(train, name), identity.source_of(train))
    with engines.ended_like_ctrl_c(), store.Store(file) as kept:
        kept.settle(*known, texts, fresh, reuse)
        there = kept.runs()
        if metric is not None and (names := metrics_of(there.values())):
            checks.choice("metric", metric, names)
        missing = [job for job in jobs if job.key not in there]
        if len(missing) < len(jobs):
            noted = kept.settings()
            found = f"{len(jobs) - len(missing)} of {len(jobs)} runs reused from {file}"
            say(f"{found}, made {noted['made']} by {noted['train']}")
        settings: dict[str, Any] = {"metric": metric, "goal": goal, "target": target}
        if missing:
            settings |= {"engine": engine, "versions": versions()}
        kept.note(settings, before, None if range_test is None else range_test.to_json())
        total = sum(job.total_steps for job in jobs)
        done = total - sum(job.total_steps for job in missing)
        with bar(progress, total, "Comparison", done=done) as show:
            events = (engines.ray if engine == "ray" else engines.local)(train, missing, metric, workers)
            _kept(events, kept, metric, lambda steps, now: show(done + steps, now=now))
        there = kept.runs()
        runs = [there[own, budget, seed] for own, budget in made for seed in sorted(all_seeds)]
        descriptions = {key: text for key, text in kept.schedules().items() if key in made}
        return Comparison.of(**kept.content() | {"runs": runs, "descriptions": descriptions})


def _kept(events: "Events", kept: "Store", metric: str | None, show: Callable[[int, str], object]) -> None:
    """Keeps each run as soon as it is over, and shows how many updates are made in all."""
    reached: dict[Key, int] = {}
    try:
        for job, step, run in events:
            if run is not None and run.state == REFUSED:
                raise ValueError(f"{run.error} Received: {metric!r}.")
            if run is not None:
                kept.add(run)
            reached[job.key] = min(step, job.total_steps)
            show(sum(reached.values()), f"{job.name}, seed {job.seed}: step {step} of {job.total_steps}")
    finally:
        events.close()


def _costs(before: object, schedules: Mapping[str, Any]) -> dict[str, int]:
    """The updates that schedules have cost, checked."""
    if not isinstance(before, Mapping | None):
        checks.fail(TypeError, "before", "a dict with a number of updates for each name", before)
    return {checks.choice("before", own, schedules): _numbers("before", [n], 0)[0] for own, n in (before or {}).items()}


def _check_names(schedules: object) -> None:
    """Checks that schedules have names that a page can show."""
    if not isinstance(schedules, Mapping):
        checks.fail(TypeError, "schedules", _NAMES, schedules)
    if not schedules:
        checks.fail(ValueError, "schedules", _NAMES, schedules)
    known: dict[str, str] = {}
    for own in schedules:
        named("schedules", own, _NAMES)
        alike = known.setdefault(seen(own), own)
        if alike != own:
            raise ValueError(f"`schedules` must have names that look different. Received: {alike!a} and {own!a}.")


def _numbers(name: str, values: Any, low: int) -> list[int]:
    check = checks.count if low else checks.whole
    numbers = [check(name, value) for value in (values if isinstance(values, range) else checks.sequence(name, values))]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"`{name}` must be one or more numbers, each once. Received: {checks.shown(values)}.")
    return numbers
