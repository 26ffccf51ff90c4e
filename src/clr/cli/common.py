"""What several commands share: the policies, and how the command refuses what cannot be done."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import clr

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C has ended


class Policy(StrEnum):
    """The modes of a schedule."""

    triangular = "triangular"
    triangular2 = "triangular2"
    exp_range = "exp_range"


class RefusedError(Exception):
    """The user asked for something that cannot be done. The message says it in one line."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turns errors of the library and of the file system into a line for the user."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RefusedError(f"cannot write {error.filename or 'the output'}: {error.strerror}") from error
    except (ValueError, ImportError) as error:
        raise RefusedError(str(error)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an error of the file system into a line that names the file that cannot be read."""
    try:
        yield
    except OSError as error:
        raise RefusedError(f"cannot read {error.filename or path}: {error.strerror}") from error


def read_range_test(file: Path) -> clr.RangeTest:
    """The range test in a file."""
    try:
        with reading(file):
            return clr.RangeTest.from_json(file.read_text(encoding="utf-8"))
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{file} is not a range test: {error}") from error
