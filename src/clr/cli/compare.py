"""``clr compare``: schedules compared on a training of the user's."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from traceback import extract_tb, format_exception_only
from typing import Annotated, Any, Literal

import typer

import clr
from clr import checks
from clr.cli.common import INTERRUPTED, RefusedError, console, expecting, read_json, read_range_test, refusals, using
from clr.schedules.serialize import from_dict

Format = Literal["table", "csv", "json"]

# What messages call the arguments of `clr.compare`, and their names here.
OPTIONS = {
    "`fresh=True`": "--fresh",
    "`reuse=True`": "--reuse",
    "another `file`": "another --runs",
    "`name=": "`--name ",
}


def command(
    what: Annotated[str, typer.Argument(help="MODULE:FUNCTION, what trains; or `report`.", metavar="MODULE:FUNCTION")],
    file: Annotated[
        Path | None, typer.Argument(help="After `report`: the file of the runs.", show_default=False)
    ] = None,
    schedules: Annotated[
        Path | None, typer.Option(help="A JSON file with the data of a schedule for each name.", show_default=False)
    ] = None,
    total_steps: Annotated[
        list[int] | None,
        typer.Option(min=1, max=2**53, help="Updates per run; can be given again.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Runs per schedule and number of updates.")] = 5,
    metric: Annotated[str | None, typer.Option(help="What to compare.", show_default=False)] = None,
    goal: Annotated[Literal["min", "max"] | None, typer.Option(help="What is better.", show_default=False)] = None,
    target: Annotated[
        float | None, typer.Option(help="Count the updates until the metric has this value.", show_default=False)
    ] = None,
    range_test: Annotated[
        Path | None,
        typer.Option(help="A saved range test; its updates count for all but constant schedules.", show_default=False),
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Where to train.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes, by default one per core.", show_default=False)
    ] = None,
    runs: Annotated[Path, typer.Option(help="The file that keeps the runs.")] = Path("clr-compare.sqlite"),
    name: Annotated[
        str | None, typer.Option(help="The name of the training, by default MODULE:FUNCTION.", show_default=False)
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the runs that the file has, and make all anew.")
    ] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Use the runs that the file has, though the code has changed.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A page of HTML to write.", show_default=False)] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = "table",
    differences: Annotated[
        bool, typer.Option("--differences", help="Print differences between schedules, seed by seed. JSON has both.")
    ] = False,
) -> None:
    """Compare schedules on a training of your own: `clr compare MODULE:FUNCTION`, or `clr compare report FILE`.

    The function takes a schedule, a seed and a number of updates, and yields pairs of a step and its metrics. The file
    keeps every run as soon as it is over. After a crash or Ctrl-C, the same command goes on where it was. If the code
    has changed since, choose `--fresh` or `--reuse`. `report` prints what a file has, also while it grows, and writes
    the page `clr-compare.html`. `--range-test` takes the test that found the bounds. A constant rate needs no test, so
    the updates of the test count for all other schedules.
    """
    with refusals():
        if what == "report":
            if file is None:
                raise RefusedError("compare report needs the file of the runs")
            with using(file, "read"):
                result = clr.Comparison.load(file, metric, goal, target)
            out = out or Path("clr-compare.html")
        else:
            if file is not None or schedules is None or not total_steps:
                raise RefusedError("compare MODULE:FUNCTION needs --schedules and --total-steps, and no other argument")
            train, named = _trainer(what), _named_schedules(schedules)
            options: dict[str, Any] = {"metric": metric, "goal": goal, "target": target, "file": runs, "name": name}
            options |= {"seeds": seeds, "total_steps": total_steps, "engine": engine, "workers": workers}
            if range_test is not None:
                options |= _tested(range_test, named)
            try:
                result = clr.compare(train, named, fresh=fresh, reuse=reuse, **options)
            except KeyboardInterrupt:
                print(f"Interrupted: {runs} has the runs that are complete.", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from None
            except (TypeError, ValueError, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.strerror:  # which `main` puts into words
                    raise
                message = str(error)
                for name, option in OPTIONS.items():
                    message = message.replace(name, option)
                raise RefusedError(message) from error
        if out is not None:
            with using(out, "write"):
                result.report(out)
        _print(result, form, "differences" if differences else "results")
        if out is not None:
            print(out, file=sys.stderr if form != "table" else sys.stdout)


def _print(result: clr.Comparison, form: Format, part: Literal["results", "differences"]) -> None:
    if form == "table":
        console().print(result.table(part))
    else:
        print(result.to_csv(part) if form == "csv" else result.to_json(), end="" if form == "csv" else "\n")


def _trainer(what: str) -> Callable[..., Iterable[tuple[int, Mapping[str, Any]]]]:
    """The function that MODULE:FUNCTION names."""
    module, separator, name = what.partition(":")
    if not separator or not name or not module or module.startswith("."):
        raise RefusedError(f"what trains must be named as MODULE:FUNCTION. Received: {what}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as with `python -m`
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module does
        raise RefusedError(f"cannot find {what}: {_in_a_line(error)}") from error


def _in_a_line(error: BaseException) -> str:
    """An error of a module, with its place."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error}"  # which names the place
    text = format_exception_only(error)[0]
    if isinstance(error, ImportError | AttributeError):
        return text
    last = extract_tb(error.__traceback__)[-1]
    return f"{text.rstrip()} (in {Path(last.filename).name}, line {last.lineno})"


def _named_schedules(file: Path) -> dict[str, clr.Schedule]:
    """The schedules in a file, by their names."""
    with expecting("a file of schedules", file):
        named = {}
        for name, data in checks.mapping("schedules", read_json(file)).items():
            try:
                named[name] = from_dict(data)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name!r}: {error}") from error
        return named


def _tested(file: Path, schedules: Mapping[str, clr.Schedule]) -> dict[str, Any]:
    """The range test in a file, and its updates for the schedules that needed it."""
    test = read_range_test(file)
    updates = sum(loss is not None for sweep in test.sweeps for loss in sweep.losses)
    varied = [name for name, schedule in schedules.items() if schedule.limits[0] < schedule.limits[1]]
    return {"range_test": test, "before": dict.fromkeys(varied, updates)}
