"""``clr demo``: the policies train on real data."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from clr import progress
from clr.cli.common import INTERRUPTED, RefusedError, console, refusals, using

if TYPE_CHECKING:
    from clr.demo.training import Planned, Run


class Framework(StrEnum):
    """What the demonstration can train with."""

    tensorflow = "tensorflow"
    keras = "keras"
    torch = "torch"
    jax = "jax"
    all = "all"


class Policy(StrEnum):
    """What the demonstration can compare with the fixed rate."""

    triangular = "triangular"
    triangular2 = "triangular2"
    exp_range = "exp_range"
    one_cycle = "one_cycle"


# What the demonstration imports, and what people call it.
NEEDS: dict[Framework, dict[str, str]] = {
    Framework.tensorflow: {"tensorflow": "TensorFlow"},
    Framework.keras: {"keras": "Keras", "tensorflow": "TensorFlow"},
    Framework.torch: {"torch": "PyTorch"},
    Framework.jax: {"jax": "JAX", "optax": "Optax"},
}


def command(
    framework: Annotated[
        Framework, typer.Option(help="What to train with, or all: one after the other.")
    ] = Framework.tensorflow,
    total_steps: Annotated[int, typer.Option(min=20, max=100_000, help="Updates per run.")] = 760,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs per policy, each with other initial weights.")] = 5,
    policy: Annotated[
        list[Policy] | None, typer.Option(help="A policy to compare with the fixed rate, by default each.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the pictures and the numbers.")] = Path("clr-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Search bounds of the learning rate for a small network, and train it on real handwritten digits.

    It trains under each policy between the bounds, and at a fixed rate: the best of 0.01, 0.03 and 0.1, each of which
    gets a third of the updates that the search made. So both cost the same. The digits for testing choose the fixed
    rate, which is to its advantage: the search judges by digits for training that it holds out. With all frameworks,
    the first finds the rates. Every run makes the same number of updates. The same seeds give the same initial weights
    and batches in every framework. At the end there is a table, a line that compares the applied rates with those of
    the schedule, and four pictures: the range test, the search, the rates and the accuracies over the steps. Ctrl-C
    ends early and reports the runs that are complete.
    """
    frameworks: list[Framework] = list(NEEDS) if framework is Framework.all else [framework]
    _demand(framework, frameworks)
    with using(out, "write"):
        _make_folder(out)
    notes = console(stderr=True)
    text = notes if as_json else console()
    notes.print("Loading the digits and the frameworks")
    with refusals(), _silenced_start():
        from clr.demo import report, training

        training.digits()
        trainers = {name.value: import_module(f"clr.demo.{name}") for name in frameworks}

    first = next(iter(trainers))
    search = trainers[first].search(total_steps)
    if search.stop == "interrupted":
        notes.print("Interrupted in the search.")
        raise typer.Exit(INTERRUPTED)
    with refusals(), using(out, "write"):
        paths = report.save_search(search, out)
        found = report.search_in_words(search, first)
    text.print(found, soft_wrap=True)
    usual = training.tries(first, search)
    tries = _train(trainers, usual)
    if len(tries) < len(usual):
        notes.print("Interrupted in the choice of the fixed rate.")
        raise typer.Exit(INTERRUPTED)
    rates = training.Rates.of(search, tries)
    text.print(report.fixed_in_words(tries, rates), soft_wrap=True)

    policies = [training.FIXED, *dict.fromkeys(policy or Policy)]
    planned = [
        training.Planned(kind, name, seed, total_steps, rates)
        for kind in trainers
        for name in policies
        for seed in range(seeds)
    ]
    runs = _train(trainers, planned)
    interrupted = len(runs) < len(planned)
    if interrupted:
        notes.print(f"Interrupted: {len(runs)} of {len(planned)} runs are complete.")
    if runs:
        rows = report.summary(runs, rates)
        with using(out, "write"):
            paths += report.save(runs, rows, rates, tries, out)
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            text.print(report.table(rows, total_steps))
        for line in (*report.rates_in_words(runs, rates), *map(str, paths)):
            text.print(line, soft_wrap=True)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _train(trainers: dict[str, ModuleType], planned: "list[Planned]") -> "list[Run]":
    """Makes the runs that are planned. Gives those that are complete before Ctrl-C."""
    runs: list[Run] = []
    done = 0
    try:
        with progress.bar(None, sum(plan.total_steps for plan in planned), "Training") as show:
            for kind, *given in planned:
                for run in trainers[kind].train(*given):
                    done += 1
                    now = f"loss {run.losses[-1]:.3f} rate {run.rates[-1]:.4f}"
                    show(done, now, f"{kind}: {run.policy}, seed {run.seed}")
                runs.append(run)
    except KeyboardInterrupt:
        pass
    return runs


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
def _silenced_start() -> Iterator[None]:
    """Hides what TensorFlow's C++ side writes to the terminal while it starts. No setting can hide it that early."""
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
    """Makes the folder and writes a file there, so that a folder that cannot be written is found before training."""
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.touch()
    probe.unlink()
