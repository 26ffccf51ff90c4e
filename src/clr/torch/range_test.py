"""The LR range test in PyTorch. See `clr.torch.range_test`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import Batches, put_back, seed_of, uninterrupted
from clr.torch import groups
from clr.torch.ddp import Processes
from clr.torch.snapshot import Snapshot, Stateful, mapped, seed


def range_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    loader: Iterable[Any] | None = None,
    *,
    compute_loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    train_on_batch: Callable[[Any], object] | None = None,
    group: int | str | None = None,
    gradient_accumulation_steps: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    autocast: torch.dtype | None = None,
    device: torch.device | str | None = None,
    snapshot_device: torch.device | str | None = None,
    also: Sequence[Stateful] = (),
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
    """An LR range test of a model (Smith 2017, section 3.3) that leaves no trace in it.

    The test puts everything back bit for bit, also after Ctrl-C or an error: parameters, buffers, extra state,
    gradients and training mode of the model, state and hyperparameters of the optimizer, the scaler, and the random
    state of Python, NumPy, PyTorch and the loader. The copy for this takes as much memory as the model and the
    optimizer's state. If something cannot be put back, everything else is, and then its error is raised.

    Of an optimizer it puts back tensors, lists and dicts in its attributes too, and other optimizers that it holds, as
    SAM does. It cannot put back how far a one-way iterator has come, what a data set remembers, and what a module
    counts in attributes that are no tensors, unless its ``get_extra_state`` tells. It starts workers of its own, so the
    persistent workers of a loader stay as they are.

    Args:
        model: What to train, also in `DistributedDataParallel`. During the test it is in training mode.
        optimizer: What to train it with. The group with the highest rate gets the rate of
            each step. The others keep their ratio to it, as with `clr.torch.keep_ratios`.
        loss_fn: The loss of an output and a target. A batch is inputs and then a target: ``(x, y)`` or
            ``(x1, x2, y)``. Inputs that are a dict are passed by name.
        loader: The batches: a DataLoader or any other iterable. The test starts it again when it ends. If it is a
            one-way iterator, the test ends with it.
        compute_loss: Use it in place of ``loss_fn`` for batches of any form. It takes the model and a batch and returns
            the loss, such as ``lambda model, batch: model(**batch).loss``.
        train_on_batch: Use it in place of both. It makes a whole update with a batch and returns the loss. Without a
            ``loader`` it gets None. It must accumulate, cast and move batches itself. It is not supported in
            `DistributedDataParallel`: if it failed in one process, the others would wait inside it.
        group: The number or ``"name"`` of one group. Then the test changes only its rate.
        gradient_accumulation_steps: The number of batches per update. The loss is their mean.
        scaler: A ``torch.amp.GradScaler``. An update that it skips leaves no point. A loss that is not finite ends the
            test, as it does without a scaler.
        autocast: The dtype for ``torch.autocast``, such as ``torch.bfloat16``.
        device: Where batches go. By default where the model is.
        snapshot_device: Where to keep the copy, such as ``"cpu"``. By default beside the original.
        also: Other things to put back that have a ``state_dict`` and a ``load_state_dict``, such as a scheduler that
            ``train_on_batch`` steps, or an average of the weights.
        min_lr: The first rate, as in `clr.range_test`.
        max_lr: The last rate.
        num_steps: How many rates to try.
        growth: ``"exponential"`` or ``"linear"``.
        diverge_at: The test ends when the loss has risen above its start by this many times its fall.
        time_limit: The test ends after so many seconds.
        evaluate: A function that returns a validation loss or accuracy, from which the bounds are then read. It is
            called in evaluation mode and without gradients.
        evaluate_every: The number of steps from one call of ``evaluate`` to the next.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of ``evaluate`` is better.
        repeats: How many times to go over the rates.
        progress: Whether to show a progress bar.

    In `DistributedDataParallel` every process must call this with the same options. The losses are the means over the
    processes, so all processes find the same bounds. If one raises an error, all do. With ``static_graph`` or
    ``find_unused_parameters``, checkpoints need ``use_reentrant=False``.

    Raises:
        TypeError, ValueError: An argument makes no sense, is not supported in `DistributedDataParallel`, or is not the
            same in all processes.
        RuntimeError: Another process has raised an error.

    >>> import clr, torch
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> y = (x**2).sum(1, keepdim=True)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)
    >>> test = clr.torch.range_test(model, optimizer, torch.nn.MSELoss(), loader)
    >>> base_lr, max_lr = test.bounds()
    >>> 1e-5 < base_lr < max_lr < 0.1
    True
    """
    processes = Processes(model)
    with torch.enable_grad(), processes:  # which tells all processes of a bad argument in one
        options = Options(
            min_lr, max_lr, num_steps, growth, diverge_at, time_limit, evaluate, evaluate_every, goal, repeats, progress
        )
        ways = {"loss_fn": loss_fn, "compute_loss": compute_loss, "train_on_batch": train_on_batch}
        way = _checked_way(model, optimizer, loader, ways, processes.many)
        test = _Test(processes, model, optimizer, loader, way, ways[way], scaler)
        test.prepare(group, gradient_accumulation_steps, autocast, device)
        modules = [part for part in (model, ways[way]) if isinstance(part, nn.Module)]
        snapshot = Snapshot(modules, optimizer, scaler, loader, also, snapshot_device)
        return test.run(options, snapshot)


def _checked_way(model: object, optimizer: object, loader: object, ways: Mapping[str, object], many: bool) -> str:
    """The name of the one way to train that the user gave."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module. Received: {model!r}.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"`optimizer` must be a torch.optim.Optimizer. Received: {optimizer!r}.")
    given = [name for name, way in ways.items() if way is not None]
    if len(given) != 1:
        raise TypeError(f"one of `loss_fn`, `compute_loss` and `train_on_batch` must be given. Received: {given!r}.")
    checks.function(given[0], ways[given[0]])
    if loader is None and given[0] != "train_on_batch":
        raise TypeError("`loader` must be given with `loss_fn` and `compute_loss`. Received: None.")
    if loader is not None and not isinstance(loader, Iterable):
        raise TypeError(f"`loader` must be a DataLoader or another iterable. Received: {loader!r}.")
    if any(nn.parameter.is_lazy(part) for part in _tensors(model)):
        raise ValueError("`model` must know the shapes of its parameters. Give it a batch before the test.")
    if many and given[0] == "train_on_batch":
        raise ValueError(
            "`train_on_batch` is not supported under DistributedDataParallel, where all processes must agree when one "
            "fails. Use `loss_fn` or `compute_loss`."
        )
    return given[0]


class _Test:
    """A range test of a model: how it makes a step, and how it starts and ends."""

    def __init__(
        self,
        processes: Processes,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Iterable[Any] | None,
        way: str,
        function: Any,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self._processes, self._model, self._optimizer = processes, model, optimizer
        self._loader, self._way, self._function, self._scaler = loader, way, function, scaler
        self._bare: Any = model.module if processes.many else model

    def prepare(
        self,
        group: int | str | None,
        accumulation: int,
        autocast: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        """Checks the options of the training, and prepares what a step needs of them."""
        self._accumulation = checks.count("gradient_accumulation_steps", accumulation)
        self._settings: dict[str, object] = {"group": group, "gradient_accumulation_steps": accumulation}
        self._rates = _Rates(self._optimizer, group)
        self._batches = None if self._loader is None else Batches(self._loader)
        if device is None:
            device = next((part.device for part in _tensors(self._model)), torch.device("cpu"))
        self._device = device
        self._context = nullcontext() if autocast is None else torch.autocast(torch.device(device).type, autocast)

    def run(self, options: Options, snapshot: Snapshot) -> RangeTest:
        """Makes the test and puts everything back."""
        self._snapshot = snapshot
        names = {part.name for part in fields(Options)} - {"time_limit", "progress"}
        self._settings |= {name: getattr(options, name) for name in names}
        self._settings |= {"scaler": self._scaler is not None, "evaluate": options.evaluate is not None}
        limit, evaluate = options.time_limit, options.evaluate
        if evaluate is not None:
            options = replace(options, evaluate=lambda: self._evaluate(evaluate))
        if self._processes.many:
            self._processes.deadline(limit)
            options = replace(options, time_limit=None, progress=False if self._processes.rank else options.progress)
        try:
            groups.mark_as_tested(self._optimizer)
            for parameter in snapshot.parameters:
                parameter.grad = None
            if not self._model.training:
                self._model.train()
            return replace(sweep.run(self._step, self._reset, options), time_limit=limit)
        finally:
            with uninterrupted():
                leave = [] if self._batches is None else [self._batches.leave]
                put_back(snapshot.restore, snapshot.restore_gradients, *leave)

    def _reset(self, repeat: int) -> None:
        if repeat:
            self._snapshot.restore()
            groups.mark_as_tested(self._optimizer)
            seed(seed_of(repeat), self._loader)
            if not self._model.training:
                self._model.train()
        else:
            self._processes.agree(self._settings, self._optimizer)
        if self._batches is not None:
            self._batches.restart()

    def _step(self, rate: float) -> float | None:
        """One update at a rate. Returns its loss, or None if the scaler has skipped the update."""
        batches = self._processes.together(self._take)
        self._rates.write(rate)
        scale = None if self._scaler is None else self._scaler.get_scale()
        loss = self._own_update(batches) if self._way == "train_on_batch" else self._update(batches)
        skipped = self._scaler is not None and scale is not None and self._scaler.get_scale() < scale
        # An update with a finite loss is left out, since only scaling can have made its gradients infinite.
        return None if skipped and loss is not None and math.isfinite(loss) else loss

    def _take(self) -> list[Any]:
        """The batches of an update."""
        count = 1 if self._way == "train_on_batch" else self._accumulation
        return [None if self._batches is None else self._batches.next() for _ in range(count)]

    def _own_update(self, batches: list[Any]) -> float | None:
        loss = self._function(batches.pop())
        return None if loss is None else sweep.returned_float("train_on_batch", loss)

    def _update(self, batches: list[Any]) -> float:
        loss = self._processes.together(lambda: self._gradients(batches))
        self._processes.average_gradients(self._optimizer)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return loss

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
            raise TypeError(f"`{self._way}` must return a tensor with one element, the mean loss. Received: {loss!r}.")
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

    def _evaluate(self, evaluate: Callable[[], object]) -> float:
        return self._processes.together(lambda: _evaluated(self._model, evaluate))


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
        if isinstance(group, bool) or group not in numbers:
            raise ValueError(f"`group` must be the number or the name of a group. Received: {group!r}.")
        self._factors = [(own[numbers[group]], 1.0)]

    def write(self, rate: float) -> None:
        for group, factor in self._factors:
            groups.write(group, "lr", rate * factor)


def _evaluated(model: nn.Module, evaluate: Callable[[], object]) -> float:
    """What ``evaluate`` returns, with the model in evaluation mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return sweep.returned_float("evaluate", evaluate())
    finally:
        for part, training in modes:
            part.training = training


def _tensors(model: nn.Module) -> Iterable[torch.Tensor]:
    return chain(model.parameters(), model.buffers())


def _moved(batch: Any, device: torch.device | str) -> Any:
    """A batch of any form with its tensors on a device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True) if isinstance(batch, torch.Tensor) else batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(item, device) for item in batch))
    return mapped(batch, lambda item: _moved(item, device)) if type(batch) in (dict, list, tuple) else batch
