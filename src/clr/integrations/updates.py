"""One update at a time by the training step that a library owns, for the finders of `clr.torch`."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import torch
from torch import nn

from clr import checks
from clr.finder.transaction import Batches
from clr.torch.groups import making_updates, was_skipped

_MOST = 10_000  # batches without an update: it will never come


class Feed:
    """A loader that gives, again and again, the function that gives the next batch.

    A step that accumulates gradients takes as many batches from it as its update needs.

    Attributes:
        taken: The batches that were taken since the last start.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if not isinstance(loader, Iterable):
            checks.fail(TypeError, "loader", "a DataLoader or another iterable", loader)
        self.loader = loader  # by this name the generators of its samplers are found
        self.taken = 0
        self._batches = Batches(loader)

    def __iter__(self) -> Iterator[Callable[[], Any]]:
        self.taken = 0
        self._batches.restart()
        return repeat(self._next)

    def leave(self) -> None:
        """Gives the loader its own workers back."""
        self._batches.leave()

    def _next(self) -> Any:
        batch = self._batches.next()
        self.taken += 1
        return batch


class OwnStep:
    """A library's training step as ``train_on_batch`` of a `Feed`: one call makes one update of an optimizer.

    Args:
        optimizer: The one whose updates count.
        step: Trains with a batch, and returns its loss. It need not make an update.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[Any], float]) -> None:
        self._step, self._updates = step, 0
        self._handle = making_updates(optimizer).register_step_post_hook(self._count)

    def __call__(self, batch: Callable[[], Any]) -> float:
        """Trains until there was an update. Returns the mean loss, or the first that is not finite."""
        losses: list[float] = []
        before = self._updates
        while self._updates == before:
            losses.append(self._step(batch()))
            if not math.isfinite(losses[-1]):
                return losses[-1]
            if len(losses) == _MOST:
                raise RuntimeError(f"the training step has made no update of `optimizer` in {_MOST:,} batches.")
        return math.fsum(losses) / len(losses)

    def leave(self) -> None:
        """Counts no longer."""
        self._handle.remove()

    def _count(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        self._updates += not was_skipped(optimizer)


class Kept:
    """What a finder puts back with all the rest, beside what it knows: attributes, and what a function does.

    It has the methods that ``also`` of `clr.torch.range_test` asks for. Objects keep their identity, and dicts and
    lists among the attributes get their contents back.

    Args:
        owners: Objects whose attributes are put back.
        parts: Functions that put other things back.
    """

    def __init__(self, owners: Iterable[object], *parts: Callable[[], object]) -> None:
        held = [vars(owner) for owner in owners]
        held += [value for own in held for value in own.values() if type(value) is dict]
        self._held = [(own, dict(own)) for own in held]
        self._lists = [(value, list(value)) for own in held for value in own.values() if type(value) is list]
        self._parts = parts

    def state_dict(self) -> dict[str, object]:
        """Nothing, for it keeps all itself."""
        return {}

    def load_state_dict(self, state: object) -> None:
        """Puts everything back."""
        for own, before in self._held:
            own.clear()
            own.update(before)
        for items, before_them in self._lists:
            items[:] = before_them
        for part in self._parts:
            part()


def arguments_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, feed: Feed, step: OwnStep, also: list[Any]
) -> dict[str, Any]:
    """A training by a library's own step, as arguments of the finders of `clr.torch`."""
    return {"model": model, "optimizer": optimizer, "loader": feed, "train_on_batch": step, "also": also}
