"""A network with all that a range test may change, its training, and what tells a trace."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS = 12
RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": STEPS}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "tensor_lr": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.01)),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True, momentum=0.5),
}


class Counter(nn.Module):
    """Counts its calls where its extra state alone tells of them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.total = torch.zeros(1)

    def forward(self) -> None:
        self.calls.append(len(self.calls))
        self.total += 1

    def get_extra_state(self) -> Any:
        return {"calls": self.calls, "total": self.total}

    def set_extra_state(self, state: Any) -> None:
        self.calls, self.total = state["calls"], state["total"]


class Network(nn.Module):
    """Has all that a test may change: batch norm, dropout, extra state, a buffer that is replaced, one not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(3), persistent=False)
        self.calls: torch.Tensor
        self.last: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        self.counter()
        result: torch.Tensor = self.body(x)
        self.last.copy_(result.detach().mean(dim=0))
        return result


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(dim=1))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=8, shuffle=True, **options)


def start(name: str = "momentum", trained: bool = True) -> tuple[Network, torch.optim.Optimizer]:
    """A network and its optimizer, with a state if they have trained."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters())
    if trained:
        train(model, optimizer, 3)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, batches: Any = None) -> list[bytes]:
    """A plain loop; the loss of each step, bit for bit."""
    losses = []
    iterator: Iterator[Any] = iter(())
    for _ in range(steps):
        batch = next(iterator, None)
        if batch is None:
            iterator = iter(batches or loader())
            batch = next(iterator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(content(loss))
    return losses


def content(value: Any) -> Any:
    """A value of which two are equal where they are equal bit for bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return repr(value)


def trace(model: nn.Module, optimizer: torch.optim.Optimizer, *others: Any) -> dict[str, Any]:
    """All that a range test could have left a trace in."""
    return {
        "parameters": content(list(model.parameters())),
        "buffers": content(dict(model.named_buffers())),
        "extra": [content(part.get_extra_state()) for part in model.modules() if isinstance(part, Counter)],
        "identities": [*map(id, model.parameters()), *map(id, model.buffers())],
        "gradients": content([part.grad for part in model.parameters()]),
        "modes": [part.training for part in model.modules()],
        "requires_grad": [part.requires_grad for part in model.parameters()],
        "state": content([optimizer.state.get(part) for part in model.parameters()]),
        "states": len(optimizer.state),
        "notes": {k: content(v) for k, v in vars(optimizer).items() if isinstance(v, int | float | torch.Tensor)},
        "groups": content([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]),
        "others": [content(other.state_dict()) for other in others],
        "random": (random.getstate(), repr(np.random.get_state()), content(torch.get_rng_state())),  # noqa: NPY002
    }
