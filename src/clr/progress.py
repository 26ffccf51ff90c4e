"""A bar over all runs of a comparison, with the time that is left."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec

from clr.comparison.runs import Job, Key


def silent() -> bool:
    """Whether there is nobody to see a bar, or nothing to draw it with."""
    return sys.stderr is None or not sys.stderr.isatty() or find_spec("rich") is None


@contextmanager
def bar(
    jobs: Sequence[Job], missing: Sequence[Job], clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Job, int, bool], None]]:
    """A function that hears how far a job is, and whether it is over; those that are not missing were before."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
        from rich.text import Text
    except ImportError as error:
        raise ImportError("progress bars need rich: pip install 'cyclic-learning-rate[cli]'") from error

    class Left(ProgressColumn):
        """The time left at the mean speed since the start: rich's own forgets what was not within 30 seconds."""

        def render(self, task: Task) -> Text:
            end = task.fields["end"]
            left = "-:--:--" if end is None else str(timedelta(seconds=max(0, round(end - task.get_time()))))
            return Text(left, style="progress.remaining")

    columns = (TextColumn("{task.fields[done]} of {task.fields[runs]} runs"), BarColumn(), TimeElapsedColumn())
    left = (TextColumn("left:"), Left(), TextColumn("{task.fields[now]}"))
    reached: dict[Key, int] = {}
    total, to_make = (sum(job.steps for job in some) for some in (jobs, missing))
    done, began = len(jobs) - len(missing), clock()
    with Progress(*columns, *left, console=Console(stderr=True), get_time=clock) as progress:
        task = progress.add_task(
            "", total=total, completed=total - to_make, done=done, runs=len(jobs), now="", end=None
        )

        def show(job: Job, step: int, over: bool) -> None:
            nonlocal done
            done += over
            reached[job.key] = min(step, job.steps)
            made = sum(reached.values())
            end = began + (clock() - began) * to_make / made if made else None
            now = f"{job.name}, seed {job.seed}: step {step} of {job.steps}"
            progress.update(task, completed=total - to_make + made, done=done, now=now, end=end)

        yield show
