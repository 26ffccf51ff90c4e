"""By what trainings and schedules are known again in another process: a text in which all their data counts."""

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from clr.schedule import Schedule

_SHOWN = 16  # elements of an array that are told one by one; of more there is a digest


def training(train: Any) -> str:
    """What tells one training from another: where it is defined, and its ``name``, or else the data that it has."""
    name = getattr(train, "name", None)
    if not isinstance(name, str):
        return description(train)
    return f"{_place(train if hasattr(train, '__qualname__') else type(train))} {name}"


def description(value: Any, within: tuple[int, ...] = ()) -> str:
    """A value as text that is the same in every process: a schedule's JSON, or all the data of anything else."""
    if id(value) in within:  # it holds itself
        return "..."
    described = functools.partial(description, within=(*within, id(value)))
    kind = cast("Any", type(value))
    if isinstance(value, Schedule):
        return _schedule(value)
    if isinstance(value, functools.partial):
        named = [f"{name}={described(item)}" for name, item in value.keywords.items()]
        return f"partial({', '.join([described(value.func), *map(described, value.args), *named])})"
    if inspect.ismethod(value):
        return f"{_place(value)} of {described(value.__self__)}"
    if inspect.isfunction(value):
        held = {name: described(item) for name, item in inspect.getclosurevars(value).nonlocals.items() if _lasts(item)}
        return _place(value) + (f" {held}" if held else "")
    if inspect.isclass(value) or inspect.isbuiltin(value):
        return _place(value)
    if isinstance(value, list | tuple):
        return f"{'' if kind in (list, tuple) else kind.__qualname__}[{', '.join(map(described, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(described, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{described(name)}: {described(item)}' for name, item in value.items())}}}"
    if (array := _array(value)) is not None:
        return array
    if is_dataclass(kind):
        data = (f"{field.name}={described(getattr(value, field.name))}" for field in fields(kind))
        return f"{_place(kind)}({', '.join(data)})"
    if kind.__repr__ is object.__repr__:
        return f"<{_place(kind)}> {described(getattr(value, '__dict__', {}))}"
    return _anywhere(repr(value))


def _schedule(schedule: Schedule) -> str:
    try:
        return schedule.to_json()
    except ValueError:  # a scaling function without a name, which is known by what it does
        shown = range(0, schedule.preview, max(1, schedule.preview // 16))
        return f"{_anywhere(repr(schedule))} {[float(f'{schedule(step):.6g}') for step in shown]}"


def _array(value: Any) -> str | None:
    """An array of any framework, of which `repr` would tell but a part; None if it is none."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(value, "__array__"):
        return None
    try:
        data = numpy.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):
        return None
    if data.dtype.hasobject or data.size <= _SHOWN:
        text = description(data.tolist())
    else:
        text = hashlib.sha256(data.tobytes()).hexdigest()
    return f"{data.dtype}{list(data.shape)} {text}"


def _lasts(value: Any) -> bool:
    """Whether what a function holds is the same at its next call: notes that it takes, such as in a list, are not."""
    return (
        value is None
        or isinstance(value, int | float | str | bytes | tuple | Schedule)
        or inspect.isroutine(value)
        or hasattr(value, "__array__")
    )


def _place(value: Any) -> str:
    """Where a function or a class is defined. A script is known as if it were imported."""
    module = value.__module__
    if module == "__main__":
        main: Any = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec else Path(file).stem if file else module
    return f"{module}:{value.__qualname__}"


def _anywhere(text: str) -> str:
    """Without places in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
