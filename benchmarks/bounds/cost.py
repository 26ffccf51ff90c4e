"""What a range test costs, against a plain loop of as many steps and against torch-lr-finder."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import clr
import clr.torch
from benchmarks.bounds.rules import HIGH, LOW, silent
from benchmarks.bounds.training import fresh

STEPS, ROUNDS = 200, 9
TASKS = ("digits_cnn", "mnist1d_cnn", "chars")
# So small a range that no way ends early.
RANGE: dict[str, Any] = {"min_lr": LOW, "max_lr": 1e-5, "num_steps": STEPS}


def ratios(name: str) -> tuple[float, float]:
    """The median time of our test, as a part of that of the plain loop and of torch-lr-finder's, taken in turns."""
    ways: list[Callable[[str], None]] = [_ours, _plain, _torch_lr_finder]
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, own in zip(ways, times, strict=True):
            start = time.perf_counter()
            way(name)
            own.append(time.perf_counter() - start)
    ours, plain, other = map(median, times)
    return ours / plain, ours / other


def _ours(name: str) -> None:
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    test = clr.torch.range_test(model, optimizer, task.loss_fn, loader, **RANGE)
    assert len(test.losses) == STEPS


def _plain(name: str) -> None:
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


def _torch_lr_finder(name: str) -> None:
    from torch_lr_finder import LRFinder

    task, model, optimizer, loader = fresh(name, "adamw", 0)
    with silent():
        finder = LRFinder(model, optimizer, task.loss_fn, device="cpu")
        finder.range_test(loader, start_lr=LOW, end_lr=min(HIGH, 1e-5), num_iter=STEPS, diverge_th=1e9)
        finder.reset()
