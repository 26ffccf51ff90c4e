"""The study: what is compared on each task, and what it comes to over the tasks."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import clr
from benchmarks.bounds.tasks import TASKS
from benchmarks.bounds.training import OPTIMIZERS
from benchmarks.study.training import Peer, Training, range_test

RESULTS = Path(__file__).with_name("results")
SEEDS = 10
LONGER = 4  # the largest budget, against the task's own
SHARES = (4, 2, 1)  # of the largest budget: a quarter, a half, all
GRID = tuple(10 ** (half / 2) for half in range(-7, 0))  # of SGD's fixed rates; a tenth of that for AdamW

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Does it train better?")
FolderOption = Annotated[Path, typer.Option(help="The folder with a file of runs for each task and optimizer.")]
TaskOption = Annotated[list[str] | None, typer.Option(help="A task, by default all.")]


def schedules(base_lr: float, max_lr: float, optimizer: str) -> dict[str, Any]:
    """What is compared: functions of the budget, at the bounds that the range test has found."""
    scale = 1.0 if optimizer == "sgd" else 0.1
    fixed = {f"fixed {rate * scale:.1e}": clr.constant(rate * scale) for rate in GRID}
    peers = {
        kind: _peer(kind, max_lr) for kind in ("step decay", "exponential", "cosine", "OneCycleLR", "schedule-free")
    }
    return (
        fixed
        | peers
        | {
            "warm_restarts": lambda steps: clr.warm_restarts(max_lr, steps / 7, cycle_mult=2),
            "triangular": lambda steps: clr.triangular(base_lr, max_lr, steps / 8),
            "triangular2": lambda steps: clr.triangular2(base_lr, max_lr, steps / 8),
            "exp_range": lambda steps: clr.exp_range(base_lr, max_lr, steps / 8, gamma=0.1 ** (1 / steps)),
            "one_cycle": lambda steps: clr.one_cycle(max_lr, steps, div_factor=max_lr / base_lr),
            # How much does it matter if the bounds are off?
            "triangular, 3 x": lambda steps: clr.triangular(3 * base_lr, 3 * max_lr, steps / 8),
            "triangular, 1/3": lambda steps: clr.triangular(base_lr / 3, max_lr / 3, steps / 8),
        }
    )


def _peer(kind: str, lr: float) -> Any:
    return lambda steps: Peer(kind, lr, steps)


@app.command()
def run(
    results: FolderOption = RESULTS,
    task: TaskOption = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="sgd or adamw, by default both.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = SEEDS,
    longer: Annotated[int, typer.Option(min=1, help="The largest budget, against the task's own.")] = LONGER,
) -> None:
    """Train what has not been trained yet. Ctrl-C ends it, and the next run goes on."""
    results.mkdir(parents=True, exist_ok=True)
    for name in task or TASKS:
        for kind in optimizer or OPTIMIZERS:
            test = _tested(results / f"{name}_{kind}.json", name, kind)
            full = longer * TASKS[name].steps
            base_lr, max_lr = test.bounds()
            named = schedules(base_lr, max_lr, kind)
            spent = {own: len(test.rates) for own in named if not own.startswith("fixed")}
            clr.compare(
                Training(name, kind, full),
                named,
                seeds=seeds,
                steps=[full // share for share in SHARES],
                metric="metric",
                goal="max",
                before=spent,
                range_test=test,
                file=results / f"{name}_{kind}.sqlite",
            )
            print(f"{name}, {kind}: done")


def _tested(file: Path, name: str, kind: str) -> clr.RangeTest:
    """The range test of a task, which is made once."""
    if not file.exists():
        file.write_text(range_test(name, kind).to_json())
    return clr.RangeTest.from_json(file.read_text())


@app.command()
def report(
    results: FolderOption = RESULTS,
    pages: Annotated[bool, typer.Option(help="Write a page of HTML for each task and optimizer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Print the answers over the tasks."""
    found = [(file.stem, clr.Comparison.load(file)) for file in sorted(results.glob("*.sqlite"))]
    if pages:
        for name, comparison in found:
            comparison.report(results / f"{name}.html")
    rows = list(answers([comparison for _, comparison in found]))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(title=f"{len(found)} pairs of task and optimizer")
    for heading in ("schedule", "iterations", "without the test", "at 1/4", "at 1/2", "at 1", "lost"):
        shown.add_column(heading, justify="left" if heading == "schedule" else "right")
    for row in rows:
        shown.add_row(
            row["schedule"],
            *(_said(row[key]) for key in ("ratio", "ratio_alone")),
            *map(_said, row["gaps"]),
            _said(row["lost"]),
        )
    Console(width=120).print(shown)
    print(
        "Iterations: those that a schedule needs to reach the best fixed rate's final metric, as a part of the largest "
        "budget, the range test's included; the median over the pairs. At a budget: the final metric less that of the "
        "best fixed rate of the same budget, in points; the median over the pairs. Lost: the share of runs."
    )


def answers(comparisons: list[clr.Comparison]) -> Iterator[dict[str, Any]]:
    """For each schedule, the medians over the pairs of task and optimizer; the fixed rates as the best of them."""
    names = dict.fromkeys(
        "best fixed" if name.startswith("fixed") else name for own in comparisons for name in own.schedules
    )
    for name in names:
        ratios, alone, lost = [], [], []
        gaps: list[list[float]] = [[] for _ in SHARES]
        for comparison in comparisons:
            rows = {(row["schedule"], row["steps"]): row for row in comparison.rows()}
            full = comparison.budgets[-1]
            best = [
                max(
                    (row["final"], own)
                    for (own, steps), row in rows.items()
                    if own.startswith("fixed") and steps == budget and math.isfinite(row["final"])
                )
                for budget in comparison.budgets
            ]
            chosen = [best[-1][1] if name == "best fixed" else name] * len(comparison.budgets)
            if name == "best fixed":
                chosen = [own for _, own in best]
            # Of the budgets, the one at which the target is reached first.
            counts = [rows[own, budget]["iterations"] for own, budget in zip(chosen, comparison.budgets, strict=True)]
            ratios.append(min(counts) / full)
            alone.append((min(counts) - comparison.before.get(chosen[-1], 0)) / full)
            for gap, own, budget, (level, _) in zip(gaps, chosen, comparison.budgets, best, strict=True):
                gap.append(rows[own, budget]["final"] - level)
            lost += [
                rows[own, budget]["diverged"] + rows[own, budget]["failed"]
                for own, budget in zip(chosen, comparison.budgets, strict=True)
            ]
        finite = [[value for value in gap if math.isfinite(value)] for gap in gaps]
        yield {
            "schedule": name,
            "ratio": median(ratios),
            "ratio_alone": median(alone),
            "gaps": [median(gap) if gap else math.nan for gap in finite],
            "lost": sum(lost) / len(lost),
        }


def _said(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
