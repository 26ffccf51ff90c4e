"""Reads schedules from plain data: lossless, with a version, and strict. `Schedule.to_dict` writes them.

Loading runs no code and imports nothing: policies and scaling functions are looked up by name.
"""

from collections.abc import Mapping
from typing import Any

from clr import checks
from clr.schedules.base import POLICIES, VERSION, Schedule, made, parameters
from clr.schedules.scaling import registered


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` has made ``data`` of: an equal one, with equal rates bit for bit.

    Raises:
        TypeError, ValueError: The data is not that of a schedule, is of a later version, has a key too many or too
            few, a value that makes no sense, or the name of a scaling function that is not registered.
    """
    checks.mapping("data", data)
    version = data.get("clr")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"the data of a schedule must have version {VERSION} as 'clr'. Received: {version!r}.")
    return _decoded({key: value for key, value in data.items() if key != "clr"})


def _decoded(data: Mapping[str, Any]) -> Schedule:
    checks.mapping("data", data)
    arguments = dict(data)
    kind = checks.choice("kind", arguments.pop("kind", None), POLICIES)
    names = parameters(POLICIES[kind])
    if set(arguments) != set(names):
        raise ValueError(
            f"the data of the kind {kind!r} must have the keys {', '.join(map(repr, names))}. "
            f"Received: {', '.join(map(repr, arguments))}."
        )
    if "schedule" in arguments:
        arguments["schedule"] = _decoded(arguments["schedule"])
    if "schedules" in arguments:
        arguments["schedules"] = [_decoded(part) for part in checks.sequence("schedules", arguments["schedules"])]
    if arguments.get("scale_fn") is not None:
        arguments["scale_fn"] = registered(arguments["scale_fn"])
    return made(kind, arguments)
