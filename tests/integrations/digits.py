"""Real digits, a small network, and what an optimizer has at each of its updates."""

from typing import Any

import pytest

import clr

torch = pytest.importorskip("torch")

SCHEDULE = clr.triangular2(0.01, 0.25, step_size=5)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.9)
LOSS = torch.nn.CrossEntropyLoss()


def digits(rows: int = 1797) -> tuple[Any, Any]:
    """Pictures of 64 numbers from 0 to 1, and what they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images[:rows] / 16).float(), torch.from_numpy(labels[:rows])


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def sgd(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=9.0, momentum=0.7)


def loader(rows: int = 1797, size: int = 32, shuffle: bool = True) -> Any:
    data = torch.utils.data.TensorDataset(*digits(rows))
    return torch.utils.data.DataLoader(data, size, shuffle=shuffle, generator=torch.Generator().manual_seed(1))


def watched(optimizer: Any) -> list[tuple[float, float]]:
    """A list that gets the rate and the momentum of every update."""
    seen: list[tuple[float, float]] = []

    def note(own: Any, args: object, kwargs: object) -> None:
        group = own.param_groups[0]
        seen.append((float(group["lr"]), float(group["betas"][0] if "betas" in group else group["momentum"])))

    optimizer.register_step_pre_hook(note)
    return seen


def planned(start: int, stop: int) -> list[tuple[float, float]]:
    return [(SCHEDULE(step), MOMENTUM(step)) for step in range(start, stop)]


def copied(*things: Any) -> list[Any]:
    """All tensors and numbers of states, as they are now."""
    return [torch.utils._pytree.tree_map(_copied, thing.state_dict()) for thing in things]


def _copied(value: Any) -> Any:
    return value.clone().tolist() if isinstance(value, torch.Tensor) else value
