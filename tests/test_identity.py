"""By what trainings and schedules are known again: what differs is told apart, and the same is the same anywhere."""

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clr
from clr.comparison.identity import description, training
from tests import trainings

ROOT = Path(__file__).parent.parent


class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value

    def train(self, schedule: Any, seed: int, steps: int) -> Any:
        return self.value


@dataclass
class Data:
    value: Any
    hidden: int = field(default=0, repr=False)


def made(value: Any) -> Callable[[], Any]:
    return lambda: value


def noted(value: Any) -> Callable[[], Any]:
    return lambda: value.append(0)


def grown(length: int, at: int) -> Any:
    array = np.zeros(length)
    array[at] = 1
    return array


# Of each, all are told apart.
DIFFERENT: dict[str, list[Callable[[], Any]]] = {
    "partials": [
        lambda: trainings.parabola,
        lambda: trainings.slow,
        lambda: functools.partial(trainings.parabola),
        lambda: functools.partial(trainings.slow),
        lambda: functools.partial(trainings.slow, 1),
        lambda: functools.partial(trainings.slow, 1, seed=2),
        lambda: functools.partial(trainings.slow, 1, seed=3),
    ],
    "methods": [lambda: Holder(1).train, lambda: Holder(2).train, lambda: Data(1).__eq__],
    "objects": [lambda: Holder(1), lambda: Holder(2), lambda: Holder([1]), lambda: SimpleNamespace(value=1)],
    "dataclasses": [lambda: Data(1), lambda: Data(2), lambda: Data(1, 1), lambda: Data((1, [2, {3: np.arange(99)}]))],
    "closures": [lambda: made(1), lambda: made(2), lambda: made(grown(2000, 0)), lambda: made(grown(2000, 1))],
    "arrays": [
        lambda: grown(2000, 1000),
        lambda: grown(2000, 1001),
        lambda: grown(2000, 1000).reshape(2, 1000),
        lambda: grown(2000, 1000).astype(np.float32),
        lambda: np.array([0.1234567890123]),
        lambda: np.array([0.1234567890124]),
        lambda: np.array([Holder(1), "word"], dtype=object),
        lambda: np.array([Holder(2), "word"], dtype=object),
    ],
    "schedules": [
        lambda: clr.triangular(0.1, 0.5, 5),
        lambda: clr.triangular(0.1, 0.5, 6),
        lambda: clr.cyclic(0.1, 0.5, 5, scale_fn=lambda cycle: 2**-cycle),
        lambda: clr.cyclic(0.1, 0.5, 5, scale_fn=lambda cycle: 3**-cycle),
    ],
    "sets": [lambda: {"a", "b", "c"}, lambda: {"a", "b", "d"}],
    "words": [lambda: "a", lambda: ["a"], lambda: None, lambda: 1, lambda: True],
}
DIFFERENT["arrays that something holds"] = [
    functools.partial(lambda at: Holder({"a": [grown(2000, at)]}), 1000),
    functools.partial(lambda at: Holder({"a": [grown(2000, at)]}), 1001),
    lambda: (grown(2000, 1000), 1),
]


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_differs_is_told_apart_and_the_same_is_the_same(kind: str) -> None:
    texts = [description(make()) for make in DIFFERENT[kind]]
    assert texts == [description(make()) for make in DIFFERENT[kind]]
    for one, other in itertools.combinations(texts, 2):
        assert one != other
    assert " at 0x" not in "".join(texts)


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"])
def test_tensors_count_to_the_last_digit(framework: str) -> None:
    pytest.importorskip(framework)
    code = f"""
import sys
import numpy as np
import {framework}
from clr.comparison.identity import description
make = {{
    "torch": lambda values: sys.modules["torch"].tensor(values, requires_grad=True),
    "jax": lambda values: sys.modules["jax"].numpy.asarray(values),
    "tensorflow": lambda values: sys.modules["tensorflow"].Variable(values),
}}["{framework}"]
few = [description(make(np.float32([0.123411, last]))) for last in (0.5, 0.50001)]
many = [description({{"a": make(np.float32([0.0] * 1000 + [last] + [0.0] * 1000))}}) for last in (0.5, 0.50001)]
assert len(set(few)) == len(set(many)) == 2, (few, many)
assert few[0] == description(make(np.float32([0.123411, 0.5])))
print(few[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "float32[2] [0.12341100..., 0.5]\n".replace("0.12341100...", str(float(np.float32(0.123411))))


def test_it_is_the_same_in_another_process() -> None:
    code = """
from tests.test_identity import DIFFERENT, description
for makers in DIFFERENT.values():
    for make in makers:
        print(description(make()))
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == sum(map(len, DIFFERENT.values()))


def test_what_holds_itself_has_an_end() -> None:
    own = Holder(None)
    own.value = [own]
    assert description(own) == "<tests.test_identity:Holder> {'value': [...]}"


def test_notes_that_a_function_takes_do_not_make_it_another() -> None:
    notes: list[int] = []
    train = noted(notes)
    before = training(train)
    train()
    assert notes
    assert training(train) == before


def test_a_name_tells_all_there_is_to_tell() -> None:
    def train() -> None: ...

    train.name = "own"  # type: ignore[attr-defined]
    assert training(train) == "tests.test_identity:test_a_name_tells_all_there_is_to_tell.<locals>.train own"
    one = Holder(1)
    one.name = "one"  # type: ignore[attr-defined]
    assert training(one) == "tests.test_identity:Holder one"
    assert training(trainings.parabola) == "tests.trainings:parabola"
    assert training(Data(1)) == "tests.test_identity:Data(value=1, hidden=0)"


SCRIPT = """
import sys
import clr

def train(schedule, seed, steps):
    yield steps, {"loss": RATE}

if __name__ == "__main__":
    print(clr.compare(train, {"a": clr.constant(0.25)}, seeds=1, steps=5, workers=0).rows()[0]["final"])
"""


def test_a_script_is_known_by_its_file(tmp_path: Path) -> None:
    for name, rate in (("first", "0.5"), ("second", "0.75")):
        (tmp_path / f"{name}.py").write_text(SCRIPT.replace("RATE", rate))

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

    assert run("first.py").stdout == "0.5\n"
    refused = run("second.py")
    assert refused.returncode == 1
    assert "clr-compare.sqlite has the runs of first:train, not of second:train" in refused.stderr
    # However it is run, it is the same.
    assert run("-m", "first").stdout == "0.5\n"
    again = "import clr, first; clr.compare(first.train, {'a': clr.constant(0.25)}, seeds=1, steps=5, workers=0)"
    assert run("-c", again).returncode == 0
