"""``clr plot`` and ``clr values``: the rates of a schedule, as a picture and as numbers."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

import clr
from clr.cli.common import Policy, RefusedError, refusals, save_picture, using
from clr.schedules.cyclic import GAMMA, Cyclic

MOST_ROWS = 1_000_000

PolicyArgument = Annotated[Policy, typer.Argument(help="The policy, which is the mode of the schedule.")]
BaseOption = Annotated[float, typer.Option(help="The lower bound of the rate.")]
MaxOption = Annotated[float, typer.Option(help="The upper bound of the rate.")]
SizeOption = Annotated[float, typer.Option(help="Steps from the lower to the upper bound: half a cycle.")]
DownOption = Annotated[float | None, typer.Option(help="Steps back down, by default as many.", show_default=False)]
GammaOption = Annotated[float, typer.Option(help="The factor per step of exp_range.")]


def plot(
    policy: PolicyArgument = Policy.triangular,
    base_lr: BaseOption = 0.01,
    max_lr: MaxOption = 0.1,
    step_size: SizeOption = 20,
    step_size_down: DownOption = None,
    gamma: GammaOption = GAMMA,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps to draw, by default four cycles.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write; the ending gives its format.")] = Path("clr.png"),
) -> None:
    """Draw the rates of a schedule, and describe it in words."""
    with refusals():
        schedule = _schedule(policy, base_lr, max_lr, step_size, step_size_down, gamma)
        save_picture(schedule.plot(steps), out)
    print(schedule.describe())
    print(out)


def values(
    policy: PolicyArgument = Policy.triangular,
    base_lr: BaseOption = 0.01,
    max_lr: MaxOption = 0.1,
    step_size: SizeOption = 20,
    step_size_down: DownOption = None,
    gamma: GammaOption = GAMMA,
    start: Annotated[int, typer.Option(min=0, help="The first step.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many steps, by default one cycle.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Print every n-th step.")] = 1,
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="How to write them.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file, instead of the terminal.", show_default=False)] = None,
) -> None:
    """Print the exact rate of each step, as CSV or JSON."""
    with refusals():
        schedule = _schedule(policy, base_lr, max_lr, step_size, step_size_down, gamma)
        count = math.ceil(schedule.period) if steps is None else steps
        at = range(start, start + count, every)
        if len(at[: MOST_ROWS + 1]) > MOST_ROWS:
            raise RefusedError(f"values prints at most {MOST_ROWS:,} steps. Choose --steps, or a larger --every.")
        rows = ((step, schedule(step)) for step in at)
        with _opened(out) as file:
            if form == "csv":
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("step", "learning_rate"))
                writer.writerows(rows)
            else:
                json.dump([{"step": step, "learning_rate": rate} for step, rate in rows], file, indent=1)
                file.write("\n")


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """The file that a user has named, or else the standard output."""
    if out is None:
        yield sys.stdout
    else:
        with using(out, "write"), open(out, "w", newline="") as file:
            yield file


def _schedule(
    policy: Policy, base_lr: float, max_lr: float, step_size: float, step_size_down: float | None, gamma: float
) -> Cyclic:
    return clr.cyclic(base_lr, max_lr, step_size, step_size_down=step_size_down, mode=policy.value, gamma=gamma)
