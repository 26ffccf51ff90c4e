"""One training of a task under a schedule, for `clr.compare`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import schedulefree
import torch
from torch import nn

import clr
import clr.torch
from benchmarks.bounds.tasks import ALL, Task
from benchmarks.bounds.training import optimizer_of

CALIBRATION = 512  # inputs from which batch normalization is computed for averaged weights


@dataclass(frozen=True)
class Peer:
    """A schedule of PyTorch, or none but an optimizer that needs none, at a rate."""

    kind: str
    lr: float
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
        task = ALL[self.task]
        torch.manual_seed(seed)
        x, y, x_test, y_test = task.load(seed)
        model = task.build()
        optimizer, scheduler = self._driven(model, schedule)
        order = torch.empty(0, dtype=torch.int64)
        for step in range(1, steps + 1):
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
