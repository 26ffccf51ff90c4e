"""Odd arguments and damaged texts: the result is right, or a TypeError or ValueError names the argument."""

import enum
import json
import math
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

import clr
from clr.finder.result import Sweep
from clr.schedules.base import POLICIES, parameters
from tests import curves
from tests.curves import measured

STEPS = (0, 1, 2, 3, 7, 10, 999, 10**6 + 1, 2**31, 2**53 - 1)
FAR_STEPS = (2**62, 2**63 - 1, 2**63, 10**400)
LONGEST = 2000  # characters of a message


class Silent:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Name(str):
    """A text with a repr of its own."""

    def __repr__(self) -> str:
        return f"Name({str(self)!r})"


class Colour(enum.IntEnum):
    """An integer with a name."""

    RED = 3


def nested(depth: int) -> list[Any]:
    """Lists within each other."""
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


TRIANGULAR = clr.triangular(0.25, 0.75, 4)
RAMP = clr.ramp(0.0, 1.0, 4)
NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 1, -1, 2, 3, 0.5, 1e-5, 5e-324, 1e-310, 1e-300, 1e300, 1.79e308, 0.1, 10, 100.5, 0.001, 0.0009),
    *(2**31, 2**53, 2**53 + 1, 2**62, 2**63, 10**309, 10**400, -(10**400), 10**5000, math.nan, math.inf, -math.inf),
    *(Fraction(1, 3), Fraction(10**400), Fraction(-1, 2), Fraction(1, 10**400), Colour.RED),
    *(np.float32(0.5), np.float16(1e-3), np.float64(0.1), np.longdouble("1e4000"), np.float32(np.nan)),
    *(np.int64(3), np.int8(3), np.uint8(200), np.uint64(2**63), np.int32(-1)),
)
ODD: tuple[Any, ...] = (
    *(True, False, None, "", "x", "1", "linear", "cos", b"ab", b"", "x" * 10**6, Name("cosine"), np.str_("linear")),
    *(Decimal("0.1"), 1j, (), [], {}, {1}, {"a": 1}, [0.1], (0.1, 0.2), [1, 2, 3], [0.1, "x"], [None], range(3)),
    *(np.timedelta64(5), np.timedelta64(5, "s"), np.datetime64("2020"), np.bool_(True), np.complex64(1)),
    *(np.array(3), np.array([1, 2]), np.array([0.1, np.nan]), np.array(["x"]), np.ma.masked_array([1], [True])),
    *(np.dtype("float32"), np.float32, np.random, object(), Silent(), [Silent()], nested(5000), len, int),
    *([10**5000], (0.1,) * 10**5, TRIANGULAR, RAMP, [RAMP, RAMP], [TRIANGULAR, TRIANGULAR], clr.triangular),
)


def rate(random: random.Random) -> float:
    return random.choice((0.0, 0.001, 0.1, 1.0, 10 ** random.uniform(-12, 3)))


def length(random: random.Random) -> float:
    return random.choice((1, 2, 10, 20.3, 2000, 0.5, random.randint(1, 10**6), round(random.uniform(0.01, 50), 3)))


def total(random: random.Random) -> int:
    return random.choice((2, 3, 10, 100, 10007, random.randint(2, 10**9)))


def simple(random: random.Random) -> clr.Schedule:
    """A schedule to make another of."""
    return random.choice((TRIANGULAR, RAMP, clr.constant(0.5), clr.one_cycle(0.1, 100), RAMP.after_end("error")))


def rates(random: random.Random) -> list[float]:
    return [rate(random) for _ in range(random.randint(1, 4))]


Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda random: random.choice(values)


# What makes sense for each argument, whichever function takes it.
SENSE: dict[str, Draw] = {
    **dict.fromkeys(("base_lr", "max_lr", "lr", "start", "end", "min_lr", "low", "high"), rate),
    **dict.fromkeys(("step_size", "step_size_down", "first_cycle"), length),
    **dict.fromkeys(("total_steps", "steps", "warmup_steps", "decay_steps"), total),
    **dict.fromkeys(("steps_per_epoch", "num_samples", "batch_size"), lambda random: random.randint(1, 1000)),
    **dict.fromkeys(("gamma", "peak_decay", "pct_start"), one_of(1.0, 0.5, 0.99994, 0.123457, 0.3)),
    **dict.fromkeys(("div_factor", "final_div_factor", "div", "div_final"), one_of(1.0, 25, 1e4, 10.5)),
    **dict.fromkeys(("three_phase", "single_cycle"), one_of(True, False)),
    **dict.fromkeys(("shape", "decay"), one_of("linear", "cosine", "1-sqrt")),
    "anneal_strategy": one_of("linear", "cosine", "cos"),
    "cycle_mult": one_of(1, 1, 2, 1.5, 0.5),
    "mode": one_of("triangular", "triangular2", "exp_range", "peak_decay"),
    "scale_fn": one_of(None, None, abs, lambda x: 1 / (1 + x), lambda x: 2, lambda x: "x", lambda x: 10**400),
    "scale_mode": one_of("cycle", "iterations"),
    "levels": rates,
    "lengths": lambda random: [length(random) for _ in range(random.randint(0, 3))],
    "schedule": simple,
    "schedules": lambda random: [simple(random) for _ in range(random.randint(1, 3))],
    "boundaries": lambda random: random.choice((None, [5], [5, 9], sorted(random.sample(range(1, 99), 2)))),
    "factor": rate,
    "rule": one_of("hold", "repeat", "error"),
    "epochs": one_of(2, 4, 2.5, 10),
    "cycles": one_of(1, 4, 2.5),
    "bounds": one_of((0.01, 0.1), [0.1, 1], clr.Bounds(0.1, 1.0, 0.5, "so"), measured(curves.valley)),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {**POLICIES, "step_size": clr.step_size, "advise": clr.advise}
# Of a range test of a made-up training.
OPTIONS: dict[str, Draw] = {
    "train_step": one_of(lambda lr: 1 / (1 + 100 * lr) + lr * lr, lambda lr: None, lambda lr: 10**400),
    "min_lr": one_of(1e-7, 1e-5),
    "max_lr": one_of(10, 100.0),
    "num_steps": one_of(30, 300),
    "growth": one_of("linear", "exponential"),
    "diverge_at": one_of(1.0, 4),
    "time_limit": one_of(None, 100),
    "evaluate": one_of(None, lambda: 1.0, lambda: "x"),
    "evaluate_every": one_of(1, 5),
    "goal": one_of("min", "max"),
    "repeats": one_of(1),
}


# Of a search of a made-up training, and of a trial.
SEARCH_OPTIONS: dict[str, Draw] = {
    "train_step": one_of(lambda lr: 1 / (1 + 100 * lr) + lr * lr, lambda lr: None, lambda lr: math.nan),
    "reset": one_of(lambda seed: None),
    "evaluate": one_of(lambda: 0.5),
    "total_steps": one_of(1, 300, 10**6, 2**53),
    "budget": one_of(200, 700),
    "goal": one_of("min", "max"),
    "min_lr": one_of(1e-7, 1e-5),
    "max_lr": one_of(10, 100.0),
}
TRIAL_OPTIONS: dict[str, Draw] = {
    "rung": one_of(1, 2),
    "max_lr": one_of(0.1, 1e-9, 1e90),
    "num_steps": one_of(1, 30),
    "losses": one_of((), (1.0,), (math.nan,), (None,)),
    "score": one_of(0.5, -1e99, None),
    "stop": one_of("completed", "diverged", "non-finite"),
}


def odd(random: random.Random) -> Any:
    """Any value at all."""
    return random.choice(NUMBERS if random.random() < 0.5 else ODD)


@dataclass
class Case:
    """What was tried, and the words of which one must be in the message of an error."""

    text: str
    names: Iterable[str]
    found: list[str]

    def check(self, call: Callable[[], Any]) -> Any:
        """What ``call`` gives; None where it is rightly refused."""
        try:
            return call()
        except (TypeError, ValueError) as error:
            message = str(error)
            if not any(re.search(rf"\b{re.escape(name)}\b", message) for name in self.names):
                self.report(f"names nothing: {type(error).__name__}: {message[:200]}")
            if len(message) > LONGEST:
                self.report(f"a message of {len(message)} characters: {message[:100]}")
        except Exception as error:
            self.report(f"{type(error).__name__}: {str(error)[:200]}")
        return None

    def report(self, what: str) -> None:
        self.found.append(f"{self.text[:400]}: {what}")


def fuzz(count: int, seed: int) -> list[str]:
    """Calls functions ``count`` times with odd arguments. Returns what was found: nothing, if all is well."""
    chance, found = random.Random(seed), list[str]()
    functions = [*FUNCTIONS] * 3 + ["call"] * 25 + ["from_dict"] * 15 + ["range_test"] * 15 + ["search"] * 15
    own = {"call": _call, "from_dict": _data, "range_test": _range_test, "search": _search}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(count):
            name = chance.choice(functions)
            case = Case(f"seed {seed}, number {number}: {name}", (), found)
            own.get(name, _make)(chance, case, name)
    return found


def _make(chance: random.Random, case: Case, name: str) -> None:
    """A function that makes something, with a few odd arguments among arguments that make sense."""
    names = [*parameters(FUNCTIONS[name]), *(["base_lr", "max_lr"] if name == "advise" else [])]
    given: dict[str, Any] = {}
    for parameter in parameters(FUNCTIONS[name]):
        if chance.random() < (0.3 if name == "step_size" else 0.7):
            given[parameter] = SENSE[parameter](chance)
    for parameter in chance.sample(parameters(FUNCTIONS[name]), min(chance.choice((0, 1, 1, 1, 2)), len(given))):
        given[parameter] = odd(chance)
    case.text += f"({', '.join(f'{key}={shown(value)}' for key, value in given.items())})"
    case.names = [*names, name]
    result = case.check(lambda: FUNCTIONS[name](**given))
    if isinstance(result, clr.Schedule):
        _check_schedule(case, result)
    elif isinstance(result, int | float) and not (0 < result < math.inf):
        case.report(f"gives {result!r}")


def _check_schedule(case: Case, schedule: clr.Schedule) -> None:
    """Whether the rates are finite and within the limits, and the schedule a value as any other."""
    case.names = ("step", "scale_fn", "dtype", "scaling")
    low, high = schedule.limits
    for step in (*STEPS, *FAR_STEPS):
        value = case.check(lambda step=step: schedule(step))  # type: ignore[misc]
        if value is not None and not (low <= value <= high < math.inf):
            case.report(f"gives {value!r} at {step} for the limits {low!r} and {high!r}")
    array = case.check(lambda: schedule(np.array(STEPS)))
    if array is not None and array.tolist() != [schedule(step) for step in STEPS]:
        case.report("gives other rates in an array")
    text = case.check(schedule.to_json)
    if text is not None:
        again = case.check(lambda: clr.from_json(text))
        if again != schedule or again.to_json() != text:
            case.report(f"is another one when it is loaded: {text[:300]}")
    for words in (case.check(schedule.describe), case.check(lambda: repr(schedule))):
        if not isinstance(words, str):
            case.report("has no words")


def _call(chance: random.Random, case: Case, name: str) -> None:
    """A schedule, called with an odd step."""
    schedule = simple(chance)
    step = odd(chance) if chance.random() < 0.8 else np.array([odd(chance)] * chance.randint(0, 2), object)
    options = {"dtype": chance.choice((*ODD, "float16", np.float32))} if chance.random() < 0.2 else {}
    method = chance.choice(("__call__", "cycle", "is_cycle_end")) if not options else "__call__"
    case.text += f" {schedule!r}.{method}({shown(step)}, {shown(options)})"
    case.names = ("step", "dtype")
    result = case.check(lambda: getattr(schedule, method)(step, **options))
    if isinstance(result, float) and not (schedule.limits[0] <= result <= schedule.limits[1]):
        case.report(f"gives {result!r}")


def _data(chance: random.Random, case: Case, name: str) -> None:
    """The data of a schedule with an odd value in some place."""
    schedule = chance.choice(
        (
            clr.warmup(clr.one_cycle(0.1, 100), 5).clip(0.1, 0.2),
            clr.cyclic(0.1, 1.0, 20.3, mode="peak_decay", peak_decay=0.9),
            clr.join([clr.warm_restarts(0.1, first_cycle=5, cycle_mult=2), clr.wsd(0.1, 9, decay_steps=3)], [9]) * 0.5,
            simple(chance),
        )
    )
    data = schedule.to_dict()
    _spoil(chance, data)
    case.text += f"({shown(data)})"
    case.names = (
        "data",
        "clr",
        *(name for policy in POLICIES.values() for name in parameters(policy)),
        "kind",
        "scaling",
    )
    result = case.check(lambda: clr.from_dict(data))
    if isinstance(result, clr.Schedule):
        _check_schedule(case, result)


TEST = measured(curves.valley, noise=0.05).to_dict()


def _range_test(chance: random.Random, case: Case, name: str) -> None:
    """The data of a range test with an odd value in some place, or a curve with odd numbers."""
    case.names = ("sweep", "data", *OPTIONS, *TEST, "losses", "metrics", "stop", "rates", "bounds")
    kind, given = chance.random(), dict[str, Any]()
    if kind < 0.3:
        given = {option: sense(chance) for option, sense in OPTIONS.items()}
        option, value = chance.choice([*OPTIONS]), odd(chance)
        given[option] = (lambda *given: value) if option in ("train_step", "evaluate") else value
        case.text += f" with {option}={shown(value)}"
        test = case.check(lambda: clr.range_test(**given))
    elif kind < 0.4:
        given = {"losses": (1.0, None), "metrics": (), "stop": "completed"}
        given |= {chance.choice([*given]): odd(chance)} if chance.random() < 0.5 else {}
        case.text += f" of the sweep {shown(given)}"
        sweep = case.check(lambda: Sweep(**given))
        made: dict[str, Any] = {"sweeps": [sweep], "planned_rates": (0.1, 0.2)}
        option = chance.choice([field.name for field in fields(clr.RangeTest)])
        made |= {option: odd(chance)} if chance.random() < 0.5 else {}
        case.text += f" of {shown(made)}"
        test = sweep and case.check(lambda: clr.RangeTest(**made))
    elif kind < 0.6:
        given = {"rates": [0.1, 0.2, 0.3], "losses": [1.0, 0.5, 2.0]}
        given |= {"goal": odd(chance)} if chance.random() < 0.2 else {}
        if chance.random() < 0.5:
            given[chance.choice(("rates", "losses"))] = odd(chance)
        else:
            given[chance.choice(("rates", "losses"))][chance.randrange(3)] = odd(chance)
        case.text += f" of {shown(given)}"
        test = case.check(lambda: clr.RangeTest.from_losses(**given))
    else:
        data = json.loads(json.dumps(TEST))
        _spoil(chance, data)
        case.text += f" from {shown({key: value for key, value in data.items() if key != 'planned_rates'})}"
        test = case.check(lambda: clr.from_dict(data))
    if isinstance(test, clr.RangeTest):
        _check_test(case, test)


def _check_test(case: Case, test: clr.RangeTest) -> None:
    """Whether a range test gives bounds within its rates or says why not, and is a value as any other."""
    try:
        base_lr, max_lr = test.bounds()
    except clr.NoBoundsError:
        pass
    else:
        if not test.min_lr <= base_lr < max_lr <= test.max_lr:
            case.report(f"has the bounds {base_lr!r} and {max_lr!r}")
    for text in (test.describe(), repr(test)):
        if len(text) > LONGEST:
            case.report(f"describes itself in {len(text)} characters")
    again = case.check(lambda: clr.from_json(test.to_json()))
    if again != test:
        case.report("is another one when it is loaded")


def _searched() -> clr.Search:
    """A search that has all there may be: a range test, two rungs, and trials that diverged."""
    best = [0.0]

    def train_step(lr: float) -> float:
        best[0] = 2.0 if lr > 0.5 else 1 + abs(math.log10(max(lr, 1e-9)) + 1.5)
        return math.inf if lr > 1 else best[0] + lr

    return clr.find_bounds(train_step, lambda seed: None, lambda: best[0], total_steps=5000)


SEARCH = _searched().to_dict()


def _search(chance: random.Random, case: Case, name: str) -> None:
    """A search, a trial, or the data of a search, with an odd value in some place."""
    case.names = (*SEARCH_OPTIONS, *TRIAL_OPTIONS, *SEARCH, *TEST, "data", "losses", "metrics", "trial", "sweep", "clr")
    kind = chance.random()
    search: Any
    if kind < 0.3:
        given = {option: sense(chance) for option, sense in SEARCH_OPTIONS.items()}
        option, value = chance.choice([*SEARCH_OPTIONS]), odd(chance)
        if option == "budget":  # a large one is a long search, and None may be one
            value = chance.choice(ODD[3:])
        if option == "reset" and callable(value):  # whose errors are its own
            value = None
        given[option] = (lambda *given: value) if option in ("train_step", "evaluate") else value
        case.text += f" with {option}={shown(value)}"
        search = case.check(lambda: clr.find_bounds(**given))
    elif kind < 0.6:
        own = {option: sense(chance) for option, sense in TRIAL_OPTIONS.items()}
        own |= {option: odd(chance) for option in chance.sample([*own], chance.choice((0, 1, 1, 2)))}
        case.text += f" of the trial {shown(own)}"
        trial = case.check(lambda: clr.Trial(**own))
        start, total_steps = (odd(chance) if chance.random() < 0.2 else value for value in (1.0, 1000))
        search = trial and case.check(lambda: clr.Search(None, (trial,) * 2, start, total_steps, 1000))  # type: ignore[arg-type]
    else:
        data = json.loads(json.dumps(SEARCH))
        _spoil(chance, data)
        case.text += f" from {shown({key: data.get(key) for key in data if key != 'range_test'})}"
        search = case.check(lambda: clr.from_dict(data))
    if isinstance(search, clr.Search):
        _check_search(case, search)


def _check_search(case: Case, search: clr.Search) -> None:
    """Whether a search gives bounds and a schedule or says why not, and is a value as any other."""
    try:
        base_lr, max_lr = search.bounds()
    except clr.NoBoundsError:
        pass
    else:
        if not 0 < base_lr < max_lr < math.inf:
            case.report(f"has the bounds {base_lr!r} and {max_lr!r}")
        for schedule in (case.check(search.schedule), case.check(lambda: clr.advise(search).schedule)):
            if isinstance(schedule, clr.Schedule) and not schedule.limits[1] <= max_lr:
                case.report(f"has a schedule up to {schedule.limits[1]!r}")
    for text in (search.describe(), repr(search)):
        if len(text) > 2 * LONGEST:
            case.report(f"describes itself in {len(text)} characters")
    again = case.check(lambda: clr.from_json(search.to_json()))
    if again != search:
        case.report("is another one when it is loaded")


def _spoil(chance: random.Random, data: Any) -> None:
    """Puts an odd value into some place of plain data, or takes one away, or adds one."""
    while True:
        keys: list[Any] = [*data] if isinstance(data, Mapping) else [*range(len(data))]
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(data[key], dict | list) and data[key] and chance.random() < 0.7:
            data = data[key]
            continue
        if chance.random() < 0.1:
            del data[key]
        elif isinstance(data, dict) and chance.random() < 0.1:
            data[chance.choice(("more", 5, None, "", "x" * 10**6))] = odd(chance)
        else:
            data[key] = odd(chance)
        return


def shown(value: object) -> str:
    """A short text for any value."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}: {error}>"
    return text if len(text) < 150 else f"{text[:100]}..."


TOKENS = (
    *("null", "true", "NaN", "-Infinity", "1e999", "-1", "0", "1.5", "9" * 400, "9" * 5000, '"x"', '"inf"', "[]", "{}"),
    *('"\\udcff"', "1e-400", "2", "1.001", "1e308", "4611686018427387904", "-0.0", '"linear"', '"cosine"'),
)


def fuzz_json(count: int, seed: int) -> list[str]:
    """Loads ``count`` damaged texts of schedules and range tests. Returns what was found."""
    chance, found = random.Random(seed), list[str]()
    short = clr.RangeTest.from_losses([0.1 * at for at in range(1, 30)], [abs(at - 15) for at in range(1, 30)])
    texts = [
        *(
            schedule.to_json()
            for schedule in (TRIANGULAR, RAMP, clr.one_cycle(0.1, 100), clr.wsd(0.1, 9, decay_steps=3))
        ),
        clr.join(
            [clr.warmup(clr.warm_restarts(0.1, first_cycle=5), 3) * 0.5, RAMP.after_end("repeat")], [20]
        ).to_json(),
        clr.momentum(clr.cyclic(0.1, 1.0, 20.3, mode="peak_decay", peak_decay=0.9).clip(0.2, 0.5)).to_json(),
        short.to_json(),
        clr.Search(short, (clr.Trial(1, 0.1, 3, (0.5, math.nan), None, "non-finite"),) * 2, 1.0, 1000, 600).to_json(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, where a product of rates near 1e308 overflows on its way
        for number in range(count):
            text = chance.choice(texts)
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                text = _damaged(chance, text, texts)
            case = Case(f"seed {seed}, number {number}: {text[:300]!r}", ("",), found)
            loaded = case.check(lambda text=text: clr.from_json(text))  # type: ignore[misc]
            if isinstance(loaded, clr.Schedule):
                _check_schedule(case, loaded)
            elif isinstance(loaded, clr.RangeTest):
                _check_test(case, loaded)
            elif isinstance(loaded, clr.Search):
                _check_search(case, loaded)
    return found


def _damaged(chance: random.Random, text: str, texts: list[str]) -> str:
    places = [match.span() for match in re.finditer(r'-?\d[\d.e+-]*|"[^"]*"|null|true|false', text)]
    start, end = chance.choice(places) if places else (0, 0)
    at = chance.randrange(len(text) + 1)
    match chance.randrange(8):
        case 0 | 1 | 2:
            return text[:start] + chance.choice(TOKENS) + text[end:]
        case 3:
            return text[:at] + text[at + chance.randint(1, 5) :]
        case 4:
            return text[:at] + chance.choice('0123456789.-e"[]{},: x\\\x00\ud800é') + text[at:]
        case 5:
            return text[:at]
        case 6:  # within itself, or another
            return text[:start] + chance.choice(texts).replace('"clr": 1, ', "") + text[end:]
    deep = chance.choice((40, 60, 500, 100_000))
    return text[:start] + "[" * deep + text[start:end] + "]" * deep + text[end:]


def test_odd_arguments_give_right_rates_or_an_error_that_names_them() -> None:
    assert fuzz(3000, seed=1) == []


def test_damaged_texts_are_read_or_refused() -> None:
    assert fuzz_json(2000, seed=1) == []


MISSING = """
import sys
for guest in ("tensorflow", "torch", "jax", "keras", "matplotlib", "numpy"):
    sys.modules[guest] = None
import inspect, pydoc, clr
names = {name for name, _ in inspect.getmembers(clr)}
assert {"triangular", "range_test", "cyclic_learning_rate", "finder"} <= names
assert not {"torch", "jax", "keras", "tensorflow", "plot"} & names
assert "The rate rises and falls" in pydoc.render_doc(clr.triangular) and "advise" in pydoc.render_doc(clr)
"""


def test_help_needs_no_framework() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
