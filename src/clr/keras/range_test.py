"""The LR range test in Keras 3, on any backend. See `clr.keras.range_test`."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Unpack

import keras
import numpy as np
from keras.src.backend.common import global_state  # holds the seeds of layers that have none of their own

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import Batches, put_back, random_state, seed_of, seed_random, uninterrupted
from clr.tensorflow.range_test import cells, reseeded, stateful_random_state

BACKEND = keras.backend.backend()
SEEDS = "global_seed_generator"
# What a model notes down while it trains, beside its variables.
NOTES = ("train_function", "test_function", "predict_function", "stop_training", "_jax_state", "_jax_state_synced")


def range_test(
    model: Any,
    data: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    also: Sequence[Any] = (),
    **options: Unpack[Options],
) -> RangeTest:
    """An LR range test of a compiled model (Smith 2017, section 3.3) that leaves no trace in it, on any backend.

    However the test ends, by itself, by Ctrl-C or by an error, all is bit for bit as before: weights, seeds and metrics
    of the model, the optimizer with its ``iterations``, its rate and the scale of its loss, compiled functions, and the
    random state of Python, NumPy, Keras and the backend. The copy that this takes is as large as the model and the
    optimizer's state, in the host's memory. What is not put back is how far a generator has come, and what a data set
    remembers. Workers that persist in a ``DataLoader`` stay as they are, for the test has its own. A model or an
    optimizer that is not built yet is built first. Of TensorFlow's stateful random operations, which only layers of
    your own can have, see `clr.tensorflow.range_test`.

    Args:
        model: What to train, compiled as it is trained: with any optimizer, rate, precision, ``train_step`` or
            distribution. Its loss is that of each batch, with regularization.
        data: What ``fit`` takes as its first argument: arrays, together with ``y``; or a ``tf.data.Dataset``, a
            ``PyDataset``, a PyTorch ``DataLoader`` or anything else to iterate over that gives batches ``(x, y)`` or
            ``(x, y, sample_weight)``, as often as it takes. A generator ends the test where it ends.
        y: The targets, if ``data`` is arrays.
        sample_weight: A weight for each sample, if ``data`` is arrays.
        class_weight: A weight for each class, as in ``fit``.
        batch_size: Samples in a batch, if ``data`` is arrays. A last batch with fewer is left out.
        shuffle: Whether arrays are put in another order each time they are gone through.
        also: Other things to put back: Keras variables, and things that have ``variables``, such as the second
            optimizer of a ``train_step`` of your own.
        **options: The range, its limits and more, as in `clr.range_test`: say
            ``evaluate=lambda: model.evaluate(x_val, y_val, verbose=0)``.

    With ``gradient_accumulation_steps`` each rate is that of an update, and the loss the mean of its batches. An update
    that a ``LossScaleOptimizer`` skips leaves no point, unless the loss itself is not finite: that ends the test, as
    without loss scaling. Under ``MirroredStrategy`` a batch is divided among the replicas.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr, keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(256, 8))
    >>> y = (x**2).sum(axis=1, keepdims=True)
    >>> layers = [keras.Input((8,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    >>> test = clr.keras.range_test(model, x, y)
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-5 < base_lr < max_lr < 0.1
    True
    >>> int(model.optimizer.iterations)
    0
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {model!r}.")
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError("`model` must be compiled with an optimizer.")
    checks.sequence("also", also)
    samples = None
    if y is not None or hasattr(data, "shape") or isinstance(data, dict):
        samples = _Samples(data, y, sample_weight, batch_size, shuffle)
    elif sample_weight is not None:
        raise TypeError("`sample_weight` goes with arrays; other data has it in its batches.")
    batches = Batches(_in_batches(data) if samples is None else samples)
    replicas = _Replicas(model)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    accumulate = inner.gradient_accumulation_steps or 1
    scaled = inner is not optimizer
    rate = _Rate(model, inner)
    taken: list[Any] = []  # the batch by which the model was built, until it is trained with

    def build() -> None:
        batches.restart()
        try:
            taken.append(_batch(batches.next()))
        except StopIteration:
            return  # which ends the first step
        finally:
            put_back(*randomness)
        with replicas.scope():
            model._symbolic_build(data_batch=replicas.first(taken[0]))

    def loss() -> float:
        batch = taken.pop() if taken else _batch(batches.next())
        logs = model.train_on_batch(*replicas.divided(batch), class_weight=class_weight, return_dict=True)
        if "loss" not in logs:
            raise ValueError(f"the model's `train_step` must return its 'loss'. Received: {sorted(logs)}.")
        return float(logs["loss"])

    def step(value: float) -> float | None:
        rate.set(value)
        if accumulate == 1 and not scaled:
            return loss()
        done = _number(inner._iterations)
        losses = [loss() for _ in range(accumulate - done % accumulate)]
        mean = sum(losses) / len(losses)
        # Only what was scaled can overflow by its scale.
        return mean if _number(inner._iterations) == done + len(losses) or not math.isfinite(mean) else None

    def reset(repeat: int) -> None:
        if repeat:
            snapshot.rewind(repeat)
            taken.clear()
            batches.restart()
            if samples is not None:
                samples.seed(repeat)

    unbuilt, randomness = _Unbuilt(model), _randomness(data)
    snapshot: Any = None
    try:
        build()
        snapshot = _Snapshot(model, optimizer, also, data)
        with replicas.scope():
            rate.settle()
        return sweep.range_test(step, reset, **options)
    finally:
        with uninterrupted():
            changed = randomness if snapshot is None else [snapshot.restore, snapshot.restore_gradients]
            put_back(rate.leave, *changed, unbuilt.restore, batches.leave)


class _Rate:
    """The variable from which the optimizer takes its rate; one that has a schedule takes it from there meanwhile."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._model, self._optimizer = model, optimizer
        self._own = optimizer._learning_rate
        self._is_own = isinstance(self._own, keras.Variable)
        self.variable: Any = self._own if self._is_own else None

    def settle(self) -> None:
        if not self._is_own:
            self.variable = self._optimizer.add_variable(shape=(), initializer="zeros", name="range_test")
            vars(self._optimizer)["_learning_rate"] = self.variable  # as such, since Keras tracks what is set
            self._model.train_function = None  # is made anew, for the schedule is compiled into it

    def set(self, value: float) -> None:
        if BACKEND == "tensorflow":
            self.variable.value.assign(value, read_value=False)  # as Keras does, in a third of the time
        else:
            self.variable.assign(value)

    def leave(self) -> None:
        if not self._is_own:
            vars(self._optimizer)["_learning_rate"] = self._own
            if self.variable is not None:
                self._optimizer._untrack_variable(self.variable)


class _Unbuilt:
    """What a model was compiled with and has not built yet: where there is such, ``fit`` draws a batch to build it."""

    def __init__(self, model: Any) -> None:
        parts = [vars(model).get(name) for name in ("_compile_metrics", "_compile_loss")]
        self._parts = [part for part in parts if part is not None and not part.built]

    def restore(self) -> None:
        for part in self._parts:
            for metric in [*part.metrics]:
                metric.reset_state()
                part._tracker.untrack(metric)  # the means of several losses, which are made when it is built
            part.built = False


class _Snapshot:
    """All that a range test changes, as it was."""

    def __init__(self, model: Any, optimizer: Any, also: Sequence[Any], data: Any) -> None:
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        self._model = model
        self._notes = {name: vars(model)[name] for name in NOTES if name in vars(model)}
        self._generator = global_state.get_global_attribute(SEEDS)
        others = [variable for holder in also for variable in _variables_of(holder)]
        found = [*model.variables, *optimizer.variables, *model.metrics_variables, *others]
        if self._generator is not None:
            found.append(self._generator.state)
        variables = {id(variable): variable for variable in found}.values()
        self._copies = [(cell, _content(cell)) for variable in variables for cell in _cells(variable)]
        self._modules: Any = None
        if BACKEND == "torch":
            from clr.torch.range_test import Modules

            self._modules = Modules([model], list(model.parameters()))
        self._data = data
        self._random = _randomness(data)

    def rewind(self, repeat: int = 0) -> None:
        """Puts back what is trained; in a repeat, all that draws at random draws something else than before.

        Compiled functions stay, and with them what TensorFlow's stateful operations have drawn.
        """
        if self._modules is not None:
            self._modules.restore()
        for cell, array in self._copies:
            value = reseeded(cell, array, repeat)
            cell.assign(value if BACKEND == "tensorflow" else keras.ops.copy(value))  # JAX would keep the array itself
        if repeat:
            if "torch" in sys.modules:
                from clr.torch.range_test import seed

                seed(seed_of(repeat), self._data)
            else:
                seed_random(seed_of(repeat))

    def restore(self) -> None:
        put_back(self.rewind, self._restore_notes, *self._random)

    def _restore_notes(self) -> None:
        vars(self._model).update(self._notes)
        global_state.set_global_attribute(SEEDS, self._generator)

    def restore_gradients(self) -> None:
        if self._modules is not None:
            self._modules.restore_gradients()


class _Samples:
    """The batches that arrays are divided into, again and again."""

    def __init__(self, x: Any, y: Any, sample_weight: Any, batch_size: int, shuffle: bool) -> None:
        self._arrays = _mapped(_array, (x, y, sample_weight))
        sizes = {len(array) for array in keras.tree.flatten(self._arrays) if array is not None}
        if len(sizes) != 1:
            raise ValueError(f"arrays must have the same number of samples. Received: {sorted(sizes)}.")
        (self._samples,) = sizes
        self._size = min(checks.count("batch_size", batch_size), self._samples)
        self._shuffle = shuffle
        self.seed(0)

    def seed(self, number: int) -> None:
        self._random = np.random.default_rng(number)

    def __iter__(self) -> Iterator[Any]:
        order = self._random.permutation(self._samples) if self._shuffle else np.arange(self._samples)
        for at in range(0, self._samples - self._size + 1, self._size or 1):
            chosen = order[at : at + self._size]
            if len(chosen):
                yield _mapped(lambda array: array[chosen], self._arrays)  # noqa: B023  # is called at once


class _Sequence:
    """The batches of a ``PyDataset``, again and again."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        count, at = self._data.num_batches, 0
        while count is None or at < count:
            yield self._data[at]
            at += 1
        self._data.on_epoch_end()


class _Replicas:
    """The replicas of a distribution strategy of TensorFlow, among which a batch is divided."""

    def __init__(self, model: Any) -> None:
        self._strategy: Any = model.distribute_strategy if BACKEND == "tensorflow" else None
        self._count = self._strategy.num_replicas_in_sync if self._strategy else 1

    def scope(self) -> Any:
        """Where variables are made."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def first(self, batch: Any) -> Any:
        """A batch, or what the first replica has of one that is divided already."""
        if self._strategy is None:
            return batch
        return _mapped(lambda leaf: self._strategy.experimental_local_results(leaf)[0], batch)

    def divided(self, batch: Any) -> Any:
        """A batch as the replicas take it."""
        if self._count == 1:
            return batch
        leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
        if len(self._strategy.experimental_local_results(leaves[0])) > 1:
            return batch
        if len(leaves[0]) < self._count:
            raise ValueError(
                f"a batch must have a sample for each of the {self._count} replicas. Received: {len(leaves[0])}."
            )
        return _mapped(self._divided, batch)

    def _divided(self, array: Any) -> Any:
        def part(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            start, stop = (len(array) * (number + end) // self._count for end in (0, 1))
            return keras.ops.convert_to_tensor(array[start:stop])

        return self._strategy.experimental_distribute_values_from_function(part)


def _in_batches(data: Any) -> Iterable[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return _Sequence(data)
    if not isinstance(data, Iterable):
        raise TypeError(f"`data` must be arrays, a data set or something else to iterate over. Received: {data!r}.")
    return data


def _batch(batch: Any) -> Any:
    """Inputs, targets and weights, in arrays of the backend or of NumPy."""
    return _mapped(_readable, keras.utils.unpack_x_y_sample_weight(batch))


def _readable(leaf: Any) -> Any:
    if not hasattr(leaf, "numpy") or keras.ops.is_tensor(leaf):
        return leaf
    return (leaf.detach().cpu() if hasattr(leaf, "detach") else leaf).numpy()


def _array(leaf: Any) -> Any:
    leaf = keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else _readable(leaf)
    if not hasattr(leaf, "shape") or not len(leaf.shape):
        raise TypeError(f"`data`, `y` and `sample_weight` must hold arrays. Received: {leaf!r}.")
    return np.asarray(leaf)


def _mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), batch)


def _variables_of(holder: Any) -> list[Any]:
    if isinstance(holder, keras.Variable):
        return [holder]
    if not hasattr(holder, "variables"):
        raise TypeError(f"`also` must hold Keras variables, and things that have `variables`. Received: {holder!r}.")
    return [*holder.variables]


def _cells(variable: Any) -> list[Any]:
    """The variable, or those of TensorFlow that it consists of."""
    return cells(variable.value) if BACKEND == "tensorflow" else [variable]


def _content(cell: Any) -> Any:
    """A copy, which no later step writes to."""
    return np.array(cell.numpy() if BACKEND == "tensorflow" else keras.ops.convert_to_numpy(cell.value))


def _number(variable: Any) -> int:
    return int(_content(_cells(variable)[0]))


def _randomness(data: Any) -> list[Callable[[], object]]:
    """Functions that put back all random state that is neither in the model nor in Keras."""
    found: list[Callable[[], object]] = [random_state()]
    if "torch" in sys.modules:
        from clr.torch.range_test import generators

        found += generators(data)
    if "tensorflow" in sys.modules:
        found.append(stateful_random_state(sys.modules["tensorflow"]))
    return found
