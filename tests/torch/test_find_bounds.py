"""`clr.torch.find_bounds`: it leaves no trace, judges by held-out data, and all processes find the same."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset

import clr

ROOT = Path(__file__).parents[2]


def task() -> tuple[nn.Sequential, torch.optim.Optimizer, DataLoader[Any], DataLoader[Any]]:
    """A network, its optimizer, and loaders of rows to train on and of held-out rows."""
    torch.manual_seed(0)
    x = torch.randn(320, 6)
    y = (x[:, :3] + 0.3 * torch.randn(320, 3)).argmax(dim=1)
    data = TensorDataset(x, y)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
    loader = DataLoader(Subset(data, range(256)), batch_size=32, shuffle=True)
    return (
        model,
        torch.optim.AdamW(model.parameters()),
        loader,
        DataLoader(Subset(data, range(256, 320)), batch_size=64),
    )


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[object]:
    """All that a search may change, to compare bit for bit."""
    moments = [part.numpy().tobytes() for own in optimizer.state.values() for part in own.values()]
    tensors = [part.numpy().tobytes() for part in model.state_dict().values()]
    rates = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return [tensors, moments, rates, torch.get_rng_state().numpy().tobytes(), random.getstate(), model.training]


@pytest.mark.parametrize("mode", [True, False])
def test_it_leaves_no_trace(mode: bool) -> None:
    model, optimizer, loader, held_out = task()
    ((x, y),) = held_out
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()  # so that there are moments
    model.train(mode)
    before = state(model, optimizer)
    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), loader, validation=held_out, total_steps=300, budget=300
    )
    assert state(model, optimizer) == before
    assert len(found.trials) >= 5
    assert found.updates <= 300


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("after", [1, 50, 150, 250])
def test_it_leaves_no_trace_where_it_is_ended(error: type[BaseException], after: int) -> None:
    model, optimizer, loader, held_out = task()
    before, calls = state(model, optimizer), 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == after:
            raise error
        return nn.functional.cross_entropy(output, target)

    arguments: dict[str, Any] = {"validation": held_out, "total_steps": 300, "budget": 300}
    if error is KeyboardInterrupt:
        found = clr.torch.find_bounds(model, optimizer, loss_fn, loader, **arguments)
        assert found.stop == "interrupted"
    else:
        with pytest.raises(ZeroDivisionError):
            clr.torch.find_bounds(model, optimizer, loss_fn, loader, **arguments)
    assert state(model, optimizer) == before


def test_a_trial_is_what_a_user_would_train() -> None:
    """The score of a trial is the mean loss over the held-out rows after the same updates by hand."""
    model, optimizer, loader, held_out = task()
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    batches = list(loader)
    model[3] = nn.Identity()  # for dropout draws from a random state
    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), batches, validation=held_out, total_steps=300, budget=300
    )
    for trial in found.trials[:3]:
        model, optimizer, _, _ = task()
        model[3] = nn.Identity()
        model.load_state_dict(begin)
        up = trial.num_steps // 4
        for at in range(trial.num_steps):
            # From the highest rate over (up + 1) up to it, and then towards zero in a straight line.
            rising = trial.max_lr * (at + 1) / (up + 1)
            rate = rising if at <= up else trial.max_lr * (trial.num_steps - at) / (trial.num_steps - up)
            optimizer.param_groups[0]["lr"] = rate
            x, y = batches[at % len(batches)]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        ((x, y),) = held_out
        assert trial.score == pytest.approx(float(nn.functional.cross_entropy(model(x), y).detach()), rel=1e-4)


def test_held_out_rows_are_not_trained_on() -> None:
    model, optimizer, _, _ = task()
    x = torch.arange(100.0)[:, None].expand(100, 6).clone()
    loader = DataLoader(TensorDataset(x, torch.zeros(100, dtype=torch.int64)), batch_size=10, shuffle=True)
    trained: set[float] = set()
    judged: set[float] = set()

    def compute_loss(model: nn.Module, batch: Any) -> torch.Tensor:
        (trained if model.training else judged).update(batch[0][:, 0].tolist())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    clr.torch.find_bounds(
        model, optimizer, loader=loader, compute_loss=compute_loss, validation=0.2, total_steps=100, budget=200
    )
    assert len(trained) == 80
    assert len(judged) == 20
    assert not trained & judged


def test_rows_are_held_out_at_random_and_each_time_the_same() -> None:
    """Also in another process, as after a crash: so nothing that is judged by was trained on before."""
    x = torch.arange(100.0)[:, None].expand(100, 6).clone()
    loader = DataLoader(TensorDataset(x, torch.zeros(100, dtype=torch.int64)), batch_size=10)
    seen: list[list[float]] = []
    parts: list[list[float]] = []

    def compute_loss(model: nn.Module, batch: Any) -> torch.Tensor:
        seen[model.training].extend(batch[0][:, 0].tolist())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    for seed in (0, 1):
        model, optimizer, _, _ = task()
        torch.manual_seed(seed)
        random.seed(seed)
        seen[:] = [[], []]
        clr.torch.find_bounds(
            model, optimizer, loader=loader, compute_loss=compute_loss, validation=0.2, total_steps=100, budget=200
        )
        judged, trained = seen[0][:20], seen[1][:80]
        assert trained == sorted(trained)  # in order, for so the loader draws them
        assert judged == sorted(judged)
        parts += [judged, trained]
    assert sorted(parts[0] + parts[1]) == list(range(100))
    assert parts[:2] == parts[2:]
    for start in range(0, 100, 25):  # from all over the data
        assert any(start <= row < start + 25 for row in parts[0])


def test_the_trials_of_a_rung_draw_the_same_and_another_rung_does_not() -> None:
    model, optimizer, loader, held_out = task()
    calls: list[tuple[float, ...]] = []

    def compute_loss(model: nn.Module, batch: Any) -> torch.Tensor:
        if model.training:  # what is drawn, from the batches, PyTorch, Python and NumPy
            draws = (float(torch.rand(())), random.random(), float(np.random.rand()))  # noqa: NPY002
            calls.append((float(batch[0].sum()), *draws))
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    found = clr.torch.find_bounds(
        model, optimizer, loader=loader, compute_loss=compute_loss, validation=held_out, total_steps=600
    )
    assert found.range_test is not None
    at, drawn = found.range_test.updates, dict[int, list[tuple[float, ...]]]()
    for trial in found.trials:
        own = calls[at : at + len(trial.losses)]
        assert own == drawn.setdefault(trial.rung, own)[: len(own)]
        assert len(set(own)) == len(own)
        at += len(own)
    assert at == len(calls)
    assert set(drawn) == {1, 2}
    for one, other in ((drawn[1], drawn[2]), (drawn[1], calls), (drawn[2], calls)):
        for ours, theirs in zip(one[0], other[0], strict=True):
            assert ours != theirs


def test_batches_of_unequal_size_count_by_their_rows() -> None:
    model, optimizer, loader, held_out = task()
    arguments: dict[str, Any] = {"total_steps": 300, "budget": 250}
    scores = []
    for size in (64, 48):  # one batch of 64 rows; or 48 and 16
        model, optimizer, loader, _ = task()
        validation = DataLoader(held_out.dataset, batch_size=size)
        found = clr.torch.find_bounds(
            model, optimizer, nn.CrossEntropyLoss(), loader, validation=validation, **arguments
        )
        scores.append([trial.score for trial in found.trials])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_metric_may_judge() -> None:
    model, optimizer, loader, held_out = task()
    ((x, y),) = held_out

    def accuracy() -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        return float((model(x).argmax(dim=1) == y).float().mean())

    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), loader, evaluate=accuracy, goal="max", total_steps=300
    )
    assert found.winner is not None
    assert found.winner.score is not None
    assert 0.7 < found.winner.score <= 1


def test_the_winner_can_be_kept() -> None:
    model, optimizer, loader, held_out = task()
    weight = next(model.parameters())
    before = weight.detach().clone()
    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), loader, validation=held_out, total_steps=300, keep="winner"
    )
    assert found.winner is not None
    assert not torch.equal(before, weight)
    assert optimizer.param_groups[0]["lr"] == 0.001  # that of AdamW, as before
    assert {int(own["step"]) for own in optimizer.state.values()} == {found.winner.num_steps}
    assert model.training
    model.eval()
    ((x, y),) = held_out
    loss = float(nn.functional.cross_entropy(model(x), y).detach())
    assert loss == pytest.approx(found.winner.score, rel=1e-6)


@pytest.mark.parametrize("lr", [0.001, torch.tensor(0.001)])
def test_training_goes_on_from_the_winner(lr: Any) -> None:
    model, _, loader, held_out = task()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), loader, validation=held_out, total_steps=300, keep="winner"
    )
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.001)
    schedule = found.schedule("triangular")
    clr.torch.Follower(optimizer, schedule)
    rates = []
    for x, y in list(loader)[:4]:
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert rates == pytest.approx([schedule(step) for step in range(4)])


def test_the_held_out_loader_is_as_before() -> None:
    model, optimizer, loader, held_out = task()
    generator = torch.Generator().manual_seed(3)
    shuffled = DataLoader(held_out.dataset, batch_size=16, shuffle=True, generator=generator)
    before = generator.get_state()
    clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), loader, validation=shuffled, total_steps=300, budget=250
    )
    assert torch.equal(generator.get_state(), before)


def test_a_last_batch_of_one_row_is_left_out() -> None:
    model, optimizer, loader, _ = task()
    data = Subset(loader.dataset, range(121))  # of which 97 are trained on: three batches of 32, and a row
    found = clr.torch.find_bounds(
        model, optimizer, nn.CrossEntropyLoss(), DataLoader(data, 32), validation=0.2, total_steps=300, budget=250
    )
    assert found.winner is not None


def test_groups_keep_their_ratio() -> None:
    model, _, loader, held_out = task()
    parts = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[4].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(parts, momentum=0.9)
    ratios: set[float] = set()

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        low, high = (group["lr"] for group in optimizer.param_groups)
        ratios.add(round(high / low, 6))
        return nn.functional.cross_entropy(output, target)

    clr.torch.find_bounds(model, optimizer, loss_fn, loader, validation=held_out, total_steps=300, budget=250)
    assert ratios == {10.0}


def test_own_updates_are_judged_by_evaluate() -> None:
    model, optimizer, loader, held_out = task()
    ((x, y),) = held_out

    def train_on_batch(batch: Any) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    found = clr.torch.find_bounds(
        model,
        optimizer,
        loader=loader,
        train_on_batch=train_on_batch,
        evaluate=lambda: nn.functional.cross_entropy(model(x), y),
        total_steps=300,
    )
    assert 1e-4 < found.bounds().max_lr < 1


def one_way() -> Iterator[Any]:
    yield from [(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64))] * 300


def drawn_again() -> DataLoader[Any]:
    """A loader that draws rows more than once."""
    data = TensorDataset(torch.randn(40, 6), torch.zeros(40, dtype=torch.int64))
    return DataLoader(data, batch_size=8, sampler=RandomSampler(data, replacement=True, num_samples=1000))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"validation": None}, "either `validation` or `evaluate`"),
        ({"evaluate": lambda: 1.0}, "either `validation` or `evaluate`"),
        ({"validation": None, "evaluate": 1.0}, "`evaluate` must"),
        ({"validation": 0.0}, "`validation` must"),
        ({"validation": 1.0}, "`validation` must"),
        ({"validation": 1e-9}, "`validation` must"),
        ({"validation": True}, "`validation` must"),
        ({"validation": object()}, "`validation` must"),
        ({"validation": [], "budget": 200}, "`validation` must"),
        ({"validation": "0.2"}, "`validation` must"),
        ({"validation": one_way()}, "`validation` must"),
        ({"loader": one_way()}, "`loader` must"),
        ({"validation": 0.2, "loader": drawn_again()}, "Give a loader of held-out batches"),
        ({"validation": 0.2, "loader": [1, 2]}, "Give a loader of held-out batches"),
        ({"goal": "max"}, "takes `goal` with `evaluate`"),
        ({"goal": "low"}, "`goal` must"),
        ({"keep": "best"}, "`keep` must"),
        ({"budget": 10}, "`budget` must"),
        ({"total_steps": 0}, "`total_steps` must"),
        ({"loader": None}, "`loader` must"),
        ({"model": 1}, "`model` must"),
        ({"optimizer": 1}, "`optimizer` must"),
        ({"loss_fn": None, "train_on_batch": lambda batch: 1.0}, "takes `evaluate`, not `validation`"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    model, optimizer, loader, held_out = task()
    before = state(model, optimizer)
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "loss_fn": nn.CrossEntropyLoss(),
        "loader": loader,
    }
    with pytest.raises((TypeError, ValueError), match=message):
        clr.torch.find_bounds(**arguments | {"validation": held_out, "total_steps": 300} | changed)
    assert state(model, optimizer) == before


PROCESS = """
import json, os, sys
from datetime import timedelta
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
import clr

folder, rank = sys.argv[1], int(os.environ["RANK"])
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
)
torch.manual_seed(0)
model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
generator = torch.Generator().manual_seed(rank)
x = torch.randn(10, 16, 6, generator=generator)
batches = list(zip(x, x[..., :3].argmax(dim=-1)))
before = [part.clone() for part in model.parameters()]
loss_fn = nn.CrossEntropyLoss()
options = {"validation": batches[8:], "total_steps": 200, "budget": 250}
search = clr.torch.find_bounds(model, optimizer, loss_fn, batches[:8], **options)
found = {"search": search.to_json(), "same": all(map(torch.equal, before, model.parameters()))}
try:
    clr.torch.find_bounds(model, optimizer, loss_fn, batches[:8], validation=0.2, total_steps=200)
except ValueError as error:
    found["part"] = str(error)
try:
    clr.torch.find_bounds(model, optimizer, loss_fn, batches[:8], validation=batches[8:], total_steps=200 + rank)
except ValueError as error:
    found["settings"] = str(error)

try:
    clr.torch.find_bounds(model, optimizer, loss_fn, batches[:8], **options, keep=("start", "winner")[rank])
except ValueError as error:
    found["keep"] = str(error)

def failing(output, target):
    if rank and not model.training:
        raise ZeroDivisionError
    return loss_fn(output, target)

try:
    clr.torch.find_bounds(model, optimizer, failing, batches[:8], validation=batches[8:], total_steps=200)
except (ZeroDivisionError, RuntimeError) as error:
    found["failed"] = type(error).__name__
json.dump(found, open(f"{folder}/{rank}.json", "w"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes of one machine is tried on Linux")
def test_all_processes_find_the_same_bounds(tmp_path: Path) -> None:
    (tmp_path / "process.py").write_text(PROCESS)
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "process.py"), str(tmp_path)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=200)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["same"]
    assert second["same"]
    assert first["search"] == second["search"]
    assert clr.Search.from_json(first["search"]).bounds().max_lr > 0.001
    for found in (first, second):
        assert "must be a loader" in found["part"]
        assert "same options" in found["settings"]
        assert "same options" in found["keep"]
    assert {first["failed"], second["failed"]} == {"RuntimeError", "ZeroDivisionError"}
