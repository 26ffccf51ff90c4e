"""The CIFAR-10 case of the paper (Smith 2017, section 4.1): Caffe's networks, batches of 100, rates of 0.001 to 0.006.

The paper compares its cycles with the 70,000 iterations of Caffe's ``cifar10_full``, which has two drops of the rate.
The smaller ``cifar10_quick`` is made for 5,000. One thing differs: PyTorch multiplies its momentum by the present
rate, Caffe by the rates at which the gradients came. So they differ for some updates after the rate has changed.
"""

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import clr
import clr.torch
from clr import checks

BATCH_SIZE, MOMENTUM, WEIGHT_DECAY = 100, 0.9, 0.004
BASE_LR, MAX_LR, STEP_SIZE = 0.001, 0.006, 2000
TOTAL_STEPS = (25_000, 70_000)  # for the cycles, and for the fixed rate
EVALUATE_EVERY = 500  # updates: an epoch of 50,000 images
FILES = [f"data_batch_{number}.bin" for number in range(1, 6)]
TEST_FILE = "test_batch.bin"
NETWORKS = ("full", "quick")
_RECORD = 1 + 3 * 32 * 32

Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load(path: str | Path) -> tuple[Images, Images]:
    """Images and labels for training, then for testing, from the official binary version.

    Args:
        path: The archive ``cifar-10-binary.tar.gz``, or the folder with its ``.bin`` files.

    Returns:
        Images of shape (count, 3, 32, 32) and labels from 0 to 9, uint8.

    Raises:
        OSError: A file is missing.
        ValueError: A file does not have the format of CIFAR-10.
    """
    path = Path(path)
    if path.is_dir():
        inner = path / "cifar-10-batches-bin"
        folder = inner if inner.is_dir() else path
        contents = {name: (folder / name).read_bytes() for name in (*FILES, TEST_FILE)}
    else:
        contents = _unpacked(path)
    batches = {name: _read(name, content) for name, content in contents.items()}
    images, labels = (np.concatenate([batches[name][part] for name in FILES]) for part in (0, 1))
    return (images, labels), batches[TEST_FILE]


def _unpacked(path: Path) -> dict[str, bytes]:
    contents, packed = {}, path.read_bytes()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in (*FILES, TEST_FILE) and (file := archive.extractfile(member)) is not None:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:  # damaged archives raise the last three
        raise ValueError(f"{path} is neither a folder nor an archive of CIFAR-10: {error}") from error
    missing = [name for name in (*FILES, TEST_FILE) if name not in contents]
    if missing:
        raise ValueError(f"{path} must hold the binary version of CIFAR-10. Missing: {', '.join(missing)}.")
    return contents


def _read(name: str, content: bytes) -> Images:
    """Records of a label and three planes of 32 rows: red, green and blue."""
    if not content or len(content) % _RECORD:
        raise ValueError(f"{name} must be records of {_RECORD} bytes. Received: {len(content)} bytes.")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{name} must have labels from 0 to 9. Received: {labels.max()}.")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels.copy()


class _Normalized(nn.Module):
    """Caffe's local response normalization within a channel: by the mean square of 3 by 3 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = nn.functional.avg_pool2d(x.square(), 3, stride=1, padding=1)
        return x * (1 + 5e-5 * squares).pow(-0.75)


def network(name: str) -> nn.Sequential:
    """Caffe's ``cifar10_full`` or ``cifar10_quick``, with its initial weights: 89,578 of them, or 145,578.

    Args:
        name: ``"full"`` or ``"quick"``.
    """
    full = checks.choice("network", name, NETWORKS) == "full"
    model = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        *([_Normalized()] if full else []),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *([_Normalized()] if full else []),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        *([nn.Linear(64 * 4 * 4, 10)] if full else [nn.Linear(64 * 4 * 4, 64), nn.Linear(64, 10)]),
    )
    deviations = (1e-4, 0.01, 0.01, 0.01) if full else (1e-4, 0.01, 0.01, 0.1, 0.1)
    for layer, deviation in zip(_layers(model), deviations, strict=True):
        nn.init.normal_(layer.weight, std=deviation)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def _layers(model: nn.Sequential) -> list[nn.Conv2d | nn.Linear]:
    """The layers that have weights."""
    return [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]


def groups(name: str, model: nn.Sequential) -> tuple[list[dict[str, Any]], list[float]]:
    """A network's parameters with their weight decays, and the multiple of the rate for each, as in Caffe's files."""
    parameters, multiples = [], []
    *convolutions, last = _layers(model)
    for layer in (*convolutions, last):
        heavy = name == "full" and layer is last
        plain = name == "full" and layer is convolutions[-1]
        parameters.append({"params": [layer.weight], "weight_decay": WEIGHT_DECAY * (250 if heavy else 1)})
        parameters.append({"params": [layer.bias], "weight_decay": 0.0 if heavy else WEIGHT_DECAY})
        multiples += [1.0, 1.0 if plain else 2.0]
    return parameters, multiples


def schedules() -> dict[str, clr.Schedule | Callable[[int], clr.Schedule]]:
    """The fixed rate with the two drops of Caffe's full network, a function of the length, and the paper's policies."""
    return {
        "fixed, two drops": _dropping,
        "triangular2": clr.triangular2(BASE_LR, MAX_LR, STEP_SIZE),
        "triangular": clr.triangular(BASE_LR, MAX_LR, STEP_SIZE),
        "exp_range": clr.exp_range(BASE_LR, MAX_LR, STEP_SIZE),
    }


def _dropping(total_steps: int) -> clr.Schedule:
    """A tenth of the rate after six sevenths of the steps, and a hundredth after thirteen fourteenths."""
    first = max(1, total_steps * 6 // 7)
    second = max(first + 1, total_steps * 13 // 14)
    rates = [clr.constant(BASE_LR / 10**power) for power in range(3)]
    return clr.join(rates, [first, second])


@dataclass(frozen=True)
class Training:
    """Trains on the data of a folder or an archive, for `clr.compare`.

    Args:
        path: The data.
        network: ``"full"`` or ``"quick"``.
        device: Where to train, such as ``"cuda"``.
    """

    path: str
    network: str = "full"
    device: str = "cpu"

    def __post_init__(self) -> None:
        checks.choice("network", self.network, NETWORKS)

    def __call__(self, schedule: clr.Schedule, seed: int, total_steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Gives the accuracy on the test images, in percent, and the mean loss since the last time."""
        (images, labels), (test_images, test_labels) = _data(self.path)
        mean = torch.from_numpy(images.mean(axis=0, dtype=np.float64)).float().to(self.device)
        torch.manual_seed(seed)
        model = network(self.network).to(self.device)
        parameters, multiples = groups(self.network, model)
        optimizer = torch.optim.SGD(parameters, lr=BASE_LR, momentum=MOMENTUM)
        scheduler = clr.torch.LRScheduler(optimizer, [schedule * multiple for multiple in multiples])
        random = np.random.default_rng(seed)
        order: NDArray[np.int64] = np.empty(0, np.int64)
        size = min(BATCH_SIZE, len(images))
        losses: list[torch.Tensor] = []

        def batch(pixels: NDArray[np.uint8], digits: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
            inputs = torch.from_numpy(pixels).to(self.device).float() - mean
            return inputs, torch.from_numpy(digits).to(self.device).long()

        for step in range(1, total_steps + 1):
            if len(order) < size:
                order = random.permutation(len(images))
            chosen, order = order[:size], order[size:]
            inputs, targets = batch(images[chosen], labels[chosen])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            losses.append(loss.detach())
            if step % EVALUATE_EVERY == 0 or step == total_steps:
                with torch.no_grad():
                    right = 0
                    for at in range(0, len(test_images), 1000):
                        inputs, targets = batch(test_images[at : at + 1000], test_labels[at : at + 1000])
                        right += int((model(inputs).argmax(dim=1) == targets).sum())
                mean_loss = float(torch.stack(losses).mean())
                yield step, {"accuracy": 100 * right / len(test_images), "loss": mean_loss}
                losses.clear()


@cache
def _data(path: str) -> tuple[Images, Images]:
    return load(path)
