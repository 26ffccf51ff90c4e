"""By what kept runs are known again: the name of the training, its source, and the text of each schedule."""

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
    if own is None or "<lambda>" in own or getattr(train, "__self__", None) is not None:
        raise ValueError(f"`name` must be given to keep the runs of what has no name of its own. Received: {train!r}.")
    return f"{train.__module__}:{own}"


def source_of(train: Any) -> str | None:
    """A digest of the source of the module that trains; None where it has none, as in a notebook."""
    module = getattr(train, "func", train).__module__  # that of what a partial calls
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()[:16]
    except (OSError, TypeError, KeyError):
        return None


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
