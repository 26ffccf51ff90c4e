"""Times two ways of doing the same against each other, in turns in one process."""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from scipy.stats import binom


class Pair(NamedTuple):
    """Two ways, each called so often in a round. Each time is divided by the amount of work in a call."""

    name: str
    ours: Callable[[], Any]
    other_name: str
    other: Callable[[], Any]
    calls: int = 1
    amount: float = 1
    other_amount: float = 1


class Line(NamedTuple):
    """A line of the table: both names, both figures, and that of clr as a multiple of the other."""

    name: str
    other_name: str
    ours: str
    other: str
    ratio: str


def peer(module: str) -> Any:
    """A module of the extra `bench`, or None if it is not installed. Its lines are then left out."""
    return import_module(module) if find_spec(module.partition(".")[0]) else None


def alike(name: str, ours: Iterable[float], other: Iterable[float], tolerance: float) -> None:
    """Raises a ValueError if two curves differ by more than a relative tolerance."""
    for number, (own, others) in enumerate(zip(ours, other, strict=True)):
        if not math.isclose(own, others, rel_tol=tolerance, abs_tol=tolerance / 1000):
            raise ValueError(f"{name}: not the same curve, {own!r} against {others!r} as number {number}")


def timed(pair: Pair, rounds: int) -> Line:
    """The medians over 6 rounds or more, and the median of the ratios in each round with its 95% interval."""
    times = []
    pair.ours(), pair.other()  # compilation is not timed
    for turn in range(rounds):  # each goes first in half of the rounds
        if turn % 2:
            own, other = _time(pair.ours, pair.calls), _time(pair.other, pair.calls)
        else:
            other, own = _time(pair.other, pair.calls), _time(pair.ours, pair.calls)
        times.append((own / pair.amount, other / pair.other_amount))
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    said = ratio(statistics.median(ratios))
    if ":" not in said:
        # That fewer rounds than these are below the true median has a probability of less than 2.5%; so above it.
        beyond = int(binom.ppf(0.025, rounds, 0.5))
        said += f" ({ratios[beyond - 1]:.2f}, {ratios[-beyond]:.2f})"
    return Line(pair.name, pair.other_name, _said(own), _said(other), said)


def ratio(value: float) -> str:
    """A ratio as the table shows it."""
    if not 0 < value < float("inf"):
        return "-"
    return f"1 : {1 / value:,.0f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f} : 1"


def _said(seconds: float) -> str:
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def _time(function: Callable[[], Any], calls: int) -> float:
    if calls > 1:
        function()  # brings back what the other has driven out of the caches
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls
