"""The search for bounds in PyTorch. See `clr.torch.find_bounds`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset

from clr import checks
from clr.finder import search
from clr.finder.search import Options
from clr.finder.transaction import put_back, uninterrupted
from clr.finder.trials import Search
from clr.torch import groups
from clr.torch.processes import Processes
from clr.torch.snapshot import Snapshot, Stateful, counts, generators
from clr.torch.training import Training


def find_bounds(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    loader: Iterable[Any] | None = None,
    *,
    validation: Iterable[Any] | float | None = None,
    total_steps: int,
    budget: int | None = None,
    evaluate: Callable[[], object] | None = None,
    goal: Literal["min", "max"] = "min",
    keep: Literal["start", "winner"] = "start",
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
    progress: bool | None = None,
) -> Search:
    """Searches the bounds of the learning rate by short trainings that are judged on held-out data.

    See `clr.find_bounds` for how it searches. All trials begin with the model and the optimizer as they are. At the end
    everything is put back bit for bit, as `clr.torch.range_test` does, also after Ctrl-C or an error.

    Args:
        model: What to train, as in `clr.torch.range_test`.
        optimizer: What to train it with. The group with the highest rate gets the rate of each step, and the others
            keep their ratio to it.
        loss_fn: The loss of an output and a target.
        loader: The batches to train on.
        validation: The data to judge by: a loader of held-out batches. Or a part of the rows of ``loader``, such as
            0.2, which the search then does not train on; for that it must be a DataLoader over a data set with a
            length.
        total_steps: The length of the training that the bounds are for, in updates.
        budget: How many updates the search may make, as in `clr.find_bounds`.
        evaluate: Use it in place of ``validation``: a function that returns a held-out loss or metric. It is called in
            evaluation mode and without gradients.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) value of ``evaluate`` is better.
        keep: What the model, the optimizer and the random state are at the end: as at the ``"start"``, or as after the
            trial that won (``"winner"``), so that its updates are not lost. That takes the memory of a second copy.
            The rates of ``optimizer`` are put back also then. What is in ``also`` stays as the trial has left it.
        compute_loss: Use it in place of ``loss_fn``, as in `clr.torch.range_test`.
        train_on_batch: Use it in place of both. It needs ``evaluate``.
        group: The number or ``"name"`` of one group. Then the search changes only its rate.
        gradient_accumulation_steps: The number of batches per update.
        scaler: A ``torch.amp.GradScaler``.
        autocast: The dtype for ``torch.autocast``.
        device: Where batches go. By default where the model is.
        snapshot_device: Where to keep the copy. By default beside the original.
        also: Other things to put back that have a ``state_dict`` and a ``load_state_dict``.
        process_group: As in `clr.torch.range_test`.
        min_lr: The first rate of the range test.
        max_lr: The last rate of the range test.
        progress: Whether to show a progress bar.

    Where several processes train one model, every one must call this with the same options, as for
    `clr.torch.range_test`. All decide by the mean over the processes, so all find the same bounds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        RuntimeError: Another process has raised an error.

    >>> import clr, torch
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> y = (x**2).sum(1, keepdim=True)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)
    >>> found = clr.torch.find_bounds(model, optimizer, torch.nn.MSELoss(), loader, validation=0.2, total_steps=1000)
    >>> base_lr, max_lr = found.bounds()
    >>> 1e-3 < max_lr < 0.1
    True
    >>> scheduler = clr.torch.LRScheduler(optimizer, found.schedule("one_cycle"))
    """
    processes = Processes(model, process_group)
    with processes:  # which tells all processes of a bad argument in one
        options = Options(total_steps, budget, goal, min_lr, max_lr, progress)
        checks.choice("keep", keep, ("start", "winner"))
        search.check_judge(validation, evaluate, goal)
        if evaluate is None and train_on_batch is not None:
            raise TypeError("find_bounds takes `evaluate`, not `validation`, with `train_on_batch`.")
        loader, held_out = _divided(loader, validation, processes.many)
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
        winner: list[Snapshot] = []

        def keep_winner() -> None:
            winner.clear()  # first, so that there is one copy at a time
            winner.append(training.kept())

        def judge() -> float:
            return training.held_out_loss(held_out) if evaluate is None else training.evaluate(evaluate)

        def body() -> Search:
            settings = {part.name: getattr(options, part.name) for part in fields(Options)} | {"keep": keep}
            del settings["progress"]
            training.agree(settings | {"evaluate": evaluate is not None})
            own = replace(options, progress=False) if processes.rank else options
            on_best = keep_winner if keep == "winner" else None
            return search.run(training.update, training.restart, judge, own, on_best)

        rates = [float(group["lr"]) for group in optimizer.param_groups]  # a tensor would get what the winner has
        held = [*generators(held_out), *counts(held_out)]
        try:
            found = training.run(body)
        finally:
            put_back(*held)
        if winner:
            with uninterrupted():
                winner[0].restore()
                for own, rate in zip(optimizer.param_groups, rates, strict=True):
                    groups.write(own, "lr", rate)
                groups.unmark_as_tested(optimizer)
        return found


_VALIDATION = "a loader of held-out batches, or a part of the rows of `loader` between 0 and 1"


def _divided(
    loader: Iterable[Any] | None, validation: Iterable[Any] | float | None, many: bool
) -> tuple[Iterable[Any] | None, Iterable[Any]]:
    """What is trained on, and what is held out."""
    for name, own in (("loader", loader), ("validation", validation)):
        if isinstance(own, Iterator):  # trials would see different batches
            checks.fail(TypeError, name, "batches that can be read again from their start, not an iterator", own)
    if isinstance(validation, str):
        checks.fail(TypeError, "validation", _VALIDATION, validation)
    if isinstance(validation, Iterable | None):
        return loader, () if validation is None else validation
    if not isinstance(validation, int | float):
        checks.fail(TypeError, "validation", _VALIDATION, validation)
    return _parts(loader, checks.number("validation", validation, "fraction"), many)


def _parts(loader: object, part: float, many: bool) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """A loader over the rows that are trained on, and one over those that are held out."""
    if not 0 < part < 1:
        checks.fail(ValueError, "validation", _VALIDATION, part)
    if many:
        raise ValueError(
            "`validation` must be a loader where several processes train one model, for each has its rows."
        )
    if not isinstance(loader, DataLoader) or not _is_plain(loader) or loader.batch_size is None:
        raise ValueError(
            "`validation` can be a part only if `loader` is a DataLoader that draws the rows of its data set in order "
            "or at random. Give a loader of held-out batches."
        )
    rows = len(loader.dataset)  # type: ignore[arg-type]
    apart = round(rows * part)
    if not 0 < apart < rows:
        checks.fail(ValueError, "validation", "a part that leaves at least one row on both sides", part)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
    like: dict[str, Any] = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    kept = DataLoader(
        Subset(loader.dataset, sorted(order[apart:])),
        loader.batch_size,
        shuffle=isinstance(loader.sampler, RandomSampler),
        # A last batch of one row would be new to the model, and is an error for batch normalization.
        drop_last=rows - apart >= loader.batch_size and (loader.drop_last or (rows - apart) % loader.batch_size == 1),
        generator=loader.generator or getattr(loader.sampler, "generator", None),
        **like,
    )
    return kept, DataLoader(Subset(loader.dataset, sorted(order[:apart])), loader.batch_size, **like)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether a loader goes once over each row of its data set, in order or at random."""
    sampler: Any = loader.sampler
    kinds: tuple[object, ...] = (RandomSampler, SequentialSampler)
    if type(sampler) not in kinds or sampler.data_source is not loader.dataset:
        return False
    source: Any = loader.dataset
    rows = len(source)
    return not getattr(sampler, "replacement", False) and getattr(sampler, "num_samples", rows) == rows
