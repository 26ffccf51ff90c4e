"""MLX: the golden rates of every kind of schedule, and its optimizers with a schedule, on real digits."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.family import golden, made
from tests.integrations.common import in_processes

mx = pytest.importorskip("mlx.core")
nn, optimizers, utils = (pytest.importorskip(f"mlx.{name}") for name in ("nn", "optimizers", "utils"))
SCHEDULE = clr.triangular2(0.01, 0.25, step_size=5)
SMALLEST = Fraction(float(np.finfo(np.float32).tiny))  # what is smaller may be flushed to 0


@pytest.mark.parametrize("row", golden(), ids=str)
def test_golden_rates(row: Any) -> None:
    schedule = made(row.schedule)
    rates = np.asarray(schedule(mx.array(list(row.steps), mx.int64)))
    assert rates.dtype == np.float32
    scale = Fraction(row.schedule.get("high", 0.95)) if row.schedule["kind"] == "momentum" else None
    for got, lr in zip(rates.tolist(), row.lrs, strict=True):
        wanted = Fraction(lr)
        assert abs(Fraction(got) - wanted) <= Fraction(1e-6) * (wanted if scale is None else scale) + SMALLEST
    low, high = np.asarray(schedule.limits, np.float32)
    assert low <= rates.min() <= rates.max() <= high


def test_cycles_dtypes_and_shapes() -> None:
    steps = mx.array([[0, 9], [10, 25]], mx.uint64)
    assert SCHEDULE.cycle(steps).tolist() == [[1, 1], [2, 3]]
    assert SCHEDULE.is_cycle_end(steps).tolist() == [[False, True], [False, False]]
    assert SCHEDULE(steps, dtype=mx.bfloat16).dtype == mx.bfloat16
    assert SCHEDULE(mx.array(-3)).item() == np.float32(0.01)
    for row in golden():
        assert made(row.schedule)(mx.array(3)).shape == ()
    assert clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: cycle / 4)(mx.array([4, 12])).tolist() == [0.25, 0.5]
    with pytest.raises(ValueError, match="infinite in the dtype of the rates"):
        clr.constant(1e5)(steps, dtype=mx.float16)
    with pytest.raises(TypeError, match="`dtype` must be a floating dtype"):
        SCHEDULE(steps, dtype=mx.int32)
    with pytest.raises(TypeError, match="`step` must be"):
        SCHEDULE(mx.array([True]))


def digits(first: int = 0, last: int = 640) -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return mx.array(images[first:last] / 16, mx.float32), mx.array(labels[first:last])


class Training:
    """A small network and its optimizer."""

    def __init__(self, rate: Any = SCHEDULE, compiled: bool = False) -> None:
        mx.random.seed(0)
        self.model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.optimizer = optimizers.SGD(rate, momentum=0.7)
        self.optimizer.init(self.model.trainable_parameters())
        self._gradient = nn.value_and_grad(self.model, self.loss)
        state = [self.model.state, self.optimizer.state]
        self.update = mx.compile(self._update, inputs=state, outputs=state) if compiled else self._update

    def loss(self, x: Any, y: Any) -> Any:
        return nn.losses.cross_entropy(self.model(x), y, reduction="mean")

    def _update(self, x: Any, y: Any) -> Any:
        loss, gradient = self._gradient(x, y)
        self.optimizer.update(self.model, gradient)
        return loss

    def train(self, first: int, last: int) -> list[float]:
        """The rate of each update, of batches of 32 digits."""
        seen = []
        x, y = digits()
        for at in range(first * 32, last * 32, 32):
            self.update(x[at : at + 32], y[at : at + 32])
            mx.eval(self.model.state, self.optimizer.state)
            seen.append(self.optimizer.learning_rate.item())
        return seen

    def state(self) -> dict[str, Any]:
        return dict(utils.tree_flatten({"model": self.model.parameters(), "optimizer": self.optimizer.state}))

    def load(self, flat: dict[str, Any]) -> None:
        state = utils.tree_unflatten(list(flat.items()))
        self.model.update(state["model"])
        self.optimizer.state = state["optimizer"]


def planned(first: int, last: int) -> Any:
    return pytest.approx([SCHEDULE(step) for step in range(first, last)], rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_optimizer_takes_a_schedule(compiled: bool) -> None:
    assert Training(compiled=compiled).train(0, 12) == planned(0, 12)


def resumed(folder: Path) -> Any:
    training = Training()
    training.load(mx.load(str(folder / "state.safetensors")))
    return [training.train(7, 12), training.model.layers[0].weight.tolist()]


def test_a_run_that_resumes_in_a_fresh_process_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    whole = Training()
    whole.train(0, 12)
    training = Training()
    training.train(0, 7)
    mx.save_safetensors(str(tmp_path / "state.safetensors"), training.state())
    ((rates, weights),) = in_processes(resumed, tmp_path)
    assert rates == planned(7, 12)
    assert weights == whole.model.layers[0].weight.tolist()


def test_bounds_by_the_finders_for_any_framework() -> None:
    training = Training(rate=0.1)
    start = training.state()
    x, y = digits(0, 1400)
    held_out = digits(1400, 1797)
    order: list[int] = []

    def reset(seed: int) -> None:
        training.load(start)
        order[:] = np.random.default_rng(seed).permutation(40).tolist()

    def train_step(lr: float) -> Any:
        training.optimizer.learning_rate = lr
        at = order.pop() * 32
        order.insert(0, at // 32)
        return training.update(x[at : at + 32], y[at : at + 32])

    reset(0)
    assert 0.01 < clr.range_test(train_step, num_steps=100).bounds().max_lr < 5
    found = clr.find_bounds(train_step, reset, lambda: training.loss(*held_out), total_steps=300, budget=300)
    assert 0.01 < found.bounds().max_lr < 5
