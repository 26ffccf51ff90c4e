"""By what kept runs are known again: the name of the training, its source, and the text of each schedule."""

import ast
import hashlib
import inspect
import re
import sys
import textwrap
from contextlib import suppress
from typing import Any

from clr.comparison import runs
from clr.schedules.base import Schedule

_UNTOLD = re.compile(r"0x[0-9a-f]{6,}|\.\.\.", re.IGNORECASE)  # the signs of a repr that does not tell all


def name_of(train: object, name: str | None) -> str:
    """The name under which runs are kept: the given one, or ``module:qualname``."""
    if name is not None:
        return runs.name("name", name)
    own = getattr(train, "__qualname__", None)
    holds = getattr(train, "__self__", None) or getattr(train, "__closure__", None)  # data that no source tells
    if own is None or "<" in own or holds:  # <lambda>, <locals>
        raise ValueError(f"`name` must be given to keep the runs of what has no name of its own. Received: {train!r}.")
    return f"{train.__module__}:{own}"


def source_of(train: Any) -> str | None:
    """A digest of what the module that trains defines, and of what a partial holds; None where there is no source.

    Comments do not count, nor does what a script runs: so a call of `clr.compare` can be given more seeds.
    """
    own = getattr(train, "func", train)  # what a partial calls
    body: list[ast.stmt] = []
    for place in (sys.modules.get(own.__module__), own):  # a notebook has the source of its functions alone
        with suppress(OSError, TypeError, SyntaxError):
            body = ast.parse(textwrap.dedent(inspect.getsource(place))).body  # type: ignore[arg-type]
            break
    if not body:
        return None
    held = [getattr(train, "args", ()), getattr(train, "keywords", {}), getattr(own, "__defaults__", None)]
    parts = [*(ast.dump(node) for node in body if _counts(node)), _UNTOLD.sub("", repr(held))]
    return hashlib.sha256("".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _counts(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return True
    text = ast.unparse(node)
    return not (isinstance(node, ast.Expr) or "compare(" in text or text.startswith("if __name__"))


def description(name: str, schedule: object, is_kept: bool) -> str:
    """A schedule as text: the JSON of one of ours, and else its repr. To be kept, it must tell it from all others."""
    text = None
    if isinstance(schedule, Schedule):
        with suppress(ValueError):  # its scaling function has no name
            text = schedule.to_json()
    text = runs.clean(repr(schedule), "\n\t") if text is None else text
    if is_kept and _UNTOLD.search(text):
        raise ValueError(
            f"schedules[{name!r}] must have a repr that says what it is, so that its runs can be kept: register its "
            f"scaling function by clr.register_scale, or give its class a __repr__. Received: {text}."
        )
    return text
