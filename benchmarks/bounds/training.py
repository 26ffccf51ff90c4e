"""One training between two bounds, and a fresh start of a task for a range test."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr
import clr.torch
from benchmarks.bounds.more import MORE
from benchmarks.bounds.tasks import ALL, Data, Task

OPTIMIZERS = ("sgd", "adamw")
CYCLES = 4  # so that a training ends at the lower bound
FREE = ("prodigy", "schedule-free")  # optimizers that ask for no schedule, at the rates of their authors
EVERY = ALL | MORE


class Outcome(NamedTuple):
    """The outcome of a training: the metric on held-out data in points, or None if it was lost, and if it diverged."""

    metric: float | None
    diverged: bool


def optimizer_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with its defaults."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), lr=1e-7)


def free_optimizer_of(kind: str, name: str, model: nn.Module) -> Any:
    """Prodigy, or the schedule-free form of SGD or AdamW."""
    if kind == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(model.parameters(), weight_decay=0.01)
    import schedulefree

    if name == "sgd":
        return schedulefree.SGDScheduleFree(model.parameters(), momentum=0.9)
    return schedulefree.AdamWScheduleFree(model.parameters(), weight_decay=0.01)


def train(name: str, optimizer_name: str, seed: int, base_lr: float, max_lr: float) -> Outcome:
    """Trains a task under the triangular policy between two bounds."""
    task, model, data = _begun(name, seed)
    optimizer = optimizer_of(optimizer_name, model)
    scheduler = clr.torch.LRScheduler(optimizer, clr.triangular(base_lr, max_lr, task.steps / CYCLES / 2))
    return _trained(task, model, data, optimizer, scheduler)


def train_free(kind: str, name: str, optimizer_name: str, seed: int) -> Outcome:
    """Trains a task with an optimizer that asks for no schedule."""
    task, model, data = _begun(name, seed)
    return _trained(task, model, data, free_optimizer_of(kind, optimizer_name, model))


def _begun(name: str, seed: int) -> tuple[Task, nn.Module, Data]:
    task = EVERY[name]
    torch.manual_seed(seed)
    data = task.load(seed)
    return task, task.build(), data


def _trained(task: Task, model: nn.Module, data: Data, optimizer: Any, scheduler: Any = None) -> Outcome:
    x, y, x_test, y_test = data
    switch = getattr(optimizer, "eval", None)  # of the schedule-free optimizers
    if switch is not None:
        optimizer.train()
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
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return Outcome(None, True)
    late = losses[-task.steps // 20 :]
    if switch is not None:
        switch()
    model.eval()
    with torch.no_grad():
        metric = task.score(model(x_test), y_test)
    return Outcome(metric if math.isfinite(metric) else None, sum(late) / len(late) > sum(losses[:10]) / 10)


def fresh(name: str, optimizer_name: str, seed: int) -> tuple[Task, nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """A task with a new model, its optimizer and a loader of its batches."""
    task, model, (x, y, _, _) = _begun(name, seed)
    loader = DataLoader(TensorDataset(x, y), batch_size=task.batch_size, shuffle=True, drop_last=True)
    return task, model, optimizer_of(optimizer_name, model), loader
