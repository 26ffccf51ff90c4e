"""The batches that a range test in Keras trains with."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from clr import checks

BACKEND = keras.backend.backend()


class Samples:
    """Arrays, divided into batches again and again."""

    def __init__(self, x: object, y: object, sample_weight: object, batch_size: int, shuffle: bool) -> None:
        self._arrays, self._samples = arrays_of((x, y, sample_weight))
        self._size = min(checks.count("batch_size", batch_size), self._samples)
        self._shuffle = shuffle
        self.seed(0)

    def seed(self, number: int) -> None:
        """Starts other orders of the samples."""
        self._random = np.random.default_rng(number)

    def __iter__(self) -> Iterator[Any]:
        if self._samples:
            order = self._random.permutation(self._samples) if self._shuffle else np.arange(self._samples)
            for at in range(0, self._samples - self._size + 1, self._size):
                yield self._picked(order[at : at + self._size])

    def _picked(self, order: "np.ndarray[Any, Any]") -> Any:
        return mapped(lambda array: array[order], self._arrays)


class Sequence:
    """The batches of a ``PyDataset``, again and again."""

    def __init__(self, data: keras.utils.PyDataset) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        count, at = self._data.num_batches, 0
        while count is None or at < count:
            yield self._data[at]
            at += 1
        self._data.on_epoch_end()


class Replicas:
    """The replicas of a TensorFlow distribution strategy. A batch is divided among them."""

    def __init__(self, model: keras.Model) -> None:
        self._strategy: Any = model.distribute_strategy if BACKEND == "tensorflow" else None
        self._count = self._strategy.num_replicas_in_sync if self._strategy else 1

    def scope(self) -> AbstractContextManager[object]:
        """Where variables are made."""
        scope: AbstractContextManager[object] = self._strategy.scope() if self._strategy else nullcontext()
        return scope

    def first(self, batch: Any) -> Any:
        """A batch; if it is already divided, the part of the first replica."""
        if self._strategy is None:
            return batch
        return mapped(lambda leaf: self._strategy.experimental_local_results(leaf)[0], batch)

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
        return mapped(self._divided, batch)

    def _divided(self, array: Any) -> Any:
        def part(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            start, stop = (len(array) * (number + end) // self._count for end in (0, 1))
            return keras.ops.convert_to_tensor(array[start:stop])

        return self._strategy.experimental_distribute_values_from_function(part)


def arrays_of(data: Any) -> tuple[Any, int]:
    """The same with NumPy arrays, and how many samples they have."""
    arrays = mapped(_array, data)
    sizes = {len(array) for array in keras.tree.flatten(arrays) if array is not None}
    if len(sizes) != 1:
        raise ValueError(f"arrays must have the same number of samples. Received: {sorted(sizes)}.")
    return arrays, sizes.pop()


def in_batches(data: object) -> Iterable[Any]:
    """The batches of anything but arrays."""
    if isinstance(data, keras.utils.PyDataset):
        return Sequence(data)
    if not isinstance(data, Iterable):
        checks.fail(TypeError, "data", "arrays, a data set or another iterable of batches", data)
    return data


def unpacked(batch: object) -> Any:
    """The inputs, targets and weights of a batch, as arrays of the backend or of NumPy."""
    return mapped(_readable, keras.utils.unpack_x_y_sample_weight(batch))


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with ``function`` applied to all of its arrays."""
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), batch)


def _readable(leaf: Any) -> Any:
    if not hasattr(leaf, "numpy") or keras.ops.is_tensor(leaf):
        return leaf
    return (leaf.detach().cpu() if hasattr(leaf, "detach") else leaf).numpy()


def _array(leaf: Any) -> Any:
    leaf = keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else _readable(leaf)
    if not hasattr(leaf, "shape") or not len(leaf.shape):
        raise TypeError(f"`data`, `y` and `sample_weight` must hold arrays. Received: {checks.shown(leaf)}.")
    return np.asarray(leaf)
