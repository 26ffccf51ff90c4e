"""What all range tests promise, checked alike: no trace after an error, a small copy, options by their names."""

import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import clr

STEPS = 6
ERRORS = (RuntimeError, MemoryError, SystemExit, KeyboardInterrupt)
# What fails, and in which call.
EACH_STEP = [(at, ERRORS[at % len(ERRORS)]("on purpose")) for at in range(1, STEPS + 1)]


class Failing:
    """Raises an error in the n-th call from a place."""

    def __init__(self, place: str = "") -> None:
        self.place = place
        self.aim(0, RuntimeError("on purpose"))

    def aim(self, at: int, error: BaseException) -> None:
        """Chooses the call, of which the next is the first, and the error. Number 0 never comes."""
        self.at, self.error, self.calls = at, error, 0

    def __call__(self, place: str) -> None:
        if place == self.place:
            self.calls += 1
            if self.calls == self.at:
                raise self.error


def check_errors(
    fail: Failing,
    tested: Callable[[], clr.RangeTest],
    state: Callable[[], object],
    failures: Iterable[tuple[int, BaseException]] = EACH_STEP,
    builds_first: bool = False,
) -> None:
    """All is as before after any error; and after Ctrl-C there are the losses so far.

    With ``builds_first`` the first call is made before the test begins, and Ctrl-C in it is raised.
    """
    before = state()
    for at, error in failures:
        fail.aim(at, error)
        if isinstance(error, KeyboardInterrupt) and not (builds_first and at == 1):
            test = tested()
            assert test.stop == "interrupted"
            assert len(test.sweeps[0].losses) == at - (fail.place != "evaluate")
        else:
            with pytest.raises(type(error), match="on purpose"):
                tested()
        assert fail.calls == at
        assert state() == before
    fail.aim(0, RuntimeError())


def check_memory(
    tested: Callable[[Callable[[], float]], object], needed: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is hardly larger than what is trained, and not on the disk.

    ``tested`` makes a test of `STEPS` steps, and calls in each what it is given, which returns a loss.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    extra: list[int] = []

    def measure() -> float:
        found = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
        extra.append(sum(part.size for part in found.statistics("filename")))
        assert not list(folder.iterdir())
        return 1.0

    tracemalloc.start()
    try:
        tested(measure)
    finally:
        tracemalloc.stop()
    assert len(extra) >= STEPS
    # In a later pass, a variable of TensorFlow may itself live in an array that it was given when it was put back.
    assert needed <= max(extra[:STEPS]) <= 1.1 * needed
    assert not list(folder.iterdir())


OPTIONS: dict[str, object] = {
    "min_lr": 0.0,
    "max_lr": 1e-9,
    "num_steps": 1,
    "growth": "slow",
    "diverge_at": -1.0,
    "time_limit": -1.0,
    "evaluate": 3,
    "evaluate_every": 0,
    "goal": "mean",
    "repeats": 0,
}


def check_options(tested: Callable[..., object]) -> None:
    """A bad option is refused by its name: none is taken for another on its way."""
    for name, value in OPTIONS.items():
        with pytest.raises((TypeError, ValueError), match=f"^`{name}` must be"):
            tested(**{name: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_stps'"):
        tested(num_stps=3)
