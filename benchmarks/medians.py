"""Medians over pairs of a task and an optimizer, with their intervals."""

import math
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000  # of the bootstrap


class Number(NamedTuple):
    """A median over the pairs, with its 95% bootstrap interval over the tasks."""

    value: float
    spread: tuple[float, float] | None

    @classmethod
    def of(cls, found: Iterable[tuple[str, float]]) -> "Number":
        """The median of values, each with its task. Infinite values count, NaN does not."""
        tasks: dict[str, list[float]] = {}
        for task, value in found:
            if not math.isnan(value):
                tasks.setdefault(task, []).append(value)
        if not tasks:
            return cls(math.nan, None)
        # Both optimizers of a task share its data, so they are drawn together.
        groups, random = list(tasks.values()), np.random.default_rng(0)
        drawn = sorted(
            median(value for at in random.integers(len(groups), size=len(groups)) for value in groups[at])
            for _ in range(RESAMPLES)
        )
        spread = (drawn[RESAMPLES // 40], drawn[-RESAMPLES // 40 - 1]) if len(groups) > 1 else None
        return cls(median(value for group in groups for value in group), spread)

    def __str__(self) -> str:
        return plain(self.value) + (f" ({', '.join(map(plain, self.spread))})" if self.spread else "")


def plain(value: float) -> str:
    """A number as a table shows it."""
    if math.isfinite(value):
        return f"{value:.2f}"
    return "-" if math.isnan(value) else "never" if value > 0 else "lost"
