"""Every kind of schedule as a value: copies, pickles, texts and data that make an equal one."""

import copy
import dataclasses
import inspect
import json
import operator
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import clr
from tests.family import Row, golden, made, whole_call

RAMP = clr.ramp(0.0, 1.0, 4)
TRIANGULAR = clr.triangular(0.25, 0.75, 4)
SCALED = [
    clr.cyclic(0.0, 0.5, 7, step_size_down=9, scale_fn=operator.truth, scale_mode="iterations"),
    clr.cyclic(0.0, 0.5, 7, step_size_down=9, scale_fn=operator.truth),
]
EXAMPLES = [*(made(row.schedule) for row in golden()), *SCALED]
each_example = pytest.mark.parametrize("schedule", EXAMPLES, ids=repr)


def check_same(again: Any, schedule: clr.Schedule) -> None:
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert repr(again) == repr(schedule)
    for steps in (range(2), np.array([7, 10**6 + 7])):
        assert [again(step) for step in steps] == [schedule(step) for step in steps]


@each_example
def test_every_copy_is_equal(schedule: clr.Schedule) -> None:
    for again in (copy.copy(schedule), copy.deepcopy(schedule)):
        check_same(again, schedule)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        check_same(pickle.loads(pickle.dumps(schedule, protocol)), schedule)


@pytest.mark.parametrize("row", golden(), ids=str)
def test_the_text_and_the_data_of_each_are_the_call_that_made_it(row: Row) -> None:
    schedule, data = made(row.schedule), {"clr": 1, **whole_call(row.schedule)}
    assert schedule.to_json() == json.dumps(data)  # word for word
    assert schedule.to_dict() == data
    again: Any
    for again in (
        clr.from_dict(schedule.to_dict()),
        clr.from_json(json.dumps(data)),
        eval(repr(schedule), {"clr": clr}),
    ):
        check_same(again, schedule)
        assert again.to_json() == schedule.to_json()
        assert [again(step) for step in row.steps] == [schedule(step) for step in row.steps]


def test_schedules_of_other_arguments_are_not_equal() -> None:
    texts = {repr(schedule) for schedule in EXAMPLES}
    assert len(set(EXAMPLES)) == len(texts) == len(EXAMPLES)
    for schedule in EXAMPLES:
        assert [other for other in EXAMPLES if other == schedule] == [schedule]
        others: list[object] = [repr(schedule), None, 1]
        assert all(schedule != other for other in others)


@pytest.mark.parametrize(
    "other",
    [
        clr.triangular(Fraction(1, 4), Fraction(3, 4), 4.0),  # type: ignore[arg-type]
        clr.triangular(np.float32(0.25), np.float64(0.75), np.uint8(4)),  # type: ignore[arg-type]
        clr.triangular(0.25, 0.75, 4, step_size_down=np.int64(4)),  # type: ignore[arg-type]
        clr.cyclic(0.25, 0.75, 4, gamma=0.5),
        clr.cyclic(0.25, 0.75, 4, scale_mode="iterations", peak_decay=0.5),
        clr.triangular(0.25, 0.75, 4.0004),
    ],
    ids=repr,
)
def test_other_calls_of_the_same_rates_make_an_equal_schedule(other: clr.Schedule) -> None:
    assert other == TRIANGULAR
    assert hash(other) == hash(TRIANGULAR)
    assert clr.from_json(other.to_json()) == TRIANGULAR  # as plain numbers
    assert eval(repr(other), {"clr": clr}) == TRIANGULAR


def test_numpy_numbers_are_saved_as_plain_ones() -> None:
    schedules: list[clr.Schedule] = [
        clr.join([TRIANGULAR * np.float32(0.5), TRIANGULAR.clip(np.float64(0.5))], [np.int64(3)]),  # type: ignore[list-item]
        clr.one_cycle(np.float32(0.5), np.int64(10)),  # type: ignore[arg-type]
        clr.momentum(TRIANGULAR, np.float64(0.5), np.float32(0.75)),  # type: ignore[arg-type]
        clr.phases(np.linspace(0, 1, 3).tolist(), (np.int64(2), 3)),  # type: ignore[arg-type]
    ]
    for schedule in schedules:
        assert clr.from_json(schedule.to_json()) == schedule
        assert "np." not in repr(schedule)


@each_example
def test_frozen(schedule: clr.Schedule) -> None:
    for name in (*type(schedule).__slots__, "anything"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(schedule, name, 1)


@each_example
def test_nothing_takes_it_apart(schedule: clr.Schedule) -> None:
    """As OmegaConf, and so Hydra, would with a dataclass in a list, and `asdict` with one in the user's own."""

    @dataclasses.dataclass
    class Training:
        schedule: clr.Schedule

    assert not dataclasses.is_dataclass(schedule)
    assert dataclasses.asdict(Training(schedule)) == {"schedule": schedule}


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (clr.triangular(0.001, 0.006, 2000), "clr.triangular(base_lr=0.001, max_lr=0.006, step_size=2000)"),
        (clr.triangular(0, 1, 8, step_size_down=None), "clr.triangular(base_lr=0, max_lr=1, step_size=8)"),
        (clr.exp_range(0, 1, 8, gamma=0.5), "clr.exp_range(base_lr=0, max_lr=1, step_size=8, gamma=0.5)"),
        (
            clr.cyclic(0, 1, 8, scale_fn=abs),
            "clr.cyclic(base_lr=0, max_lr=1, step_size=8, scale_fn=<built-in function abs>)",
        ),
        (clr.constant(1), "clr.constant(lr=1)"),
        (clr.warm_restarts(1.0, first_cycle=10), "clr.warm_restarts(max_lr=1.0, first_cycle=10)"),
        (clr.one_cycle(0.1, 100), "clr.one_cycle(max_lr=0.1, total_steps=100)"),
        (clr.phases((0, 1), [2]), "clr.phases(levels=[0, 1], lengths=[2])"),
        (RAMP, "clr.ramp(start=0.0, end=1.0, steps=4)"),
        (clr.wsd(0.1, 9, decay_steps=3), "clr.wsd(max_lr=0.1, total_steps=9, decay_steps=3)"),
        (clr.join([RAMP, RAMP]), f"clr.join(schedules=[{RAMP!r}, {RAMP!r}])"),
        (clr.warmup(RAMP, 3), f"clr.warmup(schedule={RAMP!r}, steps=3)"),
        (RAMP * 2, f"{RAMP!r} * 2"),
        (2.0 * RAMP * 3, f"{RAMP!r} * 2.0 * 3"),
        ((RAMP * 2).clip(0.5), f"({RAMP!r} * 2).clip(low=0.5)"),
        (RAMP.clip(high=0.5) * 2, f"{RAMP!r}.clip(high=0.5) * 2"),
        (RAMP.after_end("repeat"), f"{RAMP!r}.after_end(rule='repeat')"),
        (clr.momentum(RAMP, high=0.9), f"clr.momentum(schedule={RAMP!r}, high=0.9)"),
    ],
)
def test_repr_is_the_call_without_its_defaults(schedule: clr.Schedule, text: str) -> None:
    assert repr(schedule) == text


def test_completion_shows_what_is_the_user_s() -> None:
    shared = {"cycle", "is_cycle_end", "limits", "total_steps", "describe", "clip", "after_end"}
    shared |= {"to_dict", "to_json", "plot"}
    for schedule in EXAMPLES:
        public = {name for name in dir(schedule) if not name.startswith("_")}
        arguments = {name for name in type(schedule).__slots__ if not name.startswith("_")}
        assert public - arguments - shared <= {"period"}, schedule
        assert shared <= public


# Signatures


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every function, class and method that a user may call, by the name it is found under."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (clr, clr.torch, clr.keras, clr.tensorflow, clr.jax):
        names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
        for name in names:
            value = getattr(module, name)
            if not callable(value):
                continue
            found[f"{module.__name__}.{name}"] = value
            if inspect.isclass(value) and not issubclass(value, BaseException):
                own = {key: getattr(value, key) for key in vars(value) if not key.startswith("_")}
                found |= {f"{module.__name__}.{name}.{key}": method for key, method in own.items() if callable(method)}
    return found


FREE = {"clr.RangeTest.schedule", "clr.Search.schedule"}  # whose names are those of the policy


def has_free_names(function: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def test_every_public_signature_is_written_out() -> None:
    functions = public_functions()
    assert len(functions) > 50
    assert {name for name, function in functions.items() if has_free_names(function)} == FREE


@pytest.mark.parametrize("name", ["one_cycle", "wsd", "triangular", "join", "warmup", "phases", "step_size"])
def test_a_misspelt_argument_names_the_function(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'total_step'$"):
        getattr(clr, name)(total_step=5)


def test_lengths_that_could_be_taken_for_rates_are_named() -> None:
    calls: list[Callable[..., Any]] = [clr.triangular, clr.triangular2, clr.exp_range, clr.cyclic]
    for call in calls:
        with pytest.raises(TypeError, match="takes 3 positional arguments"):
            call(0.1, 0.2, 10, 20)
    with pytest.raises(TypeError, match=r"warm_restarts\(\) takes 1 positional argument"):
        clr.warm_restarts(0.001, 0.006)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"wsd\(\) takes 2 positional arguments"):
        clr.wsd(0.1, 100, 10, 20)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"warmup\(\) takes 2 positional arguments"):
        clr.warmup(RAMP, 10, 0.5)  # type: ignore[call-arg]


def test_lengths_are_kept_where_floats_would_be_other_lengths() -> None:
    schedule: Any = clr.one_cycle(1.0, 10007, 0.123457)
    assert schedule.lengths == (1234.434199, Fraction(8771565801, 1000000))
    assert clr.from_json(schedule.to_json()) == schedule
    assert schedule.describe().endswith(" to 4e-06 in 8771.565801 steps (cosine), and stays there.")


def test_completion_hides_what_is_not_the_user_s() -> None:
    assert "autograph_info__" not in dir(clr.Schedule)
    assert "autograph_info__" not in dir(RAMP)
    assert {"clip", "total_steps"} <= set(dir(clr.Schedule))


def test_texts_of_numpy_are_plain() -> None:
    schedule = clr.cyclic(0.25, 0.75, 4, mode=np.str_("triangular2"), shape=np.str_("cosine"))  # type: ignore[arg-type]
    assert "np." not in repr(schedule)
    assert type(schedule.mode) is type(schedule.shape) is str
    assert eval(repr(schedule), {"clr": clr}) == schedule


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        (clr.constant(0.1), 0.1),
        (clr.ramp(0.25, 0.75, 4), 0.75),
        (clr.ramp(0.25, 0.75, 4, "cosine"), 0.75),
        (clr.ramp(0.25, 0.75, 4, "1-sqrt"), 0.75),
        (clr.wsd(0.5, 9, decay_steps=3, min_lr=0.25), 0.25),
        (clr.warm_restarts(0.5, first_cycle=9, cycle_mult=0.5, base_lr=0.25), 0.25),
        (clr.ramp(0.25, 0.75, 4).after_end("repeat"), 0.25),
        (clr.triangular(0.25, 0.75, 4), 0.25),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", [10**400, 10**308 * 160, 2**63])
def test_any_integer_is_a_step(schedule: clr.Schedule, rate: float, step: int) -> None:
    step -= step % 40
    assert schedule(step) == rate


def test_rates_of_any_size_are_computed() -> None:
    # Slopes that no float could hold.
    assert [clr.ramp(10.0, 1.79e308, 0.5)(step) for step in range(3)] == [10.0, 1.79e308, 1.79e308]
    steep = clr.phases((1.0, 1.79e308, 0.0), (0.75, 0.5))
    assert [steep(step) for step in range(3)] == [1.0, 1.79e308 / 2, 0.0]
