"""One training of a task under a schedule, for `clr.compare`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import schedulefree
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr
import clr.torch
from benchmarks.bounds.tasks import Task
from benchmarks.bounds.training import EVERY, free_optimizer_of, optimizer_of

CALIBRATION = 512  # inputs from which batch normalization is computed for averaged weights


@dataclass(frozen=True)
class Peer:
    """A schedule of PyTorch, or none but an optimizer that needs none, at a rate."""

    kind: str
    lr: float
    steps: int


@dataclass(frozen=True)
class Winner:
    """A search, from whose best trial the training goes on under one cycle; so many updates in all."""

    steps: int


@dataclass(frozen=True)
class Training:
    """Trains a task by SGD with momentum or AdamW, and gives the metric on held-out data.

    Args:
        task: The name of the task.
        optimizer: ``"sgd"`` or ``"adamw"``.
        every: Updates from one evaluation to the next.
    """

    task: str
    optimizer: str
    every: int

    def __call__(self, schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Gives the metric in points."""
        torch.set_num_threads(1)
        task = EVERY[self.task]
        torch.manual_seed(seed)
        x, y, x_test, y_test = task.load(seed)
        model = task.build()
        done = 0
        if isinstance(schedule, Winner):
            optimizer = optimizer_of(self.optimizer, model)
            done, schedule = _searched(task, model, optimizer, x, y, steps)
            scheduler: Any = clr.torch.LRScheduler(optimizer, schedule)
        else:
            optimizer, scheduler = self._driven(model, schedule)
        order = torch.empty(0, dtype=torch.int64)
        for step in range(done + 1, steps + 1):
            if len(order) < task.batch_size:
                order = torch.randperm(len(x))
            batch, order = order[: task.batch_size], order[task.batch_size :]
            optimizer.zero_grad()
            loss = task.loss_fn(model(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if scheduler is not None and step < steps:
                scheduler.step()
            if not math.isfinite(loss.item()):
                yield step, {"metric": math.nan}
            if step % self.every == 0 or step == steps:
                yield step, {"metric": _score(task, model, optimizer, x, x_test, y_test)}

    def _driven(self, model: nn.Module, schedule: Any) -> tuple[Any, Any]:
        """The optimizer, and what drives its rate."""
        if isinstance(schedule, Peer) and schedule.kind == "schedule-free":
            if self.optimizer == "sgd":
                optimizer: Any = schedulefree.SGDScheduleFree(model.parameters(), lr=schedule.lr, momentum=0.9)
            else:
                optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=schedule.lr, weight_decay=0.01)
            optimizer.train()
            return optimizer, None
        if isinstance(schedule, Peer) and schedule.kind == "prodigy":
            optimizer = free_optimizer_of("prodigy", self.optimizer, model)  # annealed, as its authors advise
            return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.steps)
        optimizer = optimizer_of(self.optimizer, model)
        if not isinstance(schedule, Peer):
            return optimizer, clr.torch.LRScheduler(optimizer, schedule)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr
        peers = torch.optim.lr_scheduler
        steps = schedule.steps
        makers: dict[str, Callable[[], Any]] = {
            "step decay": lambda: peers.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], 0.1),
            "exponential": lambda: peers.ExponentialLR(optimizer, 0.01 ** (1 / steps)),
            "cosine": lambda: peers.CosineAnnealingLR(optimizer, steps),
            "OneCycleLR": lambda: peers.OneCycleLR(optimizer, schedule.lr, steps),
        }
        return optimizer, makers[schedule.kind]()


def _searched(
    task: Task, model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor, steps: int
) -> tuple[int, clr.Schedule]:
    """A search whose best trial is kept: how many updates it took, and a schedule over the rest."""
    loader = DataLoader(TensorDataset(x, y), batch_size=task.batch_size, shuffle=True, drop_last=True)
    options: dict[str, Any] = {"validation": 0.2, "total_steps": steps, "keep": "winner"}
    search = clr.torch.find_bounds(model, optimizer, task.loss_fn, loader, **options)
    return search.updates, search.schedule("one_cycle", total_steps=steps - search.updates)


def _score(
    task: Task, model: nn.Module, optimizer: Any, x: torch.Tensor, x_test: torch.Tensor, y_test: torch.Tensor
) -> float:
    """The metric, with the weights that the optimizer would have used."""
    free = hasattr(optimizer, "eval")
    if free:
        optimizer.eval()
        _calibrate(model, x[:CALIBRATION])
    model.eval()
    with torch.no_grad():
        score = task.score(model(x_test), y_test)
    model.train()
    if free:
        optimizer.train()
    return score


def _calibrate(model: nn.Module, x: torch.Tensor) -> None:
    """Batch normalization's means and variances for averaged weights, as schedule-free's authors ask for."""
    norms: list[Any] = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
    with torch.no_grad():
        model(x)
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum
