"""What several commands share: the policies, how files are read, and how the command refuses what cannot be done."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

import clr
from clr import checks, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C has ended
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # opens a pipe to which nothing writes, or from which nothing reads, if it can
MOST_BYTES = 10**8  # of a file that is read: more is no range test and no list of schedules


class Policy(StrEnum):
    """The modes of a schedule."""

    triangular = "triangular"
    triangular2 = "triangular2"
    exp_range = "exp_range"


class RefusedError(Exception):
    """The user asked for something that cannot be done. The message says it in one line."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turns an error of the library into a line for the user. `clr.cli.main` does so with those of the file system."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise RefusedError(str(error)) from error


@contextmanager
def using(path: Path, verb: Literal["read", "write"]) -> Iterator[None]:
    """Turns an error of the file system into a line that names the file that cannot be read or written."""
    held = None
    try:
        if verb == "write" and path.is_fifo():  # one that nothing reads is refused, where it would block later
            held = os.open(path, os.O_WRONLY | _AT_ONCE)
        yield
    except OSError as error:
        raise RefusedError(f"cannot {verb} {error.filename or path}: {error.strerror or error}") from error
    finally:
        if held is not None:
            os.close(held)


@contextmanager
def expecting(what: str, path: Path) -> Iterator[None]:
    """Turns an error in the data of a file into a line that names the file, and what it should be."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedError(f"{path} is not {what}: {error}") from error


def read_json(path: Path) -> Any:
    """The data in a file, which may be a pipe. A pipe without a writer is empty, and an endless file is refused."""
    with using(path, "read"), open(path, "rb", opener=_open_at_once) as file:
        if _AT_ONCE:
            os.set_blocking(file.fileno(), True)
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return checks.parsed(data)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE)


def read_range_test(file: Path) -> clr.RangeTest:
    """The range test in a file."""
    with expecting("a range test", file):
        return clr.RangeTest.from_dict(read_json(file))


def console(stderr: bool = False) -> Console:
    """A console that prints texts as they are. Rich would read "[/x]" as markup and ":x:" as a picture."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def save_picture(ax: "Axes", path: Path) -> None:
    """Writes a picture of the user's choice. A name without an ending gets a PNG."""
    try:
        with using(path, "write"):
            plot.save(ax, path, None if path.suffix else "png")
    except ValueError as error:  # about the format
        raise RefusedError(f"cannot write {path}: {error}") from error
