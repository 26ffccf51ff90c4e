"""What a comparison has found: numbers with intervals over the seeds, as a table, a frame, JSON, CSV or a page."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal, Self

from clr import above, checks
from clr.comparison.runs import Run
from clr.finder.result import RangeTest
from clr.saved import from_json
from clr.schedules.base import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from rich.table import Table

LEVEL, RESAMPLES = 0.95, 10_000
Interval = tuple[float, float] | None
Part = Literal["results", "differences"]
PARTS = ("results", "differences")
_MANY = 4  # schedules, above which a person is shown no pair but those with the best constant one
_LOST = ("diverged", "failed")
DIFFERENCES = ("schedules", "steps", "seeds", "difference", "95% interval")  # their headings, for a person


@dataclass(frozen=True, repr=False)
class Comparison:
    """Runs of several schedules, and what they say.

    Attributes:
        runs: All runs.
        descriptions: What each name stands for at each budget: a schedule's JSON, or a text.
        metric: The metric that is compared.
        goal: Whether it should be small (``"min"``) or large (``"max"``).
        target: The value for which iterations are counted, None if there is none.
        before: Updates that a schedule has cost before its training.
        range_test: The range test that has found the bounds, if it was given.
        origin: What has trained; and the engine of the last runs, with the versions of what was loaded before them.
    """

    runs: tuple[Run, ...]
    descriptions: Mapping[tuple[str, int], str]
    metric: str
    goal: Literal["min", "max"]
    target: float | None
    before: Mapping[str, int] = field(default_factory=dict)
    range_test: RangeTest | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        descriptions: Mapping[tuple[str, int], str],
        metric: str | None = None,
        goal: Literal["min", "max"] | None = None,
        target: float | None = None,
        before: Mapping[str, int] | None = None,
        range_test: RangeTest | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> Self:
        """The comparison of some runs; what is not given is found as `clr.compare` describes."""
        names = [name for run in runs for _, metrics in run.records for name in metrics]
        if metric is None:
            metric = names[0] if names else "metric"
        elif names:
            checks.choice("metric", metric, dict.fromkeys(names))
        if goal is None:
            goal = "min" if any(word in metric.lower() for word in ("loss", "error")) else "max"
        own = (dict(before or {}), range_test, dict(origin or {}))
        bare = cls(tuple(runs), dict(descriptions), metric, goal, target, *own)
        if target is None and bare.reference is not None:
            return replace(bare, target=bare.reference[1])
        return bare

    @classmethod
    def load(
        cls,
        file: str | Path,
        metric: str | None = None,
        goal: Literal["min", "max"] | None = None,
        target: float | None = None,
    ) -> Self:
        """The comparison that `clr.compare` has kept in a file, also while it goes on.

        Args:
            file: The file.
            metric: What to compare, in place of what was compared there.
            goal: Whether that should be small or large.
            target: For which value iterations are counted.

        Raises:
            ValueError: The file is none of a comparison.
            OSError: It can not be read.
        """
        from clr.comparison.store import Store

        with Store(file, reading=True) as kept:
            settings, runs = kept.settings(), tuple(kept.runs().values())
            descriptions, context = kept.schedules(), kept.context()
        given: dict[str, Any] = {"metric": metric, "goal": goal, "target": target}
        if metric is None:
            given = {name: settings.get(name) if value is None else value for name, value in given.items()}
        return cls.of(runs, descriptions, **given, **context)

    @property
    def schedules(self) -> tuple[str, ...]:
        """The names of the schedules, in order."""
        return tuple(dict.fromkeys(run.schedule for run in self.runs))

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets in updates, in order."""
        return tuple(sorted({run.total_steps for run in self.runs}))

    @cached_property
    def reference(self) -> tuple[str, float] | None:
        """The name of the constant schedule that is best at the largest budget, and its mean final metric."""
        if not self.runs:
            return None
        budget = self.budgets[-1]
        found = []
        for name in self.schedules:
            finals = [self._final(run) for run in self.runs_of(name, budget)]
            if self._is_constant(name, budget) and finals and all(map(math.isfinite, finals)):
                found.append((self._sign * fmean(finals), name))
        if not found:
            return None
        best, name = max(found)
        return name, self._sign * best

    def rows(self) -> list[dict[str, Any]]:
        """A row for each schedule and budget.

        ``final`` and ``best`` are means over the seeds whose runs have finished, with 95% bootstrap intervals.
        ``iterations`` is the median over all seeds of the updates until a record reaches the target, with those of
        ``before``, and infinite where it never does; ``reached`` is the share of seeds that do, and ``ratio`` what
        part of the largest budget ``iterations`` is, both with such intervals too. ``diverged`` and ``failed`` are
        shares of the runs.
        """
        rows = []
        for budget in self.budgets:
            for name in self.schedules:
                runs = self.runs_of(name, budget)
                if not runs:
                    continue
                whole = [run for run in runs if run.state == "finished" and self.curve(run)]
                finals, bests = [self._final(run) for run in whole], [self._best(run) for run in whole]
                counts = [self.iterations(run) for run in runs]
                middle, largest = median(counts), self.budgets[-1]
                bounds = interval(counts, median) if math.isfinite(middle) else None
                rows.append(
                    {
                        "schedule": name,
                        "total_steps": budget,
                        "seeds": len(runs),
                        "final": fmean(finals) if finals else math.nan,
                        "final_interval": interval(finals),
                        "best": fmean(bests) if bests else math.nan,
                        "best_interval": interval(bests),
                        "iterations": middle,
                        "iterations_interval": bounds,
                        "reached": sum(map(math.isfinite, counts)) / len(counts),
                        "ratio": middle / largest,
                        "ratio_interval": None if bounds is None else (bounds[0] / largest, bounds[1] / largest),
                        "diverged": sum(run.state == "diverged" for run in runs) / len(runs),
                        "failed": sum(run.state == "failed" for run in runs) / len(runs),
                    }
                )
        return rows

    def differences(self, against: str | None = None) -> list[dict[str, Any]]:
        """By how much the final metric of one schedule is above that of another, seed by seed.

        Args:
            against: The other; by default each pair is set against each other.
        """
        if against is not None:
            checks.choice("against", against, self.schedules)
        pairs = [(name, other) for other, name in combinations(self.schedules, 2) if against is None] or [
            (name, str(against)) for name in self.schedules if name != against
        ]
        rows = []
        for budget in self.budgets:
            for name, other in pairs:
                mine, theirs = ({run.seed: run for run in self.runs_of(which, budget)} for which in (name, other))
                both = [seed for seed in mine if seed in theirs]
                values = [self._final(mine[seed]) - self._final(theirs[seed]) for seed in both]
                values = [value for value in values if math.isfinite(value)]
                if values:
                    rows.append(
                        {
                            "schedule": name,
                            "against": other,
                            "total_steps": budget,
                            "seeds": len(values),
                            "difference": fmean(values),
                            "interval": interval(values),
                        }
                    )
        return rows

    def iterations(self, run: Run) -> float:
        """The updates until a run reaches the target, infinite if it does not."""
        if self.target is None:
            return math.inf
        sign = self._sign
        reached = (step for step, value in self.curve(run) if sign * value >= sign * self.target)
        return next(reached, math.inf) + self.before.get(run.schedule, 0)

    def table(self, part: Part = "results") -> "Table":
        """The rows for a person. Needs rich, which the extra ``cli`` has.

        Args:
            part: ``"results"``, a row for each schedule and budget; or ``"differences"``, one for each pair of
                schedules, of more than four only with the best constant one.
        """
        from rich.box import SIMPLE
        from rich.table import Table

        if checks.choice("part", part, PARTS) == "differences":
            caption = f"Final {self.metric} of a schedule less that of another with the same seed; 95% intervals."
            result = Table(caption=caption, box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
            for heading in DIFFERENCES:
                result.add_column(heading, justify="left" if heading == "schedules" else "right", overflow="fold")
            for cells in self.difference_cells():
                result.add_row(*cells)
            return result
        better = "larger" if self.goal == "max" else "smaller"
        caption = f"{self.metric}: {better} is better; mean over seeds. In parentheses: 95% bootstrap intervals."
        if self.target is not None:
            name = f", the mean of {self.reference[0]}" if self.reference and self.reference[1] == self.target else ""
            caption += f" Iterations: median over seeds until it is {self.target:.4g}{name}."
        rows = self.rows()
        lost = [state for state in _LOST if any(row[state] for row in rows)]  # with no room for what has not happened
        result = Table(caption=caption, box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
        short = all(len(name) <= 20 for name in self.schedules)
        result.add_column("schedule", overflow="fold", no_wrap=short)
        result.add_column("steps", justify="right", no_wrap=True)
        result.add_column("seeds", justify="right")
        for heading in (f"final {self.metric}", "best", "iterations", "ratio", *lost):
            result.add_column(heading, justify="right", overflow="fold")
        for budget in self.budgets:
            result.add_section()
            for row in (row for row in rows if row["total_steps"] == budget):
                result.add_row(*self._cells(row, lost))
        return result

    def to_frame(self, part: Part = "results") -> "DataFrame":
        """The rows as a pandas DataFrame. Needs pandas.

        Args:
            part: Those of ``"results"`` or of ``"differences"``.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error

        return DataFrame(self._part(part))

    def to_json(self) -> str:
        """Rows, differences and settings as JSON; what is infinite, or no number, is null."""
        data = {
            "metric": self.metric,
            "goal": self.goal,
            "target": self.target,
            "reference": self.reference,
            "before": dict(self.before),
            "origin": dict(self.origin),
            "rows": self.rows(),
            "differences": self.differences(),
        }
        return json.dumps(_finite(data), allow_nan=False, indent=1)

    def to_csv(self, part: Part = "results") -> str:
        """The rows as CSV, each interval in two columns.

        Args:
            part: Those of ``"results"`` or of ``"differences"``.
        """
        out = io.StringIO()
        rows = [_flat(row) for row in self._part(part)]
        if rows:
            writer = csv.DictWriter(out, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return out.getvalue()

    def report(self, path: str | Path) -> None:
        """Writes one page of HTML that needs nothing else: curves, schedules, tables, errors. Needs matplotlib.

        Args:
            path: Where to.
        """
        Path(path).write_text(above.comparison_page(self), encoding="utf-8")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the metric over the updates of the longest trainings, on ``ax`` or a new figure. Needs matplotlib."""
        return above.plot_comparison(self, ax)  # type: ignore[no-any-return]

    def describe(self) -> str:
        """The comparison in words: what was trained, which schedule is best and by how much, and what was lost.

        >>> import clr
        >>> def train(schedule, seed, total_steps):
        ...     yield total_steps, {"loss": schedule(0) + seed / 10}
        >>> schedules = {"low": clr.constant(0.25), "high": clr.constant(0.75)}
        >>> print(clr.compare(train, schedules, seeds=2, total_steps=10, workers=0).describe())
        4 runs of 2 schedules with 2 seeds, by loss (smaller is better).
        After 10 updates low is best: 0.3 (0.25, 0.35). It is followed by high: 0.8 (0.75, 0.85).
        """
        if not self.runs:
            return "No runs."
        seeds = len({run.seed for run in self.runs})
        better = "larger" if self.goal == "max" else "smaller"
        lines = [
            f"{len(self.runs)} runs of {len(self.schedules)} schedules with {seeds} seeds, by {self.metric} "
            f"({better} is better)."
        ]
        finished = [row for row in self.rows() if math.isfinite(row["final"])]
        for budget in self.budgets:
            ranked = sorted(
                (row for row in finished if row["total_steps"] == budget), key=lambda row: -self._sign * row["final"]
            )
            words = [_spread(row["final"], row["final_interval"]) for row in ranked]
            if words:
                rest = [f"{row['schedule']}: {text}" for row, text in zip(ranked[1:], words[1:], strict=True)]
                followed = f" It is followed by {', '.join(rest)}." if rest else ""
                lines.append(f"After {budget} updates {ranked[0]['schedule']} is best: {words[0]}.{followed}")
        lost = [run for run in self.runs if run.state != "finished"]
        if lost:
            names = ", ".join(dict.fromkeys(run.schedule for run in lost))
            lines.append(f"{len(lost)} runs diverged or failed: {names}.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        budgets = ", ".join(map(str, self.budgets))
        return f"<Comparison: {len(self.runs)} runs of {len(self.schedules)} schedules, {budgets} updates>"

    def _repr_html_(self) -> str:
        return above.notebook_page(self)  # type: ignore[no-any-return]

    def schedule(self, name: str, budget: int) -> Schedule | None:
        """The schedule that a name stands for at a budget, None if it is none of clr's."""
        try:
            found = from_json(self.descriptions.get((name, budget), ""))
        except (TypeError, ValueError):
            return None
        return found if isinstance(found, Schedule) else None

    def runs_of(self, name: str, budget: int) -> list[Run]:
        """The runs of a schedule at a budget."""
        return [run for run in self.runs if (run.schedule, run.total_steps) == (name, budget)]

    def curve(self, run: Run) -> list[tuple[int, float]]:
        """The metric of a run over the updates."""
        return [(step, metrics[self.metric]) for step, metrics in run.records if self.metric in metrics]

    def difference_cells(self) -> list[list[str]]:
        """The differences as texts, for a person."""
        against = self.reference[0] if self.reference and len(self.schedules) > _MANY else None
        return [
            [
                f"{row['schedule']} - {row['against']}",
                str(row["total_steps"]),
                str(row["seeds"]),
                f"{row['difference']:+.4g}",
                "-" if row["interval"] is None else "{:+.4g} to {:+.4g}".format(*row["interval"]),
            ]
            for row in self.differences(against)
        ]

    def _part(self, part: Part) -> list[dict[str, Any]]:
        return self.differences() if checks.choice("part", part, PARTS) == "differences" else self.rows()

    @property
    def _sign(self) -> float:
        return 1.0 if self.goal == "max" else -1.0

    def _is_constant(self, name: str, budget: int) -> bool:
        schedule = self.schedule(name, budget)
        return schedule is not None and schedule.limits[0] == schedule.limits[1]

    def _final(self, run: Run) -> float:
        curve = self.curve(run)
        return curve[-1][1] if run.state == "finished" and curve else math.nan

    def _best(self, run: Run) -> float:
        return self._sign * max(self._sign * value for _, value in self.curve(run))

    def _cells(self, row: dict[str, Any], lost: Sequence[str] = _LOST) -> list[str]:
        """A row as texts."""
        return [
            row["schedule"],
            str(row["total_steps"]),
            str(row["seeds"]),
            _spread(row["final"], row["final_interval"]),
            _spread(row["best"], row["best_interval"]),
            _spread(row["iterations"], row["iterations_interval"], "g", "g"),
            _spread(row["ratio"], row["ratio_interval"], ".2f", ".2f"),
            *(f"{row[state]:.0%}" if row[state] else "-" for state in lost),
        ]


def interval(values: Sequence[float], statistic: Callable[[Sequence[float]], float] = fmean) -> Interval:
    """A 95% bootstrap interval of a mean or a median, by percentiles; None for fewer than two values. Needs NumPy."""
    if len(values) < 2:
        return None
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError("intervals need NumPy: pip install 'cyclic-learning-rate[compare]'") from error

    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).choice(sample, (RESAMPLES, len(sample)))
    with np.errstate(invalid="ignore"):
        found = np.mean(drawn, axis=1) if statistic is fmean else np.median(drawn, axis=1)
    found.sort()
    tail = (1 - LEVEL) / 2
    return float(found[int(tail * RESAMPLES)]), float(found[int((1 - tail) * RESAMPLES) - 1])


def _spread(value: float, bounds: Interval, form: str = ".4g", bound_form: str = ".3g") -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:{form}}" + (f" ({bounds[0]:{bound_form}}, {bounds[1]:{bound_form}})" if bounds else "")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("interval"):
            low, high = value or ("", "")
            flat |= {name.replace("interval", "low"): low, name.replace("interval", "high"): high}
        else:
            flat[name] = value
    return flat
