"""What the demonstration shows of its search and its runs: lines, a table, pictures and the numbers."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from clr import Search, plot
from clr.demo.training import EVALUATE_EVERY, FIXED, USUAL_RATES, Rates, Run
from clr.finder.trials import SEARCH_STOPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def search_in_words(search: Search, framework: str) -> str:
    """What the search has found, and what it cost."""
    bounds = search.bounds()
    return (
        f"Search in {framework}: {SEARCH_STOPS[search.stop]}. "
        f"base_lr {bounds.base_lr:.3g} and max_lr {bounds.max_lr:.3g} (confidence {bounds.confidence:.2f}). "
        f"It cost {search.updates} updates, {search.updates / search.total_steps:.2g} times those of a run."
    )


def fixed_in_words(tries: list[Run], rates: Rates) -> str:
    """Among which rates the fixed one was chosen, and what that cost."""
    *others, last = (
        f"{rate:g} ({100 * max(run.accuracies):.2f}%)" for rate, run in zip(USUAL_RATES, tries, strict=True)
    )
    steps = len(tries[0].losses)
    return (
        f"Fixed rate: {rates.fixed:g}, the best of {', '.join(others)} and {last} on the digits for testing, "
        f"in a run of {steps} updates each. They cost {len(tries) * steps} updates."
    )


def summary(runs: list[Run], rates: Rates) -> list[dict[str, Any]]:
    """A row for each framework and policy, with accuracies in percent, as means over the seeds.

    ``steps_to_fixed_best`` counts the steps until the mean is as high as that of the fixed rate ever gets, and
    ``rate_difference`` is the largest relative difference of an applied rate from the schedule.
    """
    rows = []
    for framework, own in _by_framework(runs).items():
        curves = {policy: _curves(own, policy) for policy in dict.fromkeys(run.policy for run in own)}
        target = curves[FIXED].mean(axis=0).max() if FIXED in curves else None
        for policy, curve in curves.items():
            mean = curve.mean(axis=0)
            reached = np.flatnonzero(mean >= (np.inf if target is None else target))
            rows.append(
                {
                    "framework": framework,
                    "policy": policy,
                    "seeds": len(curve),
                    "best_accuracy": 100 * float(mean.max()),
                    "final_accuracy": 100 * float(mean[-1]),
                    "final_accuracy_range": [100 * float(curve[:, -1].min()), 100 * float(curve[:, -1].max())],
                    "steps_to_fixed_best": EVALUATE_EVERY * (int(reached[0]) + 1) if len(reached) else None,
                    "rate_difference": max(rate_difference(run, rates) for run in own if run.policy == policy),
                }
            )
    return rows


def rate_difference(run: Run, rates: Rates) -> float:
    """The largest relative difference of an applied rate from the schedule on the host, both rounded to float32."""
    steps = len(run.rates)
    exact = rates.schedule(run.policy, steps) if steps else None
    return _spread([run.rates, [exact(step) for step in range(steps)]] if exact else [])


def rates_in_words(runs: list[Run], rates: Rates) -> list[str]:
    """A line for each framework that compares the applied rates with the schedule, and one that compares frameworks."""
    frameworks = _by_framework(runs)
    lines = []
    for framework, own in frameworks.items():
        difference = max(rate_difference(run, rates) for run in own)
        relation = "equal" if difference == 0 else f"are within {_rounded_up(difference)} (relative) of"
        lines.append(
            f"{f'{framework}: the' if len(frameworks) > 1 else 'The'} {len(own[0].rates)} applied rates of each run "
            f"{relation} those of the schedule, rounded to float32."
        )
    if len(frameworks) > 1:
        same: dict[tuple[str, int], list[list[float]]] = {}
        for run in runs:
            same.setdefault((run.policy, run.seed), []).append(run.rates)
        difference = max(map(_spread, same.values()))
        relation = "equal" if difference == 0 else f"within {_rounded_up(difference)} (relative) of each other"
        *names, last = frameworks
        lines.append(f"The rates of {', '.join(names)} and {last} are {relation}.")
    return lines


def table(rows: list[dict[str, Any]], total_steps: int) -> Table:
    """The summary for a person."""
    frameworks = list(dict.fromkeys(row["framework"] for row in rows))
    result = Table(
        title=f"Accuracy on held-out digits, {total_steps} steps"
        + (f" in {frameworks[0]}" if len(frameworks) == 1 else ""),
        caption="Mean over the seeds. Steps to match: until it is as high as the best at the fixed rate. "
        "Neither counts what the choice of its rates cost.",
    )
    result.add_column("policy")
    for heading in ("seeds", "best", "final (lowest, highest)", "steps to match"):
        result.add_column(heading, justify="right")
    for framework in frameworks:
        if len(frameworks) > 1:
            result.add_section()
            result.add_row(Text(framework, style="bold"))
        for row in (row for row in rows if row["framework"] == framework):
            low, high = row["final_accuracy_range"]
            reached = row["steps_to_fixed_best"]
            result.add_row(
                row["policy"],
                str(row["seeds"]),
                f"{row['best_accuracy']:.2f}%",
                f"{row['final_accuracy']:.2f}% ({low:.2f}, {high:.2f})",
                "-" if reached is None else str(reached),
            )
    return result


def save_search(search: Search, folder: Path) -> list[Path]:
    """Writes the range test of a search and the search itself, and their pictures. Returns the paths."""
    paths = []
    for name, result in (("range_test", search.range_test), ("search", search)):
        if result is not None:
            picture, numbers = folder / f"{name}.png", folder / f"{name}.json"
            plot.save(result.plot(), picture)
            numbers.write_text(result.to_json() + "\n")
            paths += [picture, numbers]
    return paths


def save(runs: list[Run], rows: list[dict[str, Any]], rates: Rates, tries: list[Run], folder: Path) -> list[Path]:
    """Writes the numbers, and two pictures for each framework, and returns their paths."""
    frameworks = _by_framework(runs)
    paths = []
    for framework, own in frameworks.items():
        start = f"{framework}_" if len(frameworks) > 1 else ""
        pictures = [folder / f"{start}rates.png", folder / f"{start}accuracy.png"]
        draw(own, [row for row in rows if row["framework"] == framework], *pictures)
        paths += pictures
    numbers = folder / "results.json"
    made = {"tries": [asdict(run) for run in tries], "runs": [asdict(run) for run in runs]}
    numbers.write_text(json.dumps({"rates": asdict(rates), "summary": rows, **made}) + "\n")
    return [*paths, numbers]


def draw(runs: list[Run], rows: list[dict[str, Any]], rates: Path, accuracies: Path) -> None:
    """Draws the rates of a framework's runs over the steps, and the accuracies with the range of the seeds."""
    ax = plot.new_axes()
    for row in rows:
        first = next(run for run in runs if run.policy == row["policy"])
        ax.plot(first.rates, label=row["policy"], linestyle=_line(row["policy"]))
    _finish(ax, "learning rate", rates)

    ax = plot.new_axes()
    for row in rows:
        curve = 100 * _curves(runs, row["policy"])
        at = EVALUATE_EVERY * np.arange(1, curve.shape[1] + 1)
        ax.plot(at, curve.mean(axis=0), label=row["policy"], linestyle=_line(row["policy"]))
        ax.fill_between(at, curve.min(axis=0), curve.max(axis=0), alpha=0.12)
    # All climb from chance in the first steps; their differences are near the top.
    ax.set_ylim(max(0.0, min(row["final_accuracy"] for row in rows) - 8), 100)
    _finish(ax, "accuracy on held-out digits (%)", accuracies)


def _by_framework(runs: list[Run]) -> dict[str, list[Run]]:
    result: dict[str, list[Run]] = {}
    for run in runs:
        result.setdefault(run.framework, []).append(run)
    return result


def _curves(runs: list[Run], policy: str) -> "NDArray[np.float64]":
    """The accuracies of a policy, seeds by evaluations."""
    return np.array([run.accuracies for run in runs if run.policy == policy])


def _spread(curves: list[list[float]]) -> float:
    """The largest relative difference between rates of the same step, as float32."""
    if len(curves) < 2 or not curves[0]:
        return 0.0
    rounded = np.array(curves, np.float32).astype(np.float64)
    low, high = rounded.min(axis=0), rounded.max(axis=0)
    return float(((high - low) / high).max())


def _rounded_up(number: float) -> str:
    """A small number, rounded up to one digit."""
    exponent = math.floor(math.log10(number))
    return f"{math.ceil(number / 10.0**exponent) * 10.0**exponent:.0e}"


def _line(policy: str) -> str:
    return "--" if policy == FIXED else "-"


def _finish(ax: "Axes", quantity: str, path: Path) -> None:
    plot.label(ax, quantity)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)
    plot.save(ax, path)
