"""PyTorch: a scheduler for loops that call ``step()``, and one that follows the optimizer's own updates.

Glue only: both write what the schedules give into the optimizer's groups, in place. Neither reads or writes a group's
``initial_lr``, by which PyTorch's own schedulers get into each other's way.
"""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from clr import checks
from clr.compose import Momentum
from clr.namespaces import Python
from clr.schedule import Schedule

try:
    import torch
except ImportError as error:
    raise ImportError("clr.torch needs PyTorch: pip install 'cyclic-learning-rate[torch]'") from error

from clr.range_tests.torch import range_test

__all__ = ["Follower", "LRScheduler", "range_test"]

Schedules = Schedule | Sequence[Schedule] | Mapping[str, Schedule]
_COUNT = "clr_updates"  # the key of a group in which the count of updates travels


class _Plan:
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
        rate = schedule.rate(Python, step)
        if momentum is None:
            for group in groups:
                if type(group["lr"]) is float:
                    group["lr"] = rate
                else:
                    _write(group, "lr", rate)
            return
        value = momentum.rate(Python, step) if self._mirror is None else self._mirror(Python, rate)
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
                _write(group, "lr", schedule.rate(Python, step))
            if momentum is not None and key is not None:
                _write_momentum(group, momentum.rate(Python, step))

    def rates(self, groups: list[dict[str, Any]], step: int) -> list[float]:
        """The rates of ``step``, of each group."""
        schedules = [_of(self.schedule, number, group) for number, group in enumerate(groups)]
        return [
            float(group["lr"]) if own is None else own.rate(Python, step)
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


class LRScheduler(torch.optim.lr_scheduler.LRScheduler):
    """A PyTorch scheduler that writes the rates of a schedule, and optionally of a momentum, into an optimizer.

    It is used as any of PyTorch's: call `step` after each ``optimizer.step()``. Rates and momenta that are tensors are
    written in place and keep their identity, so neither a captured graph nor a compiled step has to be made anew.

    Args:
        optimizer: What to drive. The rate of step 0 is written at once, over its own.
        schedule: A schedule for all groups; a list with one for each group; or a dict of schedules by the ``"name"``
            of the group. A group that is added later follows the one schedule, or the list's last, or the dict's of its
            name; a group whose name is not in the dict keeps its rate.
        momentum: The same for the momentum, say ``clr.momentum(schedule)``: ``momentum`` of SGD or RMSprop, the first
            of ``betas`` of Adam and its kin. Values are from 0 to below 1. A momentum that is off (0) stays off.
        last_epoch: As in PyTorch: the number of the step before the first one; -1 for a fresh start.

    Attributes:
        last_epoch: The number of the step whose rate is applied now, counted from 0.
        optimizer: The optimizer.

    Raises:
        TypeError, ValueError: An argument makes no sense, such as a list of another length than there are groups.

    In PyTorch's ``SequentialLR`` it must stand beside at least one of PyTorch's own schedulers, which sets the
    ``initial_lr`` that class asks for; several schedules in a row are a schedule themselves, by `clr.join`.

    >>> import clr, torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = clr.torch.LRScheduler(optimizer, clr.triangular(0.0, 1.0, step_size=4))
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr(), scheduler.get_next_lr(), scheduler.state_dict()["last_epoch"]
    ([0.75], [1.0], 3)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Schedules,
        momentum: Schedules | None = None,
        last_epoch: int = -1,
    ) -> None:
        # Not the base class's way, which writes `initial_lr` and wraps `optimizer.step`.
        self._plan = _Plan(optimizer, schedule, momentum)
        self.optimizer = optimizer
        self.last_epoch = checks.step("last_epoch + 1", last_epoch + 1) - 1
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 1  # which Accelerate counts up
        self.step()

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next step, or to step ``epoch``, and writes its rates and momenta."""
        self.last_epoch = step = self.last_epoch + 1 if epoch is None else checks.step("epoch", epoch)
        self._plan.apply(self.optimizer.param_groups, step)

    _update_lr = step  # what SequentialLR calls

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """The rates that are applied now, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, self.last_epoch)

    get_lr = get_last_lr  # type: ignore[assignment]

    def get_next_lr(self) -> list[float]:
        """The rates of the next step, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, self.last_epoch + 1)

    @property
    def _last_lr(self) -> list[float]:  # type: ignore[override]
        return self.get_last_lr()

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]
        """The rates of step 0, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, 0)

    def state_dict(self) -> dict[str, Any]:
        """The number of the step, and the schedules as plain data."""
        return {"last_epoch": self.last_epoch, **self._plan.plain()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes to the step of a saved state, and writes its rates and momenta.

        The schedules stay those of this scheduler. If the saved ones differ, a warning says so.
        """
        if "last_epoch" not in state_dict:
            raise ValueError(f"the state of a scheduler must have `last_epoch`. Received: {list(state_dict)!r}.")
        self.step(checks.step("last_epoch", state_dict["last_epoch"]))
        _compare(state_dict, self._plan)


class Follower:
    """Drives an optimizer along schedules by the optimizer's own updates: nobody calls a ``step()``.

    The rate follows what the optimizer really does. Gradient accumulation, updates that a ``GradScaler`` skips, and
    several processes can't drive it too fast or too slow. The count of updates travels in the optimizer's own
    ``state_dict()``, and the rate is written anew when that is loaded. To resume, make the follower as before and load
    the optimizer's state, in either order.

    Args:
        optimizer: What to drive. The rate of the next update is written at once, over its own.
        schedule: As in `LRScheduler`.
        momentum: As in `LRScheduler`.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    The optimizer holds the follower, and not the other way round; it need not be kept. A copy of the optimizer, or one
    that is pickled, has no follower. Inside of `torch.compile` the counting is left to plain Python.

    >>> import clr, torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> follower = clr.torch.Follower(optimizer, clr.triangular(0.0, 1.0, step_size=4))
    >>> for _ in range(3):
    ...     optimizer.step()
    >>> follower.updates, optimizer.param_groups[0]["lr"]
    (3, 0.75)
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Schedules, momentum: Schedules | None = None
    ) -> None:
        self._plan = _Plan(optimizer, schedule, momentum)
        self._optimizer = weakref.ref(optimizer)
        self._updates = 0
        self._handles = [
            optimizer.register_step_post_hook(self._after_update),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        if _COUNT in optimizer.param_groups[0]:  # its state is loaded already
            self._after_load(optimizer)
        else:
            self._apply(optimizer)

    @property
    def updates(self) -> int:
        """The updates so far, as counted in the optimizer."""
        optimizer = self._optimizer()
        return self._updates if optimizer is None else self._count(optimizer)

    def remove(self) -> None:
        """Leaves the optimizer alone from now on."""
        for handle in self._handles:
            handle.remove()

    def get_last_lr(self) -> list[float]:
        """The rates of the last update, one for each group; before the first, those it will have."""
        return self._rates(max(self.updates - 1, 0))

    def get_next_lr(self) -> list[float]:
        """The rates of the next update, which are in the optimizer already."""
        return self._rates(self.updates)

    def _rates(self, step: int) -> list[float]:
        optimizer = self._optimizer()
        if optimizer is None:
            raise ReferenceError("the optimizer of this follower is gone")
        return self._plan.rates(optimizer.param_groups, step)

    def _apply(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0][_COUNT] = self._updates
        self._plan.apply(optimizer.param_groups, self._updates)

    def _count(self, optimizer: torch.optim.Optimizer) -> int:
        # That in the optimizer counts, for it may have been put back, as after a range test.
        count: int = optimizer.param_groups[0].get(_COUNT, self._updates)
        return count

    @torch.compiler.disable
    def _after_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # Where the optimizer itself skips an update of infinite gradients, a GradScaler lends it this.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is None or not float(skipped):
            self._updates = self._count(optimizer) + 1
            self._apply(optimizer)

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        count = optimizer.param_groups[0].get(_COUNT)
        if count is None:
            warnings.warn(f"the state has no count of updates; it goes on from {self._updates}", stacklevel=3)
        else:
            self._updates = checks.step(_COUNT, count)
        self._apply(optimizer)


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
        if name == "momentum" and not 0 <= part.bounds[0] <= part.bounds[1] < 1:
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


def _compare(state: Mapping[str, Any], plan: _Plan) -> None:
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
