"""`clr.keras.find_bounds` on the backend of the process: it leaves no trace, and holds out what it judges by."""

from typing import Any

import keras
import numpy as np
import pytest

import clr
from tests.keras.models import WARNS_OF_COPIES
from tests.keras.transactions import TARGETS, X, Y, fit, linear, start, trace

pytestmark = WARNS_OF_COPIES
LIMITS: dict[str, Any] = {"total_steps": 300, "budget": 250, "batch_size": 8}


@pytest.mark.parametrize("trained", [0, 1], ids=["fresh", "trained"])
def test_it_leaves_no_trace(trained: int) -> None:
    model = start(trained=trained)
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(X, Y))
    before = trace(model)
    found = clr.keras.find_bounds(model, X, Y, validation=0.2, **LIMITS)
    assert trace(model) == before
    assert len(found.trials) >= 3
    assert found.updates <= 250


def test_training_goes_on_as_if_there_had_been_no_search() -> None:
    without = fit(start(), 2)
    model = start()
    clr.keras.find_bounds(model, X[:32], Y[:32], validation=(X[32:], Y[32:]), **LIMITS)
    assert fit(model, 2) == without


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_it_leaves_no_trace_where_it_is_ended(error: type[BaseException]) -> None:
    model, calls = start(), 0
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(X, Y))
    before = trace(model)

    def evaluate() -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return float(model.evaluate(X, Y, verbose=0)[0])

    if error is KeyboardInterrupt:
        assert clr.keras.find_bounds(model, X, Y, evaluate=evaluate, **LIMITS).stop == "interrupted"
    else:
        with pytest.raises(ZeroDivisionError):
            clr.keras.find_bounds(model, X, Y, evaluate=evaluate, **LIMITS)
    assert trace(model) == before


def test_held_out_samples_are_not_trained_on() -> None:
    numbers = np.arange(40, dtype=np.float32)[:, None].repeat(6, axis=1)
    seen: set[float] = set()

    class Watched(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_on_batch(self, x: Any, *more: Any, **options: Any) -> Any:
            seen.update(np.asarray(keras.ops.convert_to_numpy(x))[:, 0].tolist())
            return super().train_on_batch(x, *more, **options)

    model = Watched()
    model.compile(keras.optimizers.SGD(), "mse")
    clr.keras.find_bounds(model, numbers, numbers[:, :1], validation=0.25, **LIMITS)
    assert len(seen) == 30


@pytest.mark.parametrize("has_schedule", [False, True])
def test_the_winner_can_be_kept(has_schedule: bool) -> None:
    schedule = clr.keras.LearningRateSchedule(clr.triangular(0.1, 0.25, 50))
    rate = schedule if has_schedule else 0.25
    parts = LIMITS | {"budget": 1200, "data": X[:32], "y": TARGETS[:32], "validation": (X[32:], TARGETS[32:])}
    without, model = (linear(keras.optimizers.SGD(rate, momentum=0.9)) for _ in range(2))
    expected = clr.keras.find_bounds(without, **parts)
    found = clr.keras.find_bounds(model, **parts, keep="winner")
    assert found == expected
    assert found.winner is not None
    assert found.trials[-1] is not found.winner  # so that it had to be copied
    assert float(model.evaluate(X[32:], TARGETS[32:], verbose=0)) == pytest.approx(found.winner.score, rel=1e-6)
    assert int(model.optimizer.iterations) == found.winner.num_steps
    assert float(model.optimizer.learning_rate) == pytest.approx(
        schedule(found.winner.num_steps) if has_schedule else 0.25
    )
    assert model.optimizer._learning_rate is (schedule if has_schedule else model.optimizer.learning_rate)
    before = model.get_weights()[0]
    fit(model, 1)  # goes on from there
    assert int(model.optimizer.iterations) == found.winner.num_steps + 5
    assert not np.array_equal(model.get_weights()[0], before)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"validation": None}, "either `validation` or `evaluate`"),
        ({"evaluate": lambda: 1.0}, "either `validation` or `evaluate`"),
        ({"validation": 0.0}, "`validation` must"),
        ({"validation": 1.0}, "`validation` must"),
        ({"validation": 0.001}, "`validation` must"),
        ({"validation": 0.2, "data": [(X, Y)], "y": None}, "only if `data` is arrays"),
        ({"goal": "max"}, "takes `goal` with `evaluate`"),
        ({"validation": None, "evaluate": 1}, "`evaluate` must"),
        ({"total_steps": 0}, "`total_steps` must"),
        ({"keep": "best"}, "`keep` must"),
        ({"model": 1}, "`model` must"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": start(), "data": X, "y": Y, "validation": 0.2}
    with pytest.raises((TypeError, ValueError), match=message):
        clr.keras.find_bounds(**arguments | LIMITS | changed)
