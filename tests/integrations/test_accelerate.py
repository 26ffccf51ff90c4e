"""Accelerate, with its own preparation, accumulation, checkpoints and trackers, on real digits."""

import warnings
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.common import alike, in_processes
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, digits, network, planned, sgd, torch, watched

accelerate = pytest.importorskip("accelerate")
tracking = pytest.importorskip("accelerate.tracking")
RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 100.0, "num_steps": 40}


def loader(rows: int, size: int = 32, shuffle: bool = True) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*digits(rows)), size, shuffle=shuffle)


class Parts:
    """What a script that uses Accelerate has."""

    def __init__(self, seedable: bool = False, shuffle: bool = True, **options: Any) -> None:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=False)
        accelerate.state.GradientState._reset_state()
        torch.manual_seed(5)
        data = accelerate.DataLoaderConfiguration(use_seedable_sampler=seedable)
        self.accelerator = accelerate.Accelerator(cpu=True, dataloader_config=data, **options)
        model = network()
        optimizer = sgd(model)
        self.seen = watched(optimizer)
        self.model, self.optimizer, self.loader, self.held_out = self.accelerator.prepare(
            model, optimizer, loader(640, shuffle=shuffle), loader(200, 50)
        )

    def train(self, scheduler: Any = None, first: int = 0, last: int | None = None) -> None:
        """An epoch, or a part of it."""
        for number, (x, y) in enumerate(self.loader):
            if number >= first and (last is None or number < last):
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(LOSS(self.model(x), y))
                    self.optimizer.step()
                    if scheduler is not None and self.accelerator.sync_gradients:
                        scheduler.step()
                    self.optimizer.zero_grad()

    def find(self) -> list[Any]:
        test = clr.torch.range_test(self.model, self.optimizer, LOSS, self.loader, **RANGE)
        search = clr.torch.find_bounds(
            self.model, self.optimizer, LOSS, self.loader, validation=self.held_out, total_steps=20, budget=200
        )
        return [*test.bounds(), *search.bounds()]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_rate_and_momentum_of_every_update(accumulation: int, precision: str) -> None:
    for made in (clr.torch.Follower, clr.torch.LRScheduler):
        parts = Parts(gradient_accumulation_steps=accumulation, mixed_precision=precision)
        own = made(parts.optimizer, SCHEDULE, MOMENTUM)
        for _ in range(2):
            parts.train(own if made is clr.torch.LRScheduler else None)
        assert parts.seen == planned(0, 40 // accumulation)


def begun(parts: Parts, way: str) -> Any:
    """A scheduler of either kind, that the checkpoints have."""
    if way == "Follower":
        clr.torch.Follower(parts.optimizer, SCHEDULE, MOMENTUM)
        return None
    scheduler = clr.torch.LRScheduler(parts.optimizer, SCHEDULE, MOMENTUM)
    parts.accelerator.register_for_checkpointing(scheduler)
    return scheduler


def resumed(folder: Path) -> Any:
    seen = {}
    for way in ("Follower", "LRScheduler"):
        parts = Parts(shuffle=False, gradient_accumulation_steps=2)
        scheduler = begun(parts, way)
        parts.accelerator.load_state(str(folder / way))
        parts.train(scheduler, first=10)
        seen[way] = [parts.seen, float(sum(part.detach().sum() for part in parts.model.parameters()))]
    return seen


def test_resumes_in_a_fresh_process(tmp_path: Path) -> None:
    expected = {}
    for way in ("Follower", "LRScheduler"):
        parts = Parts(shuffle=False, gradient_accumulation_steps=2)
        scheduler = begun(parts, way)
        parts.train(scheduler, last=10)
        parts.accelerator.save_state(str(tmp_path / way))
        whole = Parts(shuffle=False, gradient_accumulation_steps=2)
        whole.train(begun(whole, way))
        assert whole.seen == planned(0, 10)
        weights = float(sum(part.detach().sum() for part in whole.model.parameters()))
        expected[way] = [[list(pair) for pair in planned(5, 10)], pytest.approx(weights, rel=1e-6)]
    assert in_processes(resumed, tmp_path) == [expected]


def batches(parts: Parts, tested: bool) -> list[Any]:
    """What the loaders give in two epochs, and what Accelerate then notes of them."""
    seen = []
    for _ in range(2):
        if tested:
            parts.find()
            state = parts.accelerator.gradient_state
            seen.append([state.in_dataloader, state.end_of_dataloader, state.remainder])
        else:
            seen.append([False, False, -1])
        seen += [batch[0].sum().item() for own in (parts.loader, parts.held_out) for batch in own]
    return [*seen, torch.rand(2).tolist()]


@pytest.mark.parametrize("seedable", [False, True])
def test_finders_leave_no_trace(seedable: bool) -> None:
    parts = Parts(seedable=seedable)
    before = [part.clone() for part in parts.model.parameters()]
    assert batches(parts, tested=True) == batches(Parts(seedable=seedable), tested=False)
    assert all(map(torch.equal, before, parts.model.parameters()))
    assert parts.optimizer.param_groups[0]["lr"] == 9.0


def test_bounds() -> None:
    first, last, base, top = Parts().find()
    assert 1e-3 < first < last < 3
    assert 1e-3 < base < top < 3


def test_own_logging() -> None:
    class Tracker(tracking.GeneralTracker):  # type: ignore[name-defined,misc]
        name, requires_logging_directory, main_process_only = "kept", False, True
        logged: list[Any] = []  # noqa: RUF012

        @property
        def tracker(self) -> Any:
            return self.logged

        def log(self, values: Any, step: int | None = None, **kwargs: Any) -> None:
            self.logged.append((values["rate"], values["momentum"]))

    parts = Parts(log_with=Tracker())
    parts.accelerator.init_trackers("digits")
    follower = clr.torch.Follower(parts.optimizer, SCHEDULE, MOMENTUM)
    parts.optimizer.optimizer.register_step_post_hook(
        lambda *_: parts.accelerator.log(
            {"rate": follower.get_last_lr()[0], "momentum": follower.get_last_momentum()[0]}
        )
    )
    parts.train()
    assert Tracker.logged == planned(0, 20)


def both(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for seedable in (False, True):
        plain, tested = (batches(Parts(seedable=seedable), own) for own in (False, True))
        results[f"trace {seedable}"] = plain == tested
    parts = Parts(gradient_accumulation_steps=2)
    results["bounds"] = parts.find()
    parts.seen.clear()
    follower = clr.torch.Follower(parts.optimizer, SCHEDULE, MOMENTUM)
    parts.train()
    parts.train()
    results["seen"], results["updates"] = parts.seen, follower.updates
    parts = Parts()
    prepared = parts.accelerator.prepare(clr.torch.LRScheduler(parts.optimizer, SCHEDULE))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        parts.train(prepared)
    results["told"] = [str(one.message) for one in told if "out of step" in str(one.message)]
    return results


def test_two_processes(tmp_path: Path) -> None:
    result = alike(in_processes(both, tmp_path, 2))
    assert result["trace False"]
    assert result["trace True"]
    assert 1e-3 < result["bounds"][0] < result["bounds"][1] < 3
    assert result["seen"] == [list(pair) for pair in planned(0, 10)]
    assert result["updates"] == 10
    (told,) = result["told"]  # since Accelerate steps a scheduler that it has prepared once for each process
    assert "several times after each update" in told
