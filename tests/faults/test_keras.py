"""What goes wrong during a range test in Keras, TensorFlow or JAX leaves no trace.

Keras has one backend in a process: `tests.keras.test_other_processes` runs these tests on the others.
"""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.faults.lines import Line, interruptible, pressed

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras: Any = pytest.importorskip("keras")

from tests.keras.models import BACKEND, WARNS_OF_COPIES  # noqa: E402  # once the backend is chosen
from tests.keras.transactions import SCHEDULE, TARGETS, X, trace  # noqa: E402

pytestmark = WARNS_OF_COPIES
OURS = Path(clr.__file__).parent
SHARED = {OURS / "finder" / "sweep.py", OURS / "finder" / "transaction.py"}
FILES = {name: SHARED | {*(OURS / name).iterdir()} for name in ("keras", "tensorflow", "jax")}
RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": 2, "repeats": 2, "progress": False}
layers = keras.layers


class Faulty(keras.Sequential):  # type: ignore[misc]
    """A model whose steps may go wrong."""

    fault: Callable[[], None] | None = None

    def train_step(self, *arguments: Any) -> Any:
        result = super().train_step(*arguments)
        if self.fault is not None:
            self.fault()
        return result


def model() -> Any:
    """A model whose optimizer has a schedule, so that the test has to give it a variable for the rate."""
    keras.utils.set_random_seed(0)
    result = Faulty([keras.Input((6,)), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1)])
    optimizer = keras.optimizers.SGD(clr.keras.LearningRateSchedule(SCHEDULE), momentum=0.9)
    result.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    result.train_on_batch(X[:8], TARGETS[:8])
    return result


# Ctrl-C at each line


def keras_training() -> tuple[Callable[[], Any], Callable[[], Any]]:
    own = model()
    return lambda: clr.keras.range_test(own, X, TARGETS, batch_size=8, **RANGE), lambda: trace(own)


def tensorflow_training() -> tuple[Callable[[], Any], Callable[[], Any]]:
    tf: Any = pytest.importorskip("tensorflow")
    weight, generator = tf.Variable(2.0), tf.random.Generator.from_seed(1)

    def train_step(rate: Any) -> Any:
        loss = (weight + generator.normal(())) ** 2
        weight.assign_sub(rate * weight)
        return loss

    def state() -> Any:
        return float(weight), generator.state.numpy().tolist(), tf.random.get_global_generator().state.numpy().tolist()

    return lambda: clr.tensorflow.range_test(train_step, [weight, generator], **RANGE), state


def jax_training() -> tuple[Callable[[], Any], Callable[[], Any]]:
    pytest.importorskip("jax")
    weight = np.full((), 2.0)

    def update(state: Any, batch: Any, lr: Any) -> Any:
        state -= float(lr) * state + random.random()
        return state, float(state) ** 2

    return lambda: clr.jax.range_test(update, weight, [1, 2], **RANGE), lambda: (float(weight), random.getstate())


TRAININGS = {"keras": keras_training, "tensorflow": tensorflow_training, "jax": jax_training}


def chosen(lines: list[Line], name: str) -> list[int]:
    """Where to press: at each line when it comes first and when it comes last. Of Keras, whose steps are slow, some."""
    first, last = ({line: at for at, line in order} for order in (reversed([*enumerate(lines)]), enumerate(lines)))
    assert len(first) > 150
    every = sorted({*first.values(), *last.values()})
    if name != "keras":
        return every
    guard = [at for line, at in first.items() if Path(line[0]).name in ("training.py", "transaction.py")]
    return sorted({*random.Random(1).sample(guard, 25), *random.Random(1).sample(every, 15)})


@pytest.mark.parametrize("name", TRAININGS if BACKEND == "tensorflow" else ["keras"])
def test_a_ctrl_c_at_any_line_leaves_no_trace(name: str) -> None:
    tested, state = TRAININGS[name]()
    with interruptible():
        tested()  # which imports what is imported late
        before = state()
        lines, test = pressed(FILES[name], None, tested)
        assert test.stop == "completed"
        for at in chosen(lines, name):
            _, test = pressed(FILES[name], at, tested)
            assert test == "KeyboardInterrupt" or test.stop == "interrupted", lines[at]
            assert state() == before, lines[at]
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# An error in odd places


def fails() -> Any:
    raise OSError("on purpose")


class Disk(keras.utils.PyDataset):  # type: ignore[misc]
    """Data of two batches, which cannot be read at some time."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails, self.read = fails, 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: int) -> Any:
        self.read += 1
        if self.fails == "batch" and self.read == 4:  # in the second pass, of which the first batch was drawn too
            fails()
        return X[8 * at : 8 * at + 8], TARGETS[8 * at : 8 * at + 8]

    def on_epoch_end(self) -> None:
        if self.fails == "end":
            fails()


def frozen(own: Any) -> None:
    """A step that freezes a layer and does not come to thaw it."""
    own.layers[0].trainable = False
    own.layers[2].kernel.trainable = False
    own.optimizer.learning_rate = 7.0
    own.stop_training = True
    fails()


def forgotten(own: Any) -> None:
    own.train_function = own.test_function = None
    own.reset_metrics()
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    keras.utils.set_random_seed(7)
    fails()


def evaluated(own: Any) -> Any:
    own.evaluate(X, TARGETS, verbose=0)
    own.set_weights([np.full_like(weight, np.nan) for weight in own.get_weights()])
    fails()


FAULTS: dict[str, dict[str, Any]] = {
    "no first batch": {"data": (fails() for _ in range(1))},
    "a later batch": {"data": Disk("batch")},
    "the end of a pass": {"data": Disk("end"), "num_steps": 5},
    "a step that freezes": {"fault": frozen},
    "a step that forgets": {"fault": forgotten},
    "evaluate": {"evaluate": evaluated},
}


@pytest.mark.parametrize("place", FAULTS)
def test_an_error_in_an_odd_place_leaves_no_trace(place: str) -> None:
    own = model()
    options = RANGE | {"data": Disk(""), "evaluate_every": 1} | FAULTS[place]
    if "evaluate" in options:
        options["evaluate"] = lambda: evaluated(own)
    fault = options.pop("fault", None)
    before = trace(own), flags(own)
    vars(own)["fault"] = fault and (lambda: fault(own))
    with pytest.raises(OSError, match="on purpose"):
        clr.keras.range_test(own, options.pop("data"), **options)
    assert (trace(own), flags(own)) == before


def exhausted() -> None:
    next(iter(()))


def test_something_exhausted_in_the_training_is_not_the_end_of_the_data() -> None:
    own = model()
    before = trace(own)
    vars(own)["fault"] = exhausted
    with pytest.raises(RuntimeError, match="the training raised StopIteration"):
        clr.keras.range_test(own, X, TARGETS, batch_size=8, **RANGE)
    assert trace(own) == before


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it needs no other")
def test_something_exhausted_in_an_update_of_jax_is_not_the_end_of_the_data() -> None:
    with pytest.raises(RuntimeError, match="the training raised StopIteration"):
        clr.jax.range_test(lambda state, batch, lr: next(iter(())), 0.0, [1, 2], **RANGE)
    assert clr.jax.range_test(lambda state, batch, lr: (state, 1.0), 0.0, iter([1]), num_steps=3).stop == "data"


def flags(own: Any) -> list[bool]:
    """What can be trained."""
    return [part.trainable for part in (*own._flatten_layers(), *own.variables)]


def test_one_variable_that_cannot_be_put_back_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = model()
    before = trace(own)
    first = own.variables[0]
    owner = first.value if BACKEND == "tensorflow" else first

    def step() -> None:
        monkeypatch.setattr(owner, "assign", lambda *arguments, **options: fails())
        raise RuntimeError("the first error")

    vars(own)["fault"] = step
    with pytest.raises(OSError, match="on purpose") as caught:
        clr.keras.range_test(own, X, TARGETS, batch_size=8, **RANGE)
    assert "the first error" in str(caught.value.__context__)
    monkeypatch.undo()
    ((kind, _, content),) = before["variables"][0]
    first.assign(np.frombuffer(content, kind))
    assert trace(own) == before


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it is another framework")
def test_one_variable_of_tensorflow_that_cannot_be_put_back_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tf: Any = pytest.importorskip("tensorflow")
    first, second = tf.Variable(1.0), tf.Variable(1.0)

    def train_step(rate: Any) -> Any:
        second.assign(5.0)
        monkeypatch.setattr(first, "assign", lambda *arguments: fails())
        raise RuntimeError("the first error")

    with pytest.raises(OSError, match="on purpose"):
        clr.tensorflow.range_test(train_step, [first, second], **RANGE)
    assert float(second) == 1.0
