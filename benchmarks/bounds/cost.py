"""A range test, a plain loop of as many steps, and torch-lr-finder, for what they cost against each other."""

from typing import Any

import clr
import clr.torch
from benchmarks.bounds.rules import HIGH, LOW, silent
from benchmarks.bounds.training import fresh

STEPS = 200
TASKS = ("digits_cnn", "mnist1d_cnn", "chars")
# So small a range that no way ends early.
RANGE: dict[str, Any] = {"min_lr": LOW, "max_lr": 1e-5, "num_steps": STEPS}


def range_test(name: str) -> None:
    """Our test of a task."""
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    test = clr.torch.range_test(model, optimizer, task.loss_fn, loader, **RANGE)
    assert len(test.losses) == STEPS


def plain(name: str) -> None:
    """The loop, which leaves its traces."""
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    done = 0
    while done < STEPS:
        for x, y in loader:
            optimizer.param_groups[0]["lr"] = LOW
            optimizer.zero_grad()
            loss = task.loss_fn(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            done += 1
            if done == STEPS:
                break


def lr_finder(name: str) -> None:
    """The test of torch-lr-finder, with what puts the model back."""
    from torch_lr_finder import LRFinder

    task, model, optimizer, loader = fresh(name, "adamw", 0)
    with silent():
        finder = LRFinder(model, optimizer, task.loss_fn, device="cpu")
        finder.range_test(loader, start_lr=LOW, end_lr=min(HIGH, 1e-5), num_iter=STEPS, diverge_th=1e9)
        finder.reset()
