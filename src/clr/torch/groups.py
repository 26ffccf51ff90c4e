"""Which schedule drives which group of an optimizer, and how its values get there.

Values are written in place. A group's ``initial_lr`` is neither read nor written: PyTorch's own schedulers share it,
and it would make them disturb each other.
"""

import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clr import checks
from clr.arrays.base import Python
from clr.schedules.base import Schedule
from clr.schedules.compose import AfterEnd, Join, Momentum, OfOne, checked
from clr.schedules.serialize import from_dict

Schedules = Schedule | Sequence[Schedule] | Mapping[str, Schedule | None]
Group = dict[str, Any]

_TESTED = "clr_tested"  # the attribute of an optimizer that a range test trains; its snapshot removes it again
_INSIDE = tuple(os.path.join(os.path.dirname(str(part.__file__)), "") for part in (checks, torch))


def keep_ratios(optimizer: torch.optim.Optimizer, schedule: Schedule) -> list[Schedule]:
    """A schedule for each group of an optimizer, such that the groups keep the ratios of their rates.

    The group with the highest rate follows ``schedule`` itself. The others follow a multiple of it, and a rate of 0
    stays 0. So the bounds of `clr.torch.range_test` fit, which gives the rates of the test to the same group.

    Args:
        optimizer: The optimizer with the rates that it was made with. Call this before a schedule changes them, and
            before you load a saved state.
        schedule: What the group with the highest rate is to follow.

    Returns:
        A list for `LRScheduler` or `Follower`.

    Raises:
        TypeError: An argument is of another type, or the rate of a group is not a number.
        ValueError: All groups have a rate of 0, or one is not a finite number, 0 or more.

    >>> import clr, torch
    >>> body, head = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    >>> optimizer = torch.optim.SGD([{"params": [body], "lr": 0.25}, {"params": [head], "lr": 0.5}])
    >>> schedules = clr.torch.keep_ratios(optimizer, clr.triangular(0.0, 1.0, step_size=4))
    >>> [schedule(4) for schedule in schedules]
    [0.5, 1.0]
    """
    checked("schedule", schedule)
    factors = ratios(checked_optimizer(optimizer).param_groups)
    return [schedule if factor == 1 else schedule * factor for factor in factors]


def ratios(groups: Sequence[Group]) -> list[float]:
    """The rate of each group as a part of the highest."""
    own = (group["lr"] for group in groups)
    rates = [checks.base_rate("lr", rate.item() if isinstance(rate, torch.Tensor) else rate) for rate in own]
    highest = max(rates)
    if not highest:
        raise ValueError("a group must have a rate above 0, for the others keep their ratio to the highest.")
    return [rate / highest for rate in rates]


def checked_optimizer(value: object) -> torch.optim.Optimizer:
    """An optimizer."""
    if not isinstance(value, torch.optim.Optimizer):
        checks.fail(TypeError, "optimizer", "a torch.optim.Optimizer", value)
    return value


def tell(message: str) -> None:
    """Warns at the line of the user that has led here.

    Python shows a warning once for each line. This one is shown each time, since another training may run through the
    same line. So the caller sees to it that it comes once.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    module = frame.f_globals.get("__name__")
    warnings.warn_explicit(message, UserWarning, frame.f_code.co_filename, frame.f_lineno, module, registry={})


def mark_as_tested(optimizer: torch.optim.Optimizer) -> None:
    """Says that a range test trains this optimizer now, so its updates are not those of the training."""
    for own in nested(optimizer):
        setattr(own, _TESTED, True)


def unmark_as_tested(optimizer: torch.optim.Optimizer) -> None:
    """Takes the mark away again, where a state that has it was put back."""
    for own in nested(optimizer):
        vars(own).pop(_TESTED, None)


def is_tested(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a range test trains this optimizer now."""
    return hasattr(optimizer, _TESTED)


def held(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that an optimizer holds, as SAM and Lookahead do, also in lists and dicts."""
    found: list[torch.optim.Optimizer] = []
    met: set[int] = {id(optimizer)}
    waiting: list[Any] = [
        value for name, value in vars(optimizer).items() if name not in ("state", "param_groups", "defaults")
    ]
    while waiting:
        value = waiting.pop(0)
        if id(value) in met or not isinstance(value, torch.optim.Optimizer | list | tuple | dict):
            continue
        met.add(id(value))
        if isinstance(value, torch.optim.Optimizer):
            found.append(value)
        else:
            waiting += value.values() if isinstance(value, dict) else value
    return found


def nested(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """An optimizer and all that it holds, and these hold."""
    found: list[torch.optim.Optimizer] = []
    waiting = [optimizer]
    while waiting:
        own = waiting.pop(0)
        if not any(own is other for other in found):
            found.append(own)
            waiting += held(own)
    return found


def making_updates(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose ``step`` makes the updates of ``optimizer``: its own, or that of the one that it holds.

    Accelerate's wrapper has no hooks of its own. With SAM, one may call ``first_step`` and ``second_step``, and never
    ``step``.
    """
    own, met = optimizer, [optimizer]
    while len(inner := held(own)) == 1 and inner[0] not in met:
        same = [id(group) for group in inner[0].param_groups] == [id(group) for group in own.param_groups]
        if not same and has_hooks(own):  # such as ZeroRedundancyOptimizer, which copies them before and after an update
            break
        own = inner[0]
        met.append(own)
    return next((own for own in reversed(met) if has_hooks(own)), optimizer)


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer tells of its updates. One that was made without the constructor of PyTorch's does not."""
    return hasattr(optimizer, "_optimizer_step_post_hooks")


class Plan:
    """Which schedule is for which group, and how its values get there.

    Attributes:
        end: The step from which on a schedule has nothing more to give, infinity if there is none.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedules, momentum: Schedules | None) -> None:
        groups = checked_optimizer(optimizer).param_groups
        self.schedule = _checked("schedule", schedule, groups)
        self.momentum = None if momentum is None else _checked("momentum", momentum, groups)
        ends = [part._training_steps for part in _parts(self.schedule) if part is not None]
        self.end = min((end for end in ends if end is not None), default=math.inf)
        self._told = False
        every = [*_parts(self.schedule), *([] if self.momentum is None else _parts(self.momentum))]
        self._error_at = min(map(_error_at, every), default=math.inf)
        self._differ = any(isinstance(part, list | dict) for part in (self.schedule, self.momentum))
        # The mirror of the schedule itself needs no second look at the wave.
        mirrors = isinstance(momentum, Momentum) and momentum.schedule == schedule
        self._mirror = momentum._mirror if mirrors and isinstance(momentum, Momentum) else None
        self._keys: list[str | None] = []  # of the momentum of each group, None where it is off
        rates = dict.fromkeys(float(group["lr"]) for group in groups)
        if isinstance(self.schedule, Schedule) and len(rates) > 1:
            tell(
                f"one schedule replaces the different rates of the groups: {', '.join(map(repr, rates))}. To keep "
                "their ratios, pass `clr.torch.keep_ratios(optimizer, schedule)`"
            )
        self._meet(groups)
        if self.momentum is not None and not any(self._keys):
            keys = {key for group in groups for key in ("momentum", "betas") if key in group}
            if not keys:
                raise ValueError(f"`momentum` needs an optimizer that has one. Received: {type(optimizer).__name__}.")
            tell("the momentum of the optimizer is off (0), and stays so")

    def apply(self, groups: list[Group], step: int) -> None:
        """Writes the values of ``step`` into the groups."""
        if len(groups) != len(self._keys):
            self._meet(groups)
        if step == self._error_at:  # after the last update: only another one would be past the end
            step -= 1
        if self._differ:
            self._apply_by_group(groups, step)
            return
        rate = self.schedule._at(step)
        for group in groups:
            if type(group["lr"]) is float:
                group["lr"] = rate
            else:
                write(group, "lr", rate)
        if self.momentum is None:
            return
        value = self.momentum._at(step) if self._mirror is None else self._mirror(Python, rate)
        for group, key in zip(groups, self._keys, strict=False):
            if key == "momentum" and type(group[key]) is float:
                group[key] = value
            elif key is not None:
                _write_momentum(group, value)

    def _apply_by_group(self, groups: list[Group], step: int) -> None:
        for number, (group, key) in enumerate(zip(groups, self._keys, strict=True)):
            schedule, momentum = _of(self.schedule, number, group), _of(self.momentum, number, group)
            if schedule is not None:
                write(group, "lr", schedule._at(step))
            if momentum is not None and key is not None:
                _write_momentum(group, momentum._at(step))

    def rates(self, groups: list[Group], step: int) -> list[float]:
        """The rates of ``step``, of each group."""
        schedules = [_of(self.schedule, number, group) for number, group in enumerate(groups)]
        step -= step == self._error_at
        return [
            float(group["lr"]) if own is None else own._at(step) for own, group in zip(schedules, groups, strict=True)
        ]

    def momenta(self, groups: list[Group], step: int) -> list[float | None]:
        """The momenta of ``step``, of each group, None where it has none."""
        step -= step == self._error_at
        keys = [*self._keys, *map(_momentum_key, groups[len(self._keys) :])]
        schedules = [_of(self.momentum, number, group) for number, group in enumerate(groups)]
        return [
            _momentum(group) if own is None or key is None else own._at(step)
            for own, group, key in zip(schedules, groups, keys, strict=False)
        ]

    def are_applied(self, groups: list[Group], step: int) -> bool:
        """Whether the groups have the rates and momenta of ``step``, and nobody has written others."""
        values = zip(groups, self.rates(groups, step), self.momenta(groups, step), strict=True)
        return all(
            _holds(group["lr"], rate) and (momentum is None or _holds(_momentum_of(group), momentum))
            for group, rate, momentum in values
        )

    def tell_end(self, optimizer: torch.optim.Optimizer) -> None:
        """Warns, once, that the training has made an update past the end of the schedule."""
        if not self._told and not is_tested(optimizer):
            self._told = True
            tell(
                f"the training goes on after the {self.end} steps of its schedule, at the last rate. To say that this "
                'is wanted, use `schedule.after_end("hold")`'
            )

    def plain(self) -> dict[str, Any]:
        """The schedules as plain data."""
        return {"schedule": _plain(self.schedule), "momentum": _plain(self.momentum)}

    def compare(self, state: Mapping[str, object]) -> None:
        """Warns if a saved state has other schedules, or none, as that of another scheduler."""
        if "schedule" not in state:
            now = checks.shown(_plain(self.schedule))
            tell(f"the state has no schedule. Its step is taken, and it goes on with {now}")
            return
        for name, own in (("schedule", self.schedule), ("momentum", self.momentum)):
            if not _same(own, state.get(name)):
                before, now = checks.shown(state.get(name)), checks.shown(_plain(own))
                tell(f"the state was saved with another {name}, {before}; it goes on with {now}")

    def _meet(self, groups: list[Group]) -> None:
        """Looks at the groups that are new: whether they have a schedule, a momentum, and tensors of their own."""
        seen = {id(tensor) for group in groups[: len(self._keys)] for tensor in _tensors(group)}
        for number, group in enumerate(groups[len(self._keys) :], start=len(self._keys)):
            if isinstance(self.schedule, dict) and group.get("name") not in self.schedule:
                tell(f"group {number} keeps its rate: no schedule has its name")
            self._keys.append(_momentum_key(group))
            if any(id(tensor) in seen for tensor in _tensors(group)):
                group["lr"] = _own(group["lr"], seen)
                if "betas" in group:
                    group["betas"] = tuple(_own(beta, seen) for beta in group["betas"])
                elif "momentum" in group:
                    group["momentum"] = _own(group["momentum"], seen)
            seen |= {id(tensor) for tensor in _tensors(group)}
        del self._keys[len(groups) :]


def was_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer itself has skipped an update of infinite gradients, as a GradScaler has told it."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(float(found_inf))


def is_dummy(groups: list[Group]) -> bool:
    """Whether an update was none: PyTorch's distributed checkpoints make one at rate 0 and with gradients of 0."""
    for group in groups:
        lr = group["lr"]
        if isinstance(lr, torch.Tensor) and lr.device.type != "cpu":  # theirs is on the CPU; to ask others takes time
            return False
        if lr != 0:
            return False
    gradients = [part.grad for group in groups for part in group["params"] if part.requires_grad]
    return bool(gradients) and all(
        gradient is not None and not gradient.is_sparse and not gradient.any() for gradient in gradients
    )


def _checked(name: str, schedules: object, groups: list[Group]) -> Any:
    """A schedule, or a list or a dict of them that fits the groups."""
    if isinstance(schedules, Mapping):
        names = {group.get("name") for group in groups}
        if names == {None}:
            rule = 'one schedule, or a list with one for each group, where the groups have no "name"'
            checks.fail(ValueError, name, rule, schedules)
        if unknown := set(schedules) - names:
            raise ValueError(f"`{name}` has names that no group has: {_listed(unknown)}.")
        if missing := names - set(schedules):
            raise ValueError(
                f"`{name}` must have an entry for each group, None for one that keeps its own. Missing: "
                f"{_listed(missing)}."
            )
        result: Any = dict(schedules)
    elif isinstance(schedules, Sequence) and not isinstance(schedules, str):
        if len(schedules) != len(groups):
            raise ValueError(
                f"`{name}` must be one schedule, or one for each group. Received: {len(schedules)} for {len(groups)}."
            )
        result = list(schedules)
    else:
        result = schedules
    for part in _parts(result):
        if part is None and isinstance(result, dict):
            continue
        if not isinstance(part, Schedule):
            checks.fail(TypeError, name, "schedule", part)
        if name == "momentum" and not 0 <= part.limits[0] <= part.limits[1] < 1:
            checks.fail(ValueError, name, "momentum", part)
    return result


def _listed(names: set[Any]) -> str:
    return ", ".join(map(repr, sorted(names, key=str)))


def _parts(schedules: Any) -> list[Any]:
    if isinstance(schedules, dict):
        return list(schedules.values())
    return schedules if isinstance(schedules, list) else [schedules]


def _error_at(schedule: Schedule | None) -> float:
    """The step at which a schedule raises, because of ``after_end("error")``."""
    before = 0
    while isinstance(schedule, OfOne | Join):
        if isinstance(schedule, Join):
            before += schedule._starts[-1]
            schedule = schedule.schedules[-1]
            continue
        if isinstance(schedule, AfterEnd) and schedule.rule == "error":
            return math.inf if schedule.total_steps is None else before + schedule.total_steps
        schedule = schedule.schedule
    return math.inf


def _of(schedules: Any, number: int, group: Group) -> Schedule | None:
    """The schedule of a group."""
    result: Schedule | None
    if isinstance(schedules, dict):
        result = schedules.get(group.get("name"))
        return result
    result = schedules[min(number, len(schedules) - 1)] if isinstance(schedules, list) else schedules
    return result


def _plain(schedules: Any) -> Any:
    """Schedules as plain data. One with a scaling function that has no name is given in words."""
    if isinstance(schedules, dict):
        return {name: _plain(schedule) for name, schedule in schedules.items()}
    if isinstance(schedules, list):
        return [_plain(schedule) for schedule in schedules]
    try:
        return None if schedules is None else schedules.to_dict()
    except ValueError:
        return schedules.describe()


def _same(own: Any, saved: object) -> bool:
    """Whether schedules are those that were saved, in whatever form their numbers are."""
    if isinstance(own, list):
        return isinstance(saved, list) and len(saved) == len(own) and all(map(_same, own, saved))
    if isinstance(own, dict):
        return isinstance(saved, dict) and saved.keys() == own.keys() and all(_same(own[k], saved[k]) for k in own)
    if _plain(own) == saved:
        return True
    try:
        return own is not None and isinstance(saved, Mapping) and from_dict(saved) == own
    except (TypeError, ValueError):
        return False


def write(group: Group, key: str, value: float) -> None:
    """Sets a number of a group, in place if it is a tensor."""
    if isinstance(group[key], torch.Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def _holds(value: float | torch.Tensor, rate: float) -> bool:
    """Whether a rate of a group is ``rate``, as its dtype rounds it."""
    if isinstance(value, torch.Tensor):
        return value.item() == torch.tensor(rate, dtype=value.dtype).item()
    return value == rate


def _write_momentum(group: Group, value: float) -> None:
    betas = group.get("betas")
    if betas is None:
        write(group, "momentum", value)
    elif isinstance(betas[0], torch.Tensor):
        betas[0].fill_(value)
    else:
        group["betas"] = (value, *betas[1:])


def _momentum_of(group: Group) -> Any:
    """The momentum of a group as it stands there, None if it has none."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def _momentum(group: Group) -> float | None:
    value = _momentum_of(group)
    return None if value is None else float(value)


def _momentum_key(group: Group) -> str | None:
    """Where the momentum of a group is, unless it is off."""
    return ("betas" if "betas" in group else "momentum") if _momentum(group) else None


def _tensors(group: Group) -> list[torch.Tensor]:
    """The tensors of a group that are written to."""
    values = [group["lr"], group.get("momentum"), *group.get("betas", ())]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _own(value: float | torch.Tensor, seen: set[int]) -> float | torch.Tensor:
    """``value``, or a copy of a tensor that another group has too."""
    return value.clone() if id(value) in seen and isinstance(value, torch.Tensor) else value
