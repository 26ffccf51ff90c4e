"""One of several processes that train one model; prints what its range tests have found, as JSON."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import clr

rank, size = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
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

# The same as a plain loop of DistributedDataParallel; batch norm is that of this process, as in the test.
model.broadcast_buffers = False
plain = []
for at, rate in enumerate(test.rates):
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    inputs, target = batches[at % BATCHES]
    loss = loss_fn(model(inputs), target)
    loss.backward()
    optimizer.step()
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    plain.append(mean.item() / size)
found["plain"] = plain

model, optimizer = start()
before = state(model, optimizer)
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
options = {**RANGE, "num_steps": 100_000, "max_lr": 1.1e-4}
found["time"] = clr.torch.range_test(model, optimizer, loss_fn, batches, time_limit=limit, **options).stop

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

print(json.dumps(found), flush=True)
distributed.barrier()
os._exit(0)  # gloo's threads may not survive an orderly end of the interpreter
