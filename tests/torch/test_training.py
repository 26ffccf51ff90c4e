"""The training that a range test makes in PyTorch: batches, gradients, rates, scalers, steps of the user."""

import math
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import clr
from tests.torch.networks import RANGE, STEPS, content, data, loader, start, trace, train


def test_the_losses_are_those_of_a_plain_loop() -> None:
    model, optimizer = start()
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    expected = []
    batches: Iterator[Any] = iter(())
    for rate in test.rates:
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader())
            batch = next(batches)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        expected.append(loss.item())
    assert list(test.losses) == expected


def test_evaluation_is_in_evaluation_mode_and_without_gradients() -> None:
    model, optimizer = start()
    x, y = data().tensors
    modes = []

    def accuracy() -> Any:
        modes.append((model.training, model.body[3].training, torch.is_grad_enabled()))
        return (model(x).argmax(dim=1) == y).float().mean()

    test = clr.torch.range_test(
        model, optimizer, nn.CrossEntropyLoss(), loader(), evaluate=accuracy, evaluate_every=4, goal="max", **RANGE
    )
    assert modes == [(False, False, False)] * 3
    assert [rate for rate, _ in test.metrics] == [test.rates[3], test.rates[7], test.rates[11]]


def test_groups_keep_their_ratio() -> None:
    model, _ = start()
    first, *rest = model.parameters()
    groups = [{"params": [first], "lr": 0.01, "name": "first"}, {"params": rest, "lr": torch.tensor(0.001)}]
    optimizer = torch.optim.SGD(groups)
    applied = []
    optimizer.register_step_pre_hook(lambda *_: applied.append([float(own["lr"]) for own in optimizer.param_groups]))
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert [own[0] for own in applied] == list(test.rates)
    assert [own[1] for own in applied] == pytest.approx([rate / 10 for rate in test.rates], rel=1e-6)
    assert [float(own["lr"]) for own in optimizer.param_groups] == pytest.approx([0.01, 0.001])

    for group, number in ((1, 1), ("first", 0), (-1, None), ("second", None)):
        applied.clear()
        if number is None:
            with pytest.raises(ValueError, match="`group` must be the number or the name of a group"):
                clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), group=group, **RANGE)
            continue
        test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), group=group, **RANGE)
        assert [own[number] for own in applied] == pytest.approx(test.rates, rel=1e-6)
        assert len({own[1 - number] for own in applied}) == 1


def test_the_group_with_the_highest_rate_leads_the_others() -> None:
    model, _ = start()
    first, *rest = model.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.0}, {"params": rest, "lr": 0.1}])
    applied = []
    optimizer.register_step_pre_hook(lambda *_: applied.append([own["lr"] for own in optimizer.param_groups]))
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert applied == [[0.0, rate] for rate in test.rates]
    optimizer.param_groups[1]["lr"] = 0.0
    with pytest.raises(ValueError, match="a group must have a rate above 0"):
        clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader())


def test_batches_accumulate() -> None:
    model, optimizer = start()
    x, y = data().tensors
    batches = [(x[at : at + 8], y[at : at + 8]) for at in range(0, 40, 8)]
    updates = 0

    def count(*_: Any) -> None:
        nonlocal updates
        updates += 1

    optimizer.register_step_post_hook(count)
    vars(model.body[3])["p"] = 0.0
    test = clr.torch.range_test(
        model, optimizer, nn.CrossEntropyLoss(), batches, gradient_accumulation_steps=2, **RANGE
    )
    assert updates == STEPS
    with torch.no_grad():
        first = [nn.functional.cross_entropy(model(x), y).item() for x, y in batches[:2]]
    assert test.losses[0] == pytest.approx(sum(first) / 2, rel=1e-6)


def test_updates_that_a_scaler_skips_leave_no_point() -> None:
    model, optimizer = start()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("on purpose")

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 100 * nn.functional.cross_entropy(output, target)  # scaled, an infinity in float32

    before = trace(model, optimizer, scaler)
    test = clr.torch.range_test(model, optimizer, loss_fn, loader(), scaler=scaler, diverge_at=1e9, **RANGE)
    assert trace(model, optimizer, scaler) == before
    assert test.sweeps[0].losses[:2] == (None, None)
    assert 0 < len(test.losses) < STEPS - 2
    assert test.rates[-1] == RANGE["max_lr"]
    # An error between the scaler's step and its update must not stop its next step.
    handle = optimizer.register_step_post_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), scaler=scaler, **RANGE)
    handle.remove()
    assert trace(model, optimizer, scaler) == before
    loss = nn.functional.cross_entropy(model(data().tensors[0]), data().tensors[1])
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()


def test_a_loss_that_is_not_finite_ends_the_test_with_a_scaler_too() -> None:
    model, optimizer = start(trained=False)
    vars(model.body[3])["p"] = 0.0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(output, target)
        return loss * math.nan if optimizer.param_groups[0]["lr"] > 0.5 else loss

    def tested(scaler: Any) -> Any:
        batches = [(x, y) for x, y in loader(generator=torch.Generator().manual_seed(0))]
        # A scale that is a power of two, and stays it, changes no bit.
        return clr.torch.range_test(model, optimizer, loss_fn, batches, scaler=scaler, min_lr=1e-6, max_lr=1.0)

    without, scaled = tested(None), tested(torch.amp.GradScaler("cpu", init_scale=8.0))
    assert without.stop == scaled.stop == "non-finite"
    assert without.rates[-2] <= 0.5 < without.rates[-1]
    assert repr(scaled.losses) == repr(without.losses)
    assert math.isnan(scaled.losses[-1])
    assert scaled.bounds() == without.bounds()


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.autocast("cpu", torch.bfloat16)], ids=["dtype", "context"])
def test_autocast_is_set_for_the_forward_pass_alone(autocast: Any) -> None:
    model, optimizer = start()
    dtypes = []

    def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        dtypes.append(output.dtype)
        return nn.functional.cross_entropy(output.float(), target)

    clr.torch.range_test(model, optimizer, loss_of, loader(), autocast=autocast, **RANGE)
    assert set(dtypes) == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(left + right)
        return result


Batch = namedtuple("Batch", ["x", "y"])


@pytest.mark.parametrize("form", ["dict", "tuple", "many", "whole", "named"])
def test_batches_of_any_form(form: str) -> None:
    torch.manual_seed(0)
    x, y = data().tensors
    model = TwoInputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = nn.functional.cross_entropy(model(x, x), y).item()
    ways: dict[str, Any] = {
        "dict": {"loss_fn": nn.CrossEntropyLoss(), "loader": [({"left": x, "right": x}, y)]},
        "tuple": {"loss_fn": nn.CrossEntropyLoss(), "loader": [((x, x), y)]},
        "many": {"loss_fn": nn.CrossEntropyLoss(), "loader": [(x, x, y)]},
        "whole": {
            "compute_loss": lambda model, batch: nn.functional.cross_entropy(model(batch["x"], batch["x"]), batch["y"]),
            "loader": [{"x": x, "y": y}],
        },
        "named": {
            "compute_loss": lambda model, batch: nn.functional.cross_entropy(model(batch.x, batch.x), batch.y),
            "loader": [Batch(x, y)],
        },
    }
    test = clr.torch.range_test(model, optimizer, **ways[form], **RANGE)
    assert len(test.losses) == STEPS
    assert test.losses[0] == pytest.approx(expected, rel=1e-6)


def test_batches_are_moved_to_the_device() -> None:
    model = nn.Linear(2, 1, device="meta")
    optimizer = torch.optim.SGD(model.parameters())
    seen = []

    def compute_loss(model: Any, batch: Any) -> torch.Tensor:
        seen.append((batch["x"][0].device.type, batch["y"].device.type, batch["name"]))
        raise KeyboardInterrupt

    batches = [{"x": [torch.ones(1, 2)], "y": torch.ones(1), "name": "a"}]
    assert clr.torch.range_test(model, optimizer, loader=batches, compute_loss=compute_loss).stop == "interrupted"
    assert seen == [("meta", "meta", "a")]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(*data().tensors, strict=True)


def test_loaders_of_any_length() -> None:
    model, optimizer = start()
    batch = tuple(part[:8] for part in data().tensors)
    for batches in ([batch], DataLoader(Stream(), batch_size=16), [batch] * 100):
        assert len(clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), batches, **RANGE).losses) == STEPS
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), iter([batch] * 5), **RANGE)
    assert (test.stop, len(test.losses)) == ("data", 5)
    assert clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), [], **RANGE).stop == "data"


def test_a_training_step_of_the_user() -> None:
    model, optimizer = start()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    before = trace(model, optimizer, scheduler)
    batches, applied = [], []
    optimizer.register_step_pre_hook(lambda *_: applied.append(optimizer.param_groups[0]["lr"]))

    def train_on_batch(batch: Any) -> torch.Tensor:
        batches.append(batch)
        optimizer.zero_grad(set_to_none=False)
        loss = nn.functional.cross_entropy(model(data().tensors[0]), data().tensors[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        return loss

    test = clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, also=[scheduler], **RANGE)
    assert len(test.losses) == STEPS
    assert batches == [None] * STEPS
    assert applied == list(test.rates) == pytest.approx(np.geomspace(1e-4, 1e-2, STEPS))
    assert trace(model, optimizer, scheduler) == before


def test_a_training_step_of_the_user_with_a_scaler() -> None:
    model, optimizer = start()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = trace(model, optimizer, scaler)
    losses: list[float] = []
    updates: list[tuple[int, float]] = []  # the step and the rate of each
    handle = optimizer.register_step_pre_hook(lambda *_: updates.append((len(losses), optimizer.param_groups[0]["lr"])))

    def train_on_batch(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = 100 * nn.functional.cross_entropy(model(batch[0]), batch[1])  # scaled, an infinity in float32
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        return loss

    test = clr.torch.range_test(
        model, optimizer, train_on_batch=train_on_batch, loader=loader(), scaler=scaler, diverge_at=1e9, **RANGE
    )
    handle.remove()
    made = [at for at, _ in updates]
    assert len(losses) == STEPS
    assert 0 < len(made) < STEPS - 2
    assert test.sweeps[0].losses == tuple(loss if at in made else None for at, loss in enumerate(losses))
    assert test.rates == tuple(rate for _, rate in updates)
    assert test.rates == pytest.approx(np.geomspace(1e-4, 1e-2, STEPS)[made])
    assert trace(model, optimizer, scaler) == before


def test_a_follower_goes_on_where_it_was() -> None:
    def followed() -> tuple[nn.Module, torch.optim.Optimizer, clr.torch.Follower]:
        model, optimizer = start(trained=False)
        follower = clr.torch.Follower(optimizer, clr.triangular(0.01, 0.1, 4))
        train(model, optimizer, 3)
        return model, optimizer, follower

    model, optimizer, follower = followed()
    without = train(model, optimizer, 5)
    model, optimizer, follower = followed()
    before = trace(model, optimizer)
    applied = []
    optimizer.register_step_pre_hook(lambda *_: applied.append(optimizer.param_groups[0]["lr"]))
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert applied == list(test.rates)
    assert trace(model, optimizer) == before
    assert follower.updates == 3
    assert train(model, optimizer, 5) == without


def test_repeats_start_alike_and_draw_other_batches() -> None:
    model, optimizer = start()
    vars(model.body[3])["p"] = 0.0
    seen: list[Any] = []

    def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append((content(target), content(model.body[0].weight)))
        return nn.functional.cross_entropy(output, target)

    test = clr.torch.range_test(model, optimizer, loss_of, loader(), repeats=3, **RANGE)
    firsts = [seen[0], seen[STEPS], seen[2 * STEPS]]
    assert len(test.sweeps) == 3
    assert len({repr(weights) for _, weights in firsts}) == 1
    assert len({repr(target) for target, _ in firsts}) == 3


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({"model": None}, {}, TypeError, "`model` must be a torch.nn.Module. Received: None."),
        ({"optimizer": None}, {}, TypeError, "`optimizer` must be a torch.optim.Optimizer. Received: None."),
        ({"loss_fn": None}, {}, TypeError, "one of `loss_fn`, `compute_loss` and `train_on_batch` must be given. Rec"),
        ({}, {"train_on_batch": print}, TypeError, "one of `loss_fn`, `compute_loss` and `train_on_batch` must be giv"),
        ({"loss_fn": 3}, {}, TypeError, "`loss_fn` must be a function. Received: 3."),
        ({"loader": None}, {}, TypeError, "`loader` must be given with `loss_fn` and `compute_loss`. Received: None."),
        ({"loader": 3}, {}, TypeError, "`loader` must be a DataLoader or another iterable. Received: 3."),
        ({"loader": [3]}, {}, TypeError, "a batch must be inputs and a target. Use `compute_loss` for others. Receiv"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, {}, TypeError, "`loss_fn` must return a tensor with one "),
        ({"model": nn.LazyLinear(3)}, {}, ValueError, "`model` must know the shapes of its parameters. Give it a batc"),
        ({}, {"gradient_accumulation_steps": 0}, ValueError, "`gradient_accumulation_steps` must be a whole number, "),
        ({}, {"min_lr": 0.0}, ValueError, "`min_lr` must be a finite number above 0. Received: 0.0."),
        ({}, {"evaluate": 3}, TypeError, "`evaluate` must be a function. Received: 3."),
        ({}, {"group": 7}, ValueError, "`group` must be the number or the name of a group. Received: 7."),
        ({}, {"group": True}, TypeError, "`group` must be the number or the name of a group. Received: True."),
        ({}, {"group": [0]}, TypeError, "`group` must be the number or the name of a group. Received: [0]."),
        ({}, {"scaler": 3}, TypeError, "`scaler` must be a torch.amp.GradScaler. Received: 3."),
        ({}, {"autocast": True}, TypeError, "`autocast` must be a floating dtype, such as torch.bfloat16, or a torch."),
        ({}, {"autocast": torch.int8}, ValueError, "`autocast` must be a floating dtype, such as torch.bfloat16, or a"),
        ({}, {"device": "here"}, ValueError, "`device` must be a device that PyTorch has here. Received: 'here'."),
        ({}, {"device": 0.5}, TypeError, "`device` must be a device that PyTorch has here. Received: 0.5."),
        ({}, {"snapshot_device": "cpu:x"}, ValueError, "`snapshot_device` must be a device that PyTorch has here. Re"),
        ({}, {"snapshot_device": "meta"}, ValueError, "`snapshot_device` must be a device that keeps values. Received"),
        ({}, {"also": 3}, TypeError, "`also` must be a list of things with `state_dict` and `load_state_dict`. Receiv"),
        ({}, {"also": [3]}, TypeError, "`also` must be a list of things with `state_dict` and `load_state_dict`. Rec"),
        ({}, {"also": nn.Linear(1, 1)}, TypeError, "`also` must be a list of things with `state_dict` and `load_stat"),
    ],
)
def test_arguments_that_make_no_sense(
    given: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model, optimizer = start()
    before = trace(model, optimizer)
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "loss_fn": nn.CrossEntropyLoss(),
        "loader": loader(),
    } | given
    with pytest.raises(error) as caught:
        clr.torch.range_test(**arguments, **options)
    assert str(caught.value).startswith(message)
    assert trace(model, optimizer) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without a GPU")
@pytest.mark.parametrize("name", ["device", "snapshot_device"])
def test_a_device_that_is_not_there(name: str) -> None:
    model, optimizer = start()
    options: dict[str, Any] = {name: "cuda"}
    with pytest.raises(ValueError, match=f"^`{name}` must be a device that PyTorch has here. Received: 'cuda'.$"):
        clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **options)
