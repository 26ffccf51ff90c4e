"""The LR range test in TensorFlow. See `clr.tensorflow.range_test`. TensorFlow is imported when it is called."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Unpack

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import put_back, random_state, seed_of, seed_random, uninterrupted

# Where a generator's state has its seed, by the name of the variable: that of TensorFlow, and that of Keras.
SEED_AT = {"StateVar": -1, "seed_generator_state": 0}


def range_test(train_step: Callable[[Any], Any], variables: Sequence[Any], **options: Unpack[Options]) -> RangeTest:
    """An LR range test of a training step of one's own (Smith 2017, section 3.3) that leaves no trace in its variables.

    However the test ends, by itself, by Ctrl-C or by an error, the variables are bit for bit as before, and so is the
    random state of Python, NumPy and TensorFlow. A variable that the step makes, as optimizers do in their first step,
    is put back to its initial value. The copy that this takes is as large as the variables, in the host's memory.

    TensorFlow cannot tell where a stateful random operation is, such as ``tf.random.normal`` or ``tf.nn.dropout`` in a
    ``tf.function``. With ``tf.random.set_seed``, all of them start anew after the test: training that begins then is
    the same as without a test, but operations that have drawn before do not go on from there. A ``tf.random.Generator``
    among the ``variables`` goes on where it was, as TensorFlow's global one does. Each of several ``repeats`` draws
    otherwise: generators, those of Keras too, Python and NumPy get other seeds, and stateful operations just go on.

    Args:
        train_step: Makes one update at the given rate, a float32 scalar tensor, and returns the loss of its batch; a
            ``tf.function`` is traced once. The loss of several replicas is their mean. None says that no update was
            made. It may raise StopIteration where its data ends.
        variables: All that it changes: variables of TensorFlow and Keras, and things that have ``variables``, such as
            modules, models, optimizers, metrics and generators.
        **options: The range, its limits and more, as in `clr.range_test`.

    Raises:
        ImportError: TensorFlow is missing.
        TypeError, ValueError: An argument makes no sense; or the step makes a variable whose initial value can not be
            known, which has to be made before the test.
        RuntimeError: Eager execution is off.

    >>> import clr
    >>> import tensorflow as tf
    >>> random = tf.random.Generator.from_seed(1)
    >>> x = random.normal((256, 8))
    >>> y = tf.reduce_sum(x, axis=1, keepdims=True)
    >>> weights = tf.Variable(tf.zeros((8, 1)))
    >>> @tf.function
    ... def train_step(rate):
    ...     rows = random.uniform((32,), maxval=256, dtype=tf.int32)
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean((tf.gather(x, rows) @ weights - tf.gather(y, rows)) ** 2)
    ...     weights.assign_sub(rate * tape.gradient(loss, weights))
    ...     return loss
    >>> test = clr.tensorflow.range_test(train_step, [weights, random])
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-4 < base_lr < max_lr < 1
    True
    >>> float(tf.reduce_sum(abs(weights)))
    0.0
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "clr.tensorflow.range_test needs TensorFlow: pip install 'cyclic-learning-rate[tensorflow]'"
        ) from error

    checks.function("train_step", train_step)
    if not tf.executing_eagerly():
        raise RuntimeError("clr.tensorflow.range_test needs eager execution; a tf.function may be its `train_step`.")
    found = _Variables(tf, variables)
    randomness = [random_state(), stateful_random_state(tf)]

    def step(rate: float) -> Any:
        loss = train_step(tf.constant(rate, tf.float32))
        if isinstance(loss, tf.distribute.DistributedValues):
            loss = sum(map(float, loss.values)) / len(loss.values)
        return loss

    def reset(repeat: int) -> None:
        if repeat:
            found.restore(repeat)
            seed_random(seed_of(repeat))  # stateful operations just go on: set_seed would let them draw the same again

    with tf.variable_creator_scope(found.creator):
        try:
            return sweep.range_test(step, reset, **options)
        finally:
            with uninterrupted():
                put_back(found.restore, *randomness)


class _Variables:
    """Variables and what they hold, together with those that are made meanwhile and what they start with."""

    def __init__(self, tf: Any, variables: Sequence[Any]) -> None:
        self._tf = tf
        self._copies: list[tuple[Any, Any]] = []
        every = {
            id(own): own for holder in checks.sequence("variables", variables) for own in _variables_of(tf, holder)
        }
        with suppress(RuntimeError):  # there is none, and TensorFlow was told to be deterministic
            every |= {id(own): own for own in _variables_of(tf, tf.random.get_global_generator())}
        for variable in every.values():
            self._keep(variable)

    def restore(self, repeat: int = 0) -> None:
        for cell, array in self._copies:
            cell.assign(reseeded(cell, array, repeat))

    def creator(self, next_creator: Callable[..., Any], **arguments: Any) -> Any:
        """Makes a variable and keeps what it starts with."""
        variable = next_creator(**arguments)
        try:
            self._keep(variable)
        except NotImplementedError:  # in a graph that is being traced, where it has no value yet
            self._copies += [(cell, self._initial(variable, arguments)) for cell in cells(variable)]
        return variable

    def _keep(self, variable: Any) -> None:
        self._copies += [(cell, cell.numpy()) for cell in cells(variable)]

    def _initial(self, variable: Any, arguments: dict[str, Any]) -> Any:
        tf, initial = self._tf, arguments.get("initial_value")
        if callable(initial):
            with tf.init_scope():
                array, again = (tf.convert_to_tensor(initial()).numpy() for _ in range(2))
            if array.tobytes() == again.tobytes():  # not drawn at random, that is
                return array
        elif (array := tf.get_static_value(initial)) is not None:
            return array
        raise ValueError(
            f"`train_step` makes the variable {variable.name!r} with an initial value that can not be known. "
            "It has to be made before the test, and be one of the `variables`."
        )


def cells(variable: Any) -> list[Any]:
    """The variables, or values, of which one that is distributed over replicas consists; else itself."""
    strategy = getattr(variable, "distribute_strategy", None)
    return [variable] if strategy is None else list(strategy.experimental_local_results(variable))


def reseeded(variable: Any, content: Any, repeat: int) -> Any:
    """What a variable held; the state of a generator has another seed in each repeat but the first."""
    if repeat:
        for name, at in SEED_AT.items():
            if name in re.split("[/:]", variable.name):
                content = content.copy()
                content[at] ^= seed_of(repeat)
    return content


def stateful_random_state(tf: Any) -> Callable[[], None]:
    """A function that puts TensorFlow's random state back to what it is now, as far as TensorFlow tells.

    Stateful operations start anew: what they have drawn is known to nobody.
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


def _variables_of(tf: Any, holder: Any) -> list[Any]:
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
        raise TypeError(f"`variables` must hold variables, and things that have `variables`. Received: {holder!r}.")
    return [variable for one in (own() if callable(own) else own) for variable in _variables_of(tf, one)]
