"""Every snippet of README and docs runs, and every shell line does what it says."""

import importlib.metadata
import itertools
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

# What a reader of README has already, before the snippet that says this.
YOURS = {
    "clr.torch.range_test": """
import torch
from sklearn.datasets import load_digits

images, digits = map(torch.from_numpy, load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(images.float() / 16, digits)
loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loss_fn = torch.nn.CrossEntropyLoss()
""",
    "clr.keras.range_test": """
import keras

x, y = images.numpy() / 16, digits.numpy()
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(momentum=0.9), loss)
""",
    "clr.tensorflow.range_test": """
import tensorflow as tf

weights = tf.Variable(tf.zeros([64, 10]))
step = tf.Variable(0, dtype=tf.int64, trainable=False)
variables = [weights, step]


def train_step(lr):
    with tf.GradientTape() as tape:
        logits = tf.constant(x, tf.float32) @ weights
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    weights.assign_sub(lr * tape.gradient(loss, weights))
    step.assign_add(1)
    return loss
""",
    "clr.jax.range_test": """
import jax
import jax.numpy as jnp
import optax


@jax.jit
def update(state, batch, lr):
    def loss_of(state):
        return optax.softmax_cross_entropy_with_integer_labels(batch[0] @ state, batch[1]).mean()

    loss, gradient = jax.value_and_grad(loss_of)(state)
    return state - lr * gradient, loss


state = jnp.zeros((64, 10))
batches = [(jnp.asarray(x[at : at + 32], jnp.float32), jnp.asarray(y[at : at + 32])) for at in range(0, 1792, 32)]
""",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def lines(page: str) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def run(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "MPLBACKEND": "Agg", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


# The libraries of the page of integrations are there only for the tests of these, which run its snippets too.
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and "integrations" not in page])
def test_python_snippets_of_a_page_run_in_order(page: str, tmp_path: Path) -> None:
    script = tmp_path / "snippets.py"
    yours = YOURS if page == "README.md" else {}
    snippets = [[*(yours[name] for name in yours if name in block), block] for block in blocks(page, "python")]
    assert [len(before) for before in snippets] == ([2] * len(YOURS) if yours else [1] * len(snippets))
    script.write_text("\n".join(itertools.chain(*snippets)))
    done = run([sys.executable, str(script)], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_comments_in_the_guide_show_what_is_printed(tmp_path: Path) -> None:
    described = next(block for block in blocks("docs/guide.md", "python") if "describe()" in block)
    printed = run([sys.executable, "-c", described], tmp_path).stdout
    shown = re.findall(r"^# (.*)$", described, re.MULTILINE)
    assert shown
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
    elif arguments[:2] == ["-m", "benchmarks.cifar10"]:  # which needs the data: its options are there
        done = run([sys.executable, "-m", "benchmarks.cifar10", "--help"], ROOT)
        assert done.returncode == 0, done.stderr
        assert [option for option in arguments if option.startswith("--") and option not in done.stdout] == []
    elif command == "clr":
        if arguments[0] == "compare":
            prepare_comparison(page, line, tmp_path)
        done = run([str(COMMANDS / "clr"), *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
        if "--out" in arguments:
            assert (tmp_path / arguments[arguments.index("--out") + 1]).exists()
    else:
        assert [command, *arguments[:-1]] == ["pip", "install"], f"{page}: {line} is not tested"
        extras = re.fullmatch(r"\.\[(.*)\]", arguments[-1])
        assert extras is not None
        offered = importlib.metadata.metadata("cyclic-learning-rate").get_all("Provides-Extra")
        assert set(extras[1].split(",")) <= set(offered or [])


def test_extras_in_readme_are_those_of_the_package() -> None:
    paragraph = re.search(r"The extras are (.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert paragraph is not None
    offered = importlib.metadata.metadata("cyclic-learning-rate").get_all("Provides-Extra") or []
    assert set(re.findall(r"`(\w+)`", paragraph[1])) - {"clr"} == set(offered)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert all((ROOT / page).parent.joinpath(target).exists() for target in targets), targets


def test_the_long_description_refers_to_nothing_beside_it() -> None:
    described = importlib.metadata.metadata("cyclic-learning-rate")["Description"]
    targets = re.findall(r"\]\(([^)]*)\)", described)
    assert [target for target in targets if not target.startswith("https:")] == []
    assert targets
