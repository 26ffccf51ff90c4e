"""By what trainings and schedules are known again: what differs is told apart, and the same is the same anywhere."""

import enum
import functools
import itertools
import os
import re
import subprocess
import sys
from argparse import Namespace
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


def made(value: Any) -> Callable[..., Any]:
    return lambda: value


SLOW: Any = trainings.slow


def noted(value: Any) -> Callable[[], Any]:
    return lambda: value.append(0)


def grown(length: int, at: int) -> Any:
    array = np.zeros(length)
    array[at] = 1
    return array


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class SlottedByAString:
    __slots__ = "value"

    def __init__(self, value: Any) -> None:
        self.value = value


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def defaults(value: Any) -> Callable[..., Any]:
    def inner(step: int, first: Any = value, *, second: Any = value) -> Any:
        return first, second

    return inner


def within(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value


# Of each, all are told apart, as what trains and as a schedule.
DIFFERENT: dict[str, list[Callable[[], Any]]] = {
    "partials": [
        lambda: trainings.parabola,
        lambda: trainings.slow,
        lambda: functools.partial(trainings.parabola),
        lambda: functools.partial(trainings.slow),
        lambda: functools.partial(trainings.slow, 1),
        lambda: functools.partial(SLOW, 1, seed=2),
        lambda: functools.partial(SLOW, 1, seed=3),
        lambda: functools.partial(trainings.slow, Holder(1)),
        lambda: functools.partial(trainings.slow, Holder(2)),
        lambda: functools.partial(made(1), 1),
        lambda: functools.partial(made(2), 1),
    ],
    "methods": [lambda: Holder(1).train, lambda: Holder(2).train, lambda: Data(1).__eq__],
    "objects": [
        lambda: Holder(1),
        lambda: Holder(2),
        lambda: Holder([1]),
        lambda: Holder({"a": {2, 3}}),
        lambda: Holder(Color.RED),
        lambda: Holder(Color.BLUE),
        lambda: Holder(Path("a")),
        lambda: Holder(Path("b")),
        lambda: Holder(Namespace(a=1)),
        lambda: Holder(Namespace(a=2)),
        lambda: SimpleNamespace(value=1),
        lambda: SimpleNamespace(value=2),
        lambda: Slotted(1),
        lambda: Slotted(2),
        lambda: SlottedByAString(1),
        lambda: SlottedByAString(2),
    ],
    "dataclasses": [lambda: Data(1), lambda: Data(2), lambda: Data(1, 1), lambda: Data((1, [2, {3: np.arange(99)}]))],
    "closures": [
        lambda: made(1),
        lambda: made(2),
        lambda: made(Path("a")),
        lambda: made(Color.RED),
        lambda: made(int),
        lambda: made(functools.partial(trainings.slow, 1)),
        lambda: made(functools.partial(trainings.slow, 2)),
        lambda: made(grown(2000, 0)),
        lambda: made(grown(2000, 1)),
        lambda: defaults(1),
        lambda: defaults(2),
    ],
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
    "arrays that something holds": [
        lambda: Holder({"a": [grown(2000, 1000)]}),
        lambda: Holder({"a": [grown(2000, 1001)]}),
        lambda: (grown(2000, 1000), 1),
    ],
    "schedules": [
        lambda: clr.triangular(0.1, 0.5, 5),
        lambda: clr.triangular(0.1, 0.5, 6),
        lambda: clr.cyclic(0.1, 0.5, 5, scale_fn=lambda cycle: 2**-cycle),
        lambda: clr.cyclic(0.1, 0.5, 5, scale_fn=lambda cycle: 3**-cycle),
    ],
    "sets": [lambda: {"a", "b", "c"}, lambda: {"a", "b", "d"}],
    "words": [lambda: "a", lambda: ["a"], lambda: None, lambda: 1, lambda: True],
    "long ones": [lambda: [0] * 10_000 + [1], lambda: [0] * 10_000 + [2]],
}
# Of schedules, which do not change by being used, more is.
OF_SCHEDULES: dict[str, list[Callable[[], Any]]] = {
    "closures over what could take notes": [lambda: made([1]), lambda: made([2]), lambda: made({"a": 1})],
    "objects that objects hold": [lambda: Holder(Holder(1)), lambda: Holder(Holder(2))],
}


@pytest.mark.parametrize(
    ("told", "kind"),
    [(description, kind) for kind in DIFFERENT | OF_SCHEDULES] + [(training, kind) for kind in DIFFERENT],
)
def test_what_differs_is_told_apart_and_the_same_is_the_same(told: Callable[[Any], str], kind: str) -> None:
    makers = (DIFFERENT | OF_SCHEDULES)[kind]
    texts = [told(make()) for make in makers]
    assert texts == [told(make()) for make in makers]
    for one, other in itertools.combinations(texts, 2):
        assert one != other
    assert " at 0x" not in "".join(texts)
    assert all(len(text) < 600 for text in texts)


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
if "torch" in sys.modules:
    half = [description(torch.tensor([0.5] * 100 + [last]).bfloat16()) for last in (0.5, 0.75)]
    assert len(set(half)) == 2 and "bfloat16" in half[0], half
print(few[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = {"torch": "torch.float32", "jax": "float32", "tensorflow": "<dtype: 'float32'>"}[framework]
    assert done.stdout == f"{shown} of [2] list[{float(np.float32(0.123411))}, 0.5]\n"


def test_it_is_the_same_in_another_process() -> None:
    code = """
from tests.test_identity import DIFFERENT, description, training
for makers in DIFFERENT.values():
    for make in makers:
        print(description(make()), training(make()))
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
    assert description(own) == "<tests.test_identity:Holder> dict{'value': list[#0]}"
    many: list[Any] = [Holder([]) for _ in range(20)]
    for one in many:
        one.value = many  # each holds all
    assert len(description(many)) < 600
    assert description(within(10_000, 1)) != description(within(10, 1))

    def later() -> Any:
        return unassigned

    assert training(later) == "tests.test_identity:test_what_holds_itself_has_an_end.<locals>.later"
    unassigned = 1
    assert later() == unassigned


def test_what_changes_while_it_trains_makes_no_other_training() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    holder = Holder(model)
    before = training(holder), training(holder.train)
    torch.nn.init.zeros_(model.weight)
    model.note = 1
    assert (training(holder), training(holder.train)) == before
    holder.value = iter(())  # but another class is another
    assert training(holder) != before[0]


def test_a_table_counts_with_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    tables = [pandas.DataFrame({name: [value, 2.5]}) for name, value in (("a", 1), ("b", 1), ("a", 2))]
    assert len({description(table) for table in tables}) == 3
    assert description(tables[0]) == description(tables[0].copy())


def test_what_is_told_of_a_training_is_no_secret() -> None:
    told = training(functools.partial(SLOW, password="open sesame"))
    assert re.fullmatch("tests.trainings:slow #[0-9a-f]{16}", told)


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
    assert training(Holder(1)).startswith("tests.test_identity:Holder #")


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
