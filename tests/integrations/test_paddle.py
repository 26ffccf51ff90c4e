"""PaddlePaddle: the golden rates of every kind of schedule, and its ``LambdaDecay`` with one, on real digits."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.family import golden, made
from tests.integrations.common import in_processes

paddle = pytest.importorskip("paddle")
pytestmark = pytest.mark.filterwarnings("ignore")
SCHEDULE = clr.triangular2(0.01, 0.25, step_size=5)
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("row", golden(), ids=str)
def test_golden_rates(row: Any, dtype: str) -> None:
    schedule = made(row.schedule)
    rates = schedule(paddle.to_tensor(list(row.steps), "int64"), dtype=dtype).numpy()
    assert rates.dtype == dtype
    smallest, bound = Fraction(float(np.finfo(dtype).tiny)), Fraction(TOLERANCE[dtype])
    scale = Fraction(row.schedule.get("high", 0.95)) if row.schedule["kind"] == "momentum" else None
    for got, lr in zip(rates.tolist(), row.lrs, strict=True):
        wanted = Fraction(lr)
        assert abs(Fraction(got) - wanted) <= bound * (wanted if scale is None else scale) + smallest
    low, high = np.asarray(schedule.limits, dtype)
    assert low <= rates.min() <= rates.max() <= high


def test_cycles_dtypes_and_shapes() -> None:
    steps = paddle.to_tensor([[0, 9], [10, 25]])
    assert SCHEDULE.cycle(steps).tolist() == [[1, 1], [2, 3]]
    assert SCHEDULE.is_cycle_end(steps).tolist() == [[False, True], [False, False]]
    assert SCHEDULE(steps, dtype=paddle.bfloat16).dtype == paddle.bfloat16
    assert SCHEDULE(steps).dtype == paddle.float32
    assert SCHEDULE(paddle.to_tensor(-3)).tolist() == float(np.float32(0.01))
    for row in golden():
        assert made(row.schedule)(paddle.to_tensor(3)).shape == []
    assert clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: cycle / 4)(paddle.to_tensor([4, 12])).tolist() == [0.25, 0.5]
    with pytest.raises(ValueError, match="infinite in the dtype of the rates"):
        clr.constant(1e5)(steps, dtype="float16")
    with pytest.raises(TypeError, match="`dtype` must be a floating dtype"):
        SCHEDULE(steps, dtype="int32")
    with pytest.raises(TypeError, match="`step` must be"):
        SCHEDULE(paddle.to_tensor([True]))


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return paddle.to_tensor(images[:640] / 16, "float32"), paddle.to_tensor(labels[:640], "int64")


@paddle.utils.unique_name.guard()  # else the second training in a process would save other names than the first
def train(first: int, last: int, load: str | None = None, save: str | None = None) -> tuple[list[float], Any]:
    """The rate of each update, of two batches of 16 digits each, and the weights."""
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Linear(64, 32), paddle.nn.ReLU(), paddle.nn.Linear(32, 10))
    scheduler = paddle.optimizer.lr.LambdaDecay(1.0, SCHEDULE)
    optimizer = paddle.optimizer.Momentum(scheduler, momentum=0.7, parameters=model.parameters())
    if load is not None:
        model.set_state_dict(paddle.load(f"{load}.model"))
        optimizer.set_state_dict(paddle.load(f"{load}.optimizer"))  # it holds the scheduler's count
    x, y = digits()
    seen = []
    for at in range(first * 32, last * 32, 32):
        for part in (slice(at, at + 16), slice(at + 16, at + 32)):
            (paddle.nn.functional.cross_entropy(model(x[part]), y[part]) / 2).backward()
        seen.append(optimizer.get_lr())
        optimizer.step()
        optimizer.clear_grad()
        scheduler.step()
    if save is not None:
        paddle.save(model.state_dict(), f"{save}.model")
        paddle.save(optimizer.state_dict(), f"{save}.optimizer")
    return seen, model[0].weight.tolist()


def resumed(folder: Path) -> Any:
    return train(7, 12, load=str(folder / "state"))


def test_an_optimizer_takes_a_schedule_and_resumes_in_a_fresh_process(tmp_path: Path) -> None:
    rates, weights = train(0, 12)
    assert rates == [SCHEDULE(step) for step in range(12)]
    train(0, 7, save=str(tmp_path / "state"))
    assert in_processes(resumed, tmp_path) == [[rates[7:], weights]]
