"""One training between two bounds, and a fresh start of a task for a range test."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr
import clr.torch
from benchmarks.bounds.tasks import ALL, TASKS, Task

OPTIMIZERS = ("sgd", "adamw")
CYCLES = 4  # so that a training ends at the lower bound


class Outcome(NamedTuple):
    """The outcome of a training: the metric on held-out data in points, or None if it was lost, and if it diverged."""

    metric: float | None
    diverged: bool


def optimizer_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with its defaults."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), lr=1e-7)


def train(name: str, optimizer_name: str, seed: int, base_lr: float, max_lr: float) -> Outcome:
    """Trains a task under the triangular policy between two bounds."""
    task = TASKS[name]
    torch.manual_seed(seed)
    x, y, x_test, y_test = task.load(seed)
    model = task.build()
    optimizer = optimizer_of(optimizer_name, model)
    scheduler = clr.torch.LRScheduler(optimizer, clr.triangular(base_lr, max_lr, task.steps / CYCLES / 2))
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(task.steps):
        if len(order) < task.batch_size:
            order = torch.randperm(len(x))
        batch, order = order[: task.batch_size], order[task.batch_size :]
        optimizer.zero_grad()
        loss = task.loss_fn(model(x[batch]), y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return Outcome(None, True)
    late = losses[-task.steps // 20 :]
    model.eval()
    with torch.no_grad():
        metric = task.score(model(x_test), y_test)
    return Outcome(metric if math.isfinite(metric) else None, sum(late) / len(late) > sum(losses[:10]) / 10)


def fresh(name: str, optimizer_name: str, seed: int) -> tuple[Task, nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """A task with a new model, its optimizer and a loader of its batches."""
    task = ALL[name]
    torch.manual_seed(seed)
    x, y, _, _ = task.load(seed)
    model = task.build()
    loader = DataLoader(TensorDataset(x, y), batch_size=task.batch_size, shuffle=True, drop_last=True)
    return task, model, optimizer_of(optimizer_name, model), loader
