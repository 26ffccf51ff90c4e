"""Lightning: a callback that drives rate and momentum, and finders that use a module's own training and validation."""

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.loops.progress import _BaseProgress
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
    from lightning.pytorch.utilities.model_helpers import is_overridden
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
except ImportError as error:
    raise ImportError(
        "clr.integrations.lightning needs Lightning: pip install 'cyclic-learning-rate[lightning]'"
    ) from error

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import torch
from torch.utils.data import DataLoader

from clr import checks
from clr import torch as clr_torch
from clr.finder.result import RangeTest
from clr.finder.transaction import random_state
from clr.finder.trials import Search
from clr.integrations.updates import Kept
from clr.torch.groups import Schedules, tell
from clr.torch.snapshot import counts, generators

V = TypeVar("V", RangeTest, Search)
# What the finders do themselves, in place of these hooks of a module.
_NOT_CALLED = (
    "backward",
    "on_before_backward",
    "on_after_backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_start",
    "on_train_batch_end",
)


class Follower(Callback):  # type: ignore[misc]
    """A callback that drives an optimizer of the module along schedules by the optimizer's own updates.

    The rate follows real updates: neither ``interval``, accumulated batches, a ``GradScaler``, nor manual optimization
    can drive it too fast or too slow. The count of updates is in the optimizer's state, so a checkpoint of Lightning
    resumes it. ``LearningRateMonitor`` logs rate and momentum as ever.

    Args:
        schedule: As in `clr.torch.Follower`.
        momentum: As in `clr.torch.Follower`.
        optimizer: The number of the optimizer, where the module has several. Each has a callback of its own.

    Raises:
        TypeError, ValueError: An argument makes no sense, or the module returns another scheduler for the optimizer.

    >>> import clr, torch
    >>> from clr.integrations.lightning import Follower
    >>> callback = Follower(clr.triangular(0.001, 0.006, step_size=100))
    >>> callback  # Trainer(callbacks=[callback])
    Follower(clr.triangular(base_lr=0.001, max_lr=0.006, step_size=100))
    """

    def __init__(self, schedule: Schedules, momentum: Schedules | None = None, optimizer: int | None = None) -> None:
        self.schedule, self.momentum = schedule, momentum
        self.optimizer = None if optimizer is None else checks.whole("optimizer", optimizer)

    def __repr__(self) -> str:
        options = {"momentum": self.momentum, "optimizer": self.optimizer}
        given = [f"{name}={value!r}" for name, value in options.items() if value is not None]
        return f"{type(self).__name__}({', '.join([repr(self.schedule), *given])})"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to follow, before the state of a checkpoint is loaded."""
        optimizers = trainer.optimizers
        if self.optimizer is None and len(optimizers) != 1:
            checks.fail(ValueError, "optimizer", f"the number of one of {len(optimizers)} optimizers", None)
        if (number := self.optimizer or 0) >= len(optimizers):
            checks.fail(ValueError, "optimizer", f"the number of one of {len(optimizers)} optimizers", number)
        if any(config.scheduler.optimizer is optimizers[number] for config in trainer.lr_scheduler_configs):
            raise ValueError(
                "`configure_optimizers` returns a scheduler, and the trainer has a Follower for its optimizer. Use one "
                "of them."
            )
        self.follower = clr_torch.Follower(optimizers[number], self.schedule, self.momentum)


def range_test(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule | Iterable[Any] | None = None,
    *,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test with a module's own ``training_step``, as `clr.torch.range_test` makes it.

    It begins a ``trainer.fit`` that ends before its first batch. So strategy, precision, devices, accumulation,
    gradient clipping and ``configure_optimizers`` are those of the training. Without the trainer's callbacks and
    loggers, nothing is logged or saved. Module, trainer, data and random state are at the end as they were. But what
    hooks such as ``setup``, ``on_fit_start`` and ``on_train_end`` do elsewhere is done.

    Args:
        trainer: The trainer of the training to come. Its loops are not advanced.
        module: The module. It must use automatic optimization.
        data: A data module or the training batches, as ``fit`` takes them. By default the module's own.
        group: The number or ``"name"`` of one group of the optimizer. Then the test changes only its rate.
        min_lr: The first rate. This and what follows is as in `clr.torch.range_test`.
        max_lr: The last rate.
        num_steps: How many rates to try.
        repeats: How many times to go over the rates.
        progress: Whether to show a progress bar.

    Where several processes train the module, every one must make the same call, and all find the same bounds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: Another process has raised an error.
    """

    def body(own: "_Training") -> RangeTest:
        return clr_torch.range_test(
            **own.arguments,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=num_steps,
            repeats=repeats,
            progress=progress,
        )

    return _fitted(trainer, module, data, None, body)


def find_bounds(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule | Iterable[Any] | None = None,
    *,
    validation: Iterable[Any] | None = None,
    monitor: str = "val_loss",
    goal: Literal["min", "max"] = "min",
    total_steps: int | None = None,
    budget: int | None = None,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate with a module's own training and validation.

    It searches as `clr.torch.find_bounds` does, in the way of `range_test`. It judges by what the module logs in the
    trainer's own validation.

    Args:
        trainer: The trainer of the training to come, as in `range_test`.
        module: The module. It must use automatic optimization.
        data: A data module or the training batches, as ``fit`` takes them. By default the module's own.
        validation: The held-out batches, as ``fit`` takes them, unless ``data`` or the module has them.
        monitor: What to judge by: a name that the module logs in ``validation_step``, as ``ModelCheckpoint`` takes it.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of it is better.
        total_steps: The length of the training that the bounds are for, in updates. By default that of the trainer.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        group: The number or ``"name"`` of one group of the optimizer. Then the search changes only its rate.
        min_lr: The first rate of the range test.
        max_lr: The last rate of the range test.
        progress: Whether to show a progress bar.

    Where several processes train the module, every one must make the same call, and all find the same bounds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: Another process has raised an error.
    """

    def body(own: "_Training") -> Search:
        steps = trainer.estimated_stepping_batches if total_steps is None else total_steps
        if steps == math.inf:
            raise ValueError("`total_steps` must be given, for the training of `trainer` has no end.")
        return clr_torch.find_bounds(
            **own.arguments,
            evaluate=lambda: own.validated(monitor),
            goal=goal,
            total_steps=steps,
            budget=budget,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            progress=progress,
        )

    return _fitted(trainer, module, data, validation, body)


def _fitted(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule | Iterable[Any] | None,
    validation: Iterable[Any] | None,
    body: "Callable[[_Training], V]",
) -> V:
    """What ``body`` returns at the start of a training that then ends, and leaves no trace."""
    if not isinstance(trainer, Trainer):
        checks.fail(TypeError, "trainer", "a lightning.pytorch.Trainer", trainer)
    if not isinstance(module, LightningModule):
        checks.fail(TypeError, "module", "a lightning.pytorch.LightningModule", module)
    if not module.automatic_optimization:
        raise ValueError("`module` must use automatic optimization. With manual optimization use `clr.torch`.")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError("`trainer` must not start its processes by spawn or fork, which keep what they find. Use ddp.")
    if left_out := [name for name in _NOT_CALLED if is_overridden(name, module, LightningModule)]:
        tell(f"the finder makes its updates itself, and does not call {', '.join(left_out)} of the module")
    start = _Start(body)
    known = isinstance(data, LightningDataModule)
    with _untouched(trainer, module, data, validation):
        trainer.callbacks, trainer.num_sanity_val_steps = [start], 0
        trainer.loggers = [DummyLogger()] if trainer.loggers else []
        vars(module)["configure_callbacks"] = list  # none
        trainer.fit(module, None if known else data, validation, data if known else None)
    if start.error is not None:
        raise start.error
    if start.found is None:
        raise ValueError("`trainer` has no training to do: its `max_epochs`, `max_steps` or batches are at their end.")
    found: V = start.found
    return found


class _Start(Callback):  # type: ignore[misc]
    """Does its work at the start of a training, which it ends."""

    def __init__(self, body: "Callable[[_Training], Any]") -> None:
        self._body = body
        self.found: Any = None
        self.error: BaseException | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            with _silent(pl_module):  # Lightning calls these after this
                pl_module.on_train_start()
                pl_module.on_train_epoch_start()
            self.found = self._body(_Training(trainer, pl_module))
        except (Exception, KeyboardInterrupt) as error:  # which Lightning would end the program for
            self.error = error
        trainer.should_stop = True
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None


class _Training:
    """The training of a trainer as the finders of `clr.torch` take it, and its validation."""

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer, self._module = trainer, module
        (optimizer,) = trainer.optimizers
        for group in optimizer.param_groups:  # as a scheduler of the module has found it
            group["lr"] = group.get("initial_lr", group["lr"])
        if trainer.gradient_clip_val:
            optimizer.register_step_pre_hook(self._clip)
        self._numbered = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        self.arguments: dict[str, Any] = {
            "model": trainer.model,
            "optimizer": optimizer,
            "loader": _Batches(trainer),
            "compute_loss": self._loss,
            "gradient_accumulation_steps": trainer.accumulate_grad_batches,
            "scaler": getattr(trainer.precision_plugin, "scaler", None),
            "device": trainer.strategy.root_device,
        }

    def validated(self, monitor: str) -> float:
        """What the module logs under a name in a validation."""
        trainer = self._trainer
        own = trainer._logger_connector
        first = own._first_loop_iter
        trainer.callback_metrics.pop(monitor, None)
        trainer.validating = True  # as Lightning's own loop does it
        try:
            trainer.fit_loop.epoch_loop.val_loop.run()
        finally:
            trainer.training = True
            own._first_loop_iter = first
        if monitor not in trainer.callback_metrics:
            logged = sorted(trainer.callback_metrics)
            checks.fail(ValueError, "monitor", f"a name that the module logs in its validation, of {logged}", monitor)
        return float(trainer.callback_metrics[monitor])

    def _loss(self, model: object, numbered: tuple[int, Any]) -> Any:
        trainer, module = self._trainer, self._module
        number, batch = numbered
        batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        with _silent(module), trainer.precision_plugin.train_step_context():
            loss = module.training_step(batch, number) if self._numbered else module.training_step(batch)
        loss = loss.get("loss") if isinstance(loss, dict) else loss
        if loss is None:  # with which `fit` would skip the batch
            checks.fail(TypeError, "module", "one whose `training_step` returns a loss for every batch", loss)
        return loss

    def _clip(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        trainer = self._trainer
        self._module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)


class _Batches:
    """The batches of an epoch of a trainer with their numbers."""

    def __init__(self, trainer: Trainer) -> None:
        combined: Any = trainer.fit_loop._combined_loader
        self._single = isinstance(combined.iterables, DataLoader)
        self.loader: Any = combined.iterables if self._single else combined  # the generators are found by this name
        self._limit = trainer.num_training_batches

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches = iter(self.loader) if self._single else (batch for batch, _, _ in iter(self.loader))
        return enumerate(islice(batches, None if self._limit == math.inf else int(self._limit)))


@contextmanager
def _untouched(trainer: Trainer, module: LightningModule, *data: object) -> Iterator[None]:
    """Puts back at the end what the start of a training changes in trainer, module, data and random state."""
    fit = trainer.fit_loop
    epoch = fit.epoch_loop
    loops = [fit, epoch, epoch.val_loop, epoch.automatic_optimization]
    owners = [trainer, trainer.state, trainer.strategy, *loops]
    owners += [trainer._data_connector, trainer._logger_connector, trainer._signal_connector]
    owners += [*module.modules(), *(own for own in data if isinstance(own, LightningDataModule))]
    # Not by the state of the loops, which would then take the next training for one that resumes.
    progress = [own for loop in loops for own in vars(loop).values() if isinstance(own, _BaseProgress)]
    parts: list[Callable[[], object]] = [partial(own.load_state_dict, own.state_dict()) for own in progress]
    # The tensors themselves, since a strategy moves their contents to another device or dtype.
    parts += [partial(setattr, part, "data", part.data) for part in module.parameters()]
    for own in (module, *data):
        parts += [*generators(own), *counts(own)]
    kept = Kept(owners, *parts, random_state())
    try:
        yield
    finally:
        kept.load_state_dict({})


@contextmanager
def _silent(module: LightningModule) -> Iterator[None]:
    """Leaves out what a module logs, for the loop that would take it does not run."""
    vars(module)["log"] = _ignored
    try:
        yield
    finally:
        del vars(module)["log"]


def _ignored(*args: object, **kwargs: object) -> None:
    """Logs nothing."""
