"""Finders in two processes whose model is a replica in no DistributedDataParallel, or divided by `fully_shard`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.common import alike, in_processes
from tests.integrations.digits import LOSS, SCHEDULE, digits, network, planned, sgd, torch, watched

RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 100.0, "num_steps": 60}


def rank() -> int:
    own: int = torch.distributed.get_rank()
    return own


def own_loader(first: int, last: int) -> Any:
    """Batches of those of the rows that this process has."""
    x, y = digits(last)
    data = torch.utils.data.TensorDataset(x[first + rank() :: 2], y[first + rank() :: 2])
    return torch.utils.data.DataLoader(data, 32, shuffle=True, generator=torch.Generator().manual_seed(1))


def divided() -> Any:
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model[0])
    return fully_shard(model)


def wrapped() -> Any:
    return torch.nn.parallel.DistributedDataParallel(network())


def state(model: Any, optimizer: Any) -> list[Any]:
    tensors = [*model.parameters(), *(own["momentum_buffer"] for own in optimizer.state.values())]
    whole = [part.full_tensor() if hasattr(part, "full_tensor") else part for part in tensors]
    return [part.detach().tolist() for part in whole]


def trained(model: Any, optimizer: Any, updates: int = 3) -> list[Any]:
    """What a few updates leave, with the mean gradient of both processes."""
    for _, (x, y) in zip(range(updates), own_loader(0, 800), strict=False):
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        if type(model) is torch.nn.Sequential:
            for part in model.parameters():
                torch.distributed.all_reduce(part.grad, torch.distributed.ReduceOp.SUM)
                part.grad /= 2
        optimizer.step()
    return state(model, optimizer)


def outcome(
    model: Any = None, optimizer: Any = None, validation: Any = None, search: bool = False, **options: Any
) -> Any:
    """The error of a range test, or of a search."""
    model = network() if model is None else model
    optimizer = sgd(model)
    options = {"loss_fn": LOSS, "loader": own_loader(0, 800), **options}
    updates = watched(optimizer)
    try:
        if search:
            clr.torch.find_bounds(model, optimizer, validation=validation, total_steps=20, **options)
        else:
            clr.torch.range_test(model, optimizer, **{**RANGE, **options})
    except (RuntimeError, TypeError, ValueError) as error:
        return [f"{type(error).__name__}: {error}", len(updates)]
    return "none"


def found() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for make in (wrapped, network, divided):
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        untouched = trained(model, optimizer)
        test = clr.torch.range_test(model, optimizer, LOSS, own_loader(0, 800), gradient_accumulation_steps=2, **RANGE)
        search = clr.torch.find_bounds(
            model, optimizer, LOSS, own_loader(0, 800), validation=own_loader(800, 1200), total_steps=20, budget=200
        )
        results[make.__name__] = {
            "losses": test.losses,
            "bounds": list(test.bounds()),
            "trials": [(trial.max_lr, trial.score) for trial in search.trials],
            "found": list(search.bounds()),
            "restored": state(model, optimizer) == untouched,
            "goes on": trained(model, optimizer),
        }
        again = make()
        optimizer = torch.optim.SGD(again.parameters(), lr=0.1, momentum=0.9)
        trained(again, optimizer)
        results[make.__name__]["goes on as ever"] = trained(again, optimizer) == results[make.__name__]["goes on"]
    return results


def refused() -> dict[str, Any]:
    last = rank() == 1
    model = network()
    alone = [torch.distributed.new_group([one]) for one in range(2)][rank()]
    results: dict[str, Any] = {
        "rate": outcome(min_lr=-1.0 if last else 1e-4),
        "model": outcome(model=torch.nn.Linear(64, 10) if last else model),
        "steps": outcome(num_steps=30 if last else 60),
        "search": outcome(search=True, validation=0.2 if last else own_loader(800, 1200)),
        "own step": outcome(loss_fn=None, train_on_batch=print),
        "compiled": outcome(model=torch.nn.Sequential(wrapped())),
        "group": outcome(process_group="all"),
        "two groups": outcome(model=wrapped(), process_group=alone),
        "uneven": outcome(model=divided(), search=True, validation=list(own_loader(800, 1200))[: 3 + rank()]),
    }
    if last:
        with torch.no_grad():
            model[0].bias[3] = 1e-30
    results["weights"] = outcome(model=model)
    results["alone"] = outcome(model=model, process_group=alone)

    def batches() -> Iterator[Any]:
        for number, batch in enumerate(own_loader(0, 800)):
            if last and number == 2:
                raise ValueError("on purpose")
            yield batch

    results["data"] = [outcome(model=make(), loader=batches()) for make in (network, divided)]
    return results


def followed() -> Any:
    model = divided()
    optimizer = sgd(model)
    clr.torch.Follower(optimizer, SCHEDULE, clr.momentum(SCHEDULE, low=0.5, high=0.9))
    seen = watched(optimizer)
    trained(model, optimizer, 12)
    return seen


def every(folder: Path) -> dict[str, Any]:
    torch.distributed.init_process_group("gloo")
    return {"found": found(), "refused": refused(), "followed": followed()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What both processes have to tell."""
    return in_processes(every, tmp_path_factory.mktemp("processes"), 2)


def test_replicas_and_parts_of_a_model_find_the_same_bounds_as_a_wrapped_one(both: list[Any]) -> None:
    results = alike([one["found"] for one in both])
    for result in results.values():
        assert result.pop("restored")
        assert result.pop("goes on as ever")
    for name in ("network", "divided"):
        for key, value in results["wrapped"].items():
            flat = torch.utils._pytree.tree_leaves(value)
            assert torch.utils._pytree.tree_leaves(results[name][key]) == pytest.approx(flat, rel=1e-4), (name, key)


def test_what_one_process_refuses_all_refuse_and_none_waits(both: list[Any]) -> None:
    results = [one["refused"] for one in both]
    other = "RuntimeError: the range test has failed in another process"
    for name, message in {"rate": "ValueError: `min_lr` must be", "search": "ValueError: `validation` must be"}.items():
        first, last = (result.pop(name) for result in results)
        assert first == [other, 0]
        assert last[0].startswith(message)
        assert last[1] == 0
    assert [result.pop("data") for result in results] == [[[other, 2]] * 2, [["ValueError: on purpose", 2]] * 2]
    for name, message in {
        "model": "ValueError: all processes must",
        "steps": "ValueError: all processes must be given the same options",
        "weights": "ValueError: all processes must start from the same weights",
        "own step": "ValueError: `train_on_batch` is not supported where several processes train one model",
        "compiled": "ValueError: `model` must be the DistributedDataParallel itself",
        "group": "TypeError: `process_group` must be a group of torch.distributed",
        "two groups": "ValueError: `process_group` must be left to DistributedDataParallel",
    }.items():
        for result in results:
            text, updates = result.pop(name)
            assert text.startswith(message)
            assert updates == 0
    text, updates = alike([result.pop("uneven") for result in results])
    assert text == "ValueError: `validation` must have as many batches in each process, for the model is sharded."
    assert updates == 0
    assert results == [{"alone": "none"}] * 2


def test_a_divided_model_follows_the_schedule(both: list[Any]) -> None:
    assert alike([one["followed"] for one in both]) == [list(pair) for pair in planned(0, 12)]
