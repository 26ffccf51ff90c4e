"""What the demonstration's trainings share: data, initial weights, batches, rates, and what is recorded.

Each framework has a file with a ``range_test()`` and a ``train(policy, seed, total_steps, rates)``. They get the same
numbers and train the same network by gradient descent with momentum. Keras' momentum differs; see `clr.demo.keras`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

import clr

FRAMEWORKS = ("tensorflow", "keras", "torch", "jax")
FIXED = "fixed"
TEST_STEPS = 300  # of the LR range test, unless it ends before
TEST_SIZE, BATCH_SIZE, MOMENTUM, EVALUATE_EVERY = 597, 32, 0.9, 10

# Two convolutions of 3 by 3 and a classifier, each with a bias: 9,930 weights. Between the convolutions, pooling halves
# the image. The channels are the last axis, also of the 4 * 4 * 32 features that the classifier gets.
SHAPES = ((3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (4 * 4 * 32, 10), (10,))

Images = NDArray[np.float32]  # images, rows, columns, and one channel
Labels = NDArray[np.int32]
Weights = list[NDArray[np.float32]]
Update = Callable[[Images, Labels], tuple[SupportsFloat, SupportsFloat]]


@dataclass
class Run:
    """The results of one training: the loss and the applied rate of every step, and accuracies on held-out digits."""

    framework: str
    policy: str
    seed: int
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)  # after every EVALUATE_EVERY steps


@cache
def digits() -> tuple[Images, Labels, Images, Labels]:
    """Images of 8 by 8 pixels from 0 to 1, and their digits: for training, then for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=TEST_SIZE, random_state=0, stratify=labels)
    return x, y, x_test, y_test


def start(seed: int, total_steps: int) -> tuple[Weights, NDArray[np.int64]]:
    """The initial weights (Glorot's uniform, and biases of 0), and for each step the indices of its batch."""
    random = np.random.default_rng(seed)
    weights = []
    for shape in SHAPES:
        field_size = np.prod(shape[:-2])  # of a convolution
        limit = np.sqrt(6 / (field_size * sum(shape[-2:]))) if len(shape) > 1 else 0.0
        weights.append(random.uniform(-limit, limit, shape).astype(np.float32))
    size = len(digits()[0])
    epochs = -(-total_steps * BATCH_SIZE // size)
    order = np.concatenate([random.permutation(size) for _ in range(epochs)])
    return weights, order[: total_steps * BATCH_SIZE].reshape(total_steps, BATCH_SIZE)


def test_batches() -> list[tuple[Images, Labels]]:
    """Images and labels for the steps of an LR range test, from the initial weights of seed 0."""
    x, y, _, _ = digits()
    return [(x[chosen], y[chosen]) for chosen in start(0, TEST_STEPS)[1]]


@dataclass(frozen=True)
class Rates:
    """The rates of the demonstration. An LR range test finds all of them.

    Attributes:
        fixed: The single rate, as most tools suggest one.
        base_lr: The lower bound of the cycles.
        max_lr: Their upper bound.
    """

    fixed: float
    base_lr: float
    max_lr: float

    @classmethod
    def of(cls, test: clr.RangeTest) -> "Rates":
        """The rates that an LR range test has found. Raises `clr.NoBoundsError` if it has found none."""
        return cls(test.suggest("valley"), *test.bounds())

    def arguments(self, policy: str, total_steps: int) -> dict[str, Any]:
        """The arguments of `clr.cyclic_learning_rate` for a policy of the demonstration."""
        fixed = policy == FIXED
        return {
            "learning_rate": self.fixed if fixed else self.base_lr,
            "max_lr": self.fixed if fixed else self.max_lr,
            "step_size": clr.step_size(num_samples=len(digits()[0]), batch_size=BATCH_SIZE, epochs=2),
            "gamma": 0.2 ** (1 / total_steps),  # exp_range ends at a fifth of the height
            "mode": "triangular" if fixed else policy,
        }

    def schedule(self, policy: str, total_steps: int) -> clr.Schedule:
        """The same as a schedule."""
        given = self.arguments(policy, total_steps)
        return clr.cyclic(base_lr=given.pop("learning_rate"), **given)


def record(
    run: Run, batches: Iterable[NDArray[np.int64]], update: Update, accuracy: Callable[[], SupportsFloat]
) -> Iterator[Run]:
    """Makes an update with each batch, and gives the run after each of them.

    ``update`` takes images and labels, and gives the loss and the rate that it has applied.
    """
    x, y, _, _ = digits()
    for done, chosen in enumerate(batches, start=1):
        loss, applied = update(x[chosen], y[chosen])
        run.losses.append(float(loss))
        run.rates.append(float(applied))
        if done % EVALUATE_EVERY == 0:
            run.accuracies.append(float(accuracy()))
        yield run
