"""The LR range test in Keras 3, on any backend. See `clr.keras.range_test`."""

from collections.abc import Callable, Sequence
from typing import Literal

import keras

from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.keras.training import Training


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
    training = Training(
        model,
        data,
        y,
        sample_weight=sample_weight,
        class_weight=class_weight,
        batch_size=batch_size,
        shuffle=shuffle,
        also=also,
    )
    return training.run(lambda: sweep.run(training.update, training.restart, options))
