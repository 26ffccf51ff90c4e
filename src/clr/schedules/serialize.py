"""Reads schedules from plain data: lossless, with a version, and strict. `Schedule.to_dict` writes them.

Loading runs no code and imports nothing: policies and scaling functions are looked up by name.
"""

from collections.abc import Mapping
from typing import Any

from clr import checks
from clr.schedules.base import MOST_NESTED, POLICIES, VERSION, Schedule, made, parameters
from clr.schedules.scaling import registered


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` has made ``data`` of: an equal one, with equal rates bit for bit.

    Raises:
        TypeError, ValueError: The data is not that of a schedule, is of a later version, has a key too many or too
            few, a value that makes no sense, or the name of a scaling function that is not registered.
    """
    checks.version(checks.mapping("data", data), VERSION, "a schedule")
    return _decoded({key: value for key, value in data.items() if key != "clr"})


def _decoded(data: object, depth: int = 1) -> Schedule:
    arguments = dict(checks.mapping("data", data))
    kind = checks.choice("kind", arguments.pop("kind", None), POLICIES)
    checks.keys(arguments, parameters(POLICIES[kind]), f"the data of the kind {kind!r}")
    if depth > MOST_NESTED:
        raise ValueError(f"saved data must have less than {MOST_NESTED} schedules within each other.")
    if "schedule" in arguments:
        arguments["schedule"] = _decoded(arguments["schedule"], depth + 1)
    if "schedules" in arguments:
        arguments["schedules"] = [
            _decoded(part, depth + 1) for part in checks.sequence("schedules", arguments["schedules"])
        ]
    if (scale_fn := arguments.get("scale_fn")) is not None:  # a schedule is a function of a number, too
        is_schedule = isinstance(scale_fn, Mapping)
        arguments["scale_fn"] = _decoded(scale_fn, depth + 1) if is_schedule else registered(scale_fn)
    return made(kind, arguments)
