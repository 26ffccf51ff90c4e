"""Transformers: a ``Trainer`` that follows a schedule, and finders that use its own loss and evaluation."""

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import Trainer
except ImportError as error:
    raise ImportError(
        "clr.integrations.transformers needs Transformers: pip install 'cyclic-learning-rate[transformers]'"
    ) from error

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from clr import checks
from clr import torch as clr_torch
from clr.finder.result import RangeTest
from clr.finder.transaction import put_back, random_state
from clr.finder.trials import Search
from clr.integrations.updates import Kept
from clr.schedules.base import Schedule
from clr.torch.groups import Schedules, tell
from clr.torch.snapshot import generators


def set_schedule(trainer: Trainer, schedule: Schedules, momentum: Schedules | None = None) -> None:
    """Lets a trainer follow a schedule, in place of the linear one that it would make.

    The trainer makes a `clr.torch.LRScheduler` when it trains, steps it after each real update, logs its rate and saves
    its step in each checkpoint. So ``lr_scheduler_type`` and what belongs to it have no meaning any more.

    Args:
        trainer: The trainer, before it trains.
        schedule: As in `clr.torch.LRScheduler`.
        momentum: As in `clr.torch.LRScheduler`.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The trainer has a scheduler already.
    """
    _checked(trainer)
    given: dict[str, object] = {"schedule": schedule, "momentum": schedule if momentum is None else momentum}
    for name, own in given.items():
        if not isinstance(own, Schedule | Sequence | Mapping) or isinstance(own, str):
            checks.fail(TypeError, name, "schedule", own)

    def create_scheduler(num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if trainer.lr_scheduler is not None:
            checks.fail(ValueError, "trainer", "one without another scheduler", trainer.lr_scheduler)
        own = trainer.optimizer if optimizer is None else optimizer
        trainer.lr_scheduler = clr_torch.LRScheduler(own, schedule, momentum)
        trainer._created_lr_scheduler = True  # so that the next `train` makes another
        return trainer.lr_scheduler

    if trainer.lr_scheduler is not None and not trainer._created_lr_scheduler:
        checks.fail(ValueError, "trainer", "one without another scheduler", trainer.lr_scheduler)
    trainer.create_scheduler = create_scheduler


def range_test(
    trainer: Trainer,
    *,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test with a trainer's own loss, as `clr.torch.range_test` makes it.

    Batches, loss, mixed precision, accumulation, gradient clipping and optimizer are the trainer's. Its callbacks
    are not called, and nothing is logged or saved. Trainer, model and random state are at the end as they were.

    Args:
        trainer: The trainer. DeepSpeed and FSDP are not supported.
        group: The number or ``"name"`` of one group of the optimizer. Then the test changes only its rate.
        min_lr: The first rate. This and what follows is as in `clr.torch.range_test`.
        max_lr: The last rate.
        num_steps: How many rates to try.
        repeats: How many times to go over the rates.
        progress: Whether to show a progress bar.

    Where several processes train the model, every one must make the same call, and all find the same bounds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: Another process has raised an error.
    """
    with _training(trainer) as arguments:
        return clr_torch.range_test(
            **arguments,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=num_steps,
            repeats=repeats,
            progress=progress,
        )


def find_bounds(
    trainer: Trainer,
    *,
    metric: str | None = None,
    goal: Literal["min", "max"] | None = None,
    total_steps: int | None = None,
    budget: int | None = None,
    group: int | str | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate with a trainer's own loss, judged by its own evaluation.

    It searches as `clr.torch.find_bounds` does, in the way of `range_test`.

    Args:
        trainer: The trainer, with an ``eval_dataset``. DeepSpeed and FSDP are not supported.
        metric: What to judge by, such as ``"eval_loss"`` or a name that ``compute_metrics`` returns. By default the
            trainer's ``metric_for_best_model``, or else the loss.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of it is better. By default as the trainer's
            ``greater_is_better`` says.
        total_steps: The length of the training that the bounds are for, in updates. By default that of the trainer.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        group: The number or ``"name"`` of one group of the optimizer. Then the search changes only its rate.
        min_lr: The first rate of the range test.
        max_lr: The last rate of the range test.
        progress: Whether to show a progress bar.

    Where several processes train the model, every one must make the same call, and all find the same bounds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: Another process has raised an error.
    """
    own = _checked(trainer).args
    if goal is None:
        goal = "max" if metric is None and own.metric_for_best_model and own.greater_is_better else "min"
    name = metric or own.metric_for_best_model or "eval_loss"
    name = name if name.startswith("eval_") else f"eval_{name}"
    with _training(trainer) as arguments:
        held_out = trainer.get_eval_dataloader()

        def evaluate() -> float:
            metrics = trainer.evaluation_loop(held_out, "Search").metrics
            if name not in metrics:
                checks.fail(ValueError, "metric", f"one of {sorted(metrics)}", metric)
            return float(metrics[name])

        return clr_torch.find_bounds(
            **arguments,
            evaluate=evaluate,
            goal=goal,
            total_steps=_total_steps(trainer, arguments["loader"]) if total_steps is None else total_steps,
            budget=budget,
            group=group,
            min_lr=min_lr,
            max_lr=max_lr,
            progress=progress,
        )


def _checked(trainer: Trainer) -> Trainer:
    if not isinstance(trainer, Trainer):
        checks.fail(TypeError, "trainer", "a transformers.Trainer", trainer)
    return trainer


@contextmanager
def _training(trainer: Any) -> Iterator[dict[str, Any]]:
    """The training of a trainer as the finders of `clr.torch` take it. At the end the trainer is as before."""
    if _checked(trainer).is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise ValueError(
            "the finders do not support a Trainer with DeepSpeed or FSDP. Without the Trainer, `clr.torch` supports a "
            "model that `fully_shard` has divided."
        )
    if type(trainer).training_step is not Trainer.training_step:
        tell("the finder makes its updates itself, and does not call `training_step` of the trainer")
    accelerator, handler, largest = trainer.accelerator, trainer.callback_handler, trainer.args.max_grad_norm
    parts = [random_state(), *generators(None)]
    kept = Kept([trainer, accelerator, handler, accelerator.gradient_state, *trainer.model.modules()])
    try:
        handler.callbacks = []  # evaluation calls them
        optimizer = trainer.create_optimizer()
        if isinstance(optimizer, AcceleratedOptimizer):  # after a training
            optimizer = optimizer.optimizer
        for group in optimizer.param_groups:  # as the scheduler of that training has found it
            parts.append(partial(group.update, lr=group["lr"]))
            group["lr"] = group.get("initial_lr", group["lr"])
        model = trainer.model_wrapped  # in DistributedDataParallel after a training
        if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model = accelerator.prepare_model(trainer.model, evaluation_mode=True)  # for mixed precision
        if largest:
            parts.append(optimizer.register_step_pre_hook(partial(_clip, model, largest)).remove)
        yield {
            "model": model,
            "optimizer": optimizer,
            "loader": _Batches(trainer),
            "compute_loss": _Loss(trainer),
            "gradient_accumulation_steps": trainer.args.gradient_accumulation_steps,
            "scaler": accelerator.scaler,
            "device": trainer.args.device,
        }
    finally:
        put_back(*parts, lambda: kept.load_state_dict({}))


def _clip(
    model: torch.nn.Module, largest: float, optimizer: torch.optim.Optimizer, args: object, kwargs: object
) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), largest)


class _Batches:
    """The batches of an epoch of a trainer. Each is its number in an update, and all batches of that update."""

    def __init__(self, trainer: Trainer) -> None:
        self.loader = trainer.get_train_dataloader()  # by this name the generators of its samplers are found
        self._count = trainer.args.gradient_accumulation_steps

    def __iter__(self) -> Iterator[tuple[int, list[Any]]]:
        batches: list[Any] = []
        for batch in self.loader:
            batches.append(batch)
            if len(batches) == self._count:
                yield from ((number, batches) for number in range(self._count))
                batches = []


class _Loss:
    """The loss of a batch, as a trainer's ``training_step`` computes it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._items: Any = None

    def __call__(self, model: Any, numbered: tuple[int, list[Any]]) -> Any:
        trainer, (number, batches) = self._trainer, numbered
        if number == 0:  # not before, for it asks the other processes
            self._items = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)[1]
        if callable(getattr(trainer.optimizer, "train", None)):
            trainer.optimizer.train()
        inputs = trainer._prepare_inputs(batches[number])
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs, num_items_in_batch=self._items)
        scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if scaled is None:
            by_items = trainer.model_accepts_loss_kwargs and self._items is not None
            scaled = by_items or trainer.compute_loss_func is not None
        return loss * len(batches) if scaled else loss


def _total_steps(trainer: Trainer, batches: _Batches) -> int:
    """The updates of the training to come."""
    own = trainer.args
    if own.max_steps > 0:
        return int(own.max_steps)
    try:
        length = len(batches.loader)
    except TypeError:
        raise ValueError("`total_steps` must be given, for the batches of `trainer` have no length.") from None
    per_epoch: int = max(math.ceil(length / own.gradient_accumulation_steps), 1)
    return math.ceil(float(own.num_train_epochs) * per_epoch)
