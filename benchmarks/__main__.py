"""Prints one table of what the library costs, and how exact it is, against everything else that can be installed."""

import os
import platform
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import accuracy, cost, once
from benchmarks.tables import markdown_row
from benchmarks.timing import Line, timed

PACKAGES = [
    "cyclic-learning-rate",
    "tensorflow",
    "keras",
    "torch",
    "jax",
    "optax",
    "numpy",
    "pytorch-ignite",
    "torch-lr-finder",
    "lightning",
    "transformers",
    "lrsched",
    "pytorch-scheduler",
    "catalyst",
]
EXACT = "Relative error of the rate (0.01 to 0.1, step_size 2000; restarts from 0.1 to 0, first_cycle 10)"
TIMED = {
    "Time of a call": (cost.pairs, cost.ROUNDS),
    "What is done once": (once.pairs, once.ROUNDS),
    "Range tests and searches": (once.range_tests, once.TEST_ROUNDS),
}
HEADINGS = ("clr", "against", "clr's", "the other's", "clr : other")


def sections(only: str, rounds: int | None) -> Iterator[tuple[str, Iterator[Line]]]:
    """The parts of the table, each with its heading. Each line is measured when it is asked for."""
    yield EXACT, (accuracy.line(case) for case in accuracy.cases() if only in f"{case.name}, {case.other_name}")
    for title, (pairs, own) in TIMED.items():
        count = rounds or own
        named = (pair for pair in pairs() if only in f"{pair.name}, {pair.other_name}")
        yield f"{title}, medians of {count} rounds", map(partial(timed, rounds=count), named)


def main(
    markdown: Annotated[bool, typer.Option(help="A table for a page.")] = False,
    only: Annotated[str, typer.Option(help="Only lines with this text in their first two columns.")] = "",
    rounds: Annotated[int | None, typer.Option(min=6, help="Rounds, in place of the default of each part.")] = None,
) -> None:
    """Print the table."""
    packages = ", ".join(map(_with_version, PACKAGES))
    print(f"{packages}; Python {platform.python_version()}, {os.cpu_count()} cores\n", flush=True)
    if markdown:
        print(f"{markdown_row(HEADINGS)}\n| --- | --- | ---: | ---: | ---: |")
    table = Table(*HEADINGS)
    for column in table.columns[2:]:
        column.justify = "right"
    for section, lines in sections(only, rounds):
        if markdown:
            print(f"| **{section}** | | | | |")
        table.add_section()
        table.add_row(f"[bold]{section}")
        for line in lines:
            if markdown:
                print(markdown_row(line), flush=True)
            table.add_row(*line)
    if not markdown:
        Console(width=None if sys.stdout.isatty() else 170).print(table)


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}, whose lines are left out"


if __name__ == "__main__":
    typer.run(main)
