"""One of several processes that train one model; writes what its range tests have found as JSON into a folder.

Its place among them is in the environment, as ``torchrun`` has it.
"""

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import clr

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
folder = Path(sys.argv[1])
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
)

BATCHES = 8
generator = torch.Generator().manual_seed(rank)
x = torch.randn(BATCHES, 16, 6, generator=generator)
y = (x[..., :3] + 0.3 * torch.randn(BATCHES, 16, 3, generator=generator)).argmax(dim=-1)
batches = list(zip(x, y, strict=True))
RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": 12}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, extra: bool = False) -> torch.Tensor:
        result: torch.Tensor = self.body(x)
        return result + self.unused(x[:, :2]).sum() if extra else result


def start() -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = DistributedDataParallel(Network(), find_unused_parameters=True)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def state(model: Any, optimizer: Any) -> str:
    tensors = [*model.state_dict().values(), *(own["momentum_buffer"] for own in optimizer.state.values())]
    rates = [group["lr"] for group in optimizer.param_groups]
    return repr((rates, [part.numpy().tobytes() for part in tensors], torch.get_rng_state().numpy().tobytes()))


def outcome(**arguments: Any) -> str:
    """The error of a range test of the model of now."""
    defaults = {"model": model, "optimizer": optimizer, "loader": batches, **RANGE}
    if "compute_loss" not in arguments:
        defaults["loss_fn"] = loss_fn
    try:
        clr.torch.range_test(**{**defaults, **arguments})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


found: dict[str, Any] = {"restored": {}, "failures": {}}
loss_fn = nn.CrossEntropyLoss()

model, optimizer = start()
before = state(model, optimizer)
test = clr.torch.range_test(model, optimizer, loss_fn, batches, **RANGE)
found["restored"]["end"] = state(model, optimizer) == before
found["losses"] = test.losses

whole = clr.torch.range_test(model, optimizer, loss_fn, batches, min_lr=1e-6, max_lr=1000, num_steps=200)
found["bounds"], found["stop"] = list(whole.bounds()), whole.stop
found["restored"]["diverged"] = state(model, optimizer) == before

repeated = clr.torch.range_test(model, optimizer, loss_fn, batches, gradient_accumulation_steps=2, repeats=2, **RANGE)
found["accumulated"] = [sweep.losses for sweep in repeated.sweeps]
found["restored"]["accumulated"] = state(model, optimizer) == before


def plain(accumulate: int) -> list[float]:
    """The losses of a plain loop of DistributedDataParallel; batch norm is that of this process, as in the test."""
    model, optimizer = start()
    model.broadcast_buffers = False
    losses = []
    for at, rate in enumerate(test.rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        mean = torch.zeros(())
        for number in range(at * accumulate, (at + 1) * accumulate):
            inputs, target = batches[number % BATCHES]
            loss = loss_fn(model(inputs), target) / accumulate
            loss.backward()
            mean += loss.detach()
        optimizer.step()
        distributed.all_reduce(mean)
        losses.append(mean.item() / size)
    return losses


found["plain"], found["plainly accumulated"] = plain(1), plain(2)

model, optimizer = start()
before = state(model, optimizer)

# The first scale is too large for the last process alone, whose loss is the largest.
factor = 3.0 if rank == size - 1 else 1e-3
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
overflows: list[bool] = []


def scaled_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = factor * loss_fn(output, target)
    overflows.append(math.isinf(scaler.scale(loss.detach()).item()))
    return loss


test = clr.torch.range_test(model, optimizer, scaled_loss, batches, scaler=scaler, diverge_at=1e9, **RANGE)
assert overflows[0] == (rank == size - 1)
assert not overflows[-1]
found["scaled"], found["scaled stop"] = test.sweeps[0].losses, test.stop
found["restored"]["scaled"] = state(model, optimizer) == before and scaler.get_scale() == 2.0**127


# The loss of one is not a number, from the fourth step on.
def broken_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = loss_fn(output, target)
    return loss * math.nan if rank == size - 1 and optimizer.param_groups[0]["lr"] > 10**-3.5 else loss


for name, own in {"NaN": None, "scaled NaN": torch.amp.GradScaler("cpu", init_scale=8.0)}.items():
    test = clr.torch.range_test(model, optimizer, broken_loss, batches, scaler=own, **RANGE)
    found[name] = [test.stop, repr(test.losses)]
    found["restored"][name] = state(model, optimizer) == before

accuracy = clr.torch.range_test(
    model, optimizer, loss_fn, batches, evaluate=lambda: rank / 10, evaluate_every=3, goal="max", **RANGE
)
found["accuracy"] = accuracy.metrics

for place in ("batch", "forward", "backward", "update", "evaluate"):
    calls = 0

    def fail(here: str, place: str = place) -> None:
        """Fails in the last process, at the fourth time."""
        global calls
        if rank == size - 1 and here == place:
            calls += 1
            if calls == 4:
                raise ValueError("on purpose")

    def failing_batches() -> Iterator[Any]:
        for batch in batches * 2:
            fail("batch")
            yield batch

    def failing_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        fail("forward")
        loss = nn.functional.cross_entropy(output, target)
        loss.register_hook(lambda gradient: fail("backward"))  # type: ignore[no-untyped-call]
        return loss

    def evaluate() -> float:
        fail("evaluate")
        return 1.0

    hook = optimizer.register_step_post_hook(lambda *_: fail("update"))
    try:
        clr.torch.range_test(
            model, optimizer, failing_loss, failing_batches(), evaluate=evaluate, evaluate_every=1, **RANGE
        )
    except (ValueError, RuntimeError) as error:
        found["failures"][place] = str(error)
    hook.remove()
    found["restored"][place] = state(model, optimizer) == before

# One has less data than the others.
short = iter(batches[: 3 + rank])
test = clr.torch.range_test(model, optimizer, loss_fn, short, **RANGE)
found["data"] = test.stop
assert len(test.losses) == 3

# One is out of time.
limit = 0.05 if rank == size - 1 else 1000.0
options = {**RANGE, "num_steps": 10_000, "max_lr": 1.1e-4}
test = clr.torch.range_test(model, optimizer, loss_fn, batches, time_limit=limit, **options)
found["time"] = test.stop
assert test.time_limit == limit

# One is interrupted.
if rank == size - 1:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
found["interrupted"] = clr.torch.range_test(model, optimizer, loss_fn, batches, **options).stop
found["restored"]["interrupted"] = state(model, optimizer) == before

# One has gradients that the others have not.
found["unused"] = clr.torch.range_test(
    model,
    optimizer,
    compute_loss=lambda model, batch: loss_fn(model(batch[0], extra=rank == 0), batch[1]),
    loader=batches,
    **RANGE,
).stop
found["restored"]["unused"] = state(model, optimizer) == before

# One has no memory for the gradients that the others have.
zeros_like = torch.zeros_like
if rank == size - 1:

    def no_memory(tensor: torch.Tensor) -> torch.Tensor:
        raise MemoryError("on purpose")

    torch.zeros_like = no_memory  # type: ignore[assignment]
found["failures"]["average"] = outcome(
    compute_loss=lambda model, batch: loss_fn(model(batch[0], extra=rank == 0), batch[1])
)
torch.zeros_like = zeros_like
found["restored"]["average"] = state(model, optimizer) == before


# One calls an interrupt itself.
def interrupting_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if rank == size - 1 and optimizer.param_groups[0]["lr"] > 10**-3.5:
        raise KeyboardInterrupt
    result: torch.Tensor = loss_fn(output, target)
    return result


test = clr.torch.range_test(model, optimizer, interrupting_loss, batches, **RANGE)
found["interrupting"] = [test.stop, len(test.losses)]

# One is given what makes no sense, or what the others are not given.
broken: dict[str, dict[str, Any]] = {
    "loader": {"loader": None},
    "optimizer": {"optimizer": None},
    "group": {"group": 7},
    "accumulate": {"gradient_accumulation_steps": 0},
    "range": {"max_lr": 1e-5},
    "limit": {"time_limit": -1.0},
    "metric": {"evaluate": 3},
    "also": {"also": [3]},
    "own step": {"loss_fn": None, "train_on_batch": print},
}
others: dict[str, dict[str, Any]] = {
    "steps": {"num_steps": 13},
    "repeats": {"repeats": 2},
    "batches": {"gradient_accumulation_steps": 2},
    "evaluation": {"evaluate": lambda: 1.0},
    "scaling": {"scaler": torch.amp.GradScaler("cpu", init_scale=8.0)},
    "parameters": {"optimizer": torch.optim.SGD([next(model.parameters())], lr=0.1)},
}
for name, arguments in {**broken, **others}.items():
    found["failures"][name] = outcome(**(arguments if rank == size - 1 else {}))
    found["restored"][name] = state(model, optimizer) == before


def trained(tested: bool, **options: Any) -> Any:
    """What a training run of DistributedDataParallel leaves, bit for bit; before it a range test, or not."""
    torch.manual_seed(0)
    network = Network()
    if not options:
        del network.unused  # without which it needs no option
    model = DistributedDataParallel(network, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    losses = []
    for at, (inputs, target) in enumerate(batches):
        if tested and at in (0, 4):

            def compute_loss(model: Any, batch: Any) -> Any:
                return loss_fn(model(batch[0], extra=bool(options)), batch[1])  # with what training does not use

            clr.torch.range_test(model, optimizer, compute_loss=compute_loss, loader=batches, **RANGE)
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, state(model, optimizer)


for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
    found["restored"][f"training {options}"] = trained(True, **options) == trained(False, **options)

# Checkpoints, of which those that are reentrant have gradients that only `backward` sees.


class Checkpointed(Network):
    reentrant = False

    def forward(self, x: torch.Tensor, extra: bool = False) -> torch.Tensor:
        result: torch.Tensor = checkpoint(self.body, x.requires_grad_(), use_reentrant=self.reentrant)
        return result


for reentrant in (False, True):
    torch.manual_seed(0)
    bare = Checkpointed()
    bare.reentrant = reentrant
    model = DistributedDataParallel(bare, static_graph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen: list[float] = []

    def watched(model: Any, batch: Any, weight: Any = bare.body[0].weight, seen: list[float] = seen) -> Any:
        seen.append(float(weight.detach().sum()))
        return loss_fn(model(batch[0].clone()), batch[1])

    try:
        clr.torch.range_test(model, optimizer, compute_loss=watched, loader=batches, **RANGE)
        found[f"checkpoint {reentrant}"] = len(set(seen))
    except (ValueError, RuntimeError) as error:
        found[f"checkpoint {reentrant}"] = str(error)

(folder / f"{rank}.json").write_text(json.dumps(found))
distributed.barrier()
os._exit(0)  # gloo's threads may not survive an orderly end of the interpreter
