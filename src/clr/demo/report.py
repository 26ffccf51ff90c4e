"""What the demonstration shows of its runs: a table, two pictures, and the numbers themselves."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from clr import plot
from clr.demo.training import EVALUATE_EVERY, FIXED, Run


def summary(runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each policy: accuracies in percent, and the steps to the fixed rate's best, of its seeds' mean."""
    curves = {policy: _curves(runs, policy) for policy in dict.fromkeys(run.policy for run in runs)}
    target = curves[FIXED].mean(axis=0).max() if FIXED in curves else None
    rows = []
    for policy, curve in curves.items():
        mean = curve.mean(axis=0)
        reached = np.flatnonzero(mean >= (np.inf if target is None else target))
        rows.append(
            {
                "policy": policy,
                "seeds": len(curve),
                "best_accuracy": 100 * float(mean.max()),
                "final_accuracy": 100 * float(mean[-1]),
                "final_accuracy_range": [100 * float(curve[:, -1].min()), 100 * float(curve[:, -1].max())],
                "steps_to_fixed_best": EVALUATE_EVERY * (int(reached[0]) + 1) if len(reached) else None,
            }
        )
    return rows


def table(rows: list[dict[str, Any]], steps: int) -> Table:
    """The summary for a person."""
    result = Table(
        title=f"Accuracy on held-out digits, {steps} steps",
        caption="Mean over the seeds. Steps to match: until it is as high as the fixed rate's ever gets.",
    )
    result.add_column("policy")
    for heading in ("seeds", "best", "final (lowest, highest)", "steps to match"):
        result.add_column(heading, justify="right")
    for row in rows:
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


def save(runs: list[Run], rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Writes the numbers and the pictures, and returns their paths."""
    numbers, rates, accuracies = folder / "results.json", folder / "rates.png", folder / "accuracy.png"
    numbers.write_text(json.dumps({"summary": rows, "runs": [asdict(run) for run in runs]}) + "\n")
    draw(runs, rows, rates, accuracies)
    return [rates, accuracies, numbers]


def draw(runs: list[Run], rows: list[dict[str, Any]], rates: Path, accuracies: Path) -> None:
    """Draws the rates over the steps, and the accuracies with the range of the seeds."""
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
    # All climb from chance in the first steps; what they differ in lies near the top.
    ax.set_ylim(max(0.0, min(row["final_accuracy"] for row in rows) - 8), 100)
    _finish(ax, "accuracy on held-out digits (%)", accuracies)


def _curves(runs: list[Run], policy: str) -> Any:
    """The accuracies of a policy, seeds by evaluations."""
    return np.array([run.accuracies for run in runs if run.policy == policy])


def _line(policy: str) -> str:
    return "--" if policy == FIXED else "-"


def _finish(ax: Any, quantity: str, path: Path) -> None:
    plot.label(ax, quantity)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    plot.save(ax, path)
