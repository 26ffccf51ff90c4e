"""What the demonstration's trainings share: data, initial weights, batches, rates, and what is recorded.

Each framework has a file with a ``search(total_steps)`` and a ``train(policy, seed, total_steps, rates)``. They get
the same numbers, and train the same network by gradient descent with momentum. Keras' momentum differs; see
`clr.demo.keras`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

import clr

FRAMEWORKS = ("tensorflow", "keras", "torch", "jax")
FIXED = "fixed"
ONE_CYCLE = "one_cycle"
# What people try by hand for gradient descent with momentum: the textbook's 0.1, and two about half a decade apart.
USUAL_RATES = (0.01, 0.03, 0.1)
HELD_OUT = 240  # a fifth of the digits for training, by which the search judges
SEARCH_BATCHES = 300  # ten passes over the rest
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


def start(seed: int, total_steps: int, held_out: int = 0) -> tuple[Weights, NDArray[np.int64]]:
    """The initial weights (Glorot's uniform, and biases of 0), and for each step the indices of its batch.

    The last ``held_out`` digits are in no batch.
    """
    random = np.random.default_rng(seed)
    weights = []
    for shape in SHAPES:
        field_size = np.prod(shape[:-2])  # of a convolution
        limit = np.sqrt(6 / (field_size * sum(shape[-2:]))) if len(shape) > 1 else 0.0
        weights.append(random.uniform(-limit, limit, shape).astype(np.float32))
    size = len(digits()[0]) - held_out
    epochs = -(-total_steps * BATCH_SIZE // size)
    order = np.concatenate([random.permutation(size) for _ in range(epochs)])
    return weights, order[: total_steps * BATCH_SIZE].reshape(total_steps, BATCH_SIZE)


def search_data() -> tuple[Weights, list[tuple[Images, Labels]], tuple[Images, Labels]]:
    """What a search begins with: the initial weights of seed 0, batches, and the held-out digits to judge by.

    All of them are digits for training. No search sees those for testing.
    """
    x, y, _, _ = digits()
    weights, batches = start(0, SEARCH_BATCHES, HELD_OUT)
    return weights, [(x[chosen], y[chosen]) for chosen in batches], (x[-HELD_OUT:], y[-HELD_OUT:])


@dataclass(frozen=True)
class Rates:
    """The rates of the demonstration.

    Attributes:
        fixed: The single rate.
        base_lr: The lower bound of the cycles.
        max_lr: Their upper bound.
    """

    fixed: float
    base_lr: float
    max_lr: float

    @classmethod
    def of(cls, search: clr.Search, tries: Iterable["Run"]) -> "Rates":
        """The bounds of a search, and the best of the `USUAL_RATES`, each of which has a run among ``tries``.

        The best reaches the highest accuracy on the digits for testing. These also judge at the end, and the search
        does not see them. So the fixed rate has an advantage. Raises `clr.NoBoundsError` if the search has no bounds.
        """
        best = max(zip(USUAL_RATES, tries, strict=True), key=lambda tried: max(tried[1].accuracies))
        return cls(best[0], *search.bounds())

    def arguments(self, policy: str, total_steps: int) -> dict[str, Any]:
        """The arguments of `clr.cyclic_learning_rate` for a policy of the demonstration that it has as a mode."""
        fixed = policy == FIXED
        return {
            "learning_rate": self.fixed if fixed else self.base_lr,
            "max_lr": self.fixed if fixed else self.max_lr,
            "step_size": clr.step_size(num_samples=len(digits()[0]), batch_size=BATCH_SIZE, epochs=2),
            "gamma": 0.2 ** (1 / total_steps),  # exp_range ends at a fifth of the height
            "mode": "triangular" if fixed else policy,
        }

    def schedule(self, policy: str, total_steps: int) -> clr.Schedule:
        """The schedule of any policy of the demonstration."""
        if policy == ONE_CYCLE:
            return clr.one_cycle(self.max_lr, total_steps, div_factor=self.max_lr / self.base_lr)
        given = self.arguments(policy, total_steps)
        return clr.cyclic(base_lr=given.pop("learning_rate"), **given)


class Planned(NamedTuple):
    """A training that is to be made: the framework, and the arguments of its ``train``."""

    framework: str
    policy: str
    seed: int
    total_steps: int
    rates: Rates


def tries(framework: str, search: clr.Search) -> list[Planned]:
    """The trainings among which the fixed rate is chosen: one at each of the `USUAL_RATES`.

    Each makes a third of the updates that the search has made. So the fixed rate costs as much as the bounds do.
    """
    steps = search.updates // len(USUAL_RATES)
    return [Planned(framework, FIXED, 0, steps, Rates(rate, rate, rate)) for rate in USUAL_RATES]


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
