"""The processes that train one model together: in `DistributedDataParallel`, sharded, or as plain replicas."""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from clr import checks
from clr.finder.sweep import EndOfSweep
from clr.finder.transaction import Interrupts

V = TypeVar("V")


class Processes:
    """The processes that train one model, and what they must agree on. Most often there is only one.

    They are those of the model's `DistributedDataParallel`. Without one they are those of a group, by default of all,
    where `torch.distributed` has several: then each has a replica of the model, or a part of it.

    If one process failed or had no more data, the others would wait for it. So all of them meet after each thing that
    may fail, and tell each other how it went.

    Attributes:
        many: Whether there may be several.
        sharded: Whether each has a part of the model, as with ``fully_shard``. Such a model averages its own gradients.
        rank: The number of this one.
        bare: The model without its `DistributedDataParallel`.
    """

    def __init__(self, model: nn.Module, group: distributed.ProcessGroup | None) -> None:
        self.many, self.sharded, self.rank, self._watched = False, False, 0, False
        self.bare: Any = model
        self._wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            self._group: Any = model.process_group
            if group not in (None, self._group):
                checks.fail(ValueError, "process_group", "left to DistributedDataParallel, which has its own", group)
            self.bare = model.module
            # It then also notes the gradients of the test's steps, and would take them for those of its own next step.
            self._watched = model.find_unused_parameters or model.static_graph
        else:
            self._group = _checked_group(group)
            if self._group is None:
                return
        self.many = True
        self.rank = distributed.get_rank(self._group)
        self._size = distributed.get_world_size(self._group)
        self._looked_at = False  # whether the first loss was checked for checkpoints
        self._parameters = list(self.bare.parameters()) if isinstance(self.bare, nn.Module) else []
        self.sharded = any(map(is_sharded, self._parameters))
        self._device = next((part.device for part in self._parameters), torch.device("cpu"))
        self._failed = False
        self._deadline = float("inf")
        self._interrupts = Interrupts()

    def deadline(self, limit: float | None) -> None:
        """Sets the time limit. The first process that sees it pass ends the test for all."""
        if limit is not None:
            self._deadline = time.monotonic() + limit

    def __enter__(self) -> None:
        if self.many:
            self._interrupts.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.many:
            return
        try:
            if not self._failed:
                self._meet(failed=error is not None)
                if error is None:
                    self._check()
        finally:
            self._interrupts.__exit__(kind, error, trace)

    def together(self, action: Callable[[], V]) -> V:
        """The result of ``action``, or the mean over all processes if it is a float.

        If it raises an error in one process, or ends the test there, it does so in all.
        """
        if not self.many:
            return action()
        value: Any = None
        problem: BaseException | None = None
        try:
            value = action()
        except (Exception, KeyboardInterrupt) as error:
            problem = error
        out_of_data, pressed = isinstance(problem, EndOfSweep), isinstance(problem, KeyboardInterrupt)
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
        return mean if isinstance(value, float) else value  # type: ignore[return-value]

    def agree(self, settings: Mapping[str, object], optimizer: torch.optim.Optimizer) -> None:
        """Fails in all processes if one would make other steps than the others, for which they would wait."""
        if not self.many:
            return
        self._meet(failed=False)  # where one may have failed already
        self._check()
        own = {**settings, "trained parameters": len(trained(optimizer))}
        if self._differ(sorted(own.items())):
            options = checks.shown(own)
            raise ValueError(
                f"all processes must be given the same options. Received in process {self.rank}: {options}."
            )
        if not self._wrapped and self._are_no_replicas():
            raise ValueError(
                "all processes must start from the same weights, for each has a copy of the model. Seed them alike, or "
                "wrap the model first. For a model of this process alone, give `process_group` a group of this process."
            )

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
        parameters = trained(optimizer)
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
        for part, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and part.grad is not None:
                part.grad += gradient
            elif gradient is not None:  # a tensor of its own, in the layout of the parameter, as `backward` makes it
                part.grad = gradient.clone() if gradient.is_sparse else torch.empty_like(part).copy_(gradient)

    def average_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Gives every process the mean of the gradients of all."""
        if not self.many or self.sharded:
            return
        parameters = trained(optimizer)
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

    def in_step(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Batches for one pass over them. All processes must have as many where the model is sharded."""
        if not self.sharded:
            yield from batches
            return
        own = iter(batches)
        while True:
            batch = self.together(lambda: list(islice(own, 1)))
            if self._differ(len(batch)):
                raise ValueError("`validation` must have as many batches in each process, for the model is sharded.")
            if not batch:
                return
            yield batch[0]

    def _are_no_replicas(self) -> bool:
        """Whether the weights of a process are not those of the first, bit for bit."""
        parts = [part.detach() for part in self._parameters if not is_sharded(part)]
        if self._differ([(part.shape, part.dtype) for part in parts]):
            return True
        same, first = True, distributed.get_global_rank(self._group, 0)
        for part in parts:
            theirs = part.clone(memory_format=torch.contiguous_format)
            distributed.broadcast(theirs, first, group=self._group)
            same = same and torch.equal(*(own.reshape(-1).view(torch.uint8) for own in (part, theirs)))
        return self._differ(same)

    def _differ(self, value: object) -> bool:
        """Whether a value is not the same in all processes, as its ``repr`` says."""
        digest = float(zlib.crc32(repr(value).encode()))
        extremes = torch.tensor([digest, -digest], dtype=torch.float64, device=self._device)
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX, group=self._group)
        return bool(extremes.sum().item())

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


def _checked_group(group: Any) -> Any:
    """The group of the processes that train together, None if there is only this one."""
    if group is not None and (not isinstance(group, distributed.ProcessGroup) or distributed.get_rank(group) < 0):
        checks.fail(TypeError, "process_group", "a group of torch.distributed that has this process", group)
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    own: Any = distributed.group.WORLD if group is None else group
    return own if distributed.get_world_size(own) > 1 else None


def is_sharded(part: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each process has a part."""
    return hasattr(part, "device_mesh")


def trained(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters that an optimizer trains."""
    return [part for group in optimizer.param_groups for part in group["params"] if part.requires_grad]


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
