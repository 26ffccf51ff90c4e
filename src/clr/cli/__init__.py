"""The ``clr`` command: look at schedules and range tests, compare schedules, and see them train."""

import sys
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
    """Runs the command. Wrong use is reported in one line, with exit code 2."""
    usage_error: Any = typer.BadParameter.__bases__[0]  # the base of all errors about how the command is used
    try:
        code = app(prog_name="clr", standalone_mode=False)
    except (RefusedError, usage_error) as error:
        message = error.format_message() if isinstance(error, usage_error) else str(error)
        if message:
            print(f"clr: {' '.join(message.split())}", file=sys.stderr)
        code = 2
    except typer.Abort:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        sys.stderr.close()
        code = 0
    sys.exit(code)


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
