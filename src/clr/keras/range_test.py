"""The LR range test in Keras 3, on any backend. See `clr.keras.range_test`."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import Batches, put_back, uninterrupted
from clr.keras.data import Replicas, Samples, in_batches, unpacked
from clr.keras.optimizers import inner
from clr.keras.snapshot import Rate, Snapshot, Unbuilt, count_of, randomness


def range_test(
    model: keras.Model,
    data: object,
    y: object = None,
    *,
    sample_weight: object = None,
    class_weight: dict[int, float] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    also: Sequence[object] = (),
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    growth: Literal["exponential", "linear"] = "exponential",
    diverge_at: float = 1.0,
    time_limit: float | None = None,
    evaluate: Callable[[], object] | None = None,
    evaluate_every: int = 5,
    goal: Literal["min", "max"] = "min",
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test of a compiled model (Smith 2017, section 3.3) that leaves no trace in it, on any backend.

    However the test ends, by itself, by Ctrl-C or by an error, it puts back bit for bit: weights, seeds and metrics of
    the model; the optimizer with its ``iterations``, its rate and its loss scale; compiled functions; and the random
    state of Python, NumPy, Keras and the backend. It keeps a copy of the model and the optimizer's state in the host's
    memory. It cannot put back the position of a generator, or what a data set remembers. A ``DataLoader`` with
    persistent workers keeps them; the test has workers of its own. A model or optimizer that is not built yet is built
    first. Layers of your own may draw from stateful random operations of TensorFlow: see `clr.tensorflow.range_test`.

    With ``gradient_accumulation_steps``, each rate is that of an update, and its loss is the mean over the batches. An
    update that a ``LossScaleOptimizer`` skips leaves no point. A loss that is not finite ends the test, with and
    without loss scaling. Under ``MirroredStrategy`` each batch is divided among the replicas.

    Args:
        model: The compiled model, as you train it: with any optimizer, rate, precision, ``train_step`` or
            distribution. The test reads the loss of each batch, with regularization.
        data: What ``fit`` takes as its first argument: arrays, together with ``y``; or a ``tf.data.Dataset``, a
            ``PyDataset``, a PyTorch ``DataLoader`` or another iterable of batches ``(x, y)`` or
            ``(x, y, sample_weight)``. The test goes over it as often as needed. It ends where a generator ends.
        y: The targets, if ``data`` is arrays.
        sample_weight: A weight for each sample, if ``data`` is arrays.
        class_weight: A weight for each class, as in ``fit``.
        batch_size: Samples in a batch, if ``data`` is arrays. A last batch with fewer is left out.
        shuffle: Whether to shuffle arrays before each pass over them.
        also: Other things to put back: Keras variables, and objects with ``variables``, such as the second optimizer
            of your own ``train_step``.
        min_lr: The first rate, as in `clr.range_test`. All arguments from here on are explained there.
        max_lr: The last rate.
        num_steps: The number of rates.
        growth: How the rate grows: ``"exponential"`` or ``"linear"``.
        diverge_at: The test ends when the loss has risen above its start by this many times its fall.
        time_limit: The test ends after this many seconds.
        evaluate: A validation loss or accuracy: say ``lambda: model.evaluate(x_val, y_val, verbose=0)[1]``.
        evaluate_every: Steps from one call of ``evaluate`` to the next.
        goal: Whether ``evaluate`` should become small (``"min"``) or large (``"max"``).
        repeats: How often to go over the rates. Each repeat shuffles and draws differently.
        progress: Whether to show a progress bar; by default on a terminal.

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
    options = Options(
        min_lr=min_lr,
        max_lr=max_lr,
        num_steps=num_steps,
        growth=growth,
        diverge_at=diverge_at,
        time_limit=time_limit,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        goal=goal,
        repeats=repeats,
        progress=progress,
    )
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {model!r}.")
    if getattr(model, "optimizer", None) is None:
        raise ValueError("`model` must be compiled with an optimizer.")
    checks.sequence("also", also)
    samples = None
    if y is not None or hasattr(data, "shape") or isinstance(data, dict):
        samples = Samples(data, y, sample_weight, batch_size, shuffle)
    elif sample_weight is not None:
        raise TypeError("`sample_weight` goes with arrays; other data has it in its batches.")
    return _Training(model, data, samples, class_weight, also).tested(options)


class _Training:
    """Trains the model at a given rate, and puts everything back."""

    def __init__(
        self,
        model: keras.Model,
        data: object,
        samples: Samples | None,
        class_weight: dict[int, float] | None,
        also: Sequence[object],
    ) -> None:
        self._model, self._class_weight, self._also = model, class_weight, also
        self._data, self._samples = data, samples
        self._batches = Batches(in_batches(data) if samples is None else samples)
        self._taken: list[Any] = []  # the batch that built the model, until it is trained with
        self._replicas = Replicas(model)
        self._optimizer = inner(model.optimizer)
        self._rate = Rate(model, self._optimizer)

    def tested(self, options: Options) -> RangeTest:
        """The range test, after which all is as before."""
        unbuilt, changed = Unbuilt(self._model), randomness(self._data)
        try:
            self._build(changed)
            self._snapshot = Snapshot(self._model, self._model.optimizer, self._also, self._data)
            changed = [self._snapshot.restore, self._snapshot.restore_gradients]
            with self._replicas.scope():
                self._rate.settle()
            return sweep.run(self._step, self._reset, options)
        finally:
            with uninterrupted():
                put_back(self._rate.leave, *changed, unbuilt.restore, self._batches.leave)

    def _build(self, random_state: list[Callable[[], object]]) -> None:
        """Builds the model and its optimizer with the first batch, so that a snapshot finds all variables."""
        self._batches.restart()
        try:
            batch = unpacked(self._batches.next())
        except StopIteration:
            return  # the first step finds no batch either, and ends the test
        finally:
            put_back(*random_state)
        if batch[1] is None and _needs_targets(self._model):
            if self._samples is not None:
                checks.fail(TypeError, "y", "the targets of `data`, since the model is compiled with a loss", None)
            raise TypeError("the batches of `data` must be (x, y), since the model is compiled with a loss.")
        self._taken.append(batch)
        with self._replicas.scope():
            self._model._symbolic_build(data_batch=self._replicas.first(batch))

    def _step(self, rate: float) -> float | None:
        """Makes an update at the rate; gives its loss, or None if loss scaling skipped the update."""
        self._rate.set(rate)
        batches = self._optimizer.gradient_accumulation_steps or 1
        if batches == 1 and self._optimizer is self._model.optimizer:
            return self._loss()
        done = count_of(self._optimizer._iterations)
        losses = [self._loss() for _ in range(batches - done % batches)]
        mean = sum(losses) / len(losses)
        skipped = count_of(self._optimizer._iterations) != done + len(losses)
        # A gradient may overflow because its scale is too high; a loss that is not finite has no such excuse.
        return None if skipped and math.isfinite(mean) else mean

    def _loss(self) -> float:
        """Trains with the next batch and gives its loss."""
        batch = self._replicas.divided(self._taken.pop() if self._taken else unpacked(self._batches.next()))
        logs = self._model.train_on_batch(*batch, class_weight=self._class_weight, return_dict=True)
        if "loss" not in logs:
            raise ValueError(f"the model's `train_step` must return its 'loss'. Received: {sorted(logs)}.")
        return float(logs["loss"])

    def _reset(self, repeat: int) -> None:
        """Starts a repeat: all as before, but with other seeds."""
        if repeat:
            self._snapshot.rewind(repeat)
            self._taken.clear()
            self._batches.restart()
            if self._samples is not None:
                self._samples.seed(repeat)


def _needs_targets(model: keras.Model) -> bool:
    """Whether Keras itself computes the model's loss, from targets."""
    own = any(getattr(type(model), name) is not getattr(keras.Model, name) for name in ("train_step", "compute_loss"))
    return model._compile_loss is not None and not own
