"""The LR range test in TensorFlow. See `clr.tensorflow.range_test`. TensorFlow is imported when it is called."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options

if TYPE_CHECKING:
    import tensorflow as tf


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
        The `clr.RangeTest`. Its ``stop`` says why the test ended. After Ctrl-C it has the losses so far.

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
        from clr.tensorflow.training import Training
    except ImportError as error:
        raise ImportError(
            "clr.tensorflow.range_test needs TensorFlow: pip install 'cyclic-learning-rate[tensorflow]'"
        ) from error

    options = Options(
        min_lr, max_lr, num_steps, growth, diverge_at, time_limit, evaluate, evaluate_every, goal, repeats, progress
    )
    training = Training(train_step, variables)
    return training.run(lambda: sweep.run(training.update, training.restart, options))
