"""How the tests call the command."""

import sys
from collections.abc import Callable

import pytest

from clr.cli import main


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command with arguments, and gives its exit code, its output and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clr", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])  # which `compare` changes
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run
