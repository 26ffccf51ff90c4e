"""The search for bounds in Keras 3, on any backend. See `clr.keras.find_bounds`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np

from clr import checks
from clr.finder import search
from clr.finder.search import Options
from clr.finder.trials import Search
from clr.keras.data import arrays_of, mapped
from clr.keras.training import Training


def find_bounds(
    model: keras.Model,
    data: object,
    y: object = None,
    *,
    validation: object = None,
    validation_steps: int | None = None,
    total_steps: int,
    budget: int | None = None,
    evaluate: Callable[[], object] | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["start", "winner"] = "start",
    sample_weight: object = None,
    class_weight: dict[int, float] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    also: Sequence[object] = (),
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate by short trainings that are judged on held-out data, on any backend.

    See `clr.find_bounds` for how it searches. All trials begin with the model and its optimizer as they are. At the end
    everything is put back bit for bit, as `clr.keras.range_test` does, also after Ctrl-C or an error.

    Args:
        model: The compiled model, as in `clr.keras.range_test`.
        data: What to train on: arrays, together with ``y``, or a data set of batches.
        y: The targets, if ``data`` is arrays.
        validation: The data to judge by, as ``model.evaluate`` takes it: ``(x, y)`` or ``(x, y, sample_weight)``, or a
            data set of batches. Or a part of the samples of ``data``, such as 0.2, drawn at random, which the search
            then does not train on; for that ``data`` must be arrays.
        validation_steps: How many batches of ``validation`` to judge by, as in ``fit``. By default all of them. A data
            set that has no end needs it.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        evaluate: Use it in place of ``validation``: a function that returns a held-out loss or metric, say
            ``lambda: model.evaluate(x_val, y_val, verbose=0)[1]``.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of ``evaluate`` is better.
        keep: What the model and its optimizer are at the end: as at the ``"start"``, or as after the trial that won
            (``"winner"``), so that its updates are not lost. That takes the memory of a second copy. The optimizer's
            ``iterations`` are then those of the trial; its rate is as before.
        sample_weight: A weight for each sample, if ``data`` is arrays.
        class_weight: A weight for each class, as in ``fit``.
        batch_size: Samples in a batch, if ``data`` is arrays.
        shuffle: Whether to shuffle arrays before each pass over them.
        also: Other things to put back: Keras variables, and objects with ``variables``.
        min_lr: The first rate of the range test. By default 1e-7.
        max_lr: The last rate of the range test. By default 10. Trials may go beyond it.
        progress: Whether to show a progress bar; by default on a terminal.

    Returns:
        The `clr.Search`. Its ``stop`` says why it ended. After Ctrl-C it has what is known so far.

    Raises:
        TypeError, ValueError: An argument makes no sense.

    >>> import clr, keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(256, 8))
    >>> y = (x**2).sum(axis=1, keepdims=True)
    >>> layers = [keras.Input((8,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    >>> found = clr.keras.find_bounds(model, x, y, validation=0.2, total_steps=1000)
    >>> base_lr, max_lr = found.bounds()
    >>> 1e-3 < max_lr < 0.1
    True
    >>> int(model.optimizer.iterations)
    0
    """
    options = Options(total_steps, budget, goal, min_lr, max_lr, progress)
    checks.choice("keep", keep, search.KEEPS)
    search.check_judge(validation, evaluate, goal)
    for name, own in (("data", data), ("validation", validation)):
        if isinstance(own, Iterator):  # trials would see different batches
            checks.fail(TypeError, name, "data that can be read again from its start, not an iterator", own)
    if validation_steps is not None:
        checks.count("validation_steps", validation_steps)
    elif _has_no_end(validation):
        raise ValueError("`validation_steps` must be given, for `validation` has no end.")
    if isinstance(validation, tuple | list) and not 1 <= len(validation) <= 3:
        checks.fail(ValueError, "validation", "(x, y) or (x, y, sample_weight)", validation)
    if checks.is_real(validation):
        part = checks.number("validation", validation, "fraction")
        (data, y, sample_weight), validation = _parts((data, y, sample_weight), part)
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
    judge = evaluate or (lambda: _loss(model, validation, batch_size, validation_steps))
    winner = search.Winner(training.kept)
    on_best = winner if keep == "winner" else None
    found = training.run(lambda: search.run(training.update, training.restart, judge, options, on_best))
    for kept in winner.copies:
        training.go_on(kept)
    return found


def _loss(model: keras.Model, validation: Any, batch_size: int, steps: int | None) -> float:
    """The mean loss over held-out samples, with regularization, as in training."""
    if isinstance(validation, tuple | list):
        x, y, sample_weight = (*validation, None, None)[:3]
        logs = model.evaluate(x, y, batch_size, 0, sample_weight, steps, return_dict=True)
    else:
        logs = model.evaluate(validation, verbose=0, steps=steps, return_dict=True)
    return float(logs["loss"])


def _has_no_end(data: Any) -> bool:
    """Whether a data set says that its batches never end."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return hasattr(data, "cardinality") and int(data.cardinality()) == -1  # as TensorFlow has it


def _parts(arrays: tuple[object, object, object], part: float) -> tuple[Any, Any]:
    """The arrays of the samples that are trained on, and of those that are held out."""
    rule = "held-out data, or a part of the samples of `data` between 0 and 1"
    if not 0 < part < 1:
        checks.fail(ValueError, "validation", rule, part)
    if arrays[1] is None and not hasattr(arrays[0], "shape"):
        raise ValueError("`validation` can be a part only if `data` is arrays. Give held-out data.")
    own, samples = arrays_of(arrays)
    apart = round(samples * part)
    if not 0 < apart < samples:
        checks.fail(ValueError, "validation", "a part that leaves at least one sample on both sides", part)
    order = np.random.default_rng(0).permutation(samples)
    rows, held_out = np.sort(order[apart:]), np.sort(order[:apart])
    return mapped(lambda array: array[rows], own), mapped(lambda array: array[held_out], own)
