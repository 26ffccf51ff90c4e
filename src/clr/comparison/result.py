"""What a comparison has found: numbers with intervals over the seeds, as a table, a frame, JSON, CSV or a page."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal, Self

from clr import above, checks
from clr.comparison.runs import Run, clean
from clr.finder.result import RangeTest
from clr.saved import from_json
from clr.schedules.base import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from rich.table import Table

LEVEL, RESAMPLES = 0.95, 10_000
Interval = tuple[float, float] | None
Goal = Literal["min", "max"]
Part = Literal["results", "differences"]
_FORMULA = re.compile("'*[=+@\uff1d\uff0b\uff20\uff0d-]")  # how a cell begins that a spreadsheet computes
_MANY = 4  # schedules, above which a person is shown no pair but those with the best constant one


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
    goal: Goal
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
        goal: Goal | None = None,
        target: float | None = None,
        before: Mapping[str, int] | None = None,
        range_test: RangeTest | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> Self:
        """The comparison of some runs; what is not given is found as `clr.compare` describes."""
        names = metrics_of(runs)
        if metric is None:
            metric = names[0] if names else "metric"
        elif names:
            checks.choice("metric", metric, names)
        if goal is None:
            goal = goal_of(metric)
        own = (dict(before or {}), range_test, dict(origin or {}))
        bare = cls(tuple(runs), dict(descriptions), metric, goal, target, *own)
        return replace(bare, target=bare.reference[1]) if target is None and bare.reference else bare

    @classmethod
    def load(
        cls, file: str | Path, metric: str | None = None, goal: Goal | None = None, target: float | None = None
    ) -> Self:
        """The comparison that `clr.compare` has kept in a file, also while it goes on.

        Args:
            file: The file.
            metric: What to compare, in place of what was compared there.
            goal: Whether that should be small or large.
            target: For which value iterations are counted.

        Raises:
            ValueError: The file is none of a comparison, is damaged, or stays in use by another program.
            OSError: It can not be read.
        """
        from clr.comparison.store import Store

        with Store(file, reading=True) as kept:
            content = kept.content()
        given: dict[str, Any] = {"metric": metric, "goal": goal, "target": target}
        return cls.of(**content | {name: value for name, value in given.items() if metric or value is not None})

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
        found = []
        for name in self.schedules:
            schedule = self.schedule(name, self.budgets[-1])
            finals = [self._final(run) for run in self.runs_of(name, self.budgets[-1])]
            if schedule and schedule.limits[0] == schedule.limits[1] and finals and all(map(math.isfinite, finals)):
                found.append((self._sign * fmean(finals), name))
        best, name = max(found, default=(0.0, ""))
        return (name, self._sign * best) if found else None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each schedule and budget.

        ``final`` and ``best`` are means over the seeds whose runs have finished, with 95% bootstrap intervals.
        ``iterations`` is the median over all seeds of the updates until a record reaches the target, with those of
        ``before``, and infinite where it never does; ``reached`` is the share of seeds that do, and ``ratio`` what
        part of the largest budget ``iterations`` is, both with such intervals too. ``diverged`` and ``failed`` are
        shares of the runs.
        """
        pairs = ((name, budget) for budget in self.budgets for name in self.schedules)
        return [self._row(name, budget, runs) for name, budget in pairs if (runs := self.runs_of(name, budget))]

    def _row(self, name: str, budget: int, runs: list[Run]) -> dict[str, Any]:
        whole = [run for run in runs if run.state == "finished" and self.curve(run)]
        finals = [self._final(run) for run in whole]
        bests = [self._sign * max(self._sign * value for _, value in self.curve(run)) for run in whole]
        counts = [self.iterations(run) for run in runs]
        middle, largest = median(counts), self.budgets[-1]
        bounds = interval(counts, median) if math.isfinite(middle) else None
        return {
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

    def differences(self, against: str | None = None) -> list[dict[str, Any]]:
        """By how much the final metric of one schedule is above that of another, seed by seed.

        Args:
            against: The other; by default each pair is set against each other.
        """
        if against is None:
            pairs = [(name, other) for other, name in combinations(self.schedules, 2)]
        else:
            other = checks.choice("against", against, self.schedules)
            pairs = [(name, other) for name in self.schedules if name != other]
        rows = []
        for budget in self.budgets:
            for name, other in pairs:
                mine, theirs = ({run.seed: run for run in self.runs_of(which, budget)} for which in (name, other))
                values = [self._final(run) - self._final(theirs[seed]) for seed, run in mine.items() if seed in theirs]
                values = [value for value in values if math.isfinite(value)]
                if values:
                    row = {"schedule": name, "against": other, "total_steps": budget, "seeds": len(values)}
                    rows.append(row | {"difference": fmean(values), "interval": interval(values)})
        return rows

    def iterations(self, run: Run) -> float:
        """The updates until a run reaches the target, infinite if it does not."""
        if self.target is None:
            return math.inf
        reached = (step for step, value in self.curve(run) if self._sign * value >= self._sign * self.target)
        return next(reached, math.inf) + self.before.get(run.schedule, 0)

    def cells(self, part: Part = "results") -> list[list[str]]:
        """The rows as texts for a person, below a row of headings."""
        if self._part_is_differences(part):
            against = self.reference[0] if self.reference and len(self.schedules) > _MANY else None
            return [["schedules", "steps", "seeds", "difference", "95% interval"]] + [
                [
                    clean(f"{row['schedule']} - {row['against']}"),
                    *(str(row["total_steps"]), str(row["seeds"]), f"{row['difference']:+.4g}"),
                    "-" if row["interval"] is None else "{:+.4g} to {:+.4g}".format(*row["interval"]),
                ]
                for row in self.differences(against)
            ]
        rows = self.rows()
        lost = [state for state in ("diverged", "failed") if any(row[state] for row in rows)]
        return [["schedule", "steps", "seeds", "final", "best", "iterations", "ratio", *lost]] + [
            [
                *(clean(row["schedule"]), str(row["total_steps"]), str(row["seeds"])),
                _spread(row["final"], row["final_interval"]),
                _spread(row["best"], row["best_interval"]),
                _spread(row["iterations"], row["iterations_interval"], "g", "g"),
                _spread(row["ratio"], row["ratio_interval"], ".2f", ".2f"),
                *(f"{row[state]:.0%}" if row[state] else "-" for state in lost),
            ]
            for row in rows
        ]

    def table(self, part: Part = "results") -> "Table":
        """The rows for a person. Needs rich, which the extra ``cli`` has.

        Args:
            part: ``"results"``, a row for each schedule and budget; or ``"differences"``, one for each pair of
                schedules, of more than four only with the best constant one.
        """
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text  # in which a name is no markup

        headings, *rows = self.cells(part)
        caption = f"Final {self.metric} of a schedule less that of another with the same seed; 95% intervals."
        if part == "results":
            caption = f"{self._goal_in_words}; mean over seeds. In parentheses: 95% bootstrap intervals."
            if self.target is not None:
                of = f", the mean of {self.reference[0]}" if self._is_referred and self.reference else ""
                caption += f" Iterations: median over seeds until it is {self.target:.4g}{of}."
        title = Text(clean(caption), style="table.caption", justify="center")
        result = Table(caption=title, box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
        for at, heading in enumerate(headings):
            fits = all(len(row[at]) <= 20 for row in rows) and at < 2
            result.add_column(heading, justify="right" if at else "left", overflow="fold", no_wrap=fits)
        for before, row in zip([None, *rows], rows, strict=False):
            if before is not None and part == "results" and before[1] != row[1]:
                result.add_section()
            result.add_row(*map(Text, row))
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

        A name that begins with ``=``, ``+``, ``-`` or ``@`` has an apostrophe before it, so that no spreadsheet takes
        it for a formula; where there are apostrophes already, it is one more. Without the first one it is the name.

        Args:
            part: Those of ``"results"`` or of ``"differences"``.
        """
        out = io.StringIO()
        rows = [_flat(row) for row in self._part(part)]
        if rows:
            writer = csv.DictWriter(out, rows[0], quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
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
        """The comparison in words: which schedule is best, how far the others are from it, and what was lost.

        The difference from the best is a mean over the seeds that both have. A schedule is tied with the best if the
        95% interval of that difference holds 0.

        >>> import clr
        >>> def train(schedule, seed, total_steps):
        ...     yield total_steps, {"loss": schedule(0) + seed / 8}
        >>> schedules = {"low": clr.constant(0.25), "high": clr.constant(0.75)}
        >>> print(clr.compare(train, schedules, seeds=2, total_steps=10, workers=0).describe())
        4 runs of 2 schedules with 2 seeds. loss: smaller is better.
        After 10 updates low is best:
          low: 0.3125 (0.25, 0.375)
          high: 0.8125 (0.75, 0.875), difference +0.5 (+0.5 to +0.5)
        """
        if not self.runs:
            return "No runs."
        seeds = len({run.seed for run in self.runs})
        count = f"{len(self.runs)} runs of {len(self.schedules)} schedules with {seeds} seeds"
        lines = [f"{count}. {clean(self._goal_in_words)}."]
        finished = [row for row in self.rows() if math.isfinite(row["final"])]
        for budget in self.budgets:
            ranked = [row for row in finished if row["total_steps"] == budget]
            ranked.sort(key=lambda row: -self._sign * row["final"])
            if not ranked:
                continue
            best, *others = (row["schedule"] for row in ranked)
            found = self.differences(best)
            differences = {row["schedule"]: row for row in found if row["total_steps"] == budget}
            tied = [best, *(name for name in others if name in differences and _holds_0(differences[name]))]
            verdict = f"{' and '.join(tied)} are tied for best" if len(tied) > 1 else f"{best} is best"
            lines.append(f"After {budget} updates {clean(verdict)}:")
            for row in ranked:
                words = f"  {clean(row['schedule'])}: {_spread(row['final'], row['final_interval'])}"
                if difference := differences.get(row["schedule"]):
                    words += f", difference {difference['difference']:+.4g}"
                    words += " ({:+.3g} to {:+.3g})".format(*difference["interval"]) if difference["interval"] else ""
                lines.append(words)
        if lost := [run.schedule for run in self.runs if run.state != "finished"]:
            lines.append(f"{len(lost)} runs diverged or failed: {clean(', '.join(dict.fromkeys(lost)))}.")
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

    def _part_is_differences(self, part: Part) -> bool:
        return checks.choice("part", part, ("results", "differences")) == "differences"

    def _part(self, part: Part) -> list[dict[str, Any]]:
        return self.differences() if self._part_is_differences(part) else self.rows()

    @property
    def _goal_in_words(self) -> str:
        return f"{self.metric}: {'larger' if self.goal == 'max' else 'smaller'} is better"

    @property
    def _is_referred(self) -> bool:
        """Whether the target is that of the best constant schedule."""
        return self.reference is not None and self.reference[1] == self.target

    @property
    def _sign(self) -> float:
        return 1.0 if self.goal == "max" else -1.0

    def _final(self, run: Run) -> float:
        curve = self.curve(run)
        return curve[-1][1] if run.state == "finished" and curve else math.nan


def metrics_of(runs: Iterable[Run]) -> list[str]:
    """The names of the metrics of some runs, in order."""
    return list(dict.fromkeys(name for run in runs for _, metrics in run.records for name in metrics))


def goal_of(metric: str) -> Goal:
    """Whether a metric should be small or large, by its name."""
    return "min" if any(word in metric.lower() for word in ("loss", "error")) else "max"


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


def _holds_0(difference: Mapping[str, Any]) -> bool:
    low, high = difference["interval"] or (difference["difference"],) * 2
    return bool(low <= 0 <= high)


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
            flat[name] = f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
    return flat
