"""A training under one schedule with one seed and budget: what is to be done, and what came of it."""

import math
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clr.finder import sweep
from clr.version import __version__

FRAMEWORKS = ("numpy", "torch", "tensorflow", "keras", "jax", "optax", "sklearn", "ray")
STATES = ("finished", "diverged", "failed")
Key = tuple[str, int, int]


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


def perform(train: Callable[..., Any], job: Job, on_step: Callable[[int], object] = lambda step: None) -> Run:
    """Makes a run; ``on_step`` hears how far it is."""
    started = time.perf_counter()
    records: list[tuple[int, dict[str, float]]] = []
    state, error = "finished", None
    try:
        for step, metrics in train(job.schedule, job.seed, job.total_steps):
            values = {str(name): sweep.returned_float("train", value) for name, value in metrics.items()}
            records.append((int(step), values))
            on_step(int(step))
            lost = [name for name, value in values.items() if not math.isfinite(value)]
            if lost:
                state, error = "diverged", f"{lost[0]} was {values[lost[0]]} at step {int(step)}"
                break
        if not records:
            state, error = "failed", "`train` gave no metrics"
    except (Exception, SystemExit) as problem:
        state, error = "failed", "".join(traceback.format_exception(problem)).rstrip()
    return Run(job.name, job.total_steps, job.seed, state, error, tuple(records), time.perf_counter() - started)


def versions() -> dict[str, str]:
    """Those of Python, of this package, and of what is loaded that trains."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in FRAMEWORKS}
    own = {"python": platform.python_version(), "clr": __version__}
    return own | {name: str(version) for name, version in loaded.items() if version is not None}


def died(job: Job, reason: str, seconds: float) -> Run:
    """What is known of a run whose worker is gone."""
    return Run(job.name, job.total_steps, job.seed, "failed", reason, (), seconds)
