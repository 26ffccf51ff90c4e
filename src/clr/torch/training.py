"""The training that a finder tries at rates of its own. See `Training`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from operator import mul
from typing import Any, TypeVar

import torch
from torch import nn

from clr import checks
from clr.finder import sweep
from clr.finder.transaction import Batches, Interrupts, guarded, seed_of
from clr.torch import groups
from clr.torch.processes import Processes
from clr.torch.snapshot import Snapshot, Stateful, counts, mapped, modes, seed

V = TypeVar("V")


class Training:
    """A user's training that can be tried at any rate, and is put back at the end, bit for bit.

    It is made of the arguments of `clr.torch.range_test`, which describes them, and checks them. `run` is the
    transaction. Within it, `restart` goes back to the start, `update` makes one update at a rate, and `evaluate` asks
    for a value of held-out data. All processes that train one model must make the same calls.
    """

    def __init__(
        self,
        processes: Processes,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Iterable[Any] | None,
        *,
        ways: Mapping[str, Callable[..., Any] | None],
        group: int | str | None,
        gradient_accumulation_steps: int,
        scaler: torch.amp.GradScaler | None,
        autocast: torch.dtype | torch.autocast | None,
        device: torch.device | str | None,
        snapshot_device: torch.device | str | None,
        also: Sequence[Stateful],
    ) -> None:
        self._processes = processes
        self._way = _checked_way(model, optimizer, loader, ways, processes)
        self._model, self._optimizer, self._loader = model, optimizer, loader
        self._function: Any = ways[self._way]
        self._bare: Any = processes.bare
        self._accumulation = checks.count("gradient_accumulation_steps", gradient_accumulation_steps)
        self._rates = _Rates(optimizer, group)
        if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
            checks.fail(TypeError, "scaler", "a torch.amp.GradScaler", scaler)
        self._scaler = scaler
        first = next((part.device for part in _tensors(model)), torch.device("cpu"))
        self._device = _checked_device("device", device) or first
        self._context = _checked_context(autocast, self._device)
        self._settings: dict[str, object] = {"group": group, "gradient_accumulation_steps": self._accumulation}
        self._settings["scaler"] = scaler is not None
        self._batches = None if loader is None else Batches(loader)
        modules = [part for part in (model, self._function) if isinstance(part, nn.Module)]
        keep = _checked_device("snapshot_device", snapshot_device)
        if keep is not None and keep.type == "meta":
            checks.fail(ValueError, "snapshot_device", "a device that keeps values", snapshot_device)
        self._parts = (modules, optimizer, scaler, loader, _checked_also(also), keep)
        self._snapshot = Snapshot(*self._parts)

    def run(self, body: Callable[[], V]) -> V:
        """What ``body`` returns. After it, all is as it was when this training was made, also after an error."""
        leave = [] if self._batches is None else [*counts(self._loader), self._batches.leave]
        restores = (self._snapshot.restore, self._snapshot.restore_gradients, *leave, modes(self._device))
        return guarded(lambda interrupts: self._started(body, interrupts), *restores)

    def agree(self, settings: Mapping[str, object]) -> None:
        """Fails in all processes if one of them has other settings than the others."""
        self._processes.agree({**self._settings, **settings}, self._optimizer)

    def restart(self, number: int) -> None:
        """Makes the next batch the first. Unless ``number`` is 0, it also puts all back, and seeds it by ``number``."""
        self._processes.together(lambda: self._restart(number))

    def update(self, rate: float) -> float | None:
        """One update at a rate. Returns its loss, or None if the scaler has skipped the update."""
        self._interrupts.open()
        batches = self._processes.together(self._take)
        self._rates.write(rate)
        scale = None if self._scaler is None else self._scaler.get_scale()
        loss = self._own_update(batches) if self._way == "train_on_batch" else self._standard_update(batches)
        skipped = self._scaler is not None and scale is not None and self._scaler.get_scale() < scale
        # An update with a finite loss is left out, since only scaling can have made its gradients infinite.
        return None if skipped and loss is not None and math.isfinite(loss) else loss

    def evaluate(self, function: Callable[[], object]) -> float:
        """What ``function`` returns in evaluation mode and without gradients, the mean over all processes."""
        return self._processes.together(lambda: _evaluated(self._model, function))

    def held_out_loss(self, loader: Iterable[Any]) -> float:
        """The mean loss over the rows of a loader, in evaluation mode and without gradients."""
        return self.evaluate(lambda: self._mean_loss(loader))

    def kept(self) -> Snapshot:
        """A copy of the present state, from which training can go on after `run` has put everything back."""
        return Snapshot(*self._parts)

    def _mean_loss(self, loader: Iterable[Any]) -> float:
        losses, rows = [], []
        for batch in self._processes.in_step(loader):
            losses.append(float(self._loss(batch)))
            rows.append(_rows(batch))
        if not losses:
            checks.fail(ValueError, "validation", "a loader with at least one batch", loader)
        return math.fsum(map(mul, losses, rows)) / sum(rows)

    def _started(self, body: Callable[[], V], interrupts: Interrupts) -> V:
        self._interrupts = interrupts
        with torch.enable_grad():
            self._start()
            return body()

    def _start(self) -> None:
        groups.mark_as_tested(self._optimizer)
        for parameter in self._snapshot.parameters:
            parameter.grad = None
        if not self._model.training:
            self._model.train()

    def _restart(self, number: int) -> None:
        if number:
            self._snapshot.restore()
            seed(seed_of(number), self._loader)
            self._start()
        if self._batches is not None:
            self._batches.restart()

    def _take(self) -> list[Any]:
        """The batches of an update."""
        count = 1 if self._way == "train_on_batch" else self._accumulation
        return [None if self._batches is None else self._batches.next() for _ in range(count)]

    def _own_update(self, batches: list[Any]) -> float | None:
        loss = self._function(batches.pop())
        return None if loss is None else sweep.returned_float("train_on_batch", loss)

    def _standard_update(self, batches: list[Any]) -> float:
        loss = self._processes.together(lambda: self._gradients(batches))
        self._processes.average_gradients(self._optimizer)
        self._processes.together(self._step)  # a hook of the optimizer may end the test in one process alone
        return loss

    def _step(self) -> None:
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def _gradients(self, batches: list[Any]) -> float:
        """The mean loss of the batches, whose gradients it leaves in the parameters."""
        self._optimizer.zero_grad()
        losses = []
        while batches:
            loss = self._loss(batches.pop(0))
            if self._accumulation > 1:
                loss = loss / self._accumulation
            self._processes.backward(loss if self._scaler is None else self._scaler.scale(loss), self._optimizer)
            losses.append(loss.detach())
        return float(losses[0] if self._accumulation == 1 else sum(losses))

    def _loss(self, batch: object) -> torch.Tensor:
        batch = _moved(batch, self._device)
        with self._context:
            standard = self._way == "loss_fn"
            loss = self._standard_loss(batch) if standard else self._function(self._bare, batch)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            received = checks.shown(loss)
            raise TypeError(
                f"`{self._way}` must return a tensor with one element, the mean loss. Received: {received}."
            )
        return loss

    def _standard_loss(self, batch: object) -> object:
        """The loss of a batch of inputs and a target."""
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            raise TypeError(
                f"a batch must be inputs and a target. Use `compute_loss` for others. Received: {type(batch).__name__}."
            )
        *inputs, target = batch
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return self._function(self._bare(**inputs[0]), target)
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
            (inputs,) = inputs
        return self._function(self._bare(*inputs), target)


class _Rates:
    """How the rate of a step gets into the groups."""

    def __init__(self, optimizer: torch.optim.Optimizer, group: int | str | None) -> None:
        own = optimizer.param_groups
        if group is None:
            self._factors = list(zip(own, groups.ratios(own) if len(own) > 1 else [1.0], strict=True))
            return
        numbers = {part.get("name", number): number for number, part in enumerate(own)} | {
            number: number for number in range(len(own))
        }
        if isinstance(group, bool) or not isinstance(group, int | str):
            checks.fail(TypeError, "group", "the number or the name of a group", group)
        if group not in numbers:
            checks.fail(ValueError, "group", "the number or the name of a group", group)
        self._factors = [(own[numbers[group]], 1.0)]

    def write(self, rate: float) -> None:
        for group, factor in self._factors:
            groups.write(group, "lr", rate * factor)


def _checked_way(
    model: object,
    optimizer: object,
    loader: object,
    ways: Mapping[str, Callable[..., Any] | None],
    processes: Processes,
) -> str:
    """The name of the one way to train that the user gave."""
    if not isinstance(model, nn.Module):
        checks.fail(TypeError, "model", "a torch.nn.Module", model)
    groups.checked_optimizer(optimizer)
    given = [name for name, way in ways.items() if way is not None]
    if len(given) != 1:
        raise TypeError(f"one of `loss_fn`, `compute_loss` and `train_on_batch` must be given. Received: {given!r}.")
    checks.function(given[0], ways[given[0]])
    if loader is None and given[0] != "train_on_batch":
        raise TypeError("`loader` must be given with `loss_fn` and `compute_loss`. Received: None.")
    if loader is not None and not isinstance(loader, Iterable):
        checks.fail(TypeError, "loader", "a DataLoader or another iterable", loader)
    if any(nn.parameter.is_lazy(part) for part in _tensors(model)):
        raise ValueError("`model` must know the shapes of its parameters. Give it a batch before the test.")
    if processes.many and given[0] == "train_on_batch":
        raise ValueError(
            "`train_on_batch` is not supported where several processes train one model, for all must agree when one "
            "fails. Use `loss_fn` or `compute_loss`."
        )
    inside = {type(part).__name__ for part in processes.bare.modules()} if processes.many else set()
    if wrappers := sorted(inside & {"DistributedDataParallel", "FullyShardedDataParallel"}):
        raise ValueError(
            "`model` must be the DistributedDataParallel itself, a model that `fully_shard` has divided, or one "
            f"without wrappers. Received: {type(model).__name__} with {', '.join(wrappers)} in it."
        )
    return given[0]


def _checked_device(name: str, device: object) -> torch.device | None:
    """A device that can hold tensors, or None."""
    if device is None:
        return None
    if not isinstance(device, torch.device | str | int) or isinstance(device, bool):
        checks.fail(TypeError, name, "a device that PyTorch has here", device)
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError):  # which is said where it is not there
        checks.fail(ValueError, name, "a device that PyTorch has here", device)


def _checked_context(autocast: object, device: torch.device) -> AbstractContextManager[Any]:
    """What surrounds a forward pass."""
    if autocast is None:
        return nullcontext()
    if isinstance(autocast, torch.autocast):
        return autocast
    if not isinstance(autocast, torch.dtype):
        checks.fail(TypeError, "autocast", "a floating dtype, such as torch.bfloat16, or a torch.autocast", autocast)
    if not autocast.is_floating_point:
        checks.fail(ValueError, "autocast", "a floating dtype, such as torch.bfloat16, or a torch.autocast", autocast)
    return torch.autocast(device.type, autocast)


def _checked_also(also: object) -> list[Stateful]:
    """Things that give their state and take it back."""
    rule = "a list of things with `state_dict` and `load_state_dict`"
    if not isinstance(also, Sequence) or isinstance(also, str):
        checks.fail(TypeError, "also", rule, also)
    for thing in also:
        if not all(callable(getattr(thing, name, None)) for name in ("state_dict", "load_state_dict")):
            checks.fail(TypeError, "also", rule, also)
    return list(also)


def _evaluated(model: nn.Module, evaluate: Callable[[], object]) -> float:
    """What ``evaluate`` returns, with the model in evaluation mode."""
    trained = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return sweep.returned_float("evaluate", evaluate())
    finally:
        for part, training in trained:
            part.training = training


def _rows(batch: Any) -> int:
    """How many rows a batch has: those of the first tensor in it."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.dim() else 1
    inner = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((_rows(item) for item in inner), 1)


def _tensors(model: nn.Module) -> Iterable[torch.Tensor]:
    return chain(model.parameters(), model.buffers())


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch of any form with its tensors on a device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True) if isinstance(batch, torch.Tensor) else batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(item, device) for item in batch))
    return mapped(batch, lambda item: _moved(item, device)) if type(batch) in (dict, list, tuple) else batch
