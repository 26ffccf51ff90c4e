"""Prints one table of what the library costs, and how exact it is, against everything else that can be installed."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import accuracy, cost, once
from benchmarks.tables import markdown_row

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
]
SECTIONS = {
    "Relative error of the rate (0.01 to 0.1, step_size 2000; restarts from 0.1 to 0, first_cycle 10)": accuracy.lines,
    f"Time of a call, medians of {cost.ROUNDS} rounds": cost.lines,
    f"What is done once, medians of {once.ROUNDS} rounds": once.lines,
    f"Range tests, medians of {once.TEST_ROUNDS} rounds": once.test_lines,
}
HEADINGS = ("clr", "against", "clr's", "the other's", "clr : other")


def main(markdown: Annotated[bool, typer.Option(help="A table for a page.")] = False) -> None:
    """Print the table."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"{packages}; Python {platform.python_version()}, {os.cpu_count()} cores\n", flush=True)
    if markdown:
        print(f"{markdown_row(HEADINGS)}\n| --- | --- | ---: | ---: | ---: |")
    table = Table(*HEADINGS)
    for column in table.columns[2:]:
        column.justify = "right"
    for section, lines in SECTIONS.items():
        if markdown:
            print(f"| **{section}** | | | | |")
        table.add_section()
        table.add_row(f"[bold]{section}")
        for line in lines():
            if markdown:
                print(markdown_row(line), flush=True)
            table.add_row(*line)
    if not markdown:
        Console(width=None if sys.stdout.isatty() else 170).print(table)


typer.run(main)
