"""A Ctrl-C at a chosen line."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

Line = tuple[str, int]


def pressed(files: Iterable[Path], at: int | None, action: Callable[[], Any]) -> tuple[list[Line], Any]:
    """The lines of ``files`` that ``action`` runs through, and what it returns, with a Ctrl-C at line number ``at``."""
    names, lines = {str(file) for file in files}, list[Line]()

    def at_line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                signal.raise_signal(signal.SIGINT)
        return at_line

    def at_call(frame: FrameType, event: str, _: object) -> Any:
        return at_line if frame.f_code.co_filename in names else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        result = action()
    except KeyboardInterrupt:
        result = "KeyboardInterrupt"
    finally:
        sys.settrace(before)
    return lines, result


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises a KeyboardInterrupt: where tests run it may be ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
