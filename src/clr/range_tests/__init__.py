"""The LR range test in each framework, as a transaction: whatever it changes is put back, bit for bit.

One file for each framework, imported by that framework's adapter. What they share is here.
"""

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a Ctrl-C wait until the block is done, so that what is put back is put back whole."""
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C does not come here
        yield
        return
    pressed: list[tuple[Any, Any]] = []
    handler = signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed and callable(handler):
            handler(*pressed[0])


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


def seed_random(seed: int) -> None:
    """Seeds Python, and NumPy if it is in use."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
