"""The search for bounds in JAX. See `clr.jax.find_bounds`."""

from collections.abc import Callable, Iterable
from typing import Literal, overload

from clr import checks
from clr.finder import search
from clr.finder.search import Options
from clr.finder.transaction import uninterrupted
from clr.finder.trials import Search
from clr.jax.training import B, S, Training, Update


@overload
def find_bounds(
    update: Update[S, B],
    state: S,
    batches: Iterable[B],
    evaluate: Callable[[S], object],
    *,
    total_steps: int,
    budget: int | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["start"] = "start",
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search: ...


@overload
def find_bounds(
    update: Update[S, B],
    state: S,
    batches: Iterable[B],
    evaluate: Callable[[S], object],
    *,
    total_steps: int,
    budget: int | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["winner"],
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> tuple[Search, S]: ...


def find_bounds(
    update: Update[S, B],
    state: S,
    batches: Iterable[B],
    evaluate: Callable[[S], object],
    *,
    total_steps: int,
    budget: int | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["start", "winner"] = "start",
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    progress: bool | None = None,
) -> Search | tuple[Search, S]:
    """Searches the bounds of the learning rate by short trainings that are judged on held-out data.

    See `clr.find_bounds` for how it searches. All trials begin with a copy of the state, and the state stays as it was,
    as with `clr.jax.range_test`.

    Args:
        update: Makes one update, ``update(state, batch, lr) -> (state, loss)``, as in `clr.jax.range_test`.
        state: All that an update changes, as a pytree.
        batches: What gives the batches, such as a list or a data loader. Each trial begins with the first. So it must
            not be an iterator, which can be read only once.
        evaluate: A function of the state that returns the loss (or another metric) on held-out data.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of ``evaluate`` is better.
        keep: Whether only to find bounds (``"start"``), or also to return the state after the trial that won
            (``"winner"``), so that its updates are not lost.
        min_lr: The first rate of the range test. By default 1e-7.
        max_lr: The last rate of the range test. By default 10. Trials may go beyond it.
        progress: Whether to show a progress bar on the standard error stream. By default it shows where that is a
            terminal and rich is installed.

    Returns:
        The `clr.Search`. Its ``stop`` says why it ended. After Ctrl-C it has what is known so far. With
        ``keep="winner"``, the pair of the search and the winner's state. That is ``state`` if there is no winner.
        Objects that change in place hold what they held after the winner.

    Raises:
        ImportError: JAX is missing.
        TypeError, ValueError: An argument makes no sense, as in `clr.jax.range_test`.

    >>> import clr, jax, optax
    >>> x = jax.random.normal(jax.random.key(0), (256, 8))
    >>> y = x.sum(axis=1)
    >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    >>> def loss_of(weights, rows):
    ...     return ((x[rows] @ weights - y[rows]) ** 2).mean()
    >>> @jax.jit
    ... def update(state, rows, lr):
    ...     weights, opt_state = state
    ...     loss, gradient = jax.value_and_grad(loss_of)(weights, rows)
    ...     opt_state.hyperparams["learning_rate"] = lr
    ...     updates, opt_state = optimizer.update(gradient, opt_state)
    ...     return (optax.apply_updates(weights, updates), opt_state), loss
    >>> def evaluate(state):
    ...     return loss_of(state[0], slice(224, 256))
    >>> weights = jax.numpy.zeros(8)
    >>> batches = jax.random.permutation(jax.random.key(1), 224).reshape(7, 32)
    >>> state = (weights, optimizer.init(weights))
    >>> found = clr.jax.find_bounds(update, state, batches, evaluate, total_steps=500)
    >>> base_lr, max_lr = found.bounds()
    >>> 1e-3 < base_lr < max_lr < 1
    True
    """
    options = Options(total_steps, budget, goal, min_lr, max_lr, progress)
    checks.choice("keep", keep, search.KEEPS)
    checks.function("evaluate", evaluate)
    training = Training(update, state, batches)
    if iter(batches) is batches:
        checks.fail(TypeError, "batches", "something that can be read again from its start, not an iterator", batches)
    judge = lambda: evaluate(training.state)  # noqa: E731
    winner = search.Winner(training.kept)
    on_best = winner if keep == "winner" else None
    found = training.run(lambda: search.run(training.update, training.restart, judge, options, on_best))
    if keep == "start":
        return found
    with uninterrupted():
        return found, next((kept.restore() for kept in winner.copies), state)
