"""Calls the command in this process."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Literal, TextIO
from unittest.mock import patch

from clr.cli import main


def called(*arguments: object, out: TextIO | Literal["kept"] | None = "kept") -> tuple[int, str, str]:
    """Calls the command in this process: its exit code, its output, if it is kept, and its errors."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        redirect_stdout(output if out == "kept" else out),
        redirect_stderr(errors),
        patch.object(sys, "argv", ["clr", *map(str, arguments)]),
        patch.object(sys, "path", [*sys.path]),  # which `compare` changes
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    for stream in (output, errors):
        stream.flush()
        stream.seek(0)
    return code, output.read(), errors.read()
