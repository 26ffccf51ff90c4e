"""The training that a finder tries at rates of its own. See `Training`."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import keras

from clr import checks
from clr.finder.sweep import EndOfSweep
from clr.finder.transaction import Batches, Interrupts, guarded, put_back, uninterrupted
from clr.keras.data import Replicas, Samples, in_batches, unpacked
from clr.keras.optimizers import inner
from clr.keras.snapshot import Rate, Snapshot, Unbuilt, count_of, randomness

V = TypeVar("V")


class Training:
    """A compiled model and its data, which can be trained at any rate, and are put back at the end, bit for bit.

    It is made of the arguments of `clr.keras.range_test`, which describes them, and checks them. `run` is the
    transaction. Within it, `restart` goes back to the start, and `update` makes one update at a rate.
    """

    def __init__(
        self,
        model: keras.Model,
        data: object,
        y: object,
        *,
        sample_weight: object,
        class_weight: dict[int, float] | None,
        batch_size: int,
        shuffle: bool,
        also: Sequence[object],
    ) -> None:
        if not isinstance(model, keras.Model):
            checks.fail(TypeError, "model", "a keras.Model", model)
        if getattr(model, "optimizer", None) is None:
            raise ValueError("`model` must be compiled with an optimizer.")
        self._model, self._data = model, data
        self._class_weight = _checked_weights(class_weight)
        checks.flag("shuffle", shuffle)
        checks.count("batch_size", batch_size)
        self._also = checks.sequence("also", also)
        self._samples = None
        if y is not None or hasattr(data, "shape") or isinstance(data, dict):
            self._samples = Samples(data, y, sample_weight, batch_size, shuffle)
        elif sample_weight is not None:
            raise TypeError("`sample_weight` goes with arrays; other data has it in its batches.")
        self._batches = Batches(in_batches(data) if self._samples is None else self._samples)
        self._taken: list[Any] = []  # the batch that built the model, until it is trained with
        self._replicas = Replicas(model)
        self._optimizer = inner(model.optimizer)
        self._rate = Rate(model, self._optimizer)
        self._unbuilt = Unbuilt(model)
        self._random_state = randomness(data)
        self._snapshot: Snapshot | None = None

    def run(self, body: Callable[[], V]) -> V:
        """What ``body`` returns. After it, all is as it was when this training was made, also after an error."""
        restores = (self._rate.leave, self._restore, self._unbuilt.restore, self._batches.leave)
        return guarded(lambda interrupts: self._started(body, interrupts), *restores)

    def restart(self, number: int) -> None:
        """Makes the next batch the first. From the second pass on, it also puts all back, seeded by ``number``."""
        if number and self._snapshot is not None:
            self._snapshot.rewind(number)
            self._taken.clear()
            self._batches.restart()
            if self._samples is not None:
                self._samples.seed(number)

    def update(self, rate: float) -> float | None:
        """Makes an update at the rate. Returns its loss, or None if loss scaling skipped the update."""
        self._interrupts.open()
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

    def kept(self) -> Snapshot:
        """A copy of the present state. See `go_on`."""
        return Snapshot(self._model, self._model.optimizer, self._also, self._data)

    def go_on(self, kept: Snapshot) -> None:
        """After `run`, puts the model and its optimizer, but for its rate, into a state that was kept in it."""
        with uninterrupted():
            put_back(kept.rewind, self._rate.kept())

    def _started(self, body: Callable[[], V], interrupts: Interrupts) -> V:
        self._interrupts = interrupts
        self._batches.restart()
        batch = self._first()
        interrupts.close()  # Keras could not go on with an optimizer that is half built
        if batch is not None:
            self._build(batch)
        self._snapshot = self.kept()
        with self._replicas.scope():
            self._rate.settle()
        interrupts.open()
        if interrupts.take():
            raise KeyboardInterrupt
        return body()

    def _first(self) -> Any:
        """The first batch, or None if there is none. The first update finds none either, and ends the test."""
        try:
            return unpacked(self._batches.next())
        except EndOfSweep:
            return None

    def _build(self, batch: Any) -> None:
        """Builds the model and its optimizer with the first batch, so that a snapshot finds all variables."""
        put_back(*self._random_state)
        if batch[1] is None and _needs_targets(self._model):
            if self._samples is not None:
                checks.fail(TypeError, "y", "the targets of `data`, since the model is compiled with a loss", None)
            raise TypeError("the batches of `data` must be (x, y), since the model is compiled with a loss.")
        self._taken.append(batch)
        with self._replicas.scope():
            self._model._symbolic_build(data_batch=self._replicas.first(batch))

    def _loss(self) -> float:
        """Trains with the next batch and gives its loss."""
        batch = self._replicas.divided(self._taken.pop() if self._taken else unpacked(self._batches.next()))
        logs = self._model.train_on_batch(*batch, class_weight=self._class_weight, return_dict=True)
        if "loss" not in logs:
            raise ValueError(f"the model's `train_step` must return its 'loss'. Received: {sorted(logs)}.")
        return float(logs["loss"])

    def _restore(self) -> None:
        if self._snapshot is None:
            put_back(*self._random_state)
        else:
            put_back(self._snapshot.restore, self._snapshot.restore_gradients)


def _checked_weights(class_weight: object) -> Mapping[int, float] | None:
    """A weight for each class, as Keras takes them."""
    rule = "None or a dict with a weight for the number of each class"
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping) or not all(isinstance(own, Integral) for own in class_weight):
        checks.fail(TypeError, "class_weight", rule, class_weight)
    return {int(own): checks.number(f"class_weight[{own}]", part, "finite") for own, part in class_weight.items()}


def _needs_targets(model: keras.Model) -> bool:
    """Whether Keras itself computes the model's loss, from targets."""
    own = any(getattr(type(model), name) is not getattr(keras.Model, name) for name in ("train_step", "compute_loss"))
    return model._compile_loss is not None and not own
