"""A scheduler that nobody calls: it follows the optimizer's own updates."""

import warnings
import weakref

import torch

from clr import checks
from clr.torch.groups import Plan, Schedules, was_skipped

_COUNT = "clr_updates"  # the key of a group in which the count of updates travels


class Follower:
    """Drives an optimizer along schedules by the optimizer's own updates: nobody calls a ``step()``.

    The rate follows what the optimizer really does. Gradient accumulation, updates that a ``GradScaler`` skips, and
    several processes cannot drive it too fast or too slow. The optimizer's own ``state_dict()`` holds the count of
    updates. To resume, make the follower as before and load the optimizer's state, in either order.

    Args:
        optimizer: What to drive. The rate of the next update replaces the optimizer's rate immediately.
        schedule: As in `LRScheduler`.
        momentum: As in `LRScheduler`.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    The optimizer holds the follower, so you need not keep it. The follower does not hold the optimizer. A copy of the
    optimizer, or one that is unpickled, has no follower. Inside of `torch.compile`, plain Python does the counting. A
    warning says, once, if the training makes an update past the end of the schedule.

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
        self._plan = Plan(optimizer, schedule, momentum)
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
        """Stops driving the optimizer."""
        for handle in self._handles:
            handle.remove()

    def get_last_lr(self) -> list[float]:
        """The rates of the last update, one for each group. Before the first update, the rates that it will have."""
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
        # The one in the optimizer counts, since a range test or a loaded state may have put it back.
        count: int = optimizer.param_groups[0].get(_COUNT, self._updates)
        return count

    @torch.compiler.disable
    def _after_update(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if not was_skipped(optimizer):
            step = self._count(optimizer)
            self._updates = step + 1
            self._apply(optimizer)
            if step >= self._plan.end:
                self._plan.tell_end(optimizer)

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        count = optimizer.param_groups[0].get(_COUNT)
        if count is None:
            warnings.warn(f"the state has no count of updates; it goes on from {self._updates}", stacklevel=3)
        else:
            self._updates = checks.step(_COUNT, count)
        self._apply(optimizer)
