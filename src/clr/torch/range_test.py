"""The LR range test in PyTorch. See `clr.torch.range_test`."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any, Unpack

import torch
from torch import nn

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.finder.transaction import Batches, put_back, seed_of, uninterrupted
from clr.torch.ddp import Processes
from clr.torch.snapshot import Modules as Modules
from clr.torch.snapshot import Snapshot, mapped, seed
from clr.torch.snapshot import generators as generators


def range_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[..., Any] | None = None,
    loader: Iterable[Any] | None = None,
    *,
    compute_loss: Callable[[Any, Any], Any] | None = None,
    train_step: Callable[[Any], Any] | None = None,
    group: int | str | None = None,
    accumulate: int = 1,
    scaler: Any = None,
    autocast: torch.dtype | None = None,
    device: torch.device | str | None = None,
    snapshot_device: torch.device | str | None = None,
    also: Sequence[Any] = (),
    **options: Unpack[Options],
) -> RangeTest:
    """An LR range test of a model (Smith 2017, section 3.3) that leaves no trace in it.

    However the test ends, by itself, by Ctrl-C or by an error, all is bit for bit as before: parameters, buffers,
    extra state, gradients and training mode of the model, state and hyperparameters of the optimizer, the scaler, and
    the random state of Python, NumPy, PyTorch and the loader. The copy that this takes is as large as the model and the
    optimizer's state, in memory. What is not put back is what PyTorch does not know of: how far a one-way iterator has
    come, what a data set remembers, and what a module counts outside of its ``get_extra_state``. Workers that persist
    in a loader stay as they are, for the test has its own. If something can not be put back, everything else is, and
    then its error is raised.

    Args:
        model: What to train, as it is trained: in `DistributedDataParallel` too. If it is in evaluation mode, it is
            put in training mode for the test.
        optimizer: What to train it with. Its first group gets the rate of each step, the others keep their ratio to
            it.
        loss_fn: The loss of an output and a target. A batch is inputs and then a target: ``(x, y)`` or
            ``(x1, x2, y)``; inputs that are a dict are given by name.
        loader: The batches: a DataLoader, or anything to iterate over, as often as it takes. A one-way iterator ends
            the test where it ends.
        compute_loss: In place of ``loss_fn``: the loss of a model and a batch of any form, such as
            ``lambda model, batch: model(**batch).loss``.
        train_step: In place of both: makes a whole update with a batch and returns its loss; without a ``loader`` it
            gets None. ``accumulate``, ``autocast`` and ``device`` are then its own affair. Not for a model in
            `DistributedDataParallel`: a process in which it failed would leave the others waiting within it.
        group: The number or ``"name"`` of one group: its rate alone is tested, the others keep theirs.
        accumulate: Batches whose gradients make one update; the loss is their mean.
        scaler: A ``torch.amp.GradScaler``. An update that it skips leaves no point, unless the loss itself is not
            finite: that ends the test, as without a scaler.
        autocast: The dtype to which ``torch.autocast`` is set, such as ``torch.bfloat16``.
        device: Where batches go; by default where the model is.
        snapshot_device: Where the copy of what is put back is kept, such as ``"cpu"``; by default where it is used.
        also: Other things to put back that have a ``state_dict`` and a ``load_state_dict``, such as a scheduler that
            ``train_step`` steps, or an average of the weights.
        **options: The range, its limits and more, as in `clr.range_test`. ``evaluate`` is called in evaluation mode
            and without gradients.

    In `DistributedDataParallel` every process calls this, with the same options. Losses are averaged over the
    processes, so all record the same, stop at the same step and find the same bounds. If one of them raises, all do.
    With ``static_graph`` or ``find_unused_parameters``, checkpoints need ``use_reentrant=False``.

    Raises:
        TypeError, ValueError: An argument makes no sense, such as ``train_step`` in `DistributedDataParallel`, or is
            not the same in all processes.
        RuntimeError: Another process has raised.

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
    with torch.enable_grad(), processes:  # so that all hear of a bad argument in one, too
        if not isinstance(model, nn.Module):
            raise TypeError(f"`model` must be a torch.nn.Module. Received: {model!r}.")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer. Received: {optimizer!r}.")
        ways = {"loss_fn": loss_fn, "compute_loss": compute_loss, "train_step": train_step}
        given = [name for name, way in ways.items() if way is not None]
        if len(given) != 1:
            raise TypeError(f"one of `loss_fn`, `compute_loss` and `train_step` must be given. Received: {given!r}.")
        checks.function(given[0], ways[given[0]])
        if loader is None and train_step is None:
            raise TypeError("`loader` must be given with `loss_fn` and `compute_loss`. Received: None.")
        if loader is not None and not isinstance(loader, Iterable):
            raise TypeError(f"`loader` must be a DataLoader, or something else to iterate over. Received: {loader!r}.")
        checks.count("accumulate", accumulate)
        if any(nn.parameter.is_lazy(part) for part in chain(*_parts([model]))):
            raise ValueError("`model` must know the shapes of its parameters: give it a batch before the test.")
        rates = _Rates(optimizer, group)

        modules = [model, *(way for way in ways.values() if isinstance(way, nn.Module))]
        if processes.many and train_step is not None:
            raise ValueError(
                "under DistributedDataParallel `loss_fn` or `compute_loss` is needed, not `train_step`, "
                "so that all processes can agree when one fails."
            )
        bare: Any = model.module if processes.many else model
        batches = None if loader is None else Batches(loader)
        if device is None:
            device = next((part.device for part in chain(*_parts([model]))), torch.device("cpu"))
        context = nullcontext() if autocast is None else torch.autocast(torch.device(device).type, autocast)

        def loss_of(batch: Any) -> torch.Tensor:
            batch = _moved(batch, device)
            with context:
                loss = compute_loss(bare, batch) if compute_loss is not None else _standard_loss(bare, loss_fn, batch)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                raise TypeError(
                    f"`{given[0]}` must return a tensor with one element, the mean loss. Received: {loss!r}."
                )
            return loss

        def gradients() -> float:
            """The mean loss of the batches of an update, whose gradients are left in the parameters."""
            optimizer.zero_grad()
            losses = []
            for batch in taken:
                loss = loss_of(batch)
                if accumulate > 1:
                    loss = loss / accumulate
                processes.backward(loss if scaler is None else scaler.scale(loss), optimizer)
                losses.append(loss.detach())
            taken.clear()
            return float(losses[0] if accumulate == 1 else sum(losses))

        def update() -> None:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()

        taken: list[Any] = []

        def take() -> None:
            count = accumulate if train_step is None else 1
            taken[:] = [None if batches is None else batches.next() for _ in range(count)]

        def step(rate: float) -> float | None:
            processes.together(take)
            rates.write(rate)
            scale = None if scaler is None else scaler.get_scale()
            if train_step is not None:
                loss = _own_step(train_step, taken)
            else:
                loss = processes.together(gradients)
                processes.average_gradients(optimizer)
                update()
            skipped = scale is not None and scaler.get_scale() < scale
            # Only what was scaled can overflow by its scale.
            return None if skipped and loss is not None and math.isfinite(loss) else loss

        def reset(repeat: int) -> None:
            if repeat:
                snapshot.restore()
                seed(seed_of(repeat), loader)
                if not model.training:
                    model.train()
            else:
                processes.agree(settings, optimizer)
            if batches is not None:
                batches.restart()

        settings = {name: value for name, value in options.items() if name not in ("time_limit", "progress")}
        settings |= {"group": group, "accumulate": accumulate}
        settings |= {"scaler": scaler is not None, "evaluate": options.get("evaluate") is not None}
        if (evaluate := options.get("evaluate")) is not None:
            checks.function("evaluate", evaluate)
            options["evaluate"] = lambda: processes.together(lambda: _evaluated(model, evaluate))
        limit = options.get("time_limit")
        if processes.many:
            processes.deadline(options.pop("time_limit", None))
            if processes.rank:
                options["progress"] = False

        snapshot = Snapshot(modules, optimizer, scaler, loader, also, snapshot_device)
        try:
            for parameter in snapshot.parameters:
                parameter.grad = None
            if not model.training:
                model.train()
            test = sweep.range_test(step, reset, **options)
            return replace(test, time_limit=None if limit is None else float(limit))
        finally:
            with uninterrupted():
                leave = [] if batches is None else [batches.leave]
                put_back(snapshot.restore, snapshot.restore_gradients, *leave)


class _Rates:
    """How the rate of a step gets into the groups."""

    def __init__(self, optimizer: torch.optim.Optimizer, group: int | str | None) -> None:
        groups = optimizer.param_groups
        if group is None:
            first = float(groups[0]["lr"])
            if first == 0 and len(groups) > 1:
                raise ValueError("the first group must have a rate above 0, for the others keep their ratio to it.")
            self._ratios = [(own, float(own["lr"]) / first if len(groups) > 1 else 1.0) for own in groups]
            self._ratios[0] = (groups[0], 1.0)
            return
        numbers = {own.get("name", number): number for number, own in enumerate(groups)} | {
            number: number for number in range(len(groups))
        }
        if isinstance(group, bool) or group not in numbers:
            raise ValueError(f"`group` must be the number or the name of a group. Received: {group!r}.")
        self._ratios = [(groups[numbers[group]], 1.0)]

    def write(self, rate: float) -> None:
        for group, ratio in self._ratios:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio


def _standard_loss(model: nn.Module, loss_fn: Any, batch: Any) -> Any:
    """The loss of a batch of inputs and a target."""
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        raise TypeError(
            f"a batch must be inputs and a target; any other needs `compute_loss`. Received: {type(batch).__name__}."
        )
    *inputs, target = batch
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return loss_fn(model(**inputs[0]), target)
    if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
        return loss_fn(model(*inputs[0]), target)
    return loss_fn(model(*inputs), target)


def _own_step(train_step: Callable[[Any], Any], taken: list[Any]) -> float | None:
    loss = train_step(taken.pop())
    return None if loss is None else sweep.number("train_step", loss)


def _evaluated(model: nn.Module, evaluate: Callable[[], Any]) -> float:
    """What ``evaluate`` gives, with the model in evaluation mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return sweep.number("evaluate", evaluate())
    finally:
        for part, training in modes:
            part.training = training


def _parts(modules: list[nn.Module]) -> Iterator[Iterable[torch.Tensor]]:
    for module in modules:
        yield module.parameters()
        yield module.buffers()


def _moved(batch: Any, device: Any) -> Any:
    """A batch of any form with its tensors on a device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True) if isinstance(batch, torch.Tensor) else batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(item, device) for item in batch))
    return mapped(batch, lambda item: _moved(item, device)) if type(batch) in (dict, list, tuple) else batch
