"""Optimizers, and schedules whose rates are known exactly."""

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import clr
from tests.reference import exact_rate

torch = pytest.importorskip("torch")
optim = torch.optim

LOW, HIGH, UP = 0.25, 1.25, 4
SCHEDULE = clr.triangular(LOW, HIGH, UP)
OTHER = clr.triangular2(0.0, 2.0, 2)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.75)
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=9.0, momentum=0.9),
    "nesterov": lambda parameters: optim.SGD(parameters, lr=9.0, momentum=0.9, nesterov=True),
    "rmsprop": lambda parameters: optim.RMSprop(parameters, lr=9.0, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, lr=9.0),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=9.0),
    "nadam": lambda parameters: optim.NAdam(parameters, lr=9.0),
    "adamax": lambda parameters: optim.Adamax(parameters, lr=9.0),
}


def rate(step: int, schedule: str = "first") -> float:
    """The exact rate; all are float64 numbers."""
    if schedule == "first":
        return float(exact_rate(step, LOW, HIGH, UP))
    return float(exact_rate(step, 0.0, 2.0, 2, mode="triangular2"))


def momentum(step: int) -> float:
    """The mirror of the exact rate."""
    return float(Fraction(3, 4) - (Fraction(rate(step)) - Fraction(LOW)) / 4)


def parameter() -> Any:
    return torch.zeros(2, requires_grad=True)


def sgd(**options: Any) -> Any:
    return optim.SGD([parameter()], **{"lr": 9.0} | options)


def groups(*names: str, **options: Any) -> Any:
    return optim.SGD([{"params": [parameter()], "name": name} for name in names], **{"lr": 9.0} | options)


def applied(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def applied_momentum(optimizer: Any) -> list[float]:
    return [float(g["betas"][0] if "betas" in g else g["momentum"]) for g in optimizer.param_groups]


def update(optimizer: Any, gradient: float = 1.0) -> None:
    for group in optimizer.param_groups:
        for part in group["params"]:
            part.grad = torch.full_like(part, gradient)
    optimizer.step()


def saved(state: Any) -> Any:
    """Through a file, read without running any code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
