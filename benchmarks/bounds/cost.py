"""A range test and a search of PyTorch, a plain loop of as many steps, and the tests of other packages, to be timed."""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

import clr
import clr.torch
from benchmarks.bounds import rules
from benchmarks.bounds.rules import LOW, silent
from benchmarks.bounds.training import fresh

STEPS = 200
TASKS = ("digits_cnn", "mnist1d_cnn", "chars")
# Rates so low that no test ends early.
HIGH = 1e-5
RANGE: dict[str, Any] = {"min_lr": LOW, "max_lr": HIGH, "num_steps": STEPS}


def range_test(name: str) -> None:
    """The test of clr."""
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    test = clr.torch.range_test(model, optimizer, task.loss_fn, loader, **RANGE)
    assert len(test.losses) == STEPS


def search(name: str) -> int:
    """The search of clr, judged by a fifth of the rows. Returns how many updates it made."""
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    options: dict[str, Any] = {"validation": 0.2, "total_steps": task.steps, "budget": 2 * STEPS}
    return clr.torch.find_bounds(model, optimizer, task.loss_fn, loader, **options).updates


def plain(name: str, steps: int = STEPS) -> None:
    """A loop that puts nothing back."""
    task, model, optimizer, loader = fresh(name, "adamw", 0)
    done = 0
    while done < steps:
        for x, y in loader:
            optimizer.param_groups[0]["lr"] = LOW
            optimizer.zero_grad()
            loss = task.loss_fn(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            done += 1
            if done == steps:
                break


def lr_finder(name: str) -> None:
    """The test of torch-lr-finder, and the reset that puts the model back."""
    with silent():
        rules.lr_finder(name, "adamw", 0, end_lr=HIGH, num_iter=STEPS, diverge_th=1e9).reset()


def ignite(name: str) -> None:
    """Ignite's test."""
    with silent():
        rules.ignite_finder(name, "adamw", 0, end_lr=HIGH, num_iter=STEPS, diverge_th=1e9)


def lightning_tuner(name: str) -> None:
    """Lightning's test, which saves the model to a file and puts it back."""
    import lightning
    from lightning.pytorch.tuner import Tuner

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.task, self.model, self.optimizer, self.loader = fresh(name, "adamw", 0)
            self.lr = LOW

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            return self.task.loss_fn(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.optimizer

        def train_dataloader(self) -> Any:
            return self.loader

    with silent(), tempfile.TemporaryDirectory() as folder:
        off: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, **off)
        options: dict[str, Any] = {"min_lr": LOW, "max_lr": HIGH, "num_training": STEPS, "early_stop_threshold": None}
        Tuner(trainer).lr_find(Module(), update_attr=False, **options)


OTHERS: dict[str, Callable[[str], None]] = {
    "a plain loop": plain,
    "torch-lr-finder": lr_finder,
    "ignite's FastaiLRFinder": ignite,
}
if find_spec("lightning"):  # of the extra `bench`
    OTHERS["Lightning's Tuner"] = lightning_tuner
