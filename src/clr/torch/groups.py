"""Which schedule drives which group of an optimizer, and how its values get there.

Values are written in place. A group's ``initial_lr`` is neither read nor written: through it, PyTorch's own schedulers
get into each other's way.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clr import checks
from clr.arrays.base import Python
from clr.schedules.base import Schedule
from clr.schedules.compose import Momentum

Schedules = Schedule | Sequence[Schedule] | Mapping[str, Schedule]


class Plan:
    """Which schedule is for which group, and how its values get there."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Any, momentum: Any) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer. Received: {optimizer!r}.")
        groups = optimizer.param_groups
        self.schedule = _checked("schedule", schedule, groups)
        self.momentum = None if momentum is None else _checked("momentum", momentum, groups)
        self._differ = any(isinstance(part, list | dict) for part in (self.schedule, self.momentum))
        # The mirror of the schedule itself needs no second look at the wave.
        mirrors = isinstance(momentum, Momentum) and momentum.schedule == schedule
        self._mirror = momentum.mirror if mirrors else None
        self._keys: list[str | None] = []  # of the momentum of each group, None where it is off
        self._meet(groups)
        if self.momentum is not None and not any(self._keys):
            keys = {key for group in groups for key in ("momentum", "betas") if key in group}
            if not keys:
                raise ValueError(f"`momentum` needs an optimizer that has one. Received: {type(optimizer).__name__}.")
            warnings.warn("the momentum of the optimizer is off (0), and stays so", stacklevel=4)

    def apply(self, groups: list[dict[str, Any]], step: int) -> None:
        """Writes the values of ``step`` into the groups."""
        if len(groups) != len(self._keys):
            self._meet(groups)
        schedule, momentum = self.schedule, self.momentum
        if self._differ:
            self._apply_by_group(groups, step)
            return
        rate = schedule._rate(Python, step)
        if momentum is None:
            for group in groups:
                if type(group["lr"]) is float:
                    group["lr"] = rate
                else:
                    _write(group, "lr", rate)
            return
        value = momentum._rate(Python, step) if self._mirror is None else self._mirror(Python, rate)
        for group, key in zip(groups, self._keys, strict=False):
            if type(group["lr"]) is float:
                group["lr"] = rate
            else:
                _write(group, "lr", rate)
            if key == "momentum" and type(group[key]) is float:
                group[key] = value
            elif key is not None:
                _write_momentum(group, value)

    def _apply_by_group(self, groups: list[dict[str, Any]], step: int) -> None:
        for number, (group, key) in enumerate(zip(groups, self._keys, strict=True)):
            schedule, momentum = _of(self.schedule, number, group), _of(self.momentum, number, group)
            if schedule is not None:
                _write(group, "lr", schedule._rate(Python, step))
            if momentum is not None and key is not None:
                _write_momentum(group, momentum._rate(Python, step))

    def rates(self, groups: list[dict[str, Any]], step: int) -> list[float]:
        """The rates of ``step``, of each group."""
        schedules = [_of(self.schedule, number, group) for number, group in enumerate(groups)]
        return [
            float(group["lr"]) if own is None else own._rate(Python, step)
            for own, group in zip(schedules, groups, strict=True)
        ]

    def plain(self) -> dict[str, Any]:
        """The schedules as plain data."""
        return {"schedule": _plain(self.schedule), "momentum": _plain(self.momentum)}

    def _meet(self, groups: list[dict[str, Any]]) -> None:
        """Looks at the groups that are new: whether they have a momentum, and tensors of their own."""
        seen = {id(tensor) for group in groups[: len(self._keys)] for tensor in _tensors(group)}
        for group in groups[len(self._keys) :]:
            self._keys.append(_momentum_key(group))
            if any(id(tensor) in seen for tensor in _tensors(group)):
                group["lr"] = _own(group["lr"], seen)
                if "betas" in group:
                    group["betas"] = tuple(_own(beta, seen) for beta in group["betas"])
                elif "momentum" in group:
                    group["momentum"] = _own(group["momentum"], seen)
            seen |= {id(tensor) for tensor in _tensors(group)}
        del self._keys[len(groups) :]


def _checked(name: str, schedules: Any, groups: list[dict[str, Any]]) -> Any:
    """A schedule, or a list or a dict of them that fits the groups."""
    if isinstance(schedules, Mapping):
        unknown = set(schedules) - {group.get("name") for group in groups}
        if unknown:
            raise ValueError(f"`{name}` has names that no group has: {', '.join(map(repr, sorted(unknown, key=str)))}.")
        result: Any = dict(schedules)
        parts = list(result.values())
    elif isinstance(schedules, Sequence) and not isinstance(schedules, str):
        if len(schedules) != len(groups):
            raise ValueError(
                f"`{name}` must be one schedule, or one for each group. Received: {len(schedules)} for {len(groups)}."
            )
        parts = result = list(schedules)
    else:
        parts, result = [schedules], schedules
    for part in parts:
        if not isinstance(part, Schedule):
            checks.fail(TypeError, name, "schedule", part)
        if name == "momentum" and not 0 <= part.limits[0] <= part.limits[1] < 1:
            checks.fail(ValueError, name, "momentum", part)
    return result


def _of(schedules: Any, number: int, group: dict[str, Any]) -> Schedule | None:
    """The schedule of a group."""
    result: Schedule | None
    if isinstance(schedules, dict):
        result = schedules.get(group.get("name"))
        return result
    result = schedules[min(number, len(schedules) - 1)] if isinstance(schedules, list) else schedules
    return result


def _plain(schedules: Any) -> Any:
    """Schedules as plain data; where a scaling function has no name, in words."""
    if isinstance(schedules, dict):
        return {name: _plain(schedule) for name, schedule in schedules.items()}
    if isinstance(schedules, list):
        return [_plain(schedule) for schedule in schedules]
    try:
        return None if schedules is None else schedules.to_dict()
    except ValueError:
        return schedules.describe()


def compare(state: Mapping[str, Any], plan: Plan) -> None:
    for name, own in plan.plain().items():
        if state.get(name) != own:
            warnings.warn(
                f"the state was saved with another {name}, {state.get(name)!r}; it goes on with {own!r}", stacklevel=3
            )


def _write(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group[key], torch.Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def _write_momentum(group: dict[str, Any], value: float) -> None:
    betas = group.get("betas")
    if betas is None:
        _write(group, "momentum", value)
    elif isinstance(betas[0], torch.Tensor):
        betas[0].fill_(value)
    else:
        group["betas"] = (value, *betas[1:])


def _momentum_key(group: dict[str, Any]) -> str | None:
    """Where the momentum of a group is, unless it is off."""
    key = "betas" if "betas" in group else "momentum"
    value = group[key][0] if key == "betas" else group.get(key, 0.0)
    return key if float(value) else None


def _tensors(group: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of a group that are written to."""
    values = [group["lr"], group.get("momentum"), *group.get("betas", ())]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _own(value: Any, seen: set[int]) -> Any:
    """``value``, or a copy of a tensor that another group has too."""
    return value.clone() if id(value) in seen and isinstance(value, torch.Tensor) else value
