"""What the study compares: the bounds of clr, and the rates by the rules of other packages."""

import contextlib
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, random_split

import clr
import clr.torch
from benchmarks.bounds.training import FREE, fresh

PEERS = ("torch-lr-finder", "ignite", "fastai valley", "fastai steep")
SEARCH, OURS, EVALUATED = "clr search", "clr", "clr with evaluate"
TEXTBOOK, CONSTANT = "textbook", "best constant"
TEXTBOOK_RATES = {"sgd": 0.1, "adamw": 0.001}
KINDS = (SEARCH, OURS, EVALUATED, TEXTBOOK, CONSTANT, *PEERS, *FREE)
LENGTHS: dict[str, dict[str, Any]] = {  # tests of clr of several lengths, and with repeats
    "clr, 100 steps": {"num_steps": 100},
    "clr, 200 steps": {"num_steps": 200},
    OURS: {},
    "clr, 600 steps": {"num_steps": 600},
    "clr, 1000 steps": {"num_steps": 1000},
    "clr, 2 repeats": {"repeats": 2},
    "clr, 3 repeats": {"repeats": 3},
}
LOW, HIGH = 1e-7, 10.0
UPDATES = {"torch-lr-finder": 200, "ignite": 200, "fastai valley": 100, "fastai steep": 100}  # at most


def range_test(name: str, optimizer_name: str, seed: int, **options: Any) -> str:
    """The range test of clr with some options, as JSON."""
    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    return clr.torch.range_test(model, optimizer, task.loss_fn, loader, **options).to_json()


def evaluated(name: str, optimizer_name: str, seed: int) -> str:
    """The same, judged by the loss on a fifth of the training rows (at most 500), which it does not train on."""
    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    data = loader.dataset
    kept, apart = random_split(data, [0.8, 0.2])
    x, y = data[apart.indices[:500]]

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            loss = task.loss_fn(model(x), y).item()
        model.train()
        return loss

    loader = DataLoader(kept, batch_size=task.batch_size, shuffle=True, drop_last=True)
    return clr.torch.range_test(model, optimizer, task.loss_fn, loader, evaluate=evaluate).to_json()


def searched(name: str, optimizer_name: str, seed: int) -> str:
    """The search of clr, which holds a fifth of the training rows out, as JSON, without digits that nobody needs."""
    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    options: dict[str, Any] = {"validation": 0.2, "total_steps": task.steps}
    found = clr.torch.find_bounds(model, optimizer, task.loss_fn, loader, **options)
    return json.dumps(short(found.to_dict()))


def short(data: Any) -> Any:
    """Plain data with the losses of a search rounded to six digits, for they take most of the room."""
    if isinstance(data, dict):
        return {name: _rounded(value) if name == "losses" else short(value) for name, value in data.items()}
    return [short(value) for value in data] if isinstance(data, list) else data


def _rounded(losses: list[Any]) -> list[Any]:
    return [float(f"{loss:.6g}") if isinstance(loss, float) else loss for loss in losses]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hides what other packages print."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        yield


def suggestion(rule: str, name: str, optimizer_name: str, seed: int) -> float:
    """The rate that a rule suggests after its own test. Raises what the rule raises."""
    with silent():
        rate = _RULES[rule](name, optimizer_name, seed)
    if rate is None or not math.isfinite(rate):
        raise ValueError(f"it gives {rate}")
    return float(rate)


def lr_finder(name: str, optimizer_name: str, seed: int, **options: Any) -> Any:
    """The finder of torch-lr-finder after its test, which has changed the model."""
    from torch_lr_finder import LRFinder

    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    finder = LRFinder(model, optimizer, task.loss_fn, device="cpu")
    finder.range_test(loader, start_lr=LOW, **options)
    return finder


def ignite_finder(name: str, optimizer_name: str, seed: int, **options: Any) -> Any:
    """The finder of ignite after its test, which has put the model back."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    trainer = create_supervised_trainer(model, optimizer, task.loss_fn)
    finder = FastaiLRFinder()
    saved = {"model": model, "optimizer": optimizer}
    with finder.attach(trainer, to_save=saved, start_lr=LOW, **options) as test:
        test.run(loader)
    return finder


def _torch_lr_finder(name: str, optimizer_name: str, seed: int) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    finder = lr_finder(name, optimizer_name, seed, end_lr=HIGH, num_iter=200)
    ax = pyplot.figure().gca()
    _, rate = finder.plot(ax=ax, suggest_lr=True)
    pyplot.close("all")
    return rate


def _ignite(name: str, optimizer_name: str, seed: int) -> Any:
    return ignite_finder(name, optimizer_name, seed, end_lr=HIGH, num_iter=200).lr_suggestion()


def _fastai_curve(name: str, optimizer_name: str, seed: int) -> tuple[Any, Any]:
    """The curve as fastai records it: 100 rates, an exponential mean, and an end at four times the lowest loss."""
    task, model, optimizer, loader = fresh(name, optimizer_name, seed)
    rates, losses = [], []
    mean, best = 0.0, math.inf
    batches = iter(loader)
    for at in range(100):
        try:
            x, y = next(batches)
        except StopIteration:
            batches = iter(loader)
            x, y = next(batches)
        rate = LOW * (HIGH / LOW) ** (at / 100)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = task.loss_fn(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        mean = 0.98 * mean + 0.02 * loss.item()
        smooth = mean / (1 - 0.98 ** (at + 1))
        best = min(best, smooth)
        rates.append(rate)
        losses.append(smooth)
        if smooth > 4 * best or not math.isfinite(smooth):
            break
    return np.array(rates[10:-5]), np.array(losses[10:-5])


def _fastai_valley(name: str, optimizer_name: str, seed: int) -> Any:
    rates, losses = _fastai_curve(name, optimizer_name, seed)
    lengths: list[int] = []  # of the longest falling subsequence that ends at each point
    for at, loss in enumerate(losses):
        lengths.append(1 + max((lengths[before] for before in range(at) if losses[before] > loss), default=0))
    end = int(np.argmax(lengths))
    third = lengths[end] / 3
    return rates[end - lengths[end] + int(third) + int(third / 2)]


def _fastai_steep(name: str, optimizer_name: str, seed: int) -> Any:
    rates, losses = _fastai_curve(name, optimizer_name, seed)
    return rates[int(np.argmin(np.diff(losses) / np.diff(np.log(rates))))]


_RULES: dict[str, Callable[[str, str, int], Any]] = {
    "torch-lr-finder": _torch_lr_finder,
    "ignite": _ignite,
    "fastai valley": _fastai_valley,
    "fastai steep": _fastai_steep,
}
