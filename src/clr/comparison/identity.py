"""By what kept runs are known again: the name of the training, its source, and the text of each schedule."""

import ast
import hashlib
import inspect
import re
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from clr import checks
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
        raise ValueError(
            f"`name` must be given to keep the runs of what has no name of its own. Received: {checks.shown(train)}."
        )
    return f"{train.__module__}:{own}"


def source_of(train: Any) -> str | None:
    """A digest of the source that trains, and of what a partial holds; None where there is no source.

    It is that of the module of ``train`` and of the modules beside it that it imports, directly or not: those in the
    folder of the module or of its package. Comments do not count, nor does what a script runs after its last
    definition: so a call of `clr.compare` can be given more seeds.
    """
    own = getattr(train, "func", train)  # what a partial calls
    main = sys.modules.get(own.__module__)
    texts = [_source(place) for place in (_beside(main) if main is not None and _source(main) is not None else [own])]
    if texts[0] is None:
        return None
    held = [getattr(train, "args", ()), getattr(train, "keywords", {}), getattr(own, "__defaults__", None)]
    parts = [*(text for text in texts if text is not None), _UNTOLD.sub("", repr(held))]
    return hashlib.sha256("".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _beside(main: ModuleType) -> list[ModuleType]:
    """A module, and those that it imports from its own folder or package, in an order that is always the same."""
    top = sys.modules.get(main.__name__.partition(".")[0], main)
    folder = Path(getattr(top, "__file__", None) or main.__file__ or "").resolve().parent
    found: dict[str, ModuleType] = {}
    waiting = [main]
    while waiting:
        module = waiting.pop()
        found[module.__name__] = module
        for value in list(vars(module).values()):
            other = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
            file = Path(getattr(other, "__file__", None) or "/")
            if other is None or other.__name__ in found or "site-packages" in file.parts:
                continue
            if folder in file.resolve().parents and other.__name__.partition(".")[0] != "clr":
                waiting.append(other)
    return [found.pop(main.__name__), *(found[name] for name in sorted(found))]


def _source(place: Any) -> str | None:
    """What a module or a function defines, without comments; None where there is no source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(place))).body
    except (OSError, TypeError, SyntaxError):
        return None
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    last = max((at for at, node in enumerate(body) if isinstance(node, defined)), default=-1)
    return "".join(ast.dump(node) for at, node in enumerate(body) if _counts(node, at < last))


def _counts(node: ast.stmt, is_before_a_definition: bool) -> bool:
    """Whether a statement may have to do with the training: all but a comparison and what a script runs."""
    if isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__"):
        return bool(node.orelse)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    calls = [ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)]
    if any(name in ("clr.compare", "compare") for name in calls):
        return is_before_a_definition
    return not isinstance(node, ast.Expr) or (is_before_a_definition and not isinstance(node.value, ast.Constant))


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
            f"scaling function by clr.register_scale, or give its class a __repr__. Received: {checks.shown(text)}."
        )
    return text
