"""The LR range test in each framework, as a transaction: whatever it changes is put back, bit for bit.

One file for each framework, imported by that framework's adapter. What they share is here.
"""

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Interrupts:
    """Holds a Ctrl-C back until the block is done, unless it is taken there."""

    def __init__(self) -> None:
        self._pressed: list[tuple[Any, Any]] = []

    def take(self) -> bool:
        """Whether Ctrl-C was pressed; the caller sees to it."""
        pressed = bool(self._pressed)
        self._pressed.clear()
        return pressed

    def __enter__(self) -> "Interrupts":
        self._main = threading.current_thread() is threading.main_thread()  # others get no Ctrl-C
        if self._main:
            self._handler = signal.signal(signal.SIGINT, lambda *arguments: self._pressed.append(arguments))
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._handler)
            if self._pressed and callable(self._handler):
                self._handler(*self._pressed[0])


def uninterrupted() -> Interrupts:
    """Lets a Ctrl-C wait until the block is done, so that what is put back is put back whole."""
    return Interrupts()


def put_back(*parts: Callable[[], object]) -> None:
    """Calls all of them in order, even if some raise; then the last error is raised, with the others as its context."""
    if len(parts) == 1:
        parts[0]()
    elif parts:
        half = len(parts) // 2  # so that thousands are not nested deeply
        try:
            put_back(*parts[:half])
        finally:
            put_back(*parts[half:])


class Batches:
    """The batches of a loader, one after the other, as often as it takes.

    Workers that persist in a DataLoader would remember the test, so it has workers of its own.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None
        self._persist = getattr(loader, "persistent_workers", False) and hasattr(loader, "_iterator")
        self._workers = loader._iterator if self._persist else None

    def restart(self) -> None:
        """Lets the next batch be the first again."""
        self._iterator = None
        if self._persist:
            self._loader._iterator = None

    def leave(self) -> None:
        """Gives the loader its own workers back."""
        self._iterator = None
        if self._persist:
            self._loader._iterator = self._workers

    def next(self) -> Any:
        """The next batch; StopIteration if the loader, asked anew, has none."""
        if self._iterator is not None:
            for batch in self._iterator:
                return batch
        self._iterator = iter(self._loader)
        return next(self._iterator)


def random_state() -> Callable[[], None]:
    """A function that puts the random state of Python, and of NumPy if it is in use, back to what it is now."""
    state = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    arrays = numpy.random.get_state() if numpy else None

    def restore() -> None:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(arrays)

    return restore


def seed_of(repeat: int) -> int:
    """A seed for a repeat. It is none that one chooses by hand, with which it would draw what the first has drawn."""
    return random.Random(repeat).getrandbits(31)


def seed_random(seed: int) -> None:
    """Seeds Python, and NumPy if it is in use."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
