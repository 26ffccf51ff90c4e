"""The LR range test in PyTorch. See `clr.torch.range_test`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

import torch
from torch import distributed, nn

from clr.finder import sweep
from clr.finder.result import RangeTest
from clr.finder.sweep import Options
from clr.torch.processes import Processes
from clr.torch.snapshot import Stateful
from clr.torch.training import Training


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
    autocast: torch.dtype | torch.autocast | None = None,
    device: torch.device | str | None = None,
    snapshot_device: torch.device | str | None = None,
    also: Sequence[Stateful] = (),
    process_group: distributed.ProcessGroup | None = None,
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

    Of an optimizer it puts back tensors, arrays, lists, dicts and random generators in its attributes too, and other
    optimizers that it holds, as SAM does; but not what objects of your own hold. It cannot put back how far a one-way
    iterator has come, what a data set remembers, and what a module counts in attributes that are no tensors, unless its
    ``get_extra_state`` tells. It starts workers of its own, so the persistent workers of a loader stay as they are.

    Args:
        model: What to train, also by several processes. During the test it is in training mode.
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
            several processes: if it failed in one, the others would wait inside it.
        group: The number or ``"name"`` of one group. Then the test changes only its rate.
        gradient_accumulation_steps: The number of batches per update. The loss is their mean.
        scaler: A ``torch.amp.GradScaler``. An update that it skips leaves no point. A loss that is not finite ends the
            test, as it does without a scaler.
        autocast: The dtype for ``torch.autocast``, such as ``torch.bfloat16``, or such a context itself.
        device: Where batches go. By default where the model is.
        snapshot_device: Where to keep the copy, such as ``"cpu"``. By default beside the original.
        also: Other things to put back that have a ``state_dict`` and a ``load_state_dict``, such as a scheduler that
            ``train_on_batch`` steps, an average of the weights, or another optimizer. Of modules and optimizers it puts
            back the same as of ``model`` and ``optimizer``.
        process_group: The processes that train one model, unless it is in ``DistributedDataParallel``. By default all
            of `torch.distributed`.
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

    Where several processes train one model, every one must call this with the same options. The losses are the means
    over the processes, so all find the same bounds. If one raises an error, all do. That holds for a model in
    ``DistributedDataParallel`` (with ``static_graph`` or ``find_unused_parameters``, checkpoints need
    ``use_reentrant=False``), for one that is not in it, whose weights must be the same in all processes, and for one
    that ``fully_shard`` has divided. But if the forward or backward pass of a divided model fails in one process, the
    others wait, as they do in training. The older ``FullyShardedDataParallel`` is not supported.

    Raises:
        TypeError, ValueError: An argument makes no sense, is not supported where several processes train one model, or
            is not the same in all of them.
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
    processes = Processes(model, process_group)
    with processes:  # which tells all processes of a bad argument in one
        options = Options(
            min_lr, max_lr, num_steps, growth, diverge_at, time_limit, evaluate, evaluate_every, goal, repeats, progress
        )
        training = Training(
            processes,
            model,
            optimizer,
            loader,
            ways={"loss_fn": loss_fn, "compute_loss": compute_loss, "train_on_batch": train_on_batch},
            group=group,
            gradient_accumulation_steps=gradient_accumulation_steps,
            scaler=scaler,
            autocast=autocast,
            device=device,
            snapshot_device=snapshot_device,
            also=also,
        )
        return training.run(lambda: _tested(training, processes, options))


def _tested(training: Training, processes: Processes, options: Options) -> RangeTest:
    """Makes the test."""
    names = {part.name for part in fields(Options)} - {"time_limit", "progress"}
    settings = {name: getattr(options, name) for name in names}
    training.agree(settings | {"evaluate": options.evaluate is not None})
    limit, evaluate = options.time_limit, options.evaluate
    if evaluate is not None:
        options = replace(options, evaluate=lambda: training.evaluate(evaluate))
    if processes.many:
        processes.deadline(limit)
        options = replace(options, time_limit=None, progress=False if processes.rank else options.progress)
    return replace(sweep.run(training.update, training.restart, options), time_limit=limit)
