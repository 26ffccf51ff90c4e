"""What the tests of comparisons share."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import clr
from clr.comparison.runs import Run
from tests import trainings

SCHEDULES = {"fixed": clr.constant(0.25), "low": clr.constant(0.125), "cyclic": clr.triangular(0.25, 0.75, 5)}

ROOT = Path(__file__).parents[2]
# Two passes of 40 updates.
TEST = clr.range_test(lambda lr: 1 / (1 + 100 * lr), lambda repeat: None, max_lr=1, num_steps=40, repeats=2)


def compare(tmp_path: Path, train: Any = trainings.parabola, schedules: Any = None, **options: Any) -> clr.Comparison:
    options = {"seeds": 3, "total_steps": 20, "file": tmp_path / "runs.sqlite", "workers": 0, **options}
    if options["file"] is not None and "<locals>" in getattr(train, "__qualname__", ""):
        options.setdefault("name", "own")
    return clr.compare(train, SCHEDULES if schedules is None else schedules, **options)


def kept(tmp_path: Path) -> clr.Comparison:
    return clr.Comparison.load(tmp_path / "runs.sqlite")


def run(name: str, seed: int, *values: tuple[int, float], state: str = "finished", steps: int = 40) -> Run:
    """A run with an accuracy at some steps."""
    return Run(name, steps, seed, state, None, tuple((step, {"acc": value}) for step, value in values), 1.0)


def printed(table: Table, width: int = 200) -> str:
    """A table as a terminal shows it."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()
