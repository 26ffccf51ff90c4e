"""Trains in PyTorch: `clr.torch.LRScheduler` writes each step's rate into the optimizer."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

import clr
from clr.demo.training import MOMENTUM, Images, Labels, Rates, Run, Weights, digits, record, search_data, start


def network(weights: Weights) -> nn.Sequential:
    """The network, which gives the logits of images."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 32, 10),
    )
    kernel, bias, kernel2, bias2, matrix, bias3 = map(torch.from_numpy, weights)
    # In PyTorch, channels come before height and width, and the outputs of a layer before its inputs.
    matrix = matrix.reshape(4, 4, 32, 10).permute(3, 2, 0, 1).flatten(1)
    ordered = (kernel.permute(3, 2, 0, 1), bias, kernel2.permute(3, 2, 0, 1), bias2, matrix, bias3)
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), ordered, strict=True):
            parameter.copy_(part)
    return model


def channels_first(images: Images) -> torch.Tensor:
    """Images as PyTorch wants them."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def search(total_steps: int) -> clr.Search:
    """Searches the bounds of the demonstration, for trainings of ``total_steps``."""
    initial, given, held_out = search_data()
    model = network(initial)
    optimizer = torch.optim.SGD(model.parameters(), momentum=MOMENTUM)
    *batches, judged = [
        (channels_first(images), torch.from_numpy(labels).long()) for images, labels in (*given, held_out)
    ]
    with _one_thread():
        return clr.torch.find_bounds(
            model, optimizer, nn.CrossEntropyLoss(), batches, validation=[judged], total_steps=total_steps
        )


def train(policy: str, seed: int, total_steps: int, rates: Rates) -> Iterator[Run]:
    """Trains for ``total_steps`` updates, and gives the run after each of them."""
    _, _, x_test, y_test = digits()
    initial, batches = start(seed, total_steps)
    model = network(initial)
    optimizer = torch.optim.SGD(model.parameters(), momentum=MOMENTUM)
    scheduler = clr.torch.LRScheduler(optimizer, rates.schedule(policy, total_steps))

    def update(images: Images, labels: Labels) -> tuple[float, float]:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(channels_first(images)), torch.from_numpy(labels).long())
        loss.backward()  # type: ignore[no-untyped-call]
        applied = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        return loss.item(), applied

    @torch.no_grad()
    def accuracy() -> float:
        guesses = model(channels_first(x_test)).argmax(dim=1)
        return float((guesses == torch.from_numpy(y_test)).float().mean())

    with _one_thread():
        yield from record(Run("torch", policy, seed), batches, update, accuracy)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Trains on one thread. So small a network is slower on more, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
