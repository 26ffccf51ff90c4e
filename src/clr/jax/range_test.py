"""The LR range test in JAX. See `clr.jax.range_test`."""

from collections.abc import Callable, Iterable
from typing import Literal

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.jax.training import B, S, Training, Update


def range_test(
    update: Update[S, B],
    state: S,
    batches: Iterable[B],
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 300,
    growth: Literal["exponential", "linear"] = "exponential",
    diverge_at: float = 1.0,
    time_limit: float | None = None,
    evaluate: Callable[[S], object] | None = None,
    evaluate_every: int = 5,
    goal: Literal["min", "max"] = "min",
    repeats: int = 1,
    progress: bool | None = None,
) -> RangeTest:
    """An LR range test of an update function (Smith 2017, section 3.3) that leaves the state as it was.

    It works with Optax alone, Flax and Equinox, and with any other library whose state is a pytree. The test makes
    its updates on a copy of the state. Objects that an update changes in place, which are modules, optimizers and
    metrics of Flax NNX and mutable arrays (``jax.Ref``), get back what they held, bit for bit, also after an error or
    Ctrl-C. So does the random state of Python and NumPy. ``update`` must change nothing else: what it changes has to
    be in the state.

    Args:
        update: Makes one update, ``update(state, batch, lr) -> (state, loss)``, under ``jax.jit`` or not. The rate
            is a float32 array, so a compiled function is compiled once. The loss is a number or an array of one
            element. None means that no update was made; then the rate is left out.
        state: All that an update changes, as a pytree: parameters and the state of the optimizer, say. A key of
            ``jax.random`` belongs here too.
        batches: What gives the batches, such as a list or a data loader. The test starts it again as often as it
            needs. An iterator, which can be read only once, ends the test with its data and cannot be repeated.
        min_lr: The first rate, so low that nothing is learned. By default 1e-7.
        max_lr: The last rate, so high that training diverges. By default 10.
        num_steps: How many rates to try. Each takes one update. By default 300.
        growth: ``"exponential"``, by the same factor each step (the default), or ``"linear"``.
        diverge_at: The test ends when the loss (the median of the last five) has risen above its start by this many
            times its fall. By default 1.
        time_limit: The test ends after so many seconds. By default there is no limit.
        evaluate: A function of the state that returns a validation loss or accuracy. With it, the bounds are read
            from these values, and not from the training loss.
        evaluate_every: The number of steps from one call of ``evaluate`` to the next. By default 5.
        goal: ``"min"`` (the default) where a smaller value of ``evaluate`` is better, ``"max"`` where a larger one is.
        repeats: How many times to go over the rates. The curve is the median. By default 1. Each repeat begins with
            the same parameters and the first batch. The typed keys of the state (``jax.random.key``) are other keys
            in each repeat, and Python and NumPy get other seeds, which a loader may shuffle by. An old key
            (``jax.random.PRNGKey``) looks like any array and stays the same. Without such differences all repeats
            give the same curve.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `clr.RangeTest`. Its ``stop`` says why the test ended. After Ctrl-C it has the losses so far.

    Raises:
        ImportError: JAX is missing.
        TypeError, ValueError: An argument makes no sense, a part of the state cannot be copied, or ``update`` does not
            return a state and a loss.

    >>> import clr, jax, optax
    >>> x = jax.random.normal(jax.random.key(0), (256, 8))
    >>> y = x.sum(axis=1)
    >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    >>> @jax.jit
    ... def update(state, rows, lr):
    ...     weights, opt_state = state
    ...     loss, gradient = jax.value_and_grad(lambda w: ((x[rows] @ w - y[rows]) ** 2).mean())(weights)
    ...     opt_state.hyperparams["learning_rate"] = lr
    ...     updates, opt_state = optimizer.update(gradient, opt_state)
    ...     return (optax.apply_updates(weights, updates), opt_state), loss
    >>> weights = jax.numpy.zeros(8)
    >>> batches = jax.random.permutation(jax.random.key(1), 256).reshape(8, 32)
    >>> test = clr.jax.range_test(update, (weights, optimizer.init(weights)), batches)
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-4 < base_lr < max_lr < 1
    True
    """
    if evaluate is not None:
        checks.function("evaluate", evaluate)
    training = Training(update, state, batches)
    options = Options(
        min_lr,
        max_lr,
        num_steps,
        growth,
        diverge_at,
        time_limit,
        None if evaluate is None else lambda: evaluate(training.state),
        evaluate_every,
        goal,
        repeats,
        progress,
    )
    if options.repeats > 1 and iter(batches) is batches:
        checks.fail(TypeError, "batches", "no iterator where there are `repeats`", batches)
    return training.run(lambda: sweep.run(training.update, training.restart, options))
