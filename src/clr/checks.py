"""The rules that arguments must meet, and the one wording in which a broken rule is reported.

Every message states the rule and what came: "`step_size` must be a positive number of steps. Received: 0."
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, Never

if not hasattr(sys.modules["clr"], "_PLACES"):  # pip lets a distribution write over the files of another
    raise ImportError(
        "the module `clr` is not that of cyclic-learning-rate: another package has replaced or removed its files. "
        "Install cyclic-learning-rate anew, where neither pythonnet nor the package clr is installed."
    )

RULES = {
    "rate": "a finite number, 0 or more",
    "max_rate": "a finite number, `{low}` or more",
    "steps": "a positive number of steps",
    "length": "a number of steps from 0.001 to 2**53",
    "gamma": "a number above 0 and at most 1",
    "cycle_mult": "1, or a number from 0.001 to 1000 at least 0.001 away from it",
    "sequence": "a list or a tuple",
    "boundaries": "growing steps, one for each schedule but the first",
    "schedule": "a schedule",
    "schedules": "a list with at least one schedule",
    "mapping": "a dict with the data that was saved",
    "scale_name": "a name, a text that is not empty",
    "momentum": "a number from 0 to below 1",
    "fraction": "a number from 0 to 1",
    "divisor": "a finite number, 1 or more",
    "choice": "one of {allowed}",
    "scale_fn": "None or a function of one number",
    "scale": "a function that returns a number from 0 to 1",
    "step": "a whole number of steps, 0 or more",
    "far_step": "a number of steps below 2**63",
    "far": "below 2**63",
    "most_steps": "at most 2**53 steps",
    "text": "a text",
    "dtype": "a floating dtype",
    "count": "a whole number, 1 or more",
    "whole": "a whole number, 0 or more",
    "positive": "a finite number above 0",
    "finite": "a finite number",
    "function": "a function",
}
_LONGEST = 500  # characters of a value in a message
MOST_STEPS = 2**53  # of a training: all floats below are exact


def fail(error: type[Exception], name: str, rule: str, received: object, **details: object) -> Never:
    """Raises ``error`` in the one wording of a broken rule.

    Args:
        error: The class of the error.
        name: The argument as the user wrote it.
        rule: A key of `RULES`, or the rule's text where only one place needs it.
        received: What came.
        **details: What the rule's text names in braces.
    """
    text = RULES[rule].format(**details) if rule in RULES else rule
    raise error(f"`{name}` must be {text}. Received: {shown(received)}.")


def shown(value: object) -> str:
    """``value`` as a message shows it: its repr, without its middle if it is long. It never fails."""
    try:
        text = repr(value)
    except Exception:  # of an object's own repr, of an integer of too many digits, or of lists too deep in each other
        size = f" of {value.bit_length()} bits" if isinstance(value, int) else ""
        text = f"<{type(value).__name__}{size}>"
    return _cut(text)


def _cut(text: str) -> str:
    """``text`` without its middle if it is long."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 100]}...{text[-50:]} ({len(text)} characters)"


def is_real(value: object) -> bool:
    """Whether ``value`` is a number: no bool, and no span of time, which NumPy counts among the integers."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return isinstance(value, Real) and getattr(getattr(value, "dtype", None), "kind", "") != "m"


def number(name: str, value: object, rule: str, **details: object) -> float:
    """``value`` as a float; a bool, a string or an array is a TypeError, NaN or infinity a ValueError."""
    if not is_real(value):
        fail(TypeError, name, rule, value, **details)
    try:
        result = float(value)  # type: ignore[arg-type]
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        fail(ValueError, name, rule, value, **details)
    return result


def base_rate(name: str, value: object) -> float:
    """A lower bound of the learning rate."""
    result = number(name, value, "rate")
    if result < 0:
        fail(ValueError, name, "rate", value)
    return result + 0.0  # -0.0 becomes 0.0


def max_rate(name: str, value: object, low_name: str, low: float) -> float:
    """An upper bound of the learning rate, not below the lower one."""
    result = number(name, value, "max_rate", low=low_name)
    if result < low:
        rule = RULES["max_rate"].format(low=low_name)
        raise ValueError(f"`{name}` must be {rule}. Received: {shown(value)} with `{low_name}` {low!r}.")
    return result + 0.0


def steps(name: str, value: object) -> float:
    """A positive length in steps, an int if it is whole."""
    result = number(name, value, "steps")
    if result <= 0:
        fail(ValueError, name, "steps", value)
    if not 0.001 <= result <= MOST_STEPS:
        fail(ValueError, name, "length", value)
    return int(result) if result == int(result) else result


def gamma(name: str, value: object) -> float:
    """A factor per step or per cycle, in (0, 1]."""
    result = number(name, value, "gamma")
    if not 0 < result <= 1:
        fail(ValueError, name, "gamma", value)
    return result


def cycle_mult(name: str, value: object) -> Fraction:
    """By how much each cycle is longer than the one before. Nearer to 1, its table of cycles would be too long."""
    factor = Fraction(number(name, value, "cycle_mult")).limit_denominator(10**6)
    if factor != 1 and not (Fraction(1, 1000) <= factor <= 1000 and abs(factor - 1) >= Fraction(1, 1000)):
        fail(ValueError, name, "cycle_mult", value)
    return factor


def sequence(name: str, value: object) -> list[Any]:
    """A few things in order."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        fail(TypeError, name, "sequence", value)
    return list(value)


def few(name: str, value: object, most: int) -> list[Any]:
    """At most so many things in order."""
    result = sequence(name, value)
    if len(result) > most:
        fail(ValueError, name, f"at most {most:,} {name}", f"{len(result):,} {name}")
    return result


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Data that was saved."""
    if not isinstance(value, Mapping):
        fail(TypeError, name, "mapping", value)
    return value


def scale_name(name: str, value: object) -> str:
    """The name of a scaling function."""
    if not isinstance(value, str):
        fail(TypeError, name, "scale_name", value)
    if not value:
        fail(ValueError, name, "scale_name", value)
    return value


def fraction(name: str, value: object) -> Fraction:
    """A part of a whole: 0.3 stands for 3/10."""
    result = Fraction(number(name, value, "fraction")).limit_denominator(10**6)
    if not 0 <= result <= 1:
        fail(ValueError, name, "fraction", value)
    return result


def divisor(name: str, value: object) -> float:
    """What a rate is divided by to give a lower one."""
    result = number(name, value, "divisor")
    if result < 1:
        fail(ValueError, name, "divisor", value)
    return result


def momentum(name: str, value: object) -> float:
    """A momentum, or the first beta of Adam."""
    result = number(name, value, "momentum")
    if not 0 <= result < 1:
        fail(ValueError, name, "momentum", value)
    return result + 0.0


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """One of a few known names."""
    if not isinstance(value, str) or value not in allowed:
        error = ValueError if isinstance(value, str) else TypeError
        fail(error, name, "choice", value, allowed=_cut(", ".join(map(repr, allowed))))
    return str.__str__(value)


def scale_fn(name: str, value: object) -> Callable[[Any], Any] | None:
    """A user's own scaling function, or None."""
    if value is not None and not callable(value):
        fail(TypeError, name, "scale_fn", value)
    return value


def scale(function: Callable[[Any], Any], argument: int) -> float:
    """``function(argument)``, which must be a number from 0 to 1."""
    value = function(argument)
    try:
        result = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not 0 <= result <= 1:
        error = ValueError if isinstance(value, Real) else TypeError
        received = f"{shown(value)} from scale_fn({shown(argument)})"
        raise error(f"`scale_fn` must be {RULES['scale']}. Received: {received}.")
    return result


def step(name: str, value: object) -> int:
    """A step on the host: a Python or NumPy integer, or a whole float, not negative."""
    if type(value) is int and value >= 0:
        return value
    if not is_real(value):
        fail(TypeError, name, "step", value)
    number: Any = value
    try:
        whole = int(number)
    except (ValueError, OverflowError):  # NaN and infinity
        whole = -1
    if whole < 0 or whole != number:
        fail(ValueError, name, "step", value)
    return whole


def floating(is_floating: bool, dtype: Any) -> None:
    """The dtype of rates, which integers could not hold."""
    if not is_floating:
        fail(TypeError, "dtype", "dtype", dtype)


def count(name: str, value: object) -> int:
    """A positive whole number, such as a batch size."""
    return _integer(name, value, "count", 1)


def whole(name: str, value: object) -> int:
    """A whole number that may be 0, such as a count of steps."""
    return _integer(name, value, "whole", 0)


def total(name: str, value: object) -> int:
    """The steps of a training, or of a part of one."""
    return _bounded(name, value, count(name, value))


def part(name: str, value: object) -> int:
    """The steps of a part of a training that may be missing."""
    return _bounded(name, value, whole(name, value))


def _bounded(name: str, value: object, steps: int) -> int:
    if steps > MOST_STEPS:
        fail(ValueError, name, "most_steps", value)
    return steps


def _integer(name: str, value: object, rule: str, least: int) -> int:
    if not (is_real(value) and isinstance(value, Integral)):
        fail(TypeError, name, rule, value)
    result = int(value)
    if result < least:
        fail(ValueError, name, rule, value)
    if result >= 2**63:
        fail(ValueError, name, "far", value)
    return result


def flag(name: str, value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        fail(TypeError, name, "True or False", value)
    return value


def positive(name: str, value: object) -> float:
    """A finite number above 0."""
    result = number(name, value, "positive")
    if result <= 0:
        fail(ValueError, name, "positive", value)
    return result


def function(name: str, value: object) -> None:
    """Something to call."""
    if not callable(value):
        fail(TypeError, name, "function", value)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, if no key comes twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"saved data must not have a key twice. Received: {shown([key for key, _ in pairs])}.")
    return result


def parsed(text: object) -> Any:
    """The data of a JSON text, which was saved."""
    import json  # which takes long to import

    if not isinstance(text, str | bytes | bytearray):
        fail(TypeError, "text", "text", text)
    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=_parsed_integer)
    except RecursionError:
        raise ValueError("saved data must not be nested so deep.") from None


def _parsed_integer(digits: str) -> float:
    """An integer, or infinity where no float is as large: which is refused where its name is known."""
    return int(digits) if len(digits) < 400 else float(digits)


def version(data: Mapping[str, Any], expected: int, what: str) -> None:
    """The version of saved data."""
    own = data.get("clr")
    if type(own) is not int or own != expected:
        raise ValueError(f"the data of {what} must have version {expected} as 'clr'. Received: {shown(own)}.")


def keys(data: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    """The keys of saved data, and no others."""
    names = list(names)
    if set(data) != set(names):
        received = shown(list(data)).strip("[]") or "none"
        raise ValueError(f"{what} must have the keys {', '.join(map(repr, names))}. Received: {received}.")
