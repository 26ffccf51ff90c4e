"""The range test on the backend of the process: what it measures, and that it leaves no trace."""

import math
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import clr
from tests.keras.models import BACKEND, WARNS_OF_COPIES
from tests.keras.transactions import (
    OPTIMIZERS,
    RANGE,
    SCHEDULE,
    TARGETS,
    Faults,
    Noise,
    X,
    Y,
    by_hand,
    content,
    fit,
    linear,
    number,
    start,
    trace,
)
from tests.promises import STEPS, check_errors, check_memory, check_options

pytestmark = WARNS_OF_COPIES

each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def skip_what_keras_cannot(name: str, trained: bool) -> None:
    if name == "average" and trained and BACKEND == "jax":
        pytest.skip("Keras cannot train again here: weights and their averages are one array, which JAX gives away")


@pytest.mark.parametrize("trained", [0, 1], ids=["fresh", "trained"])
@each_optimizer
def test_all_is_as_before(name: str, trained: int) -> None:
    skip_what_keras_cannot(name, bool(trained))
    model = start(name, trained=trained)
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(X, Y))
    before = trace(model)
    test = clr.keras.range_test(model, X, Y, batch_size=8, **RANGE)
    assert trace(model) == before
    assert len(test.losses) == STEPS - (0 if name != "scaled" else test.sweeps[0].losses.count(None))


@pytest.mark.parametrize("form", ["fresh", "trained", "unbuilt"])
@each_optimizer
def test_training_goes_on_as_if_there_had_been_no_test(name: str, form: str) -> None:
    skip_what_keras_cannot(name, form == "trained")

    def model() -> Any:
        return start(name, built=form != "unbuilt", trained=form == "trained")

    without = fit(model(), 2)
    tested = model()
    clr.keras.range_test(tested, X, Y, batch_size=8, repeats=2, **RANGE)
    assert fit(tested, 2) == without


@pytest.mark.parametrize("place", ["batch", "before", "after", "forward", "update", "evaluate"])
@pytest.mark.parametrize("name", ["adamw", "schedule"])
def test_all_is_as_before_after_an_error_at_any_step(place: str, name: str) -> None:
    fail = Faults(place)
    eager = place in ("forward", "update")  # where compiled code would raise while it is traced
    model = start(name, trained=1, run_eagerly=eager)
    (fail.in_each_step if eager else fail.around_each_step)(model)

    def evaluate() -> float:
        fail("evaluate")
        return float(model.evaluate(X, Y, verbose=0)[0])

    options = {**RANGE, "evaluate": evaluate if place == "evaluate" else None, "evaluate_every": 1}
    clr.keras.range_test(model, X, Y, batch_size=8, **RANGE)
    check_errors(fail, lambda: clr.keras.range_test(model, fail, **options), lambda: trace(model))


@pytest.mark.parametrize("place", ["batch", "loss"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_model_that_could_not_be_built_is_as_before(error: type[BaseException], place: str) -> None:
    fails: set[str] = set()

    def draw(here: str) -> None:
        random.random()
        if here in fails:  # each time, for Keras on PyTorch tries again
            raise error("on purpose")

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            draw("batch")
            yield X[:8], Y[:8]

    def model() -> Any:
        def loss(y: Any, output: Any) -> Any:
            draw("loss")
            return keras.losses.sparse_categorical_crossentropy(y, output, from_logits=True)

        own = start(built=False)
        own.compile(OPTIMIZERS["momentum"](), loss, metrics=["accuracy"])
        return own

    without = fit(model(), 2)
    tested = model()
    parts = tested._compile_metrics, tested._compile_loss
    state = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    fails.add(place)
    with pytest.raises(error, match="on purpose"):
        clr.keras.range_test(tested, Batches(), **RANGE)
    fails.clear()
    assert [part.built for part in parts] == [False, False]
    assert (random.getstate(), repr(np.random.get_state())) == state  # noqa: NPY002
    assert fit(tested, 2) == without


@pytest.mark.parametrize("way", ["float", "schedule", "eager", "jit", "several"])
def test_rates_and_losses_are_those_of_each_batch(way: str) -> None:
    rate = clr.keras.LearningRateSchedule(SCHEDULE) if way == "schedule" else 0.5
    options: dict[str, Any] = {"eager": {"run_eagerly": True}, "jit": {"jit_compile": True}}.get(way, {})
    if BACKEND == "torch" and way in ("jit", "several"):
        pytest.skip("Keras makes one step at a time on PyTorch, and cannot compile it here")
    if way == "several":
        options = {"steps_per_execution": 4}
    model = linear(keras.optimizers.SGD(rate), **options)
    for _ in range(2):
        model.train_on_batch(X[:8], TARGETS[:8])
        arguments: dict[str, Any] = {"batch_size": 8, "shuffle": False, "repeats": 2}
        test = clr.keras.range_test(model, X, TARGETS, **arguments, min_lr=1e-3, max_lr=0.3, num_steps=12)
        for sweep in test.sweeps:
            assert list(sweep.losses) == pytest.approx(by_hand(model, test.rates), rel=1e-4)


@pytest.mark.parametrize("done", [0, 1])
def test_batches_accumulate(done: int) -> None:
    model = linear(keras.optimizers.SGD(0.0, gradient_accumulation_steps=2))
    for _ in range(done):
        model.train_on_batch(X[:8], TARGETS[:8])
    seen = []

    def batches() -> Iterator[Any]:
        for at in range(0, 400, 8):
            seen.append(at)
            yield X[at % 40 : at % 40 + 8], TARGETS[at % 40 : at % 40 + 8]

    test = clr.keras.range_test(model, batches(), min_lr=1e-30, max_lr=1e-29, num_steps=12, diverge_at=1e9)
    single = by_hand(model, [0.0] * 24)
    expected = [(single[2 * at] + single[2 * at + 1]) / 2 for at in range(12)]
    if done:  # the first update was half done
        expected = [single[0], *((single[2 * at - 1] + single[2 * at]) / 2 for at in range(1, 12))]
    assert list(test.losses) == pytest.approx(expected, rel=1e-5)
    assert len(seen) == 24 - done


def test_updates_that_loss_scaling_skips_leave_no_point() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**127)
    model = linear(optimizer)
    model.compile(optimizer, lambda y, output: 100 * keras.ops.mean((y - output) ** 2))
    test = clr.keras.range_test(model, X, TARGETS, min_lr=1e-6, max_lr=1e-5, num_steps=20)
    losses = test.sweeps[0].losses
    assert losses[:3] == (None,) * 3  # infinite as float32, whatever the batch
    assert None not in losses[-5:]
    assert len(test.losses) == 20 - losses.count(None)
    assert number(optimizer.dynamic_scale) == 2.0**127


def test_a_loss_that_is_not_finite_ends_the_test_with_loss_scaling_too() -> None:
    def tested(wrap: Callable[[Any], Any]) -> Any:
        model = linear(wrap(keras.optimizers.SGD(0.1)))
        batches = [(X[:8], TARGETS[:8])] * 30 + [(X[:8], TARGETS[:8] * np.nan)]
        return clr.keras.range_test(model, batches, min_lr=1e-4, max_lr=0.1, num_steps=40)

    without = tested(lambda optimizer: optimizer)
    scaled = tested(lambda optimizer: keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0))
    assert without.stop == scaled.stop == "non-finite"
    assert len(without.losses) == 31
    assert math.isnan(without.losses[-1])
    assert list(scaled.losses) == pytest.approx(list(without.losses), rel=1e-5, nan_ok=True)


class Sequence(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches by their number."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, at: int) -> Any:
        return X[8 * at : 8 * at + 8], TARGETS[8 * at : 8 * at + 8]


def data_of(form: str) -> Any:
    """The same five batches in one form or another."""
    batches = [(X[at : at + 8], TARGETS[at : at + 8]) for at in range(0, 40, 8)]
    if form == "list":
        return batches
    if form == "weights":
        return [(x, y, np.ones(8)) for x, y in batches]
    if form == "sequence":
        return Sequence()
    if form == "tensors":
        return [(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)) for x, y in batches]
    if form == "dataset":
        tensorflow = pytest.importorskip("tensorflow")
        return tensorflow.data.Dataset.from_tensor_slices((X, TARGETS)).batch(8)
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(TARGETS))
    return torch.utils.data.DataLoader(pairs, batch_size=8)


@pytest.mark.parametrize("form", ["list", "weights", "sequence", "tensors", "dataset", "loader"])
def test_data_of_any_form(form: str) -> None:
    model = linear(keras.optimizers.SGD(0.1))
    test = clr.keras.range_test(model, data_of(form), num_steps=12, min_lr=1e-3, max_lr=0.1)
    assert list(test.losses) == pytest.approx(by_hand(model, test.rates), rel=1e-4)


def test_a_loader_that_shuffles_goes_on_where_it_was() -> None:
    torch = pytest.importorskip("torch")

    def loader() -> Any:
        pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(TARGETS))
        generator = torch.Generator().manual_seed(1)
        return torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True, generator=generator)

    without = linear(keras.optimizers.SGD(0.01)).fit(loader(), epochs=2, shuffle=False, verbose=0).history
    model, own = linear(keras.optimizers.SGD(0.01)), loader()
    clr.keras.range_test(model, own, **RANGE)
    assert model.fit(own, epochs=2, shuffle=False, verbose=0).history == without


def test_workers_that_persist_do_not_hear_of_the_test() -> None:
    class Loader:
        """The part of a DataLoader that matters: its workers would be forks, and this process has threads."""

        persistent_workers = True
        _iterator: Any = None

        def __iter__(self) -> Iterator[Any]:
            if self._iterator is None:
                self._iterator = iter(data_of("list"))
            else:
                seen.append(self._iterator)
            return self._iterator  # type: ignore[no-any-return]

    seen: list[Any] = []
    loader = Loader()
    running = loader._iterator = iter(data_of("list"))
    clr.keras.range_test(linear(keras.optimizers.SGD(0.1)), loader, repeats=2, min_lr=1e-4, max_lr=0.1, num_steps=4)
    assert loader._iterator is running
    assert len(list(running)) == 5
    assert not seen


def test_data_that_ends() -> None:
    model = linear(keras.optimizers.SGD(0.1))
    test = clr.keras.range_test(model, (batch for batch in data_of("list")), **RANGE)
    assert (test.stop, len(test.losses)) == ("data", 5)
    empty: list[Any] = [[], iter([]), X[:0]]
    for nothing in empty:
        assert clr.keras.range_test(model, nothing, **RANGE).stop == "data"


def test_inputs_in_a_dict_and_weights() -> None:
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    output = layers.Dense(1, use_bias=False)(layers.Concatenate()([inputs["left"], inputs["right"]]))
    model = keras.Model(inputs, output)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = {"left": X[:, :3], "right": X[:, 3:]}
    weights = model.get_weights()[0]
    errors = ((X @ weights - TARGETS) ** 2).ravel()
    least: dict[str, Any] = {"min_lr": 1e-30, "max_lr": 1e-29, "num_steps": 2, "batch_size": 64, "shuffle": False}
    test = clr.keras.range_test(model, x, TARGETS, **least)
    assert test.losses == pytest.approx([errors.mean()] * 2, rel=1e-5)
    importance = np.arange(40.0)
    # Keras' weighted mean divides by the sum of the weights.
    test = clr.keras.range_test(model, x, TARGETS, sample_weight=importance, **least)
    assert test.losses == pytest.approx([(errors * importance).mean()] * 2, rel=1e-5) or test.losses == pytest.approx(
        [(errors * importance).sum() / importance.sum()] * 2, rel=1e-5
    )
    classes = start()
    plain = clr.keras.range_test(classes, X, Y, **least).losses[0]
    doubled = clr.keras.range_test(classes, X, Y, class_weight={0: 0.0, 1: 0.0, 2: 0.0}, **least).losses[0]
    assert doubled < plain


@pytest.mark.parametrize("form", ["list", "dict"])
def test_several_outputs(form: str) -> None:
    def several(*values: Any) -> Any:
        return [*values] if form == "list" else dict(zip(("kind", "sum"), values, strict=True))

    def made() -> Any:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        heads = layers.Dense(3, "softmax", name="kind")(inputs), layers.Dense(1, name="sum")(inputs)
        model = keras.Model(inputs, several(*heads))
        losses, metrics = several("sparse_categorical_crossentropy", "mse"), several(["accuracy"], ["mae"])
        model.compile(OPTIMIZERS["momentum"](), losses, loss_weights=several(1.0, 0.5), metrics=metrics)
        return model

    def fitted(model: Any) -> Any:
        return model.fit(X, targets, batch_size=8, verbose=0).history

    targets = several(Y, TARGETS)
    without = fitted(made())
    model = made()
    test = clr.keras.range_test(model, X, targets, batch_size=40, repeats=2, **RANGE)
    (kernel, bias), (weights, offset) = (model.get_layer(name).get_weights() for name in ("kind", "sum"))
    powers = np.exp(X @ kernel + bias)
    chances = (powers / powers.sum(axis=1, keepdims=True))[np.arange(40), Y]
    expected = -np.log(chances).mean() + 0.5 * ((X @ weights + offset - TARGETS) ** 2).mean()
    assert [sweep.losses[0] for sweep in test.sweeps] == pytest.approx([expected] * 2, rel=1e-5)
    assert fitted(model) == without
    model._symbolic_build(data_batch=(X, targets))
    before = trace(model)
    clr.keras.range_test(model, X, targets, batch_size=8, **RANGE)
    assert trace(model) == before


def test_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        without = fit(start(noise=False), 2)
        model = start(noise=False)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert {str(layer.compute_dtype) for layer in model.layers} == {"float16"}
        assert clr.keras.range_test(model, X, Y, batch_size=8, repeats=2, **RANGE).losses
        assert fit(model, 2) == without
        model._symbolic_build(data_batch=(X, Y))
        before = trace(model)
        assert clr.keras.range_test(model, X, Y, batch_size=8, **RANGE).losses
        assert trace(model) == before
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_arrays_are_shuffled_and_whole_batches_are_made() -> None:
    sizes, seen = [], []

    class Recorded(keras.Sequential):  # type: ignore[misc]
        def train_on_batch(self, x: Any, y: Any, *arguments: Any, **options: Any) -> Any:
            sizes.append(len(x))
            seen.append(np.asarray(x)[:, 0].tolist())
            return super().train_on_batch(x, y, *arguments, **options)

    model = Recorded([keras.Input((6,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    clr.keras.range_test(model, X, TARGETS, batch_size=16, repeats=2, **RANGE)
    assert sizes == [16] * 2 * STEPS
    assert len({tuple(batch) for batch in seen}) == 2 * STEPS
    first = [value for batch in seen[:2] for value in batch]
    assert len(set(first)) == 32
    assert set(first) <= set(X[:, 0].tolist())


class Stateful(layers.Layer):  # type: ignore[misc]
    """Draws with a stateful operation of TensorFlow."""

    def call(self, x: Any, training: bool = False) -> Any:
        tf = sys.modules["tensorflow"]
        return x + tf.random.normal(tf.shape(x)) if training else x


@pytest.mark.parametrize("trained", [0, 1], ids=["fresh", "trained"])
@pytest.mark.parametrize("source", ["dropout", "global", "stateful", "arrays", "loader"])
def test_each_repeat_draws_otherwise_and_again_the_same(source: str, trained: int) -> None:
    layer: Any = None
    if source in ("global", "stateful") and BACKEND != "tensorflow" and (source, BACKEND) != ("global", "torch"):
        pytest.skip("there are no such draws on this backend")
    if source in ("dropout", "global", "stateful"):
        layer = {"dropout": lambda: layers.Dropout(0.3), "global": Noise, "stateful": Stateful}[source]()
    data: Any = [(X[:8], TARGETS[:8])]  # the same batch at every step
    options: dict[str, Any] = {"repeats": 3, "min_lr": 1e-30, "max_lr": 1e-29, "num_steps": 4, "diverge_at": 1e9}
    if source == "arrays":
        data, options = X, options | {"y": TARGETS, "batch_size": 8}
    if source == "loader":
        torch = pytest.importorskip("torch")
        pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(TARGETS))
        generator = torch.Generator().manual_seed(1)
        data = torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True, generator=generator)
    model = linear(keras.optimizers.SGD(0.1), layer)
    for _ in range(trained):
        model.train_on_batch(X[:8], TARGETS[:8])
    test = clr.keras.range_test(model, data, **options)
    assert len({loss for sweep in test.sweeps for loss in sweep.losses}) == 3 * 4
    again = clr.keras.range_test(model, data, **options)
    if source == "stateful" and trained:  # what has drawn before does not go on from there, but starts anew
        test, again = again, clr.keras.range_test(model, data, **options)
    assert again == test


def test_repeats_are_the_same_where_nothing_is_drawn() -> None:
    still = linear(keras.optimizers.SGD(0.1))
    test = clr.keras.range_test(still, [(X[:8], TARGETS[:8])], repeats=3, **RANGE)
    assert len({sweep.losses for sweep in test.sweeps}) == 1


def test_a_step_of_ones_own_and_what_else_it_changes() -> None:
    count = keras.Variable(3, dtype="int32", name="count", trainable=False)
    lookup = {"loss": "loss"}

    class Own(keras.Sequential):  # type: ignore[misc]
        def train_step(self, *arguments: Any) -> Any:
            result = super().train_step(*arguments)
            if BACKEND != "jax":  # where a step changes nothing but what it is given
                count.assign(count + 1)
            logs, *state = result if isinstance(result, tuple) else (result,)
            logs = {lookup.get(name, name): value for name, value in logs.items()}
            return (logs, *state) if state else logs

    model = Own([keras.Input((6,)), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    assert len(clr.keras.range_test(model, X, TARGETS, also=[count], **RANGE).losses) == STEPS
    assert number(count) == 3
    lookup["loss"] = "price"
    with pytest.raises(ValueError, match=r"must return its 'loss'. Received: \['price'\]"):
        clr.keras.range_test(model, X, TARGETS, **RANGE)


def test_the_copy_is_hardly_larger_than_model_and_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((500,)), layers.Dense(500)])
    model.compile(keras.optimizers.Adam(), "mse")
    x = np.ones((4, 500), np.float32)
    model.train_on_batch(x, x)
    needed = sum(len(content(variable)[0][2]) for variable in [*model.variables, *model.optimizer.variables])

    def tested(measure: Callable[[], float]) -> None:
        clr.keras.range_test(model, x, x, evaluate=measure, evaluate_every=1, repeats=2, **RANGE)

    check_memory(tested, needed, tmp_path, monkeypatch)


def test_a_model_that_has_its_own_loss_needs_no_targets() -> None:
    class Own(keras.Sequential):  # type: ignore[misc]
        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *others: Any, **options: Any) -> Any:
            return super().compute_loss(x, TARGETS[:1], y_pred, *others, **options)

    model = Own([keras.Input((6,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    test = clr.keras.range_test(model, X[:1], **RANGE)
    assert test.losses[0] == pytest.approx(float(TARGETS[0, 0]) ** 2, rel=1e-6)


def test_arguments_that_make_no_sense() -> None:
    model = linear(keras.optimizers.SGD(0.1))
    bare = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    cases: list[Any] = [
        ((None, X, Y), {}, TypeError, "`model` must be a keras.Model. Received: None"),
        ((bare, X, Y), {}, ValueError, "`model` must be compiled"),
        ((model, 3), {}, TypeError, "`data` must be arrays, a data set or another iterable of batches. Received: 3"),
        ((model, X, Y[:3]), {}, ValueError, "the same number of samples. Received: \\[3, 40\\]"),
        ((model, X, 3), {}, TypeError, "must hold arrays. Received: 3"),
        ((model, X), {}, TypeError, "`y` must be the targets of `data`, since .* a loss. Received: None"),
        ((model, [X[:8]]), {}, TypeError, r"the batches of `data` must be \(x, y\), since .* a loss"),
        ((model, [], None), {"sample_weight": Y}, TypeError, "`sample_weight` goes with arrays"),
        ((model, X, Y), {"batch_size": 0}, ValueError, "`batch_size` must be a whole number"),
        ((model, [(X, Y)]), {"batch_size": 0}, ValueError, "`batch_size` must be a whole number"),
        ((model, X, Y), {"shuffle": "no"}, TypeError, "`shuffle` must be True or False. Received: 'no'"),
        ((model, X, Y), {"class_weight": 5}, TypeError, "`class_weight` must be None or a dict .*Received: 5"),
        ((model, X, Y), {"class_weight": {"a": 1.0}}, TypeError, "`class_weight` must be None or a dict with a weight"),
        ((model, X, Y), {"class_weight": {0: "1"}}, TypeError, r"`class_weight\[0\]` must be a finite number"),
        ((model, X, Y), {"class_weight": {1: math.nan}}, ValueError, r"`class_weight\[1\]` must be a finite number"),
        ((model, X, Y), {"also": 3}, TypeError, "`also` must be"),
        ((model, X, Y), {"also": [3]}, TypeError, "`also` must be Keras variables"),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=message):
            clr.keras.range_test(*arguments, **options)
    check_options(partial(clr.keras.range_test, model, X, Y))


def test_a_test_of_a_real_task() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    keras.utils.set_random_seed(0)
    parts = [keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10)]
    model = keras.Sequential(parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(momentum=0.9), loss, metrics=["accuracy"])
    x = (digits.data / 16).astype(np.float32)
    test = clr.keras.range_test(model, x[:1400], digits.target[:1400])
    model.compile(
        keras.optimizers.SGD(clr.keras.LearningRateSchedule(test.schedule("triangular2", step_size=80)), momentum=0.9),
        loss,
        metrics=["accuracy"],
    )
    model.fit(x[:1400], digits.target[:1400], epochs=10, verbose=0)
    assert model.evaluate(x[1400:], digits.target[1400:], verbose=0)[1] > 0.85
