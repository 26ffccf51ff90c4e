"""Everything that a range test changes in TensorFlow, kept as it was. It imports TensorFlow only where it is there."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from clr import checks
from clr.finder.transaction import put_back, seed_of

if TYPE_CHECKING:
    import tensorflow as tf
    from numpy.typing import NDArray

# Where a generator's state has its seed, by the name of the variable: that of TensorFlow, and that of Keras.
SEED_AT = {"StateVar": -1, "seed_generator_state": 0}


class Variables:
    """Variables and what they hold, together with those that are made meanwhile and what they start with."""

    def __init__(self, tf: ModuleType, variables: Sequence[object]) -> None:
        self._tf = tf
        self._copies: list[tuple[Any, NDArray[Any]]] = []
        every = {
            id(own): own for holder in checks.sequence("variables", variables) for own in _variables_of(tf, holder)
        }
        with suppress(RuntimeError):  # there is none, and TensorFlow was told to be deterministic
            every |= {id(own): own for own in _variables_of(tf, tf.random.get_global_generator())}
        for variable in every.values():
            self._keep(variable)

    def restore(self, repeat: int = 0) -> None:
        """Puts all back. In a repeat, generators get another seed."""
        put_back(*[partial(cell.assign, reseeded(cell, array, repeat)) for cell, array in self._copies])

    def kept(self) -> Callable[[], None]:
        """A function that puts all variables to what they hold now."""
        present = [(cell, cell.numpy()) for cell, _ in self._copies]
        return partial(put_back, *[partial(cell.assign, array) for cell, array in present])

    def creator(self, next_creator: Callable[..., "tf.Variable"], **arguments: object) -> "tf.Variable":
        """Makes a variable and keeps what it starts with."""
        variable = next_creator(**arguments)
        try:
            self._keep(variable)
        except NotImplementedError:  # in a graph that is being traced, where it has no value yet
            self._copies += [(cell, self._initial(variable, arguments)) for cell in cells(variable)]
        return variable

    def _keep(self, variable: "tf.Variable") -> None:
        self._copies += [(cell, cell.numpy()) for cell in cells(variable)]

    def _initial(self, variable: "tf.Variable", arguments: dict[str, object]) -> "NDArray[Any]":
        tf, initial = self._tf, arguments.get("initial_value")
        if callable(initial):
            with tf.init_scope():
                arrays: list[NDArray[Any]] = [tf.convert_to_tensor(initial()).numpy() for _ in range(2)]
            if arrays[0].tobytes() == arrays[1].tobytes():  # so it is not random
                return arrays[0]
        else:
            known: NDArray[Any] | None = tf.get_static_value(initial)
            if known is not None:
                return known
        raise ValueError(
            f"`train_step` makes the variable {variable.name!r} with an initial value that cannot be known. "
            "It has to be made before the test, and be one of the `variables`."
        )


def cells(variable: "tf.Variable") -> list["tf.Variable"]:
    """The parts of a variable that is distributed over replicas; of any other variable itself."""
    strategy = getattr(variable, "distribute_strategy", None)
    return [variable] if strategy is None else list(strategy.experimental_local_results(variable))


def reseeded(variable: "tf.Variable", content: "NDArray[Any]", repeat: int) -> "NDArray[Any]":
    """What a variable held; the state of a generator has another seed in each repeat but the first."""
    if repeat:
        for name, at in SEED_AT.items():
            if name in re.split("[/:]", variable.name):
                content = content.copy()
                content[at] ^= seed_of(repeat)
    return content


def stateful_random_state(tf: ModuleType) -> Callable[[], None]:
    """A function that puts TensorFlow's random state back to what it is now, as far as TensorFlow shows it.

    Stateful operations start again, because TensorFlow does not tell how far they are.
    """
    from tensorflow.python.eager import context  # there is no public way to read the state

    eager = context.context()
    seed, operations = eager._seed, getattr(eager, "_rng", None)  # which there is once something was drawn
    state = operations and operations.getstate()

    def restore() -> None:
        if seed is None and eager._seed is None:
            return  # nothing can be repeated anyway
        tf.random.set_seed(seed)
        if state is not None:
            eager._rng.setstate(state)

    return restore


def _variables_of(tf: ModuleType, holder: object) -> list["tf.Variable"]:
    """The variables of TensorFlow that something is, or has."""
    if isinstance(holder, tf.Variable):
        return [holder]
    if isinstance(holder, tf.random.Generator):
        return [holder.state]
    inner = getattr(holder, "value", None)  # that of a Keras variable
    if isinstance(inner, tf.Variable):
        return [inner]
    own = getattr(holder, "variables", None)
    if own is None:
        checks.fail(TypeError, "variables", "variables, and things that have `variables`", holder)
    return [variable for one in (own() if callable(own) else own) for variable in _variables_of(tf, one)]
