"""A PyTorch scheduler, for loops that call ``step()``."""

from collections.abc import Mapping
from typing import Any

import torch

from clr import checks
from clr.torch.groups import Plan, Schedules, compare


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
        self._plan = Plan(optimizer, schedule, momentum)
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
        compare(state_dict, self._plan)
