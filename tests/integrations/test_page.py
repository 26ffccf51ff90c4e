"""The page of the integrations: its snippets run, and each mark of its table is a test that exists."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
TEXT = PAGE.read_text()

# What a reader has already, by the heading of the snippet.
YOURS = {
    "Lightning": """
from lightning.pytorch import Trainer
from tests.integrations.test_lightning import Data, Module

trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
module, data = Module(), Data()
""",
    "Transformers": """
from pathlib import Path
from tests.integrations.test_transformers import trainer as made

trainer = made(Path("output"))
""",
    "Accelerate": """
from tests.integrations.test_accelerate import LOSS as loss_fn, Parts

parts = Parts()
model, optimizer, loader, held_out = parts.model, parts.optimizer, parts.loader, parts.held_out
""",
}


def snippets() -> dict[str, str]:
    """The code below each heading that has some."""
    parts = [part.split("\n", 1) for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]]
    blocks = {name: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for name, text in parts}
    return {name: "\n".join(found) for name, found in blocks.items() if found}


@pytest.mark.parametrize("name", snippets())
def test_a_snippet_runs(name: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(f"{YOURS.get(name, '')}\n{snippets()[name]}")
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_each_mark_of_the_table_is_a_test() -> None:
    used = set(re.findall(r"\[yes\]\[(.+?)\]", TEXT))
    known = {name: (path, test) for name, path, test in re.findall(r'^\[(.+?)\]: (\S+) "(\w+)"$', TEXT, re.MULTILINE)}
    assert used == set(known)
    for path, test in known.values():
        tree = ast.parse((PAGE.parent / path).read_text())
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, test)


def test_the_rows_of_the_table_have_a_mark_or_a_word_in_each_column() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows if not row.startswith("|-")]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert all(all(row) for row in cells[1:])
