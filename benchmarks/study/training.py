"""One training of a task under a schedule, for `clr.compare`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import schedulefree
import torch
from torch import nn

import clr
import clr.torch
from benchmarks.bounds.tasks import TASKS, Task
from benchmarks.bounds.training import optimizer_of

EVALUATIONS = 40  # per training at the largest budget; at a smaller one as often per update
RANGE_TEST_SEED = 1000  # none of those that are trained with


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
        full: The largest budget, in updates.
    """

    task: str
    optimizer: str
    full: int

    def __call__(self, schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Gives the metric in points, and the mean loss since the last time."""
        torch.set_num_threads(1)
        task = TASKS[self.task]
        torch.manual_seed(seed)
        x, y, x_test, y_test = task.load(seed)
        model = task.build()
        optimizer, scheduler = self._driven(model, schedule)
        every = max(1, self.full // EVALUATIONS)
        losses: list[float] = []
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
            losses.append(loss.item())
            if step % every == 0 or step == steps or not math.isfinite(losses[-1]):
                yield (
                    step,
                    {"metric": _score(task, model, optimizer, x_test, y_test), "loss": sum(losses) / len(losses)},
                )
                losses.clear()

    def _driven(self, model: nn.Module, schedule: Any) -> tuple[Any, Any]:
        """The optimizer, and what drives its rate."""
        if isinstance(schedule, Peer) and schedule.kind == "schedule-free":
            if self.optimizer == "sgd":
                optimizer: Any = schedulefree.SGDScheduleFree(model.parameters(), lr=schedule.lr, momentum=0.9)
            else:
                optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=schedule.lr)
            optimizer.train()
            return optimizer, None
        optimizer = optimizer_of(self.optimizer, model)
        if not isinstance(schedule, Peer):
            return optimizer, clr.torch.LRScheduler(optimizer, schedule)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr
        peers = torch.optim.lr_scheduler
        steps = schedule.steps
        makers: dict[str, Any] = {
            "step decay": lambda: peers.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], 0.1),
            "exponential": lambda: peers.ExponentialLR(optimizer, 0.01 ** (1 / steps)),
            "cosine": lambda: peers.CosineAnnealingLR(optimizer, steps),
            "OneCycleLR": lambda: peers.OneCycleLR(optimizer, schedule.lr, steps),
        }
        return optimizer, makers[schedule.kind]()


def range_test(name: str, optimizer_name: str) -> clr.RangeTest:
    """The range test of a task, with batches and weights of its own."""
    from benchmarks.bounds.training import fresh

    torch.set_num_threads(1)
    task, model, optimizer, loader = fresh(name, optimizer_name, RANGE_TEST_SEED)
    test: clr.RangeTest = clr.torch.range_test(model, optimizer, task.loss_fn, loader)
    return test


def _score(task: Task, model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    """The metric, with the weights that the optimizer would have used."""
    free = hasattr(optimizer, "eval")
    model.eval()
    if free:
        optimizer.eval()
    with torch.no_grad():
        score = task.score(model(x), y)
    model.train()
    if free:
        optimizer.train()
    return score
