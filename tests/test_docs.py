"""Every snippet of README and docs runs, and every shell line does what it says."""

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import clr

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = Path(sys.executable).parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def lines(page: str) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def run(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "MPLBACKEND": "Agg", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_snippets_of_a_page_run_in_order(page: str, tmp_path: Path) -> None:
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(blocks(page, "python")))
    done = run([sys.executable, str(script)], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_comments_in_readme_show_what_is_printed(tmp_path: Path) -> None:
    described = next(block for block in blocks("README.md", "python") if "describe()" in block)
    (tmp_path / "first.py").write_text("import clr\n" + described)
    printed = run([sys.executable, "first.py"], tmp_path).stdout
    shown = re.findall(r"^# (.*)$", described, re.MULTILINE)
    assert printed.splitlines() == shown


def prepare_comparison(page: str, line: str, folder: Path) -> None:
    """Writes what a comparison on the command line needs, and makes those that come before."""
    block = next(block for block in blocks(page, "python") if "def train(" in block)
    (folder / "my_training.py").write_text(block.split("\nschedules = ")[0])
    data = {"fixed": clr.constant(0.1).to_dict(), "triangular": clr.triangular(0.01, 0.3, 50).to_dict()}
    (folder / "schedules.json").write_text(json.dumps(data))
    for other in lines(page)[: lines(page).index(line)]:
        if other.startswith("clr compare"):
            assert run([str(COMMANDS / "clr"), *shlex.split(other)[1:]], folder).returncode == 0


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page in PAGES for line in lines(page)], ids=lambda value: str(value)
)
def test_shell_line_works(page: str, line: str, tmp_path: Path) -> None:
    command, *arguments = shlex.split(line)
    if command == "make":  # what it would run: the tests can't run themselves
        assert run(["make", "--dry-run", *arguments], ROOT).returncode == 0
    elif command == "clr":
        if arguments[0] == "compare":
            prepare_comparison(page, line, tmp_path)
        done = run([str(COMMANDS / "clr"), *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
        if "--out" in arguments:
            assert (tmp_path / arguments[arguments.index("--out") + 1]).exists()
    else:
        assert [command, *arguments[:-1]] == ["pip", "install"], f"{page}: {line} is not tested"
        extras = re.fullmatch(r"cyclic-learning-rate\[(.*)\]", arguments[-1])
        assert extras is not None
        offered = importlib.metadata.metadata("cyclic-learning-rate").get_all("Provides-Extra")
        assert set(extras[1].split(",")) <= set(offered or [])


def test_extras_in_readme_are_those_of_the_package() -> None:
    paragraph = re.search(r"The extras are (.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert paragraph is not None
    offered = importlib.metadata.metadata("cyclic-learning-rate").get_all("Provides-Extra") or []
    assert set(re.findall(r"`(\w+)`", paragraph[1])) == set(offered) - {"dev"}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert all((ROOT / page).parent.joinpath(target).exists() for target in targets), targets
