"""A PyTorch scheduler, for loops that call ``step()``."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from clr import checks
from clr.torch.groups import Plan, Schedules, was_skipped


class LRScheduler(torch.optim.lr_scheduler.LRScheduler):
    """A PyTorch scheduler that writes the rates of a schedule, and optionally of a momentum, into an optimizer.

    Use it as any of PyTorch's: call `step` after each ``optimizer.step()``. It writes into rates and momenta that are
    tensors in place. They keep their identity, so no captured graph and no compiled step has to be made again.

    Args:
        optimizer: What to drive. The rate of step 0 replaces the optimizer's rate immediately.
        schedule: One schedule for all groups, a list with one for each group, or a dict of schedules by the ``"name"``
            of the group. In a dict, None means that the group keeps its rate. One schedule gives the same rate to all
            groups; a warning says so if their rates differ. `clr.torch.keep_ratios` gives the list that keeps their
            ratios. A group that is added later follows the one schedule, the last of the list, or the one of its name
            in the dict.
        momentum: The same for the momentum, such as ``clr.momentum(schedule)``: ``momentum`` of SGD or RMSprop, the
            first of ``betas`` of Adam and its kin. Values are from 0 to below 1. A momentum that is off (0) stays off.
        last_epoch: As in PyTorch: the number of the step before the first one, -1 for a fresh start.

    Attributes:
        last_epoch: The number of the step whose rate is applied now, counted from 0.
        optimizer: The optimizer.

    Raises:
        TypeError, ValueError: An argument makes no sense, such as a list or a dict that does not fit the groups.

    A warning says, once, if the training makes an update past the end of the schedule. ``schedule.after_end("hold")``
    silences it.

    PyTorch's ``SequentialLR`` needs the ``initial_lr`` of its groups. So at least one of PyTorch's own schedulers,
    which set it, must be in the sequence. For a row of schedules alone use `clr.join`.

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
        self._watched = False
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 1  # which Accelerate counts up
        self.step()

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next step, or to step ``epoch``, and writes its rates and momenta."""
        self.last_epoch = step = self.last_epoch + 1 if epoch is None else checks.step("epoch", epoch)
        self._plan.apply(self.optimizer.param_groups, step)
        if step >= self._plan.end and not self._watched:
            self._watched = True
            _watch_end(self)

    _update_lr = step  # what SequentialLR calls

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """The rates that are applied now, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, max(self.last_epoch, 0))

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
        """The number of the step, whether its rates are those of the optimizer, and the schedules as plain data."""
        applied = self.last_epoch >= 0 and self._plan.are_applied(self.optimizer.param_groups, self.last_epoch)
        return {"last_epoch": self.last_epoch, "applied": applied, **self._plan.plain()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes to the step of a saved state, and writes its rates and momenta.

        It writes nothing if another scheduler had set the optimizer's rates, as in a ``SequentialLR``: they are in the
        state of the optimizer. The schedules stay those of this scheduler. If the saved ones differ, a warning says so.
        """
        if "last_epoch" not in state_dict:
            raise ValueError(f"the state of a scheduler must have `last_epoch`. Received: {list(state_dict)!r}.")
        last_epoch = state_dict["last_epoch"]
        if last_epoch != -1:  # which SequentialLR sets until it is the turn of this one
            checks.step("last_epoch", last_epoch)
        if last_epoch != -1 and state_dict.get("applied", True):
            self.step(last_epoch)
        else:
            self.last_epoch = int(last_epoch)
        self._plan.compare(state_dict)


def _watch_end(scheduler: LRScheduler) -> None:
    """Looks at the updates from now on: one past the end of the schedule is worth a warning."""
    reference = weakref.ref(scheduler)

    @torch.compiler.disable
    def after_update(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        own = reference()
        if own is not None and own.last_epoch >= own._plan.end and not was_skipped(optimizer):
            own._plan.tell_end(optimizer)

    scheduler.optimizer.register_step_post_hook(after_update)
