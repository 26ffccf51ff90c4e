"""What the range tests of all frameworks share, so that each puts back what it changes, bit for bit."""

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

from clr.finder.sweep import EndOfSweep

V = TypeVar("V")


class Interrupts:
    """Holds a Ctrl-C back until the block is done, unless the block takes it, or lets one through."""

    def __init__(self) -> None:
        self._pressed: list[tuple[int, FrameType | None]] = []
        self._open = False

    def open(self) -> None:
        """Lets the next Ctrl-C through at once. If it raises, those that follow are held back again."""
        self._open = True

    def close(self) -> None:
        """Holds every Ctrl-C back again."""
        self._open = False

    def take(self) -> bool:
        """Whether Ctrl-C was pressed. The caller must then act on it, for it is forgotten here."""
        if not self._pressed:  # one that comes after this line is taken the next time
            return False
        self._pressed.clear()
        return True

    def __enter__(self) -> "Interrupts":
        self._main = threading.current_thread() is threading.main_thread()  # other threads get no Ctrl-C
        if self._main:
            self._handler = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._handler)
            if self._pressed and callable(self._handler):
                self._handler(*self._pressed[0])

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._open:
            self._open = False
            if callable(self._handler):
                self._handler(number, frame)
            self._open = True  # it has not raised
        else:
            self._pressed.append((number, frame))


def uninterrupted() -> Interrupts:
    """Lets a Ctrl-C wait until the block is done, so that everything is put back."""
    return Interrupts()


def guarded(body: Callable[[Interrupts], V], *parts: Callable[[], object]) -> V:
    """Returns what ``body`` returns, after all ``parts`` were called, which put back what it has changed.

    An error or a Ctrl-C ends ``body``, but never keeps a part from being called: there is no line between the two at
    which a Ctrl-C could come through. A second one waits until the end. Where ``body`` calls ``open`` of what it is
    given, it lets another through, in case its own code has caught the first.
    """
    with Interrupts() as interrupts:
        try:
            try:
                interrupts.open()
                return body(interrupts)
            finally:
                interrupts.close()
        finally:  # also after a Ctrl-C on the way to the line above; no second one comes through
            put_back(*parts)


def put_back(*parts: Callable[[], object]) -> None:
    """Calls all ``parts`` in order, even if some raise. Then raises the last error, with the others as its context."""
    if len(parts) == 1:
        parts[0]()
    elif parts:
        half = len(parts) // 2  # halves, so that thousands of parts do not nest thousands deep
        try:
            put_back(*parts[:half])
        finally:
            put_back(*parts[half:])


class Batches:
    """The batches of a loader, one after the other. At its end it starts again.

    The workers of a DataLoader may persist, and would then remember the test. So the test has workers of its own.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader: Any = loader
        self._iterator: Iterator[Any] | None = None
        self._persist = getattr(loader, "persistent_workers", False) and hasattr(loader, "_iterator")
        self._workers = getattr(loader, "_iterator", None)

    def restart(self) -> None:
        """Makes the next batch the first again."""
        self._iterator = None
        if self._persist:
            self._loader._iterator = None

    def leave(self) -> None:
        """Gives the loader its own workers back."""
        self._iterator = None
        if self._persist:
            self._loader._iterator = self._workers

    def next(self) -> Any:
        """The next batch. Ends the sweep if the loader has none even after a new start."""
        if self._iterator is not None:
            for batch in self._iterator:
                return batch
        self._iterator = iter(self._loader)
        for batch in self._iterator:
            return batch
        raise EndOfSweep("data")


def random_state() -> Callable[[], None]:
    """A function that restores the present random state of Python, and of NumPy if that is imported."""
    state = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    arrays = numpy.random.get_state() if numpy else None

    def restore() -> None:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(arrays)

    return restore


def seed_of(repeat: int) -> int:
    """A seed for a repeat. It is large, since the user may have seeded the first pass with a small one by hand."""
    return random.Random(repeat).getrandbits(31)


def seed_random(seed: int) -> None:
    """Seeds Python, and NumPy if that is imported."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
