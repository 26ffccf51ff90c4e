"""A bar over all runs of a comparison, with the time that is left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from clr.comparison.runs import Job, Key


def silent() -> bool:
    """Whether there is nobody to see a bar, or nothing to draw it with."""
    return sys.stderr is None or not sys.stderr.isatty() or find_spec("rich") is None


@contextmanager
def bar(runs: int, steps: int) -> Iterator[Callable[[Job, int, bool], None]]:
    """A function that hears how far a job is, and whether it is over."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("progress bars need rich: pip install 'cyclic-learning-rate[cli]'") from error

    columns = (TextColumn("{task.fields[done]} of {task.fields[runs]} runs"), BarColumn(), TimeElapsedColumn())
    left = (TextColumn("left:"), TimeRemainingColumn(elapsed_when_finished=False), TextColumn("{task.fields[now]}"))
    reached: dict[Key, int] = {}
    done = 0
    with Progress(*columns, *left, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps, done=0, runs=runs, now="")

        def show(job: Job, step: int, over: bool) -> None:
            nonlocal done
            done += over
            reached[job.key] = min(step, job.steps)
            now = f"{job.name}, seed {job.seed}: step {step} of {job.steps}"
            progress.update(task, completed=sum(reached.values()), done=done, now=now)

        yield show
