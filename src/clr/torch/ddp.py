"""The processes that train one model together, in `DistributedDataParallel`."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
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

    If one process failed or had no more data, the others would wait for it. So all of them meet after each thing that
    may fail, and tell each other how it went.
    """

    def __init__(self, model: nn.Module) -> None:
        self.many, self.rank, self._watched = False, 0, False
        if not isinstance(model, nn.parallel.DistributedDataParallel):
            return
        self.many = True
        self._group: Any = model.process_group
        self.rank = distributed.get_rank(self._group)
        self._size = distributed.get_world_size(self._group)
        # It then also notes the gradients of the test's steps, and would take them for those of its own next step.
        self._watched = model.find_unused_parameters or model.static_graph
        self._looked_at = False  # whether the first loss was checked for checkpoints
        self._device = next(model.parameters()).device
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
        return mean if isinstance(value, float) else value  # type: ignore[return-value]

    def agree(self, settings: Mapping[str, object], optimizer: torch.optim.Optimizer) -> None:
        """Fails in all processes if one would make other steps than the others, for which they would wait."""
        if not self.many:
            return
        self._meet(failed=False)  # where one may have failed already
        self._check()
        own = {**settings, "trained parameters": len(trained(optimizer))}
        digest = float(zlib.crc32(repr(sorted(own.items())).encode()))
        extremes = torch.tensor([digest, -digest], dtype=torch.float64, device=self._device)
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX, group=self._group)
        if extremes.sum().item():
            options = checks.shown(own)
            raise ValueError(
                f"all processes must be given the same options. Received in process {self.rank}: {options}."
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
        if not self.many:
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
