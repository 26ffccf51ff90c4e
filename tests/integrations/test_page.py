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
    "PyTorch-Ignite": """
from tests.integrations.digits import digits, loader as made
from tests.integrations.test_ignite import evaluator_of, parts

(model, optimizer, trainer), loader, held_out = parts(), made(640), [digits(320)]
evaluator = evaluator_of(model)
""",
    "skorch": """
from skorch import NeuralNetClassifier
from tests.integrations.test_skorch import data, network, torch

x, y = data()
net = NeuralNetClassifier(network(), criterion=torch.nn.CrossEntropyLoss, verbose=0)
""",
    "Keras": """
import clr, keras
from tests.integrations.test_keras import digits, network

model, weights = network(rate=0.1), {0: 2.0}
loss, (x, y), (x_val, y_val) = model.loss, digits(), digits(1400, 1797)
""",
    "Flax NNX and Equinox": """
import clr, optax
from flax import nnx
from tests.integrations.test_jax import batches as made, digits, loss_of, nnx_update

update, (model, optimizer), _ = nnx_update()
batches, held_out = made(0, 640), digits(1500, 1797)


def evaluate(state):
    return loss_of(state[0], held_out)
""",
    "Several optimizers": """
import clr
from tests.integrations.digits import LOSS as loss_fn, digits, loader as made
from tests.integrations.test_optimizers import Both

both, loader, (x, y) = Both(), made(640), digits(320)
model, muon, adamw = both.model, both.muon, both.adamw


def evaluate():
    return loss_fn(model(x), y)
""",
    "Boosted trees": """
import clr, numpy, xgboost

schedule = clr.one_cycle(0.5, total_steps=100)
data = xgboost.DMatrix(numpy.eye(4), [1.0, 2.0, 3.0, 6.0])
""",
}


def snippets() -> dict[str, str]:
    """The code below each heading that has some."""
    parts = [part.split("\n", 1) for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]]
    blocks = {name: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for name, text in parts}
    return {name: "\n".join(found) for name, found in blocks.items() if found}


# Those for loggers need more packages, and have tests of their own.
@pytest.mark.parametrize("name", [name for name in snippets() if name != "Loggers"])
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
