"""A scheduler that nobody calls: it follows the optimizer's own updates."""

import weakref

import torch

from clr import checks
from clr.torch.groups import (
    Group,
    Plan,
    Schedules,
    has_hooks,
    is_dummy,
    is_tested,
    making_updates,
    nested,
    tell,
    was_skipped,
)

COUNT = "clr_updates"  # the key of a group in which the count of updates travels
Mark = tuple[object, int | None]  # a rate, and how often it was written to if it is a tensor


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
    optimizer, or one that is unpickled, has no follower. A second follower replaces the first, and goes on with its
    count. Inside of `torch.compile`, plain Python does the counting. The updates of a range test do not count.

    A warning says, once, if the training makes an update past the end of the schedule, and if another scheduler sets
    the rates of an update.

    A state that was saved without a follower has no count. Then a warning says from where it goes on. PyTorch's
    flattened distributed checkpoints ask for each key of a group, and so raise a KeyError for ``clr_updates``: load
    such a state before you make the follower, or after `remove`.

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
        self._written: list[Mark] = []  # the rates that are in the optimizer
        self._others: list[float] | None = None  # the rates of the last update, where they were not those of the plan
        self._told = False
        own = making_updates(optimizer)
        if not has_hooks(own):
            checks.fail(TypeError, "optimizer", "one that tells of its updates by hooks, as PyTorch's do", optimizer)
        loading = filter(has_hooks, nested(optimizer))
        hooks = [getattr(hook, "__self__", None) for hook in own._optimizer_step_post_hooks.values()]
        before = [other for other in hooks if isinstance(other, Follower)]
        for other in before:
            other.remove()
        self._handles = [own.register_step_post_hook(self._after_update)]
        self._handles += [part.register_load_state_dict_post_hook(self._after_load) for part in loading]
        if before:
            optimizer.param_groups[0][COUNT] = count = before[-1]._updates
            tell(f"the optimizer has a follower already. The new one replaces it, and goes on from {count}")
        if COUNT in optimizer.param_groups[0]:  # its state is loaded already
            self._after_load(optimizer)
        else:
            self._apply(optimizer)

    @property
    def updates(self) -> int:
        """The updates so far, as counted in the optimizer."""
        optimizer = self._optimizer()
        return self._updates if optimizer is None else self._count(optimizer)

    def remove(self) -> None:
        """Stops driving the optimizer, and takes the count out of its state."""
        optimizer = self._optimizer()
        self._updates = self.updates
        for handle in self._handles:
            handle.remove()
        if optimizer is not None:
            optimizer.param_groups[0].pop(COUNT, None)

    def get_last_lr(self) -> list[float]:
        """The rates of the last update, one for each group. Before the first update, the rates that it will have."""
        return list(self._others) if self._others else self._rates(max(self.updates - 1, 0))

    def get_last_momentum(self) -> list[float | None]:
        """The momenta of the last update, as `get_last_lr`, None for a group that has none."""
        return self._plan.momenta(self._driven().param_groups, max(self.updates - 1, 0))

    def get_next_lr(self) -> list[float]:
        """The rates of the next update, which are in the optimizer already."""
        return self._rates(self.updates)

    def _rates(self, step: int) -> list[float]:
        return self._plan.rates(self._driven().param_groups, step)

    def _driven(self) -> torch.optim.Optimizer:
        optimizer = self._optimizer()
        if optimizer is None:
            raise ReferenceError("the optimizer of this follower is gone")
        return optimizer

    def _apply(self, optimizer: torch.optim.Optimizer) -> None:
        groups = optimizer.param_groups
        groups[0][COUNT] = self._updates
        self._plan.apply(groups, self._updates)
        self._written = [_mark(group) for group in groups]

    def _count(self, optimizer: torch.optim.Optimizer) -> int:
        # The one in the optimizer counts, since a range test or a loaded state may have put it back.
        count: int = optimizer.param_groups[0].get(COUNT, self._updates)
        return count

    @torch.compiler.disable
    def _after_update(self, updated: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        optimizer = self._optimizer()
        if optimizer is None or was_skipped(updated) or was_skipped(optimizer) or is_tested(optimizer):
            return
        step = self._count(optimizer)
        self._others = None
        if not all(map(_is_as_written, optimizer.param_groups, self._written)):
            if is_dummy(optimizer.param_groups):
                return
            self._look_at(optimizer, step)
        self._updates = step + 1
        self._apply(optimizer)
        if step >= self._plan.end:
            self._plan.tell_end(optimizer)

    def _look_at(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Says if the rates of an update were not those of the plan."""
        rates, own = [float(group["lr"]) for group in optimizer.param_groups], self._rates(step)
        if len(self._written) < len(rates) or self._plan.are_applied(optimizer.param_groups, step):
            return  # a new group has its own rate, until the plan writes the next
        self._others = rates
        if not self._told:
            self._told = True
            tell(
                f"another scheduler sets the rates that this follower sets: update {step} was made at "
                f"{checks.shown(rates)} in place of {checks.shown(own)}. Use one of them"
            )

    def _after_load(self, loaded: torch.optim.Optimizer) -> None:
        optimizer = self._optimizer()
        if optimizer is None:
            return
        count = optimizer.param_groups[0].get(COUNT)
        if count is None:
            tell(f"the state has no count of updates; it goes on from {self._updates}")
        else:
            self._updates = checks.step(COUNT, count)
        self._apply(optimizer)


def _mark(group: Group) -> Mark:
    lr = group["lr"]
    return lr, lr._version if isinstance(lr, torch.Tensor) and not lr.is_inference() else None


def _is_as_written(group: Group, mark: Mark) -> bool:
    """Whether nobody has written another rate since. It does not look at the value: a GPU would have to wait."""
    lr, version = _mark(group)
    return lr is mark[0] and version == mark[1]
