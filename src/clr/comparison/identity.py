"""By what kept runs are known again: the name of the training, its source, and the text of each schedule."""

import ast
import hashlib
import inspect
import re
import sys
from typing import Any

from clr import checks
from clr.schedules.base import Schedule

_UNTOLD = re.compile(r"0x[0-9a-f]{6,}|\.\.\.", re.IGNORECASE)  # the signs of a repr that does not tell all


def name_of(train: object, name: str | None) -> str:
    """The name under which runs are kept: the given one, or ``module:qualname``."""
    if name is not None:
        return checks.scale_name("name", name)
    own = getattr(train, "__qualname__", None)
    holds = getattr(train, "__self__", None) or getattr(train, "__closure__", None)  # data that no source tells
    if own is None or "<lambda>" in own or holds:
        raise ValueError(f"`name` must be given to keep the runs of what has no name of its own. Received: {train!r}.")
    return f"{train.__module__}:{own}"


def source_of(train: Any) -> str | None:
    """A digest of what the module that trains defines; None where it has no source, as in a notebook.

    It is that of all functions, classes and constants, without comments. The rest of a script, such as its call of
    `clr.compare`, may change: more seeds and schedules can be added.
    """
    module = getattr(train, "func", train).__module__  # that of what a partial calls
    try:
        body = ast.parse(inspect.getsource(sys.modules[module])).body
    except (OSError, TypeError, KeyError, SyntaxError):
        return None
    return hashlib.sha256("".join(ast.dump(node) for node in body if _defines(node)).encode()).hexdigest()[:16]


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return not any(isinstance(part, ast.Call) for part in ast.walk(node))
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def description(name: str, schedule: object) -> str:
    """A schedule as text: the JSON of one of ours, and else its repr."""
    if isinstance(schedule, Schedule):
        try:
            return schedule.to_json()
        except ValueError:  # its scaling function has no name
            return repr(schedule)
    return repr(schedule)


def kept_description(name: str, schedule: object) -> str:
    """The same, if it tells the schedule from all others."""
    text = description(name, schedule)
    if _UNTOLD.search(text):
        raise ValueError(
            f"schedules[{name!r}] must have a repr that says what it is, so that its runs can be kept: register its "
            f"scaling function by clr.register_scale, or give its class a __repr__. Received: {text}."
        )
    return text
