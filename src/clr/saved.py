"""What `to_dict` and `to_json` have saved, whichever kind it is: schedules, range tests and searches."""

from collections.abc import Mapping
from typing import Any

from clr import checks
from clr.finder.result import RangeTest
from clr.finder.trials import Search
from clr.schedules import serialize
from clr.schedules.base import Schedule


def from_dict(data: Mapping[str, Any]) -> Schedule | RangeTest | Search:
    """What ``to_dict`` of a `Schedule`, `RangeTest` or `Search` has made ``data`` of: an equal one.

    A schedule has equal rates bit for bit, and the others equal bounds.

    Raises:
        TypeError, ValueError: The data is none of these, is of a later version, has a key too many or too few, a value
            that makes no sense, or the name of a scaling function that is not registered.

    >>> import clr
    >>> schedule = clr.warmup(clr.triangular2(0.001, 0.006, step_size=2000), steps=500)
    >>> clr.from_dict(schedule.to_dict()) == schedule
    True
    """
    kind = checks.mapping("data", data).get("kind")
    if isinstance(kind, str) and kind in ("range_test", "search"):  # an array would be equal to it and unequal
        return RangeTest.from_dict(data) if kind == "range_test" else Search.from_dict(data)
    return serialize.from_dict(data)


def from_json(text: str) -> Schedule | RangeTest | Search:
    """What ``to_json`` of a `Schedule`, `RangeTest` or `Search` has made ``text`` of.

    Raises:
        TypeError, ValueError: The text is not JSON, or as in `from_dict`.

    >>> import clr
    >>> schedule = clr.one_cycle(max_lr=0.1, total_steps=1000)
    >>> clr.from_json(schedule.to_json()) == schedule
    True
    """
    return from_dict(checks.parsed(text))
