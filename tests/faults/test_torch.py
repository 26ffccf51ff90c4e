"""What goes wrong during a range test in PyTorch leaves no trace, whatever is trained, and by whatever optimizer."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clr
from clr.torch.snapshot import _autocast_depth
from tests.faults.lines import interruptible, pressed
from tests.torch.networks import loader, trace, train

# Ctrl-C at each line

OURS = Path(clr.__file__).parent
TRANSACTION, PROCESSES = OURS / "finder" / "transaction.py", OURS / "torch" / "processes.py"
MODES = [Path(torch.__file__).parent / place for place in ("autograd/grad_mode.py", "amp/autocast_mode.py")]
FILES = {
    "alone": {TRANSACTION, OURS / "finder" / "sweep.py", *(OURS / "torch").iterdir(), *MODES},
    "one of several": {TRANSACTION, PROCESSES},
}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    with interruptible():
        yield


@pytest.fixture
def _process(tmp_path: Path) -> Iterator[None]:
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_interruptible", "_process")
@pytest.mark.parametrize("place", FILES)
def test_a_ctrl_c_at_any_line_leaves_no_trace(place: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(6, 3), nn.Dropout())
    if place == "one of several":
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = list(loader())
    train(model, optimizer, 2, batches)
    before = trace(model, optimizer)
    arguments: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": 2, "repeats": 2}
    arguments |= {"evaluate": lambda: 1.0, "evaluate_every": 1, "autocast": torch.bfloat16, "progress": False}

    def tested() -> str:
        return clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), batches, **arguments).stop

    tested()  # which imports what is imported late
    lines, stop = pressed(FILES[place], None, tested)
    assert stop == "completed"
    first, last = ({line: at for at, line in order} for order in (reversed([*enumerate(lines)]), enumerate(lines)))
    assert len(first) > 50
    for at in sorted({*first.values(), *last.values()}):
        _, stop = pressed(FILES[place], at, tested)
        assert stop in ("interrupted", "KeyboardInterrupt"), lines[at]
        assert trace(model, optimizer) == before, lines[at]
        assert torch.is_grad_enabled(), lines[at]
        assert (torch.is_autocast_enabled("cpu"), _autocast_depth()) == (False, 0), lines[at]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# One of several processes ends alone

PROCESS = """
import json, os, sys, torch, clr
from datetime import timedelta

rank, folder = int(os.environ["RANK"]), sys.argv[1]
torch.set_num_threads(1)
meeting = f"file://{folder}/meeting"
timeout = timedelta(seconds=20)
torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
before = [part.tolist() for part in model.parameters()]
batches = [(torch.ones(4, 2), torch.ones(4, 1))] * 2
found = {}
for way in ("error", "interrupted"):
    updates = iter(range(3))

    def hook(*_):
        if rank == 1 and way == "error":
            next(updates)
        elif rank == 1 and next(updates, None) is None:
            raise KeyboardInterrupt

    handle = optimizer.register_step_post_hook(hook)
    try:
        test = clr.torch.range_test(model, optimizer, torch.nn.MSELoss(), batches, num_steps=6)
        ended = [test.stop, test.losses]
    except RuntimeError as error:
        ended = ["error", str(error)]
    handle.remove()
    restored = before == [part.tolist() for part in model.parameters()] and not optimizer.state
    found[way] = [*ended, restored]
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(found, file)
torch.distributed.barrier()
os._exit(0)
"""


def test_an_update_that_ends_the_test_in_one_process_ends_it_in_all(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    started = [
        subprocess.Popen(command, env={**os.environ, "RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
    ]
    errors = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    first, second = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert first["interrupted"] == second["interrupted"]
    stop, losses, restored = first["interrupted"]
    assert (stop, len(losses), restored) == ("interrupted", 3, True)
    assert first["error"] == ["error", "the range test has failed in another process", True]
    assert second["error"] == ["error", "the training raised StopIteration, though no batch was being taken", True]


@pytest.mark.parametrize("place", ["loss_fn", "compute_loss", "train_on_batch", "evaluate", "a hook"])
@pytest.mark.parametrize("finder", ["range_test", "find_bounds"])
def test_something_exhausted_in_the_training_is_not_the_end_of_the_data(place: str, finder: str) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = list(loader())
    before, left = trace(model, optimizer), iter(range(3))

    def ends(*arguments: Any) -> Any:
        next(left)
        return model.weight.sum() if place.startswith(("loss", "compute")) else 1.0

    options: dict[str, Any] = {"evaluate": lambda: 1.0, "loss_fn": nn.CrossEntropyLoss(), "total_steps": 1000}
    if finder == "range_test":
        options |= {"evaluate_every": 1}
        del options["total_steps"]
    if place == "a hook":
        optimizer.register_step_post_hook(lambda *arguments: ends())
    else:
        options |= {"loss_fn": None} if place in ("compute_loss", "train_on_batch") else {}
        options |= {place: ends}
    with pytest.raises(RuntimeError, match="the training raised StopIteration"):
        getattr(clr.torch, finder)(model, optimizer, loader=batches, **options)
    assert trace(model, optimizer) == before


# A training that fails, of each kind of model and optimizer


class Tied(nn.Module):
    """Two layers that share their weight, as the ends of a language model do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x).tanh())
        return result


class Words(nn.Module):
    """An embedding with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.table(x.abs().mul(2).long().clamp(max=8)).mean(dim=1)
        return result


class Complex(nn.Module):
    """A layer of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.complex64) @ self.weight).abs()


class Sam(torch.optim.Optimizer):
    """Updates at the gradients of a place nearby (Foret 2020): it holds another optimizer, and the way back."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, {"rho": 0.05})
        self.base, self.param_groups = base, base.param_groups
        self.back: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        parts = [part for group in self.param_groups for part in group["params"]]
        for part in parts:
            self.state[part]["way"] = 0.05 * part.grad.sign()
            part += self.state[part]["way"]
            self.back.append(part.grad.clone())
        for part in parts:
            part -= self.state[part]["way"]
        self.base.step()


class Lookahead(torch.optim.Optimizer):
    """Averages slow weights (Zhang 2019). It does not call the constructor of its base class, as many do not."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.optimizers, self.count = {"base": base}, 0
        self.param_groups, self.state, self.defaults = base.param_groups, base.state, base.defaults
        self.slow = [[part.detach().clone() for part in group["params"]] for group in base.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.optimizers["base"].step()
        self.count += 1
        for group, slow in zip(self.param_groups, self.slow, strict=True):
            for part, other in zip(group["params"], slow, strict=True):
                other += 0.5 * (part - other)
                if self.count % 2 == 0:
                    part.copy_(other)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizers["base"].zero_grad(set_to_none)


def normed(norm: Callable[..., Any]) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(6, 8)), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def schedule_free(parameters: Any) -> torch.optim.Optimizer:
    made: Any = pytest.importorskip("schedulefree").AdamWScheduleFree(parameters, lr=0.01)
    made.train()
    return made  # type: ignore[no-any-return]


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], torch.optim.Optimizer]]] = {
    "tied": (Tied, adam),
    "sparse": (Words, sgd),
    "sparse Adam": (Words, torch.optim.SparseAdam),
    "half": (lambda: nn.Linear(6, 6).half(), sgd),
    "bfloat16": (lambda: nn.Linear(6, 6).bfloat16(), adam),
    "complex": (Complex, adam),
    "orthogonal": (lambda: normed(nn.utils.parametrizations.orthogonal), sgd),
    "new weight norm": (lambda: normed(nn.utils.parametrizations.weight_norm), adam),
    "old weight norm": (lambda: normed(nn.utils.weight_norm), adam),
    "old spectral norm": (lambda: normed(nn.utils.spectral_norm), sgd),
    "LBFGS": (lambda: nn.Linear(6, 6), lambda parts: torch.optim.LBFGS(parts, lr=0.1, max_iter=3)),
    "schedule-free": (lambda: nn.Linear(6, 6), schedule_free),
    "compiled": (lambda: cast(nn.Module, torch.compile(nn.Linear(6, 6), backend="eager")), adam),
    "Sam": (lambda: nn.Linear(6, 6), lambda parts: Sam(sgd(parts))),
    "Lookahead": (lambda: nn.Linear(6, 6), lambda parts: Lookahead(adam(parts))),
    "Sam around Lookahead": (lambda: nn.Linear(6, 6), lambda parts: Sam(Lookahead(adam(parts)))),
}


def bits(value: Any, seen: tuple[Any, ...] = ()) -> Any:
    """A value of which two are equal where all tensors are equal bit for bit, and are the same tensors."""
    if isinstance(value, torch.Tensor):
        data = value.detach()
        data = (data.to_dense() if data.is_sparse else data).contiguous().reshape(-1).view(torch.uint8)
        return id(value), str(value.dtype), tuple(value.shape), value.requires_grad, bytes(data.tolist())
    if isinstance(value, torch.optim.Optimizer | nn.Module) and not any(value is other for other in seen):
        return {name: bits(item, (*seen, value)) for name, item in vars(value).items() if "hook" not in name}
    if isinstance(value, dict):
        return [(id(key) if isinstance(key, torch.Tensor) else key, bits(item, seen)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [bits(item, seen) for item in value]
    return value if isinstance(value, int | float | str | None) else type(value).__name__


def drawn() -> Any:
    return random.getstate(), repr(np.random.get_state()), bits(torch.get_rng_state())[2:]  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("place", ["forward", "update"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_fails_leaves_no_trace(kind: str, place: str) -> None:
    torch.manual_seed(0)
    make_model, make_optimizer = KINDS[kind]
    model = make_model()
    optimizer = make_optimizer(model.parameters())
    dtype = next(model.parameters()).dtype if kind != "complex" else torch.float32
    x = torch.randn(40, 6).to(dtype)
    batches = DataLoader(TensorDataset(x, x.roll(1, 1)), batch_size=8, shuffle=True)
    fails_at, calls = -1, 0

    def may_fail(here: str) -> None:
        nonlocal calls
        if here == place:
            calls += 1
            if calls == fails_at:
                raise RuntimeError("on purpose")

    def train_on_batch(batch: Any) -> float:
        torch.rand(3), random.random(), np.random.random()  # noqa: NPY002

        def closure() -> Any:
            optimizer.zero_grad()
            loss: Any = (model(batch[0]).float() - batch[1].float()).square().mean()
            loss.backward()
            may_fail("forward")
            return loss

        loss: Any = optimizer.step(closure) if kind == "LBFGS" else closure()
        if kind != "LBFGS":
            optimizer.step()
        may_fail("update")
        return float(loss.detach())

    for batch in batches:
        train_on_batch(batch)
    before = bits(model), bits(optimizer), drawn()
    fails_at = calls + 4
    arguments: dict[str, Any] = {"min_lr": 1e-3, "max_lr": 1e-1, "num_steps": 20, "repeats": 2}
    with pytest.raises(RuntimeError, match="on purpose"):
        clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, loader=batches, **arguments)
    assert calls == fails_at
    assert (bits(model), bits(optimizer), drawn()) == before

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output.float() - target.float()).square().mean()

    ways: list[dict[str, Any]] = [{"train_on_batch": train_on_batch}, {"loss_fn": loss_fn}]
    for way in ways[: 1 + (kind != "LBFGS")]:  # which needs a closure
        test = clr.torch.range_test(model, optimizer, loader=batches, **way, **arguments)
        assert len(set(test.losses)) > 5
        assert (bits(model), bits(optimizer), drawn()) == before


@pytest.mark.parametrize("fails", [True, False])
def test_two_optimizers_leave_no_trace(fails: bool) -> None:
    torch.manual_seed(0)
    generator, critic, average = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1)), nn.Linear(6, 6)
    optimizer, other = adam(generator.parameters()), sgd(critic.parameters())
    x, calls = torch.randn(8, 6), 0

    def train_on_batch(batch: None) -> float:
        nonlocal calls
        calls += 1
        for own, sign in ((optimizer, 1), (other, -1)):
            own.zero_grad()
            loss = sign * critic(generator(x)).square().mean()
            loss.backward()
            own.step()
        with torch.no_grad():
            average.weight.lerp_(generator.weight, 0.5)
        if fails and calls == 6:
            raise RuntimeError("on purpose")
        return float(loss.detach())

    train_on_batch(None)
    before = bits(generator), bits(critic), bits(average), bits(optimizer), bits(other)
    arguments: dict[str, Any] = {"train_on_batch": train_on_batch, "also": [other, critic, average], "num_steps": 10}
    with pytest.raises(RuntimeError, match="on purpose") if fails else nullcontext():
        assert len(clr.torch.range_test(generator, optimizer, **arguments).losses) == 10
    assert (bits(generator), bits(critic), bits(average), bits(optimizer), bits(other)) == before


@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("make", [sgd, adam])
def test_a_sharded_optimizer_leaves_no_trace(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    sharded = pytest.importorskip("torch.distributed.optim").ZeroRedundancyOptimizer
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = sharded(model.parameters(), optimizer_class=type(make([nn.Parameter(torch.ones(1))])), lr=0.1)
    train(model, optimizer, 2, list(loader()))
    before = bits(model), bits(optimizer)
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), list(loader()), num_steps=10, repeats=2)
    assert len(test.losses) > 5
    assert (bits(model), bits(optimizer)) == before
