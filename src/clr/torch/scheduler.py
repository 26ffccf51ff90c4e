"""A PyTorch scheduler, for loops that call ``step()``."""

import weakref
from collections.abc import Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch

from clr import checks
from clr.torch.groups import Plan, Schedules, has_hooks, is_dummy, is_tested, making_updates, tell, was_skipped

_IN_A_ROW = 3  # so many updates with two calls of `step()` each are no accident


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
    silences it. Another says, once, if `step` comes after several updates, or several times after each. Updates that a
    ``GradScaler`` skips do not count for it, and a step inside of `torch.compile` is not seen.

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
        self.last_epoch = _checked_epoch(last_epoch)
        self._watched = False
        self._pace = Pace(optimizer)
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 1  # which Accelerate counts up
        self.step()
        self._pace.known = False  # the training may start later than the scheduler is made

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next step, or to step ``epoch``, and writes its rates and momenta."""
        pace = self._pace
        updates = pace.updates
        if epoch is not None:
            self.last_epoch = step = checks.step("epoch", epoch)
            pace.known = False
        else:
            if updates != pace.due and updates:
                self._check_pace()
            self.last_epoch = step = self.last_epoch + 1
        pace.due = updates + 1
        self._plan.apply(self.optimizer.param_groups, step)
        if step >= self._plan.end and not self._watched:
            self._watched = True
            _watch_end(self)

    _update_lr = step  # what SequentialLR calls

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """The rates that are applied now, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, max(self.last_epoch, 0))

    def get_last_momentum(self) -> list[float | None]:
        """The momenta that are applied now, one for each group, None where it has none."""
        return self._plan.momenta(self.optimizer.param_groups, max(self.last_epoch, 0))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """As `get_last_lr`.

        Ignite calls this and counts ``last_epoch`` up, and never calls `step`. It tells so, as PyTorch's ``step`` does.
        Then rates and momenta are written here.
        """
        if not self._get_lr_called_within_step:
            return self.get_last_lr()
        self._plan.apply(self.optimizer.param_groups, max(self.last_epoch, 0))
        if self.last_epoch > self._plan.end:  # it is one ahead of the updates if ignite is called after them
            self._plan.tell_end(self.optimizer)
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_next_lr(self) -> list[float]:
        """The rates of the next step, one for each group."""
        return self._plan.rates(self.optimizer.param_groups, self.last_epoch + 1)

    @property
    def _last_lr(self) -> list[float | torch.Tensor]:
        return [*self.get_last_lr()]

    @_last_lr.setter
    def _last_lr(self, rates: object) -> None:
        """Many resume by hand, and set this too. It is a note, on which nothing depends: the step tells the rates."""

    @property
    def base_lrs(self) -> list[float | torch.Tensor]:
        """The rates of step 0, one for each group."""
        return [*self._plan.rates(self.optimizer.param_groups, 0)]

    @base_lrs.setter
    def base_lrs(self, rates: object) -> None:
        if rates != self.base_lrs:
            own = checks.shown(self.base_lrs)
            tell(f"`base_lrs` is left at {own}, the first rates of the schedule. Received: {checks.shown(rates)}.")

    def state_dict(self) -> dict[str, Any]:
        """The number of the step, whether its rates are those of the optimizer, and the schedules as plain data."""
        applied = self.last_epoch >= 0 and self._plan.are_applied(self.optimizer.param_groups, self.last_epoch)
        return {"last_epoch": self.last_epoch, "applied": applied, **self._plan.plain()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes to the step of a saved state, and writes its rates and momenta.

        It writes nothing if another scheduler had set the optimizer's rates, as in a ``SequentialLR``: they are in the
        state of the optimizer. The schedules stay those of this scheduler. If the saved ones differ, a warning says so.
        """
        if "last_epoch" not in checks.mapping("state_dict", state_dict):
            raise ValueError(
                f"the state of a scheduler must have `last_epoch`. Received: {checks.shown(list(state_dict))}."
            )
        last_epoch = _checked_epoch(state_dict["last_epoch"])  # -1 until it is its turn in a SequentialLR
        if last_epoch >= 0 and state_dict.get("applied", True):
            self.step(last_epoch)
        else:
            self.last_epoch = last_epoch
            self._pace.known = False
        self._plan.compare(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_pace"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pace = Pace(self.optimizer)
        if self._watched:
            _watch_end(self)

    def _check_pace(self) -> None:
        """Says if this step comes too late or too early, where the rates are those of this scheduler."""
        if (problem := self._pace.problem()) and self._plan.are_applied(self.optimizer.param_groups, self.last_epoch):
            self._pace.told = True
            tell(
                f"the rate is out of step with the training: `step()` of LRScheduler is called {problem}. Call it once "
                "after each update, or use `clr.torch.Follower`, which needs no calls"
            )


class Pace:
    """How the calls of ``step()`` keep up with the updates of an optimizer.

    Attributes:
        updates: The updates so far.
        due: The updates after which the next call is due.
        known: Whether a call was late or early before, since the first or a loaded step. That one is forgiven.
        told: Whether a problem was told.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.updates, self.due, self.known, self.told = 0, 0, False, False
        self._twice_at, self._row = -1, 0  # the last update with two calls after it, and how many there were in a row
        own = making_updates(optimizer)
        self._optimizer = weakref.ref(own)
        if has_hooks(own):
            own.register_step_post_hook(partial(_count, weakref.ref(self)))

    def problem(self) -> str | None:
        """What is wrong with the pace of a call after no update or after several, if that is certain."""
        late, known, self.known = self.updates - self.due, self.known, True
        if not known or self.told:
            return None
        if late > 0:
            return f"once after {late + 1} updates"
        optimizer = self._optimizer()
        if self.updates == self._twice_at or optimizer is None or not _have_gradients(optimizer):
            return None
        self._row = self._row + 1 if self.updates == self._twice_at + 1 else 1
        self._twice_at = self.updates
        return "several times after each update" if self._row == _IN_A_ROW else None


def _count(pace: "weakref.ref[Pace]", optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    """Counts an update. It does not do so inside of `torch.compile`, which would have to break its graph."""
    if torch.compiler.is_compiling():
        return
    own = pace()
    if own is not None and not (is_tested(optimizer) or was_skipped(optimizer) or is_dummy(optimizer.param_groups)):
        own.updates += 1


def _have_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether there are gradients, all finite: then no ``GradScaler`` can have skipped an update because of them."""
    found = [part.grad for group in optimizer.param_groups for part in group["params"] if part.grad is not None]
    return bool(found) and all(bool((part._values() if part.is_sparse else part).isfinite().all()) for part in found)


def _checked_epoch(value: object) -> int:
    """The number of a step, or -1 before the first."""
    if not isinstance(value, bool) and isinstance(value, Real) and value == -1:
        return -1
    try:
        return checks.step("last_epoch", value)
    except (TypeError, ValueError) as error:
        checks.fail(type(error), "last_epoch", "-1, or a whole number of steps, 0 or more", value)


def _watch_end(scheduler: LRScheduler) -> None:
    """Looks at the updates from now on: one past the end of the schedule is worth a warning."""
    reference = weakref.ref(scheduler)

    @torch.compiler.disable
    def after_update(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        own = reference()
        if own is not None and own.last_epoch >= own._plan.end and not was_skipped(optimizer):
            own._plan.tell_end(optimizer)

    own = making_updates(scheduler.optimizer)
    if has_hooks(own):
        own.register_step_post_hook(after_update)
