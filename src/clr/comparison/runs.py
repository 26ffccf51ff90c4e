"""A training under one schedule with one seed and budget: what is to be done, and what came of it."""

import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from clr import checks
from clr.finder.result import HUGE
from clr.finder.sweep import returned_float
from clr.version import __version__

FRAMEWORKS = ("numpy", "torch", "tensorflow", "keras", "jax", "optax", "sklearn", "ray")
STATES = ("finished", "diverged", "failed")
REFUSED = "refused"  # the state of a run that ends the comparison, and is not kept
NAME = "a name of 1 to 100 printable characters, not all invisible, with single spaces between its words"
_LONGEST = 20_000  # characters of an error
# Signs that are drawn as nothing, though Unicode counts them as letters, marks or symbols.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
ENGINES = ("local", "ray")
Key = tuple[str, int, int]
Train = Callable[[Any, int, int], Iterable[tuple[int, Mapping[str, Any]]]]


@dataclass(frozen=True)
class Job:
    """A run that is to be made."""

    name: str
    schedule: Any
    seed: int
    total_steps: int

    @property
    def key(self) -> Key:
        """What no two runs have in common."""
        return self.name, self.total_steps, self.seed

    def over(self, state: str, error: str | None, records: Any, since: float) -> "Run":
        """Its run."""
        error = None if error is None else clean(error[-_LONGEST:], "\n\t")
        return Run(*self.key, state, error, tuple(records), time.perf_counter() - since)


@dataclass(frozen=True)
class Run:
    """A run that is over.

    Attributes:
        schedule: The name of the schedule.
        total_steps: The length of the training in updates.
        seed: The seed.
        state: ``"finished"``; ``"diverged"``, at a metric that was not finite; or ``"failed"``, by an error.
        error: What went wrong, None if nothing.
        records: The metrics, each with the number of updates that were made before it.
        seconds: How long it took.
    """

    schedule: str
    total_steps: int
    seed: int
    state: str
    error: str | None
    records: tuple[tuple[int, dict[str, float]], ...]
    seconds: float

    @property
    def key(self) -> Key:
        """What no two runs have in common."""
        return self.schedule, self.total_steps, self.seed


def perform(
    train: Callable[..., Any],
    job: Job,
    metric: str | None = None,
    on_step: Callable[[int], object] = lambda step: None,
) -> Run:
    """Makes a run; ``on_step`` hears how far it is. A run whose first record has no ``metric`` is refused."""
    began = time.perf_counter()
    records: list[tuple[int, dict[str, float]]] = []
    state, error = "finished", None
    try:
        for step, metrics in train(job.schedule, job.seed, job.total_steps):
            at = checks.whole("step", int(step))
            values = {name("metric", str(own)): returned_float("train", value) for own, value in metrics.items()}
            if not records and metric is not None and metric not in values:
                rule = "`metric` must be in the first record of `train`, which has"
                state, error = REFUSED, f"{rule} {checks.shown([*values])}."
                break
            records.append((at, values))
            on_step(at)
            lost = [own for own, value in values.items() if not abs(value) < HUGE]
            if lost:
                state, error = "diverged", f"{lost[0]} was {values[lost[0]]} at step {at}"
                break
        if not records and error is None:
            state, error = "failed", "`train` gave no metrics"
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # whatever a training raises is its outcome
        state, error = "failed", "".join(traceback.format_exception(problem)).rstrip()
    return job.over(state, error, records, began)


def name(argument: str, value: object, rule: str = NAME) -> str:
    """A name that people can read, and tell from others, in a table and on a page."""
    if not isinstance(value, str):
        checks.fail(TypeError, argument, rule, value)
    if not (len(value) <= 100 and value.isprintable() and value == " ".join(value.split()) and seen(value)):
        checks.fail(ValueError, argument, rule, value[:120])
    return value


def seen(text: str) -> str:
    """What of a text can be seen. Texts that look alike give the same."""
    return " ".join(_UNSEEN.sub("", normalize("NFKC", text)).split())


def clean(text: str, kept: str = "") -> str:
    """A text with escapes for what is invisible, moves the cursor, turns the direction or cannot be encoded."""
    return "".join(
        sign if sign.isprintable() or sign in kept else sign.encode("unicode_escape").decode() for sign in text
    )


def versions() -> dict[str, str]:
    """Those of Python, of this package, and of what is loaded that trains."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in FRAMEWORKS}
    own = {"python": platform.python_version(), "clr": __version__}
    return own | {name: clean(str(version)) for name, version in loaded.items() if version is not None}
