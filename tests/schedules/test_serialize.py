"""Schedules as plain data and JSON: lossless, stable word for word, and strict."""

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import clr
from clr.schedules import scaling
from tests.family import ARGUMENTS, golden, made

TRIANGULAR = clr.triangular(0.25, 0.75, 4)
CYCLIC = clr.cyclic(0.25, 0.75, 4).to_dict()


def inverse(cycle: Any) -> Any:
    return 1 / cycle


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No names but those that a test registers."""
    monkeypatch.setattr(scaling, "_REGISTERED", {})


LOAD = """
import json, sys
import clr

for line in sys.stdin:
    text, steps = json.loads(line)
    schedule = clr.from_json(text)
    print(json.dumps([schedule.to_json(), [schedule(step) for step in steps]]))
assert not {"numpy", "tensorflow", "torch", "jax"} & set(sys.modules)
"""


def test_every_schedule_comes_back_in_a_fresh_process() -> None:
    schedules = [made(row.schedule) for row in golden()]
    lines = [json.dumps([made(row.schedule).to_json(), row.steps]) for row in golden()]
    result = subprocess.run(
        [sys.executable, "-c", LOAD], input="\n".join(lines), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stderr == ""
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [text for text, _ in answers] == [schedule.to_json() for schedule in schedules]
    for row, schedule, (_, rates) in zip(golden(), schedules, answers, strict=True):
        assert rates == [schedule(step) for step in row.steps], row


def test_data_is_plain_and_a_copy() -> None:
    schedule = clr.join([clr.phases((0.0, 1.0), (2.5,)), TRIANGULAR])
    data = schedule.to_dict()
    assert data == json.loads(schedule.to_json())
    before = copy.deepcopy(data)
    clr.from_dict(data)
    assert data == before
    data["schedules"][0]["levels"][1] = 5.0
    data["schedules"].clear()
    assert schedule.to_dict() == before


def test_keys_may_come_in_any_order() -> None:
    data = TRIANGULAR.to_dict()
    assert clr.from_dict(dict(reversed(data.items()))) == TRIANGULAR


def test_any_mapping_is_data() -> None:
    class Frozen(Mapping[str, Any]):
        def __init__(self, data: dict[str, Any]) -> None:
            self.data = data

        def __getitem__(self, key: str) -> Any:
            return self.data[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self.data)

        def __len__(self) -> int:
            return len(self.data)

    assert clr.from_dict(Frozen(TRIANGULAR.to_dict())) == TRIANGULAR


# A scaling function by its name


def test_a_scaling_function_is_saved_by_its_name(names: None) -> None:
    assert clr.register_scale("inverse", inverse) is inverse
    schedule = clr.cyclic(0.25, 0.75, 4, scale_fn=inverse, scale_mode="cycle")
    data = schedule.to_dict()
    assert data["scale_fn"] == "inverse"
    again = clr.from_json(json.dumps(data))
    assert again == schedule
    assert [again(step) for step in (4, 12)] == [0.75, 0.5]
    assert clr.from_json((schedule * 2).to_json()) == schedule * 2


def test_a_function_may_have_two_names_and_be_registered_twice(names: None) -> None:
    for name in ("a", "b", "a"):
        clr.register_scale(name, inverse)
    for name in ("a", "b"):
        data = CYCLIC | {"scale_fn": name}
        assert clr.from_dict(data) == clr.cyclic(0.25, 0.75, 4, scale_fn=inverse)


def test_a_schedule_may_be_the_scaling_function(names: None) -> None:
    schedule = clr.cyclic(0.25, 0.75, 4, scale_fn=clr.ramp(1.0, 0.0, 4))
    assert [schedule(step) for step in (4, 12, 36)] == [0.25 + 0.5 * 0.75, 0.5, 0.25]
    again = clr.from_json(schedule.to_json())
    assert again == schedule
    assert again.to_json() == schedule.to_json()
    for _ in range(48):
        schedule = clr.cyclic(0.0, 1.0, 4, scale_fn=schedule)
    assert clr.from_json(schedule.to_json()) == schedule
    with pytest.raises(ValueError, match="`scale_fn` must be made of less than 50 schedules within each other"):
        clr.cyclic(0.0, 1.0, 4, scale_fn=schedule)


def test_register_scale_is_a_decorator(names: None) -> None:
    @clr.register_scale("half")  # type: ignore[untyped-decorator,unused-ignore]
    def half(cycle: Any) -> float:
        return 0.5

    assert half(1) == 0.5
    schedule: Any = clr.from_dict(CYCLIC | {"scale_fn": "half"})
    assert schedule(4) == 0.5


UNNAMED = "only a scaling function that clr.register_scale has named can be saved. Received: <built-in function abs>."


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: clr.register_scale(5, inverse),  # type: ignore[arg-type]
            TypeError,
            "`name` must be a name, a text that is not empty. Received: 5.",
        ),
        (
            lambda: clr.register_scale("", inverse),
            ValueError,
            "`name` must be a name, a text that is not empty. Received: ''.",
        ),
        (
            lambda: clr.register_scale("x", 0.5),  # type: ignore[arg-type]
            TypeError,
            "`scale_fn` must be None or a function of one number. Received: 0.5.",
        ),
        (
            lambda: [clr.register_scale("x", function) for function in (abs, inverse)],
            ValueError,
            "another scaling function is registered as 'x' already: <built-in function abs>.",
        ),
        (
            lambda: clr.cyclic(0.0, 1.0, 4, scale_fn=abs, scale_mode="iterations").to_dict(),
            ValueError,
            UNNAMED,
        ),
        (
            lambda: (clr.cyclic(0.0, 1.0, 4, scale_fn=abs, scale_mode="iterations") * 2).to_json(),
            ValueError,
            UNNAMED,
        ),
        (
            lambda: clr.from_dict(CYCLIC | {"scale_fn": "abs"}),
            ValueError,
            "no scaling function is registered as 'abs': call clr.register_scale('abs', function).",
        ),
        (
            lambda: clr.from_dict(CYCLIC | {"scale_fn": abs}),
            TypeError,
            "`scale_fn` must be a name, a text that is not empty. Received: <built-in function abs>.",
        ),
        (
            lambda: clr.from_dict(CYCLIC | {"scale_fn": ""}),
            ValueError,
            "`scale_fn` must be a name, a text that is not empty. Received: ''.",
        ),
        (
            lambda: clr.from_dict(CYCLIC | {"scale_fn": ["abs"]}),
            TypeError,
            "`scale_fn` must be a name, a text that is not empty. Received: ['abs'].",
        ),
    ],
)
def test_a_bad_name_of_a_scaling_function(
    names: None, call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


# What is refused

KEYS = (
    "the data of the kind 'triangular' must have the keys 'base_lr', 'max_lr', 'step_size', 'step_size_down', "
    "'shape', 'cycle_mult'. Received: {}."
)
MAPPING = "`data` must be a dict with the data that was saved. Received: {}."
VERSION = "the data of a schedule must have version 1 as 'clr'. Received: {}."
ALL = ("base_lr", "max_lr", "step_size", "step_size_down", "shape", "cycle_mult")
DATA = TRIANGULAR.to_dict()
PART = {key: value for key, value in DATA.items() if key != "clr"}
JOIN = clr.join([TRIANGULAR, TRIANGULAR], [5]).to_dict()


def kinds(received: str) -> str:
    return f"`kind` must be one of {listed(*ARGUMENTS)}. Received: {received}."


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in DATA.items() if name != key}


def listed(*names: str) -> str:
    return ", ".join(map(repr, names))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, TypeError, MAPPING.format("None")),
        ([], TypeError, MAPPING.format("[]")),
        ("{}", TypeError, MAPPING.format("'{}'")),
        (TRIANGULAR, TypeError, MAPPING.format(TRIANGULAR)),
        ([("clr", 1)], TypeError, MAPPING.format("[('clr', 1)]")),
        ({}, ValueError, VERSION.format("None")),
        (without("clr"), ValueError, VERSION.format("None")),
        (DATA | {"clr": 2}, ValueError, VERSION.format("2")),
        (DATA | {"clr": 0}, ValueError, VERSION.format("0")),
        (DATA | {"clr": "1"}, ValueError, VERSION.format("'1'")),
        (DATA | {"clr": True}, ValueError, VERSION.format("True")),
        (DATA | {"clr": 1.0}, ValueError, VERSION.format("1.0")),
        (without("kind"), TypeError, kinds("None")),
        (DATA | {"kind": "phase"}, ValueError, kinds("'phase'")),
        (DATA | {"kind": "os.system"}, ValueError, kinds("'os.system'")),
        (DATA | {"kind": "__class__"}, ValueError, kinds("'__class__'")),
        (DATA | {"kind": ["cyclic"]}, TypeError, kinds("['cyclic']")),
        (DATA | {"colour": 1}, ValueError, KEYS.format(listed(*ALL, "colour"))),
        (DATA | {"_wave": 1}, ValueError, KEYS.format(listed(*ALL, "_wave"))),
        (without("shape"), ValueError, KEYS.format(listed(*(name for name in ALL if name != "shape")))),
        ({"clr": 1, "kind": "triangular"}, ValueError, KEYS.format("none")),
        (DATA | {"base_lr": math.nan}, ValueError, "`base_lr` must be a finite number, 0 or more. Received: nan."),
        (DATA | {"base_lr": "0.1"}, TypeError, "`base_lr` must be a finite number, 0 or more. Received: '0.1'."),
        (DATA | {"base_lr": True}, TypeError, "`base_lr` must be a finite number, 0 or more. Received: True."),
        (
            DATA | {"max_lr": 0.1},
            ValueError,
            "`max_lr` must be a finite number, `base_lr` or more. Received: 0.1 with `base_lr` 0.25.",
        ),
        (DATA | {"step_size": None}, TypeError, "`step_size` must be a positive number of steps. Received: None."),
        (
            DATA | {"shape": "sine"},
            ValueError,
            "`shape` must be one of 'linear', 'cosine', '1-sqrt'. Received: 'sine'.",
        ),
        (
            {"clr": 1, "kind": "phases", "levels": "01", "lengths": [1], "shape": "linear", "total_steps": 2},
            TypeError,
            "`levels` must be a list or a tuple. Received: '01'.",
        ),
        (
            {
                "clr": 1,
                "kind": "phases",
                "levels": [0.0, math.nan],
                "lengths": [1],
                "shape": "linear",
                "total_steps": 2,
            },
            ValueError,
            "`levels[1]` must be a finite number, 0 or more. Received: nan.",
        ),
        ({"clr": 1, "kind": "multiple", "schedule": None, "factor": 2}, TypeError, MAPPING.format("None")),
        ({"clr": 1, "kind": "multiple", "schedule": "cyclic", "factor": 2}, TypeError, MAPPING.format("'cyclic'")),
        (
            {"clr": 1, "kind": "multiple", "schedule": PART, "factor": math.inf},
            ValueError,
            "`factor` must be a finite number, 0 or more. Received: inf.",
        ),
        (
            {"clr": 1, "kind": "multiple", "schedule": PART | {"cycle_mult": 0}, "factor": 2},
            ValueError,
            "`cycle_mult` must be 1, or a number from 0.001 to 1000 at least 0.001 away from it. Received: 0.",
        ),
        (
            {"clr": 1, "kind": "multiple", "schedule": PART | {"colour": 1}, "factor": 2},
            ValueError,
            KEYS.format(listed(*ALL, "colour")),
        ),
        (
            {"clr": 1, "kind": "multiple", "schedule": DATA, "factor": 2},  # the version is that of the whole
            ValueError,
            KEYS.format(listed("clr", *ALL)),
        ),
        (
            {
                "clr": 1,
                "kind": "multiple",
                "schedule": {"kind": "clip", "schedule": {"kind": "eval"}, "low": 0, "high": 1},
                "factor": 2,
            },
            ValueError,
            kinds("'eval'"),
        ),
        (JOIN | {"schedules": "ab"}, TypeError, "`schedules` must be a list or a tuple. Received: 'ab'."),
        (JOIN | {"schedules": [PART, 5]}, TypeError, MAPPING.format("5")),
        (JOIN | {"boundaries": [0]}, ValueError, "`boundaries[0]` must be a whole number, 1 or more. Received: 0."),
        (
            JOIN | {"boundaries": [5, 6]},
            ValueError,
            "`boundaries` must be growing steps, one for each schedule but the first. Received: [5, 6].",
        ),
        (
            {"clr": 1, "kind": "after_end", "schedule": PART, "rule": "repeat"},
            ValueError,
            f"`schedule` must be one that has an end, for `after_end`. Received: {TRIANGULAR}.",
        ),
    ],
    ids=str,
)
def test_bad_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        clr.from_dict(data)
    assert caught.type is error


TEXT = TRIANGULAR.to_json()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", json.JSONDecodeError, "Expecting value: line 1 column 1 (char 0)"),
        (TEXT + "x", json.JSONDecodeError, f"Extra data: line 1 column {len(TEXT) + 1} (char {len(TEXT)})"),
        ("[]", TypeError, MAPPING.format("[]")),
        ("null", TypeError, MAPPING.format("None")),
        (TEXT.replace("0.25", "NaN"), ValueError, "`base_lr` must be a finite number, 0 or more. Received: nan."),
        (
            TEXT.replace("0.25", "-Infinity"),
            ValueError,
            "`base_lr` must be a finite number, 0 or more. Received: -inf.",
        ),
        (TEXT.replace("0.25", "1e999"), ValueError, "`base_lr` must be a finite number, 0 or more. Received: inf."),
        (
            TEXT.replace('"shape"', '"cycle_mult"'),
            ValueError,
            "saved data must not have a key twice. Received: ['clr', 'kind', 'base_lr', 'max_lr', "
            "'step_size', 'step_size_down', 'cycle_mult', 'cycle_mult'].",
        ),
        (
            '{"clr": 1, "kind": "multiple", "schedule": {"kind": "phases", "kind": "phases"}, "factor": 2}',
            ValueError,
            "saved data must not have a key twice. Received: ['kind', 'kind'].",
        ),
    ],
)
def test_bad_text(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        clr.from_json(text)
    assert caught.type is error


def test_loading_imports_nothing_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError(f"called with {arguments}")

    before = set(sys.modules)
    text = clr.join([clr.ramp(0.0, 1.0, 2.5), TRIANGULAR * 2]).to_json()
    bad = [DATA | {"kind": kind} for kind in ("os.system", "builtins.eval", "clr.schedules.cyclic.Cyclic", "Cyclic")]
    monkeypatch.setattr("builtins.eval", refuse)
    monkeypatch.setattr("builtins.exec", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("importlib.import_module", refuse)
    schedule: Any = clr.from_json(text)
    assert schedule(1) == 0.4
    for data in bad:
        with pytest.raises(ValueError, match="`kind` must be one of"):
            clr.from_dict(data)
    with pytest.raises(ValueError, match="no scaling function is registered as 'os:system'"):
        clr.from_dict(CYCLIC | {"scale_fn": "os:system"})
    assert set(sys.modules) == before


def test_from_json_reads_range_tests_too() -> None:
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, max_lr=100)
    for again in (clr.from_json(test.to_json()), clr.from_dict(test.to_dict())):
        assert isinstance(again, clr.RangeTest)
        assert again.to_dict() == test.to_dict()
        assert again.bounds() == test.bounds()


DEEP = "saved data must not be nested so deep."
NESTED = '{"kind": "multiple", "factor": 1.0, "schedule": '


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (5, TypeError, "`text` must be a text. Received: 5."),
        (None, TypeError, "`text` must be a text. Received: None."),
        ("[" * 100_000, ValueError, DEEP),
        (NESTED * 5000 + "1" + "}" * 5000, ValueError, DEEP),
        (
            '{"clr": 1, ' + NESTED[1:] + NESTED * 98 + json.dumps(PART) + "}" * 99,
            ValueError,
            "saved data must have less than 50 schedules within each other.",
        ),
        (TEXT.replace("0.25", "9" * 5000), ValueError, "`base_lr` must be a finite number, 0 or more. Received: inf."),
        (
            TEXT.replace("4", "9" * 5000, 1),
            ValueError,
            "`step_size` must be a positive number of steps. Received: inf.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_text_that_no_schedule_makes(text: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        clr.from_json(text)
    assert caught.type is error


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (clr.constant(1), clr.constant(1.0)),
        (clr.triangular(0, 1, 4.0, step_size_down=8.0), clr.triangular(0.0, 1.0, 4, step_size_down=8)),
        (clr.triangular(-0.0, 1, 4), clr.triangular(0, True + 0.0, 4)),
        (clr.phases([0, 1], [4.0]), clr.phases((0.0, 1.0), (4,))),
        (clr.one_cycle(1, 100, anneal_strategy="cos"), clr.one_cycle(1.0, 100, anneal_strategy="cosine")),
        (clr.warm_restarts(1, first_cycle=5.0, cycle_mult=2.0), clr.warm_restarts(1.0, first_cycle=5, cycle_mult=2)),
        (TRIANGULAR.clip(0, 1) * 2, TRIANGULAR.clip(0.0, 1.0) * 2.0),
    ],
    ids=repr,
)
def test_equal_schedules_are_saved_in_one_way(one: clr.Schedule, other: clr.Schedule) -> None:
    assert one == other
    assert one.to_json() == other.to_json()
