"""The search for bounds in TensorFlow. See `clr.tensorflow.find_bounds`. TensorFlow is imported when it is called."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from clr import checks
from clr.finder import search
from clr.finder.search import Options
from clr.finder.transaction import put_back, uninterrupted
from clr.finder.trials import Search

if TYPE_CHECKING:
    import tensorflow as tf


def find_bounds(
    train_step: Callable[["tf.Tensor"], object],
    variables: Sequence[object],
    evaluate: Callable[[], object],
    *,
    total_steps: int,
    budget: int | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["start", "winner"] = "start",
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate by short trainings that are judged on held-out data.

    See `clr.find_bounds` for how it searches. All trials begin with the variables as they are. At the end everything is
    put back bit for bit, as `clr.tensorflow.range_test` does, also after Ctrl-C or an error.

    Args:
        train_step: Makes one update at the given rate, a float32 scalar tensor, and returns the loss of its batch, as
            in `clr.tensorflow.range_test`.
        variables: All that it changes.
        evaluate: A function without arguments that returns the loss (or another metric) on held-out data.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of ``evaluate`` is better.
        keep: What the variables hold at the end: what they held at the ``"start"``, or after the trial that won
            (``"winner"``), so that its updates are not lost. That takes the memory of a second copy.
        min_lr: The first rate of the range test. By default 1e-7.
        max_lr: The last rate of the range test. By default 10. Trials may go beyond it.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `clr.Search`. Its ``stop`` says why it ended. After Ctrl-C it has what is known so far.

    Raises:
        ImportError: TensorFlow is missing.
        TypeError, ValueError: An argument makes no sense, as in `clr.tensorflow.range_test`.
        RuntimeError: Eager execution is off.

    >>> import clr
    >>> import tensorflow as tf
    >>> random = tf.random.Generator.from_seed(1)
    >>> x = random.normal((256, 8))
    >>> y = tf.reduce_sum(x, axis=1, keepdims=True)
    >>> weights = tf.Variable(tf.zeros((8, 1)))
    >>> @tf.function
    ... def train_step(rate):
    ...     rows = random.uniform((32,), maxval=200, dtype=tf.int32)
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean((tf.gather(x, rows) @ weights - tf.gather(y, rows)) ** 2)
    ...     weights.assign_sub(rate * tape.gradient(loss, weights))
    ...     return loss
    >>> def evaluate():
    ...     return tf.reduce_mean((x[200:] @ weights - y[200:]) ** 2)
    >>> found = clr.tensorflow.find_bounds(train_step, [weights, random], evaluate, total_steps=500)
    >>> base_lr, max_lr = found.bounds()
    >>> 1e-3 < base_lr < max_lr < 1
    True
    >>> float(tf.reduce_sum(abs(weights)))
    0.0
    """
    try:
        from clr.tensorflow.training import Training
    except ImportError as error:
        raise ImportError(
            "clr.tensorflow.find_bounds needs TensorFlow: pip install 'cyclic-learning-rate[tensorflow]'"
        ) from error

    options = Options(total_steps, budget, goal, min_lr, max_lr, progress)
    checks.choice("keep", keep, search.KEEPS)
    checks.function("evaluate", evaluate)
    training = Training(train_step, variables)
    winner = search.Winner(training.kept)
    on_best = winner if keep == "winner" else None
    found = training.run(lambda: search.run(training.update, training.restart, evaluate, options, on_best))
    with uninterrupted():
        put_back(*winner.copies)
    return found
