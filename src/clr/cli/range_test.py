"""``clr range-test``: the words and the picture of a range test that was saved."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import clr
from clr.cli.common import read_range_test, refusals, save_picture
from clr.finder.curve import RULES

app = typer.Typer(no_args_is_help=True, help="Print or draw an LR range test that was saved as JSON.")

FileArgument = Annotated[Path, typer.Argument(help="A file with the text of `RangeTest.to_json`.")]


@app.command()
def show(file: FileArgument, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print what an LR range test has found: its bounds, or why there are none, and the rate by each rule.

    The exit code is 1 if there are no bounds.
    """
    test = read_range_test(file)
    rates: dict[str, float | None] = {}
    for rule in RULES:
        try:
            rates[rule] = test.curve.suggest(rule)  # which `describe` marks where there are no bounds
        except clr.NoBoundsError:
            rates[rule] = None
    settings = {"repeats": test.repeats, "time_limit": test.time_limit}
    found: dict[str, Any] = {"stop": test.stop, "steps": len(test.rates), **settings, "rules": rates}
    try:
        found |= asdict(test.bounds())
    except clr.NoBoundsError as refusal:
        found |= {"base_lr": None, "max_lr": None, "confidence": 0.0, "reason": str(refusal)}
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(test.describe())
        for rule, rate in rates.items():
            print(f"{rule} {'-' if rate is None else f'{rate:.3g}'}")
    if found["base_lr"] is None:
        raise typer.Exit(1)


@app.command()
def plot(
    file: FileArgument,
    scale: Annotated[
        Literal["log", "linear"] | None, typer.Option(help="The axis of the rates.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write; the ending gives its format.")] = Path(
        "clr-range-test.png"
    ),
) -> None:
    """Draw the losses of an LR range test over its rates, with the bounds, the rules and the stop."""
    with refusals():
        save_picture(read_range_test(file).plot(scale=scale), out)
    print(out)
