"""By what trainings and schedules are known again in another process: a text in which all their data counts."""

import functools
import hashlib
import inspect
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from clr.schedules.base import Schedule

_SHOWN = 16  # elements of an array that are told one by one; for more there is a digest
_LONGEST = 500  # letters of a text; for more there is a digest, too
_DEEPEST = 50  # levels of what holds something


def training(train: Any) -> str:
    """What tells one training from another: where it is defined, with its ``name``, or else a digest of its data.

    That is what it was given: arguments of a partial, attributes of an object, what a function has closed over. Of what
    changes while it trains, lists, dicts and sets that a function has closed over do not count, and objects that an
    object holds, such as a model, count by their class alone.
    """
    inner = train
    while isinstance(inner, functools.partial):
        inner = inner.func
    place = _place(inner if hasattr(inner, "__qualname__") else type(inner))
    name = getattr(train, "name", None)
    if isinstance(name, str):
        return f"{place} {name}"
    data = _Teller(of_training=True).tell(train)
    return place if data == place else f"{place} #{_digest(data)}"


def description(schedule: Any) -> str:
    """A schedule as text that is the same in every process: its JSON, or all its data if it is none of this package."""
    text = _Teller(of_training=False).tell(schedule)
    return text if isinstance(schedule, Schedule) or len(text) <= _LONGEST else f"{text[:_LONGEST]} #{_digest(text)}"


class _Teller:
    """Tells values by their data."""

    def __init__(self, of_training: bool) -> None:
        self._of_training = of_training
        self._met: dict[int, tuple[int, Any]] = {}  # what was told; it is kept, so that no other has its id
        self._depth = self._held = 0

    def tell(self, value: Any) -> str:
        """A value as text."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if id(value) in self._met:
            return f"#{self._met[id(value)][0]}"
        self._met[id(value)] = len(self._met), value
        self._depth += 1
        try:
            return self._told(value) if self._depth <= _DEEPEST else _place(type(value))
        finally:
            self._depth -= 1

    def _told(self, value: Any) -> str:
        tell, kind = self.tell, cast("Any", type(value))
        if isinstance(value, Schedule):
            return _schedule(value)
        if isinstance(value, functools.partial):
            return f"partial {tell(value.func)} {tell(value.args)} {tell(value.keywords)}"
        if inspect.ismethod(value):
            return f"{_place(value)} of {tell(value.__self__)}"
        if inspect.isfunction(value):
            return self._function(value)
        if inspect.isclass(value) or inspect.isbuiltin(value):
            return _place(value)
        if isinstance(value, list | tuple):
            return f"{kind.__name__}[{', '.join(map(tell, value))}]"
        if isinstance(value, set | frozenset):
            return f"{kind.__name__}{{{', '.join(sorted(map(tell, value)))}}}"
        if isinstance(value, Mapping):
            return f"{kind.__name__}{{{', '.join(f'{tell(name)}: {tell(item)}' for name, item in value.items())}}}"
        if (array := self._array(value)) is not None:
            return array
        if is_dataclass(kind):
            data = (f"{field.name}={tell(getattr(value, field.name))}" for field in fields(kind))
            return f"{_place(kind)}({', '.join(data)})"
        if isinstance(value, SimpleNamespace | Namespace):
            return f"{kind.__name__} {tell(vars(value))}"
        if self._held and hasattr(value, "__dict__") and not isinstance(value, Enum):
            return f"<{_place(kind)}>"
        if kind.__repr__ is not object.__repr__:
            return _anywhere(repr(value))
        return f"<{_place(kind)}> {self._holding(object.__getstate__(value))}"

    def _function(self, function: Any) -> str:
        """Where it is defined, what it has closed over, and its defaults."""
        data = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                data[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        if self._of_training:  # in lists and the like it may take notes
            data = {name: item for name, item in data.items() if not isinstance(item, list | dict | set)}
        data |= dict(enumerate(function.__defaults__ or ())) | (function.__kwdefaults__ or {})
        return _place(function) + (f" {self._holding(data)}" if data else "")

    def _holding(self, data: Any) -> str:
        """What something has."""
        self._held += self._of_training
        try:
            return self.tell(data)
        finally:
            self._held -= self._of_training

    def _array(self, value: Any) -> str | None:
        """An array of any framework, of which `repr` would tell but a part; None if it is none."""
        numpy: Any = sys.modules.get("numpy")
        if numpy is None or not hasattr(value, "__array__"):
            return None
        try:
            tensor = value.detach().cpu() if hasattr(value, "detach") else value
            data = numpy.asarray(tensor.float() if str(value.dtype) == "torch.bfloat16" else tensor)
            kind = f"{value.dtype} of {list(data.shape)}"
        except AttributeError:  # such as a table of pandas, of which each column has its own
            data = numpy.asarray(value)
            kind = f"{type(value).__name__} of {list(map(str, getattr(value, 'columns', [])))}"
        except (TypeError, ValueError, RuntimeError):
            return None
        if data.dtype.hasobject or data.size <= _SHOWN:
            return f"{kind} {self.tell(data.tolist())}"
        return f"{kind} {hashlib.sha256(data.tobytes()).hexdigest()}"


def _schedule(schedule: Schedule) -> str:
    try:
        return schedule.to_json()
    except ValueError:  # a scaling function without a name, which is known by what it does
        shown = range(0, schedule._preview, max(1, schedule._preview // 16))
        return f"{_anywhere(repr(schedule))} {[float(f'{schedule(step):.6g}') for step in shown]}"


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
