"""The ``clr`` command: look at schedules and range tests, compare schedules, and see them train."""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

try:
    import rich  # noqa: F401  # for the modules below
    import typer
except ImportError:
    print("clr: the command needs Typer and rich: pip install 'cyclic-learning-rate[cli]'", file=sys.stderr)
    raise SystemExit(2) from None

from clr.cli import compare, demo, range_test, schedules
from clr.cli.common import INTERRUPTED, RefusedError
from clr.version import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Cyclical learning rates: look at a schedule or a range test, compare schedules, or see the policies train.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.command)
app.command("compare")(compare.command)
app.command("plot")(schedules.plot)
app.command("values")(schedules.values)
app.add_typer(range_test.app, name="range-test")


def main() -> NoReturn:
    """Runs the command. What cannot be done is reported in one line, with exit code 2."""
    usage_error: Any = typer.BadParameter.__bases__[0]  # the base of all errors about how the command is used
    try:
        _prepare()
        code = app(prog_name="clr", standalone_mode=False)
        sys.stdout.flush()
    except usage_error as error:
        code = _refuse(error.format_message())
    except RefusedError as error:
        code = _refuse(str(error))
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        code = _discard_output()
    except SystemExit as end:  # how Typer ends then
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        code = _discard_output()
    except OSError as error:
        _discard_output()
        place = f"cannot write {error.filename or 'the output'}: {error.strerror}"
        code = _refuse(place if error.strerror else str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    sys.exit(code)


def _prepare() -> None:
    """Sees to it that everything can be printed, and that no file gets the number of a stream that is closed."""
    if sys.stdout is None:
        raise RefusedError("the standard output is closed. To print nothing, send it to /dev/null.")
    for number in (0, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # without, `print` would take the standard output
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the terminal cannot print
    for argument in sys.argv:
        if "\0" in argument:
            raise RefusedError(f"no argument may have a NUL character. Received: {argument!r}.")


def _refuse(message: str) -> int:
    """Says in a line what is wrong, without what could move the cursor."""
    line = " ".join(message.split())
    if line:
        line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)
        with suppress(OSError):
            print(f"clr: {line}", file=sys.stderr, flush=True)
    return 2


def _discard_output() -> int:
    """Drops what is still to be printed, or Python would try again at its end, and print a traceback."""
    with suppress(OSError), open(os.devnull, "w") as nowhere:  # a stream of a test has no number
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass
