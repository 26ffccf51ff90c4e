"""The training that a finder tries at rates of its own. See `Training`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from clr import checks
from clr.finder.sweep import ending
from clr.finder.transaction import Interrupts, guarded, random_state, seed_of, seed_random
from clr.tensorflow.snapshot import Variables, stateful_random_state

V = TypeVar("V")


class Training:
    """A user's training step that can be tried at any rate; what it changes is put back at the end, bit for bit.

    It is made of the arguments of `clr.tensorflow.range_test`, which describes them, and checks them. `run` is the
    transaction. Within it, `restart` goes back to the start, and `update` makes one update at a rate.
    """

    def __init__(self, train_step: Callable[[tf.Tensor], object], variables: Sequence[object]) -> None:
        checks.function("train_step", train_step)
        if not tf.executing_eagerly():
            raise RuntimeError("clr.tensorflow needs eager execution here; a tf.function may be the `train_step`.")
        self._train_step = ending(train_step)
        self._variables = Variables(tf, variables)
        self._random_state = (random_state(), stateful_random_state(tf))

    def run(self, body: Callable[[], V]) -> V:
        """What ``body`` returns. After it, all is as it was when this training was made, also after an error."""
        restores = (self._variables.restore, *self._random_state)
        return guarded(lambda interrupts: self._started(body, interrupts), *restores)

    def restart(self, number: int) -> None:
        """From the second pass on, puts all back, seeded by ``number``."""
        if number:
            self._variables.restore(number)
            seed_random(seed_of(number))  # stateful operations continue: set_seed would let them draw the same again

    def update(self, rate: float) -> object:
        """Makes an update at the rate. Returns its loss, or None if there was no update."""
        self._interrupts.open()
        loss: Any = self._train_step(tf.constant(rate, tf.float32))
        if isinstance(loss, tf.distribute.DistributedValues):
            return sum(map(float, loss.values)) / len(loss.values)
        return loss

    def kept(self) -> Callable[[], None]:
        """A function that puts the variables to what they hold now, after `run`."""
        return self._variables.kept()

    def _started(self, body: Callable[[], V], interrupts: Interrupts) -> V:
        self._interrupts = interrupts
        interrupts.close()  # the scope is entered and left as a whole
        with tf.variable_creator_scope(self._variables.creator):
            try:
                interrupts.open()
                if interrupts.take():
                    raise KeyboardInterrupt
                return body()
            finally:
                interrupts.close()
