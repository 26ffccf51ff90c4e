"""The ``clr`` command: look at schedules, and see them train."""

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError:
    print("clr: the command needs Typer and rich: pip install 'cyclic-learning-rate[cli]'", file=sys.stderr)
    raise SystemExit(2) from None

import clr
from clr import checks
from clr.finder.curve import RULES
from clr.finder.result import STOPS
from clr.schedules.cyclic import GAMMA, Cyclic

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C has ended

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Cyclical learning rates: look at a schedule, print its values, or see the policies train.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

range_test_app = typer.Typer(no_args_is_help=True, help="Judge and draw an LR range test that was saved as JSON.")
app.add_typer(range_test_app, name="range-test")


study_app = typer.Typer(no_args_is_help=True, help="Make published experiments again, where their data is.")
app.add_typer(study_app, name="study")


class Policy(StrEnum):
    """The modes of a schedule."""

    triangular = "triangular"
    triangular2 = "triangular2"
    exp_range = "exp_range"


class Framework(StrEnum):
    """What the demonstration can train with."""

    tensorflow = "tensorflow"
    keras = "keras"
    torch = "torch"
    jax = "jax"
    all = "all"


# What the demonstration imports, and what people call it.
NEEDS: dict[Framework, dict[str, str]] = {
    Framework.tensorflow: {"tensorflow": "TensorFlow"},
    Framework.keras: {"keras": "Keras", "tensorflow": "TensorFlow"},
    Framework.torch: {"torch": "PyTorch"},
    Framework.jax: {"jax": "JAX", "optax": "Optax"},
}

FileArgument = Annotated[Path, typer.Argument(help="A file that `RangeTest.to_json` was written to.")]
PolicyArgument = Annotated[Policy, typer.Argument(help="The policy, the schedule's mode.")]
BaseOption = Annotated[float, typer.Option(help="The lower bound of the rate.")]
MaxOption = Annotated[float, typer.Option(help="The upper bound of the rate.")]
SizeOption = Annotated[float, typer.Option(help="Steps from the lower to the upper bound: half a cycle.")]
DownOption = Annotated[float | None, typer.Option(help="Steps back down, by default as many.", show_default=False)]
GammaOption = Annotated[float, typer.Option(help="The factor per step of exp_range.")]


class RefusedError(Exception):
    """Something the user asked for that can't be done; the message says it in a line."""


def main() -> NoReturn:
    """Runs the command; what is wrong with its use is told in one line, with exit code 2."""
    usage_error: Any = typer.BadParameter.__bases__[0]  # what every wrong use of the command raises
    try:
        code = app(prog_name="clr", standalone_mode=False)
    except (RefusedError, usage_error) as error:
        message = error.format_message() if isinstance(error, usage_error) else str(error)
        if message:
            print(f"clr: {' '.join(message.split())}", file=sys.stderr)
        code = 2
    except typer.Abort:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        code = 0
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(clr.__version__)
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    framework: Annotated[
        Framework, typer.Option(help="What to train with, or all: one after the other.")
    ] = Framework.tensorflow,
    steps: Annotated[int, typer.Option(min=20, help="Updates per run.")] = 760,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per policy, each from other initial weights.")] = 5,
    policy: Annotated[
        list[Policy] | None, typer.Option(help="A policy to set against the fixed rate, by default each.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the pictures and the numbers.")] = Path("clr-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Find the rates for a small network by an LR range test, and train it on real handwritten digits.

    It is trained at a fixed rate, and under each policy between the bounds; all of these rates are what the test has
    found. With all frameworks it is the first that makes the test. Every run has the same budget of steps, and the same
    seeds give the same initial weights and batches, in every framework. At the end there is a table, a line that
    compares the applied rates with the schedule's, and three pictures: the range test, the rates over the steps and the
    accuracies over the steps. Ctrl-C ends early and reports the runs that are complete.
    """
    frameworks: list[Framework] = list(NEEDS) if framework is Framework.all else [framework]
    with _refusals():
        _demand(framework, frameworks)
        _make_folder(out)
    notes = Console(stderr=True)
    notes.print("Loading the digits and what trains on them")
    with _silenced_start():
        from clr.demo import report, training

        training.digits()
        trainers = {name.value: import_module(f"clr.demo.{name}") for name in frameworks}

    first = next(iter(trainers))
    test = trainers[first].range_test()
    if test.stop == "interrupted":
        notes.print("Interrupted in the LR range test.")
        raise typer.Exit(INTERRUPTED)
    with _refusals():
        rates = training.Rates.of(test)
        paths = report.save_test(test, out)
    (notes if as_json else Console()).print(report.found_in_words(test, first), soft_wrap=True, highlight=False)

    policies = [training.FIXED, *dict.fromkeys(policy or Policy)]
    planned = [(kind, name, seed) for kind in trainers for name in policies for seed in range(seeds)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    runs: list[training.Run] = []
    interrupted = False
    with Progress(*columns, TextColumn("{task.fields[now]}"), console=notes) as progress:
        bar = progress.add_task("", total=len(planned) * steps, now="")
        try:
            for kind, name, seed in planned:
                progress.update(bar, description=f"{kind}: {name}, seed {seed + 1} of {seeds}")
                for run in trainers[kind].train(name, seed, steps, rates):
                    now = f"loss {run.losses[-1]:.3f}  rate {run.rates[-1]:.4f}"
                    progress.update(bar, advance=1, now=now)
                runs.append(run)
        except KeyboardInterrupt:
            interrupted = True

    if interrupted:
        notes.print(f"Interrupted: {len(runs)} of {len(planned)} runs are complete.")
    if runs:
        rows = report.summary(runs, rates)
        with _refusals():
            paths += report.save(runs, rows, rates, out)
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            Console().print(report.table(rows, steps))
        for line in (*report.rates_in_words(runs, rates), *map(str, paths)):
            (notes if as_json else Console()).print(line, soft_wrap=True, highlight=False)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def compare(
    what: Annotated[str, typer.Argument(help="MODULE:FUNCTION, what trains; or `report`.", metavar="MODULE:FUNCTION")],
    file: Annotated[
        Path | None, typer.Argument(help="After `report`: the file of the runs.", show_default=False)
    ] = None,
    schedules: Annotated[
        Path | None, typer.Option(help="A JSON file with the data of a schedule for each name.", show_default=False)
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="The budget in updates; can be given again.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per schedule and budget.")] = 5,
    metric: Annotated[str | None, typer.Option(help="What to compare.", show_default=False)] = None,
    goal: Annotated[Literal["min", "max"] | None, typer.Option(help="What is better.", show_default=False)] = None,
    target: Annotated[
        float | None, typer.Option(help="The value for which iterations are counted.", show_default=False)
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
    out: Annotated[Path | None, typer.Option(help="A page of HTML to write.", show_default=False)] = None,
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How to print the result.")
    ] = "table",
    differences: Annotated[
        bool, typer.Option("--differences", help="Print differences between schedules, seed by seed. JSON has both.")
    ] = False,
) -> None:
    """Compare schedules on a training of your own: `clr compare MODULE:FUNCTION`, or `clr compare report FILE`.

    The function takes a schedule, a seed and a number of updates, and gives pairs of a step and its metrics. Every run
    is kept as soon as it is over, and the same command goes on after a crash or Ctrl-C. `report` prints what a file
    has, also while it grows, and writes the page `clr-compare.html`. `--range-test` takes the test that the bounds are
    from: a constant rate needs none, so the updates of the test are counted in for all other schedules.
    """
    with _refusals():
        if what == "report":
            if file is None:
                raise RefusedError("compare report needs the file of the runs")
            with _reading(file):
                result = clr.Comparison.load(file, metric, goal, target)
            out = out or Path("clr-compare.html")
        else:
            if file is not None or schedules is None or not steps:
                raise RefusedError("compare MODULE:FUNCTION needs --schedules and --steps, and no other argument")
            train, named = _trainer(what), _named_schedules(schedules)
            options: dict[str, Any] = {"metric": metric, "goal": goal, "target": target, "file": runs}
            if range_test is not None:
                test = _range_test(range_test)
                updates = sum(loss is not None for sweep in test.sweeps for loss in sweep.losses)
                varied = [name for name, schedule in named.items() if schedule.limits[0] < schedule.limits[1]]
                options |= {"range_test": test, "before": dict.fromkeys(varied, updates)}
            try:
                result = clr.compare(train, named, seeds=seeds, steps=steps, engine=engine, workers=workers, **options)
            except KeyboardInterrupt:
                print(f"Interrupted: {runs} has the runs that are complete.", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from None
            except (TypeError, RuntimeError) as error:
                raise RefusedError(str(error)) from error
        part: Literal["results", "differences"] = "differences" if differences else "results"
        if form == "table":
            Console().print(result.table(part))
        else:
            print(result.to_csv(part) if form == "csv" else result.to_json(), end="" if form == "csv" else "\n")
        if out is not None:
            result.report(out)
            print(out, file=sys.stderr if form != "table" else sys.stdout)


@study_app.command("cifar10")
def cifar10(
    data: Annotated[
        Path, typer.Option(help="cifar-10-binary.tar.gz, or the folder with its .bin files.", show_default=False)
    ],
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="The budget in updates, by default 25000 and 70000.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per schedule and budget.")] = 1,
    network: Annotated[Literal["full", "quick"], typer.Option(help="Which of Caffe's two networks.")] = "full",
    device: Annotated[str, typer.Option(help="Where PyTorch trains, such as cuda.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes, by default one per core.", show_default=False)
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="The file that keeps the runs, by default clr-cifar10-NETWORK.sqlite.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page of HTML to write, by default clr-cifar10-NETWORK.html.")
    ] = None,
) -> None:
    """Make the paper's CIFAR-10 case again: a small network at a fixed rate with two drops, and under the policies.

    The paper's 70,000 iterations are those of Caffe's full network. It takes hours. Every run is kept as soon as it is
    over, and the same command goes on after a crash or Ctrl-C.
    """
    with _refusals():
        from benchmarks.cifar10 import cifar10 as case

        with _reading(data):
            case.load(data)  # so that what is wrong with it is told at once
        train = case.Training(str(data.absolute()), network, device)
        runs = runs or Path(f"clr-cifar10-{network}.sqlite")
        out = out or Path(f"clr-cifar10-{network}.html")
        budgets = list(steps or case.STEPS)
        options: dict[str, Any] = {"metric": "accuracy", "goal": "max", "workers": workers, "file": runs}
        try:
            result = clr.compare(train, case.schedules(), seeds=seeds, steps=budgets, **options)
        except KeyboardInterrupt:
            print(f"Interrupted: {runs} has the runs that are complete.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        Console().print(result.table())
        result.report(out)
        print(out)


def _trainer(what: str) -> Any:
    """The function that is named as MODULE:FUNCTION."""
    module, separator, name = what.partition(":")
    if not separator or not module or not name:
        raise RefusedError(f"what trains must be named as MODULE:FUNCTION. Received: {what}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with `python -m`, the folder one is in counts
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RefusedError(f"cannot find {what}: {error}") from error


def _named_schedules(file: Path) -> dict[str, clr.Schedule]:
    """The schedules that a file holds."""
    try:
        with _reading(file):
            data = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=checks.unique)
        return {name: clr.from_dict(value) for name, value in checks.mapping("schedules", data).items()}
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{file} has no schedules: {error}") from error


@app.command()
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
    with _refusals():
        schedule = _schedule(policy, base_lr, max_lr, step_size, step_size_down, gamma)
        from clr.plot import save

        save(schedule.plot(steps), out)
    print(schedule.describe())
    print(out)


@app.command()
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
    """Print the rate of each step, exactly, as CSV or JSON."""
    with _refusals():
        schedule = _schedule(policy, base_lr, max_lr, step_size, step_size_down, gamma)
        count = math.ceil(schedule.period) if steps is None else steps
        rows = ((step, schedule(step)) for step in range(start, start + count, every))
        with open(out, "w", newline="") if out else nullcontext(sys.stdout) as file:
            if form == "csv":
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("step", "learning_rate"))
                writer.writerows(rows)
            else:
                json.dump([{"step": step, "learning_rate": rate} for step, rate in rows], file, indent=1)
                file.write("\n")


@range_test_app.command("show")
def show(file: FileArgument, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print what an LR range test has found: its bounds, or why there are none, and the rate by each rule."""
    with _refusals():
        test = _range_test(file)
    rates: dict[str, float | None] = {}
    for rule in RULES:
        try:
            rates[rule] = test.suggest(rule)
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
        reached = f", up to {test.rates[-1]:.3g}" if test.rates else ""
        passes = f", {len(test.sweeps)} of {test.repeats} repeats" if test.repeats > 1 else ""
        limit = "" if test.time_limit is None else f", at most {test.time_limit:g} seconds"
        print(f"{found['steps']} of {test.num_steps} steps{reached}{passes}{limit}: {STOPS[test.stop]}.")
        if found["base_lr"] is not None:
            print(f"base_lr {found['base_lr']!r}\nmax_lr {found['max_lr']!r}\nconfidence {found['confidence']:.2f}")
        print(found["reason"])
        for rule, rate in rates.items():
            print(f"{rule} {'-' if rate is None else f'{rate:.3g}'}")
    if found["base_lr"] is None:
        raise typer.Exit(1)


@range_test_app.command("plot")
def plot_range_test(
    file: FileArgument,
    scale: Annotated[
        Literal["log", "linear"] | None, typer.Option(help="The axis of the rates.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write; the ending gives its format.")] = Path(
        "clr-range-test.png"
    ),
) -> None:
    """Draw the losses of an LR range test over its rates, with the bounds, the rules and the stop."""
    with _refusals():
        test = _range_test(file)
        from clr.plot import save

        save(test.plot(scale=scale), out)
    print(out)


def _range_test(file: Path) -> clr.RangeTest:
    """The range test that a file holds."""
    try:
        with _reading(file):
            return clr.RangeTest.from_json(file.read_text(encoding="utf-8"))
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{file} is not a range test: {error}") from error


def _schedule(
    policy: Policy, base_lr: float, max_lr: float, step_size: float, step_size_down: float | None, gamma: float
) -> Cyclic:
    return clr.cyclic(base_lr, max_lr, step_size, step_size_down, policy, gamma)


def _demand(framework: Framework, frameworks: Iterable[Framework]) -> None:
    """Refuses a demonstration for which something is not installed."""
    needs = {module: name for kind in frameworks for module, name in NEEDS[kind].items()}
    needs |= {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    missing = [name for module, name in needs.items() if find_spec(module) is None]
    if missing:
        default = framework is Framework.tensorflow
        command = "demo" if default else f"demo --framework {framework}"
        extras = "demo" if default else f"demo,{framework}"
        raise RefusedError(f"{command} needs {' and '.join(missing)}: pip install 'cyclic-learning-rate[{extras}]'")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says of which file it is that it cannot be read."""
    try:
        yield
    except OSError as error:
        raise RefusedError(f"cannot read {error.filename or path}: {error.strerror}") from error


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the library and the file system refuse into a line for the user."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RefusedError(f"cannot write {error.filename or 'the output'}: {error.strerror}") from error
    except (ValueError, ImportError) as error:
        raise RefusedError(str(error)) from error


@contextmanager
def _silenced_start() -> Iterator[None]:
    """Hides what TensorFlow's C++ side writes to the terminal while it starts, before it can be told not to."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _make_folder(path: Path) -> None:
    """Makes the folder and proves that files can be written in it, before there are results to lose."""
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.touch()
    probe.unlink()
