"""The LR range test in PyTorch. See `clr.torch.range_test`."""

import copy
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Unpack

import torch
from torch import distributed, nn

from clr import checks
from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import EndOfSweep, Options
from clr.finder.transaction import Batches, Interrupts, put_back, random_state, seed_of, seed_random, uninterrupted


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
    processes = _Processes(model)
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

        snapshot = _Snapshot(modules, optimizer, scaler, loader, also, snapshot_device)
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


class _Snapshot:
    """All that a range test changes, as it was."""

    def __init__(
        self,
        modules: list[nn.Module],
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        loader: Any,
        also: Sequence[Any],
        device: torch.device | str | None,
    ) -> None:
        in_groups = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        in_modules = chain.from_iterable(module.parameters() for module in modules)
        self.parameters = list({id(part): part for part in chain(in_modules, in_groups)}.values())
        self._modules = Modules(modules, self.parameters, device)
        self._weights = Copy(self.parameters, device)
        self._optimizer = optimizer
        # Such as PyTorch's note of whether a scheduler was stepped too early, and what a scaler lends it for an update.
        self._attributes = dict(vars(optimizer))
        self._state = Copy(dict(optimizer.state), device)
        self._groups = [
            (group, group["params"], Copy({key: group[key] for key in group if key != "params"}, device))
            for group in optimizer.param_groups
        ]
        self._scaler = scaler
        self._scaling = None if scaler is None else Copy(vars(scaler), device)
        self._also = [(thing, copy.deepcopy(thing.state_dict())) for thing in also]
        self._random = [random_state(), *generators(loader)]

    @torch.no_grad()
    def restore(self) -> None:
        put_back(
            # First, for they may write into weights and rates.
            *(partial(self._restore_other, *pair) for pair in self._also),
            self._modules.restore,
            self._weights.restored,
            self._restore_optimizer,
            *(partial(self._restore_group, *group) for group in self._groups),
            self._restore_scaler,
            *self._random,
        )

    def _restore_other(self, thing: Any, state: Any) -> None:
        thing.load_state_dict(copy.deepcopy(state))

    def _restore_optimizer(self) -> None:
        _refill(vars(self._optimizer), self._attributes)
        _refill(self._optimizer.state, self._state.restored())

    def _restore_group(self, group: dict[str, Any], parameters: Any, rest: "Copy") -> None:
        _refill(group, {"params": parameters, **rest.restored()})

    def _restore_scaler(self) -> None:
        if self._scaling is not None:
            _refill(vars(self._scaler), self._scaling.restored())

    def restore_gradients(self) -> None:
        self._modules.restore_gradients()


class Modules:
    """What modules have beside their parameters, as it was: extra state, modes, buffers and gradients."""

    def __init__(
        self, modules: list[nn.Module], parameters: list[torch.Tensor], device: torch.device | str | None = None
    ) -> None:
        parts = [part for module in modules for part in module.modules()]
        self._extra = [(part, Copy(part.get_extra_state(), device)) for part in parts if _has_extra_state(part)]
        self._modes = [(part, part.training) for part in parts]
        # By name, for a module may put another tensor in the place of its buffer.
        self._buffers = [(part, dict(part._buffers)) for part in parts]
        self._contents = Copy(
            list({id(part): part for module in modules for part in module.buffers()}.values()), device
        )
        # The tensors themselves are out of the test's reach, so they need no copy.
        self._gradients = [(part, part.grad) for part in parameters]

    def restore(self) -> None:
        """Puts back extra state, modes and buffers."""
        extra = (partial(self._restore_extra, *pair) for pair in self._extra)
        put_back(*extra, self._restore_modes, self._contents.restored)

    def restore_gradients(self) -> None:
        """Puts back the gradients, which are not to be there while it trains."""
        put_back(*(partial(setattr, part, "grad", gradient) for part, gradient in self._gradients))

    def _restore_extra(self, part: nn.Module, state: "Copy") -> None:
        part.set_extra_state(state.restored())

    def _restore_modes(self) -> None:
        for part, training in self._modes:
            part.training = training
        for part, buffers in self._buffers:
            _refill(part._buffers, buffers)


class Copy:
    """Copies of the tensors in a value, next to the tensors, which keep their identity when they are restored."""

    def __init__(self, value: Any, device: torch.device | str | None) -> None:
        self._tensors: list[_Kept] = []
        self._kept = self._keep(value, device)

    def restored(self) -> Any:
        """The value with its tensors as they were, in containers of its own."""
        put_back(*(kept.restore for kept in self._tensors))
        return self._rebuilt(self._kept)

    def _keep(self, value: Any, device: torch.device | str | None) -> Any:
        if isinstance(value, torch.Tensor):
            self._tensors.append(_Kept(value, device))
            return self._tensors[-1]
        if type(value) in (dict, list, tuple):
            return _mapped(value, lambda item: self._keep(item, device))
        return copy.deepcopy(value)

    def _rebuilt(self, kept: Any) -> Any:
        if isinstance(kept, _Kept):
            return kept.tensor
        return _mapped(kept, self._rebuilt) if type(kept) in (dict, list, tuple) else copy.deepcopy(kept)


class _Kept:
    """A tensor and a copy of its values."""

    def __init__(self, tensor: torch.Tensor, device: torch.device | str | None) -> None:
        self.tensor = tensor
        data = _unrepeated(tensor.detach())
        self._data = data.clone() if device is None else data.to(device, copy=True)

    def restore(self) -> None:
        _unrepeated(self.tensor.detach()).copy_(self._data)


class _Processes:
    """The processes that train one model, and what they have to agree on. Most often there is but one.

    A process that fails, or has no more data, would leave the others waiting for it. So all of them meet after each
    thing that may fail, and tell each other how it went.
    """

    def __init__(self, model: nn.Module) -> None:
        self.many, self.rank, self._watched = False, 0, False
        if not isinstance(model, nn.parallel.DistributedDataParallel):
            return
        self.many = True
        self._group: Any = model.process_group
        self.rank = distributed.get_rank(self._group)
        self._size = distributed.get_world_size(self._group)
        # It then notes the gradients of steps that are not its own, too, and takes them for those of its next.
        self._watched = model.find_unused_parameters or model.static_graph
        self._looked_at = False  # whether the first loss was, for what `backward` can not do then
        self._device = next(model.parameters()).device
        self._failed = False
        self._deadline = float("inf")
        self._interrupts = Interrupts()

    def deadline(self, limit: float | None) -> None:
        """Sets the time at which the first to see it ends the test for all."""
        if limit is not None:
            self._deadline = time.monotonic() + checks.positive("time_limit", limit)

    def __enter__(self) -> None:
        if self.many:
            self._interrupts.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not self.many:
            return
        try:
            if not self._failed:
                self._meet(failed=error is not None)
                if error is None:
                    self._check()
        finally:
            self._interrupts.__exit__(kind, error, trace)

    def together(self, action: Callable[[], Any]) -> Any:
        """The result of ``action``, the mean of all if it is a number; fails or ends in all if it does so in one."""
        if not self.many:
            return action()
        value, problem = None, None
        try:
            value = action()
        except (Exception, KeyboardInterrupt) as error:
            problem = error
        out_of_data, pressed = isinstance(problem, StopIteration), isinstance(problem, KeyboardInterrupt)
        failed = problem is not None and not out_of_data and not pressed
        mean = self._meet(
            failed=failed,
            out_of_data=out_of_data,
            late=time.monotonic() >= self._deadline,
            interrupted=self._interrupts.take() or pressed,
            value=value if isinstance(value, float) else 0.0,
        )
        if failed and problem is not None:
            raise problem
        self._check()
        return mean if isinstance(value, float) else value

    def agree(self, settings: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Fails in all where one does more steps than the others, or other ones: they would wait for each other."""
        if not self.many:
            return
        self._meet(failed=False)  # where one may have failed already
        self._check()
        own = {**settings, "trained parameters": len(_trained(optimizer))}
        digest = float(zlib.crc32(repr(sorted(own.items())).encode()))
        extremes = torch.tensor([digest, -digest], dtype=torch.float64, device=self._device)
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX, group=self._group)
        if extremes.sum().item():
            raise ValueError(f"all processes must be given the same options. Received in process {self.rank}: {own!r}.")

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Adds the gradients of a loss to those of the parameters, unseen by `DistributedDataParallel`."""
        if not self._watched:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        if not self._looked_at and _has_reentrant_checkpoint(loss):
            raise ValueError(
                "under DistributedDataParallel with `static_graph` or `find_unused_parameters`, checkpoints must have "
                "`use_reentrant=False`, or the test be made before the model is wrapped."
            )
        self._looked_at = True
        parameters = _trained(optimizer)
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
        for part, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and part.grad is not None:
                part.grad += gradient
            elif gradient is not None:  # a tensor of its own, in the layout of the parameter, as `backward` makes it
                part.grad = gradient.clone() if gradient.is_sparse else torch.empty_like(part).copy_(gradient)

    def average_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Gives every process the mean of the gradients of all."""
        if not self.many:
            return
        parameters = _trained(optimizer)
        used = torch.tensor([part.grad is not None for part in parameters], dtype=torch.int32, device=self._device)
        distributed.all_reduce(used, group=self._group)
        counts = used.tolist()
        parameters = [part for part, count in zip(parameters, counts, strict=True) if count]

        def complete() -> None:
            for part in parameters:
                if part.grad is None:
                    part.grad = torch.zeros_like(part)

        if any(0 < count < self._size for count in counts):
            self.together(complete)  # for memory may be short
        works = []
        for gradient in [part.grad for part in parameters if part.grad is not None]:
            gradient /= self._size
            works.append(distributed.all_reduce(gradient, group=self._group, async_op=True))
        for work in works:
            work.wait()

    def _check(self) -> None:
        if self._failed:
            raise RuntimeError("the range test has failed in another process")

    def _meet(
        self,
        failed: bool,
        out_of_data: bool = False,
        late: bool = False,
        interrupted: bool = False,
        value: float = 0.0,
    ) -> float:
        """Tells the others how it went, and hears it from them; returns the mean value."""
        news = torch.tensor([failed, out_of_data, late, interrupted, value], dtype=torch.float64, device=self._device)
        distributed.all_reduce(news, group=self._group)
        failures, ends, lates, interrupts, total = news.tolist()
        self._failed = failures > 0
        if not self._failed:
            if interrupts:
                raise KeyboardInterrupt
            if ends or lates:
                raise EndOfSweep("data" if ends else "time")
        mean: float = total / self._size
        return mean


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


def _trained(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters that an optimizer trains."""
    return [part for group in optimizer.param_groups for part in group["params"] if part.requires_grad]


def _parts(modules: list[nn.Module]) -> Iterator[Iterable[torch.Tensor]]:
    for module in modules:
        yield module.parameters()
        yield module.buffers()


def _has_reentrant_checkpoint(loss: torch.Tensor) -> bool:
    """Whether a loss comes from a checkpoint whose gradients are seen by `backward` alone."""
    met: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        if "CheckpointFunctionBackward" in node.name():
            return True
        met.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def _has_extra_state(part: nn.Module) -> bool:
    """Whether a module has a state beside its tensors, by the signs that PyTorch goes by."""
    own = type(part)
    return nn.Module.get_extra_state is not own.get_extra_state and nn.Module.set_extra_state is not own.set_extra_state


def _unrepeated(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its memory but none of it twice: into what ``expand`` repeats nothing can be written."""
    if tensor.layout is torch.strided and not tensor.is_nested:
        for dimension, stride in enumerate(tensor.stride()):
            if stride == 0:
                tensor = tensor[(slice(None),) * dimension + (slice(1),)]
    return tensor


def _refill(old: Any, new: Mapping[Any, Any]) -> None:
    """Gives a dict other contents."""
    old.clear()
    old.update(new)


def _moved(batch: Any, device: Any) -> Any:
    """A batch of any form with its tensors on a device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True) if isinstance(batch, torch.Tensor) else batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(item, device) for item in batch))
    return _mapped(batch, lambda item: _moved(item, device)) if type(batch) in (dict, list, tuple) else batch


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A dict, list or tuple with ``function`` applied to what it holds."""
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    return type(value)(function(item) for item in value)


def _own_generators(loader: Any) -> list[torch.Generator]:
    """The random generators of a loader and its samplers."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def generators(loader: Any) -> list[Callable[[], object]]:
    """Functions that put PyTorch's random state, and that of a loader, back to what it is now."""
    pairs: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [(torch.get_rng_state, torch.set_rng_state)]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        pairs.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if torch.backends.mps.is_available():
        pairs.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    pairs += [(own.get_state, own.set_state) for own in _own_generators(loader)]
    return [partial(put, get()) for get, put in pairs]


def seed(number: int, loader: Any) -> None:
    """Seeds all that a test draws from."""
    seed_random(number)
    torch.manual_seed(number)
    for own in _own_generators(loader):
        own.manual_seed(number)
