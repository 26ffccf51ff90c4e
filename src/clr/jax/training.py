"""The training that a finder tries at rates of its own. See `Training`."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from clr import checks
from clr.finder.transaction import Batches, Interrupts, guarded, random_state, seed_of, seed_random
from clr.jax.state import State

S = TypeVar("S")
B = TypeVar("B")
V = TypeVar("V")
Update = Callable[[S, B, jax.Array], tuple[S, object]]


class Training(Generic[S, B]):
    """A user's update function that can be tried at any rate, on copies of the state.

    It is made of the arguments of `clr.jax.range_test`, which describes them, and checks them. `run` is the
    transaction. Within it, `restart` goes back to the start, and `update` makes one update at a rate.

    Attributes:
        state: The state after the last update.
    """

    def __init__(self, update: Update[S, B], state: S, batches: Iterable[B]) -> None:
        checks.function("update", update)
        if not isinstance(batches, Iterable):
            checks.fail(TypeError, "batches", "something to iterate over", batches)
        self._update, self._batches = update, Batches(batches)
        self._begin = State(state)
        self._random_state = random_state()
        self.state = state

    def run(self, body: Callable[[], V]) -> V:
        """What ``body`` returns. After it, all is as it was when this training was made, also after an error."""
        restores = (self._begin.restore, self._batches.leave, self._random_state)
        return guarded(lambda interrupts: self._started(body, interrupts), *restores)

    def restart(self, number: int) -> None:
        """Begins with a copy of the state and the first batch. From the second pass on, ``number`` is the seed."""
        self.state = self._begin.begin(number)
        self._batches.restart()
        if number:
            seed_random(seed_of(number))

    def update(self, rate: float) -> object:
        """Makes an update at the rate. Returns its loss, or None if there was no update."""
        self._interrupts.open()
        # An array, since a compiled function would be compiled again for each Python number.
        result: Any = self._update(self.state, self._batches.next(), jnp.asarray(np.float32(rate)))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"`update` must return a new state and the loss. Received: {checks.shown(result)}.")
        self.state, loss = result
        return loss

    def kept(self) -> State[S]:
        """The present state, which can be restored after `run`."""
        return State(self.state)

    def _started(self, body: Callable[[], V], interrupts: Interrupts) -> V:
        self._interrupts = interrupts
        return body()
