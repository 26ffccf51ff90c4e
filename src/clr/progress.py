"""One progress bar, for everything that takes a while.

    with progress.bar(wanted, total, "LR range test") as show:
        for at in range(total):
            ...
            show(at + 1, now=f"loss {loss:.4g}")

prints one line to the standard error stream. A terminal erases it at the end, a file has only the last state.

    LR range test ━━━━━━━━━━  120/300 0:00:12 left: 0:00:18 loss 0.4312
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from typing import Protocol


class Show(Protocol):
    """The function that a progress bar gives."""

    def __call__(self, done: int, now: str = "", text: str | None = None) -> None:
        """Shows how much is done, and what is done now. A new ``text`` replaces the one at the start of the line."""


@contextmanager
def bar(
    wanted: bool | None,
    total: int,
    text: str,
    *,
    done: int = 0,
    before: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Show]:
    """A progress bar, as a context manager that gives the function to call on the way.

    Args:
        wanted: True shows the bar, False does not, and None shows it where the standard error stream is a terminal
            and rich is installed.
        total: How much there is to do, such as a number of steps.
        text: What stands at the start of the line.
        done: How much of ``total`` was done before. The time that is left follows from the speed since then.
        before: A line that is printed before the bar, if there is one, and stays.
        clock: Gives the time in seconds.

    Raises:
        ImportError: ``wanted`` is True and rich is not installed.
    """
    if wanted is None:
        wanted = sys.stderr is not None and sys.stderr.isatty() and find_spec("rich") is not None
    if not wanted:
        yield lambda done, now="", text=None: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise ImportError("progress bars need rich: pip install 'cyclic-learning-rate[cli]'") from error
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left: {task.fields[left]} {task.fields[now]}", markup=False),
    )
    if before is not None:
        say(before)
    already, began = done, clock()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal, get_time=clock) as progress:
        task = progress.add_task(text, total=total, completed=done, left="-:--:--", now="")

        def show(done: int, now: str = "", text: str | None = None) -> None:
            left = _left(clock() - began, done - already, total - done)
            progress.update(task, completed=done, left=left, now=now, description=text)

        yield show


def _left(seconds: float, made: int, missing: int) -> str:
    """The time left at the mean speed since the start. Rich's own forgets what was more than 30 seconds ago."""
    return str(timedelta(seconds=round(seconds * missing / made))) if made > 0 else "-:--:--"


def say(words: str) -> None:
    """Prints a line to the standard error stream, where there is one."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # whoever reads it has gone, or it is closed
            print(words, file=sys.stderr)
