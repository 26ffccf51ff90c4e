"""What the demonstration's trainings share: data, initial weights, batches, rates, and what is recorded.

The frameworks' own files are alike: each has a ``range_test()`` and a ``train(policy, seed, steps, rates)``. They get
the same numbers and train the same network by gradient descent with momentum (see `clr.demo.keras` for what Keras does
otherwise there).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import clr

FRAMEWORKS = ("tensorflow", "keras", "torch", "jax")
FIXED = "fixed"
TEST_STEPS = 300  # of the LR range test, if it is not over before
TEST_SIZE, BATCH_SIZE, MOMENTUM, EVALUATE_EVERY = 597, 32, 0.9, 10

# Two convolutions of 3 by 3 and a classifier, each with a bias: 9,930 weights. Between the convolutions the image is
# halved by pooling; the channels are the last axis, also of what the classifier gets, which has 4 * 4 * 32 features.
SHAPES = ((3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (4 * 4 * 32, 10), (10,))

Array = NDArray[Any]
Update = Callable[[Array, Array], tuple[Any, Any]]


@dataclass
class Run:
    """What one training gave: a loss and the applied rate for every step, and accuracies on held-out digits."""

    framework: str
    policy: str
    seed: int
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)  # after every EVALUATE_EVERY steps


@cache
def digits() -> tuple[Array, Array, Array, Array]:
    """Images of 8 by 8 pixels and one channel, from 0 to 1, and their digits: for training, then for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=TEST_SIZE, random_state=0, stratify=labels)
    return x, y, x_test, y_test


def start(seed: int, steps: int) -> tuple[list[Array], Array]:
    """The initial weights (Glorot's uniform, and biases of 0), and for each step the indices of its batch."""
    random = np.random.default_rng(seed)
    weights = []
    for shape in SHAPES:
        field_size = np.prod(shape[:-2])  # of a convolution
        limit = np.sqrt(6 / (field_size * sum(shape[-2:]))) if len(shape) > 1 else 0.0
        weights.append(random.uniform(-limit, limit, shape).astype(np.float32))
    size = len(digits()[0])
    epochs = -(-steps * BATCH_SIZE // size)
    order = np.concatenate([random.permutation(size) for _ in range(epochs)])
    return weights, order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)


def test_batches() -> list[tuple[Array, Array]]:
    """Images and labels for the steps of an LR range test, from the initial weights of seed 0."""
    x, y, _, _ = digits()
    return [(x[chosen], y[chosen]) for chosen in start(0, TEST_STEPS)[1]]


@dataclass(frozen=True)
class Rates:
    """The rates of the demonstration, none of which is chosen by hand.

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
        """What an LR range test has found; raises `clr.NoBoundsError` if that is nothing."""
        return cls(test.suggest("valley"), *test.bounds())

    def arguments(self, policy: str, steps: int) -> dict[str, Any]:
        """What a policy of the demonstration gives to `clr.cyclic_learning_rate`."""
        fixed = policy == FIXED
        return {
            "learning_rate": self.fixed if fixed else self.base_lr,
            "max_lr": self.fixed if fixed else self.max_lr,
            "step_size": clr.step_size(num_samples=len(digits()[0]), batch_size=BATCH_SIZE, epochs=2),
            "gamma": 0.2 ** (1 / steps),  # exp_range ends at a fifth of the height
            "mode": "triangular" if fixed else policy,
        }

    def schedule(self, policy: str, steps: int) -> clr.Schedule:
        """The same as a schedule."""
        given = self.arguments(policy, steps)
        return clr.cyclic(base_lr=given.pop("learning_rate"), **given)


def record(run: Run, batches: Iterable[Array], update: Update, accuracy: Callable[[], Any]) -> Iterator[Run]:
    """Makes an update with each batch, and gives the run, grown by one step, after each of them.

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
