"""The tasks: real data, small networks, and a metric on held-out data in points from 0 to 100."""

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

Array = NDArray[np.generic]
Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # inputs and targets to train on, and to test on


@dataclass(frozen=True)
class Task:
    """A task. The rule was tuned on the tasks with `tuning`; the others were held out."""

    name: str
    tuning: bool
    steps: int
    load: Callable[[int], Data]
    build: Callable[[], nn.Module]
    loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor], float]
    batch_size: int = 32


def _split(x: Array, y: Array, seed: int, stratified: bool = True) -> list[Array]:
    """Inputs to train on and to test on, then their targets. Each seed holds out another two fifths."""
    parts = train_test_split(x, y, test_size=0.4, random_state=seed, stratify=y if stratified else None)
    return list(parts)


def _tensors(x: Array, x_test: Array, y: Array, y_test: Array) -> Data:
    return torch.tensor(x), torch.tensor(y), torch.tensor(x_test), torch.tensor(y_test)


def _digits(seed: int) -> Data:
    data = load_digits()
    return _tensors(*_split((data.images[:, None] / 16).astype(np.float32), data.target, seed))


def _breast_cancer(seed: int) -> Data:
    return _classes(load_breast_cancer(), seed)


def _wine(seed: int) -> Data:
    return _classes(load_wine(), seed)


def _classes(data: Any, seed: int) -> Data:
    x, x_test, y, y_test = _split(data.data, data.target, seed)
    x, x_test = _standardized(x, x_test)
    return _tensors(x, x_test, y, y_test)


def _diabetes(seed: int) -> Data:
    data = load_diabetes()
    x, x_test, y, y_test = _split(data.data, data.target[:, None], seed, stratified=False)
    x, x_test = _standardized(x, x_test)
    y, y_test = _standardized(y, y_test)
    return _tensors(x, x_test, y, y_test)


def _standardized(train: Array, test: Array) -> list[Array]:
    """Both parts, scaled by the mean and the standard deviation of the training part."""
    return [((part - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32) for part in (train, test)]


@cache
def _mnist1d_arrays() -> Data:
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    x, x_test = (torch.tensor(data[key], dtype=torch.float32) for key in ("x", "x_test"))
    return x, torch.tensor(data["y"]), x_test, torch.tensor(data["y_test"])


def _mnist1d(seed: int) -> Data:
    return _mnist1d_arrays()


@cache
def _library(context: int, held_out: int) -> Data:
    """Standard-library sources as sequences of so many characters; the targets are the next ones."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    parts = []
    for own in ([file for at, file in enumerate(files) if at % 10], files[::10]):
        text = "".join(file.read_text(encoding="utf-8") for file in own)
        codes = torch.tensor([code if code < 128 else 63 for code in map(ord, text)])
        parts.append(codes[: len(codes) // (context + 1) * (context + 1)].view(-1, context + 1))
    train, test = parts[0], parts[1][:held_out]
    return train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:]


def _chars(seed: int) -> Data:
    return _library(32, 1500)


def _long_chars(seed: int) -> Data:
    return _library(64, 500)


class _Recurrent(nn.Module):
    """A GRU over equal parts of the input, such as the rows of an image."""

    def __init__(self, part: int, width: int) -> None:
        super().__init__()
        self.part = part
        self.gru = nn.GRU(part, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.gru(x.reshape(len(x), -1, self.part))[0][:, -1])
        return result


class _Transformer(nn.Module):
    """Causal layers over characters."""

    def __init__(self, context: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.positions = nn.Parameter(0.02 * torch.randn(context, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(
            self.layers(self.embedding(x) + self.positions, mask=self.get_buffer("mask"), is_causal=True)
        )
        return result


def _digits_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def _digits_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))


def _mnist1d_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def _mnist1d_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 40)),
        nn.Conv1d(1, 25, 5, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(25, 25, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(25, 25, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(125, 10),
    )


def _table(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())


def _accuracy(output: torch.Tensor, target: torch.Tensor) -> float:
    return 100 * float((output.argmax(dim=-1) == target).float().mean())


def _explained(output: torch.Tensor, target: torch.Tensor) -> float:
    """R squared, in points."""
    return 100 * float(1 - (output - target).square().sum() / (target - target.mean()).square().sum())


_CLASSES: dict[str, Any] = {"loss_fn": _cross_entropy, "score": _accuracy}
TASKS = {
    task.name: task
    for task in (
        Task("digits_cnn", True, 480, _digits, _digits_cnn, **_CLASSES),
        Task("digits_mlp", False, 800, _digits, _digits_mlp, **_CLASSES),
        Task("mnist1d_mlp", True, 1600, _mnist1d, _mnist1d_mlp, batch_size=64, **_CLASSES),
        Task("mnist1d_cnn", False, 1200, _mnist1d, _mnist1d_cnn, batch_size=64, **_CLASSES),
        Task("mnist1d_gru", False, 1200, _mnist1d, lambda: _Recurrent(4, 48), batch_size=64, **_CLASSES),
        Task("chars", True, 480, _chars, lambda: _Transformer(32, 48, 2), **_CLASSES),
        Task("breast_cancer", True, 400, _breast_cancer, _table(30, 2), **_CLASSES),
        Task("wine", False, 300, _wine, _table(13, 3), **_CLASSES),
        Task("digits_gru", False, 600, _digits, lambda: _Recurrent(8, 32), **_CLASSES),
        Task("diabetes", False, 400, _diabetes, _table(10, 1), nn.functional.mse_loss, _explained),
    )
}
# Takes hours on two cores; only the study of schedules uses it.
LARGE = Task("chars_large", False, 3000, _long_chars, lambda: _Transformer(64, 64, 3), **_CLASSES)
ALL = TASKS | {LARGE.name: LARGE}
