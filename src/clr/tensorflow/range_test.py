"""The LR range test in TensorFlow. See `clr.tensorflow.range_test`. TensorFlow is imported when it is called."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import put_back, random_state, seed_of, seed_random, uninterrupted

if TYPE_CHECKING:
    import tensorflow as tf
    from numpy.typing import NDArray

# Where a generator's state has its seed, by the name of the variable: that of TensorFlow, and that of Keras.
SEED_AT = {"StateVar": -1, "seed_generator_state": 0}


def range_test(
    train_step: Callable[["tf.Tensor"], object],
    variables: Sequence[object],
    *,
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
    """An LR range test of a training step (Smith 2017, section 3.3) that leaves no trace in its variables.

    After the test, and also after an error or Ctrl-C, the variables are bit for bit as before, and so is the random
    state of Python, NumPy and TensorFlow. A variable that the step makes, as optimizers do in their first step, gets
    back its initial value. The test keeps a copy of the variables in the host's memory.

    TensorFlow does not tell where a stateful random operation is, such as ``tf.random.normal`` or ``tf.nn.dropout`` in
    a ``tf.function``. After ``tf.random.set_seed``, all of them start again when the test ends. Training that begins
    then is the same as without a test, but random operations used before the test start again. A
    ``tf.random.Generator`` among the ``variables`` continues where it was, and so does TensorFlow's global one.

    Args:
        train_step: Makes one update at the given rate, a float32 scalar tensor, and returns the loss of its batch. A
            ``tf.function`` is traced once. The loss of several replicas is their mean. None means that it made no
            update; then the rate is left out. It may raise StopIteration where its data ends.
        variables: All that it changes: variables of TensorFlow and Keras, and things that have ``variables``, such as
            modules, models, optimizers, metrics and generators.
        min_lr: The first rate, so low that nothing is learned. By default 1e-7.
        max_lr: The last rate, so high that training diverges. By default 10.
        num_steps: How many rates to try. Each takes one update. By default 300.
        growth: ``"exponential"``, by the same factor each step (the default), or ``"linear"``.
        diverge_at: The test ends when the loss (the median of the last five) has risen above its start by this many
            times its fall. By default 1.
        time_limit: The test ends after so many seconds. By default there is no limit.
        evaluate: A function without arguments that returns a validation loss or accuracy. With it, the bounds are
            read from these values, and not from the training loss.
        evaluate_every: The number of steps from one call of ``evaluate`` to the next. By default 5.
        goal: ``"min"`` (the default) where a smaller value of ``evaluate`` is better, ``"max"`` where a larger one is.
        repeats: How many times to go over the rates. The curve is the median. By default 1. Each repeat draws other
            random numbers: generators, also those of Keras, Python and NumPy get other seeds, and stateful operations
            continue.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `RangeTest`. Its ``stop`` says why the test ended. After Ctrl-C it has the losses so far.

    Raises:
        ImportError: TensorFlow is missing.
        TypeError, ValueError: An argument makes no sense. Or the step makes a variable whose initial value cannot be
            known: make it before the test.
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
    options = Options(
        min_lr, max_lr, num_steps, growth, diverge_at, time_limit, evaluate, evaluate_every, goal, repeats, progress
    )
    if not tf.executing_eagerly():
        raise RuntimeError("clr.tensorflow.range_test needs eager execution; a tf.function may be its `train_step`.")
    found = _Variables(tf, variables)
    randomness = [random_state(), stateful_random_state(tf)]

    def step(rate: float) -> object:
        loss = train_step(tf.constant(rate, tf.float32))
        if isinstance(loss, tf.distribute.DistributedValues):
            return sum(map(float, loss.values)) / len(loss.values)
        return loss

    def reset(repeat: int) -> None:
        if repeat:
            found.restore(repeat)
            seed_random(seed_of(repeat))  # stateful operations continue: set_seed would let them draw the same again

    with tf.variable_creator_scope(found.creator):
        try:
            return sweep.run(step, reset, options)
        finally:
            with uninterrupted():
                put_back(found.restore, *randomness)


class _Variables:
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
        for cell, array in self._copies:
            cell.assign(reseeded(cell, array, repeat))

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
        raise TypeError(f"`variables` must hold variables, and things that have `variables`. Received: {holder!r}.")
    return [variable for one in (own() if callable(own) else own) for variable in _variables_of(tf, one)]
