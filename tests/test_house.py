"""The order of the floors and the limits of the census hold, and both checks can fail."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder / "src")}, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package with its contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "clr", tmp_path / "src" / "clr", ignore=ignored)
    return tmp_path


def test_the_floors_are_in_order(copy: Path) -> None:
    done = linted(copy)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("schedules/base.py", "def late():\n    from clr import plot", "A floor imports only floors below it"),
        ("checks.py", "from clr.finder import curve", "A floor imports only floors below it"),
        ("schedules/base.py", "def late():\n    from clr.schedules import compose", "No circle within a floor"),
    ],
)
def test_an_import_upwards_or_in_a_circle_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    with open(copy / "src" / "clr" / module, "a") as file:
        file.write(f"\n\n{line}\n")
    done = linted(copy)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


@pytest.fixture
def census() -> Callable[[Path], list[str]]:
    place = importlib.util.spec_from_file_location("census", ROOT / ".ci" / "census.py")
    assert place is not None
    assert place.loader is not None
    module: Any = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module.census  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("def f(a: int, b: Any) -> None: ...", "bare Any in 50.0% of the arguments, not below 15%"),
        ("class A:\n    def f(self, *, a: Any) -> None: ...", "bare Any in 100.0% of the arguments, not below 15%"),
        ("def f(a: int) -> None:\n" + "    a += 1\n" * 80, "f has 81 lines, more than 80"),
        ('def f(a: int) -> None:\n    """Docs\n    """\n' + "    a += 1\n" * 80, "f has 81 lines, more than 80"),
        ('def f(a: int) -> None:\n    """Docs\n    """\n' + "    a += 1\n" * 79, None),
    ],
)
def test_the_census_sees_what_breaks_a_limit(
    census: Callable[[Path], list[str]], tmp_path: Path, source: str, broken: str | None
) -> None:
    (tmp_path / "src" / "clr").mkdir(parents=True)
    (tmp_path / "src" / "clr" / "module.py").write_text(source)
    found = census(tmp_path)
    assert len(found) == (broken is not None)
    assert broken is None or found[0].endswith(broken)
