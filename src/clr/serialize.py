"""Schedules as plain data and as JSON: lossless, with a version, and strict about what comes back.

Loading runs no code and imports nothing: a schedule's kind and its scaling function are looked up by name.
"""

import json
from collections.abc import Mapping
from typing import Any

from clr import checks
from clr.compose import AfterEnd, Clip, Join, Momentum, Multiple
from clr.scaling import registered, registered_name
from clr.schedule import Cyclic, Phases, Schedule

VERSION = 1
_KINDS: dict[str, Any] = {kind.kind: kind for kind in (AfterEnd, Clip, Cyclic, Join, Momentum, Multiple, Phases)}


def to_dict(schedule: Schedule) -> dict[str, Any]:
    """See `Schedule.to_dict`."""
    return {"clr": VERSION, **_encoded(schedule)}


def to_json(schedule: Schedule) -> str:
    """See `Schedule.to_json`."""
    return json.dumps(to_dict(schedule))


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` has made ``data`` of: an equal one, with equal rates bit for bit.

    Raises:
        TypeError, ValueError: The data is not that of a schedule, is of a later version, has a key too many or too
            few, a value that makes no sense, or the name of a scaling function that is not registered.

    >>> import clr
    >>> schedule = clr.warmup(clr.triangular2(0.001, 0.006, step_size=2000), steps=500)
    >>> clr.from_dict(schedule.to_dict()) == schedule
    True
    """
    checks.mapping("data", data)
    version = data.get("clr")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"the data of a schedule must have version {VERSION} as 'clr'. Received: {version!r}.")
    return _decoded({key: value for key, value in data.items() if key != "clr"})


def from_json(text: str) -> Schedule:
    """The schedule that `Schedule.to_json` has made ``text`` of.

    Raises:
        TypeError, ValueError: The text is not JSON, or as in `from_dict`.

    >>> import clr
    >>> schedule = clr.one_cycle(max_lr=0.1, total_steps=1000)
    >>> clr.from_json(schedule.to_json()) == schedule
    True
    """
    return from_dict(json.loads(text, object_pairs_hook=checks.unique))


def _encoded(value: Any) -> Any:
    if isinstance(value, Schedule):
        return {"kind": value.kind, **{key: _encoded(argument) for key, argument in value.arguments().items()}}
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    return registered_name(value) if callable(value) else value


def _decoded(data: Mapping[str, Any]) -> Schedule:
    checks.mapping("data", data)
    arguments = dict(data)
    kind = _KINDS[checks.choice("kind", arguments.pop("kind", None), _KINDS)]
    names = kind.__match_args__
    if set(arguments) != set(names):
        raise ValueError(
            f"the data of the kind {kind.kind!r} must have the keys {', '.join(map(repr, names))}. "
            f"Received: {', '.join(map(repr, arguments))}."
        )
    if "schedule" in arguments:
        arguments["schedule"] = _decoded(arguments["schedule"])
    if "schedules" in arguments:
        arguments["schedules"] = [_decoded(part) for part in checks.sequence("schedules", arguments["schedules"])]
    if arguments.get("scale_fn") is not None:
        arguments["scale_fn"] = registered(arguments["scale_fn"])
    schedule: Schedule = kind(**arguments)
    return schedule
