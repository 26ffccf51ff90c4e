"""``python -m benchmarks.cifar10 --data PATH`` makes the paper's CIFAR-10 case again; it can be stopped and resumed."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

import clr
from benchmarks.cifar10 import cifar10

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C has ended


def main(
    data: Annotated[
        Path, typer.Option(help="cifar-10-binary.tar.gz, or the folder with its .bin files.", show_default=False)
    ],
    total_steps: Annotated[
        list[int] | None, typer.Option(min=1, help="Updates per run, by default 25000 and 70000.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per schedule and length.")] = 1,
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
    """Train a small network at a fixed rate with two drops, and under the paper's policies.

    The paper's 70,000 iterations are those of Caffe's full network. This takes hours. Every run is kept as soon as it
    ends, and the same command goes on after a crash or Ctrl-C.
    """
    runs = runs or Path(f"clr-cifar10-{network}.sqlite")
    out = out or Path(f"clr-cifar10-{network}.html")
    try:
        cifar10.load(data)  # bad data ends the command here, not in each worker
        result = clr.compare(
            cifar10.Training(str(data.absolute()), network, device),
            cifar10.schedules(),
            seeds=seeds,
            total_steps=total_steps or cifar10.TOTAL_STEPS,
            metric="accuracy",
            goal="max",
            workers=workers,
            file=runs,
            name=f"cifar10 {network}",
        )
    except KeyboardInterrupt:
        print(f"Interrupted: {runs} has the runs that are complete.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    Console().print(result.table())
    result.report(out)
    print(out)


if __name__ == "__main__":
    typer.run(main)
