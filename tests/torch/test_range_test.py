"""The range test in PyTorch: what it measures, and that it leaves no trace."""

import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import clr

STEPS = 12
RANGE: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 1e-2, "num_steps": STEPS}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "tensor_lr": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.01)),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True, momentum=0.5),
}


class Counter(nn.Module):
    """Counts its calls where its extra state alone tells of them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.total = torch.zeros(1)

    def forward(self) -> None:
        self.calls.append(len(self.calls))
        self.total += 1

    def get_extra_state(self) -> Any:
        return {"calls": self.calls, "total": self.total}

    def set_extra_state(self, state: Any) -> None:
        self.calls, self.total = state["calls"], state["total"]


class Network(nn.Module):
    """Has all that a test may change: batch norm, dropout, extra state, a buffer that is replaced, one not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(3), persistent=False)
        self.calls: torch.Tensor
        self.last: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        self.counter()
        result: torch.Tensor = self.body(x)
        self.last.copy_(result.detach().mean(dim=0))
        return result


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(dim=1))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=8, shuffle=True, **options)


def start(name: str = "momentum", trained: bool = True) -> tuple[Network, torch.optim.Optimizer]:
    """A network and its optimizer, with a state if they have trained."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters())
    if trained:
        train(model, optimizer, 3)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, batches: Any = None) -> list[bytes]:
    """A plain loop; the loss of each step, bit for bit."""
    losses = []
    iterator: Iterator[Any] = iter(())
    for _ in range(steps):
        batch = next(iterator, None)
        if batch is None:
            iterator = iter(batches or loader())
            batch = next(iterator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(content(loss))
    return losses


def content(value: Any) -> Any:
    """A value of which two are equal where they are equal bit for bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return repr(value)


def trace(model: nn.Module, optimizer: torch.optim.Optimizer, *others: Any) -> dict[str, Any]:
    """All that a range test could have left a trace in."""
    return {
        "parameters": content(list(model.parameters())),
        "buffers": content(dict(model.named_buffers())),
        "extra": [content(part.get_extra_state()) for part in model.modules() if isinstance(part, Counter)],
        "identities": [*map(id, model.parameters()), *map(id, model.buffers())],
        "gradients": content([part.grad for part in model.parameters()]),
        "modes": [part.training for part in model.modules()],
        "requires_grad": [part.requires_grad for part in model.parameters()],
        "state": content([optimizer.state.get(part) for part in model.parameters()]),
        "states": len(optimizer.state),
        "notes": {k: content(v) for k, v in vars(optimizer).items() if isinstance(v, int | float | torch.Tensor)},
        "groups": content([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]),
        "others": [content(other.state_dict()) for other in others],
        "random": (random.getstate(), repr(np.random.get_state()), content(torch.get_rng_state())),  # noqa: NPY002
    }


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_is_as_before(name: str, trained: bool) -> None:
    model, optimizer = start(name, trained)
    before = trace(model, optimizer)
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert trace(model, optimizer) == before
    assert len(test.losses) == STEPS


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_there_had_been_no_test(name: str, trained: bool) -> None:
    model, optimizer = start(name, trained)
    without = train(model, optimizer, 9)
    model, optimizer = start(name, trained)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), repeats=2, **RANGE)
    assert train(model, optimizer, 9) == without


def test_a_loader_with_a_generator_goes_on_where_it_was() -> None:
    def batches() -> DataLoader[Any]:
        return loader(generator=torch.Generator().manual_seed(7))

    model, optimizer = start()
    without = train(model, optimizer, 9, batches())
    model, optimizer = start()
    own = batches()
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), own, **RANGE)
    assert train(model, optimizer, 9, own) == without


PERSISTENT = """
import clr, sys, torch
from tests.torch.test_range_test import RANGE, data, start, train

class Noisy(torch.utils.data.Dataset):
    def __init__(self):
        self.data = data()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, at):
        x, y = self.data[at]
        return x + torch.randn(6), y

def trained(tested):
    model, optimizer = start()
    own = torch.utils.data.DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=1, persistent_workers=True)
    if sys.argv[1] == "running":
        train(model, optimizer, 5, own)
    running = own._iterator
    assert (running is None) == (sys.argv[1] == "fresh")
    if tested:
        clr.torch.range_test(model, optimizer, torch.nn.CrossEntropyLoss(), own, repeats=2, **RANGE)
    assert own._iterator is running
    return train(model, optimizer, 7, own)

print(trained(True) == trained(False))
"""


@pytest.mark.parametrize("workers", ["fresh", "running"])
def test_workers_that_persist_forget_the_test(workers: str) -> None:
    # In a process of its own, for workers are forks, and this one may have threads.
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PERSISTENT, workers]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr[-2000:]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["forward", "backward", "update", "batch", "evaluate"])
def test_all_is_as_before_after_an_error_at_any_step(error: type[BaseException], place: str) -> None:
    model, optimizer = start()
    before = trace(model, optimizer)
    for at in range(STEPS):
        calls = 0

        def fail(here: str, at: int = at) -> None:
            nonlocal calls
            if here == place:
                calls += 1
                if calls == at + 1:
                    raise error("on purpose")

        class Batches:
            def __iter__(self) -> Iterator[Any]:
                for batch in loader():
                    fail("batch")
                    yield batch

        def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            fail("forward")
            loss = nn.functional.cross_entropy(output, target)
            loss.register_hook(lambda gradient: fail("backward"))  # type: ignore[no-untyped-call]
            return loss

        def evaluate() -> float:
            fail("evaluate")
            return 1.0

        hook = optimizer.register_step_post_hook(lambda *_: fail("update"))
        options = {**RANGE, "evaluate": evaluate, "evaluate_every": 1}
        if error is KeyboardInterrupt:
            test = clr.torch.range_test(model, optimizer, loss_of, Batches(), **options)
            assert test.stop == "interrupted"
            assert len(test.rates) == at + (place == "evaluate")
        else:
            with pytest.raises(error, match="on purpose"):
                clr.torch.range_test(model, optimizer, loss_of, Batches(), **options)
        hook.remove()
        assert trace(model, optimizer) == before


def test_a_ctrl_c_waits_until_all_is_as_before() -> None:
    class Pressed:
        """Ctrl-C is pressed as soon as it is put back."""

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pressed.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    pressed: list[int] = []
    model, optimizer = start()
    nn.functional.cross_entropy(model(data().tensors[0]), data().tensors[1]).backward()  # type: ignore[no-untyped-call]
    before = trace(model, optimizer)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # where this runs it may be ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), also=[Pressed()], **RANGE)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(pressed) == 1
    assert trace(model, optimizer) == before


@pytest.mark.parametrize("place", ["also", "extra", "parameter"])
def test_what_can_not_be_put_back_keeps_nothing_else_from_it(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            fail()

    def fail(*_: Any) -> None:
        raise RuntimeError("on purpose")

    model, optimizer = start()
    nn.functional.cross_entropy(model(data().tensors[0]), data().tensors[1]).backward()  # type: ignore[no-untyped-call]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    weight = model.body[4].weight
    before = trace(model, optimizer, scaler, scheduler)
    gradients = [part.grad for part in model.parameters()]

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scheduler.last_epoch += 1
        return 100 * nn.functional.cross_entropy(output, target)

    def evaluate() -> float:
        if place == "extra":
            monkeypatch.setattr(Counter, "set_extra_state", fail)
        if place == "parameter":
            weight.grad, weight.data = None, torch.zeros(2)  # so that neither of them can be put back
        raise ValueError("the first error")

    also = [Failing(), scheduler] if place == "also" else [scheduler]
    options = {**RANGE, "also": also, "scaler": scaler, "evaluate": evaluate, "evaluate_every": STEPS}
    with pytest.raises(RuntimeError, match="gradient of size" if place == "parameter" else "on purpose") as caught:
        clr.torch.range_test(model, optimizer, loss_fn, loader(), **options)
    errors: list[BaseException] = [caught.value]
    while errors[-1].__context__ is not None:
        errors.append(errors[-1].__context__)
    assert str(errors[-1]) == "the first error"
    after = trace(model, optimizer, scaler, scheduler)
    lost = {"also": [], "extra": ["extra"], "parameter": ["parameters", "gradients"]}[place]
    assert [key for key in before if after[key] != before[key]] == lost
    for number, (part, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
        if part is not weight:
            assert part.grad is gradient
            assert content(part) == before["parameters"][number]


@pytest.mark.parametrize("snapshot_device", [None, "cpu"])
def test_a_buffer_whose_memory_repeats_is_as_before(snapshot_device: str | None) -> None:
    class Repeating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.count = torch.tensor([[1.0], [2.0]])
            self.register_buffer("all", torch.ones(1).expand(3))
            self.register_buffer("counts", self.count.expand(4, 2, 3))
            self.register_buffer("last", torch.zeros(()))
            self.last: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1  # and so all of its repeats
            self.last = self.last + 1
            result: torch.Tensor = self.linear(x)
            return result

    model = Repeating()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = trace(model, optimizer)
    test = clr.torch.range_test(
        model, optimizer, nn.CrossEntropyLoss(), loader(), snapshot_device=snapshot_device, **RANGE
    )
    assert len(test.losses) == STEPS
    assert trace(model, optimizer) == before
    assert model.count.tolist() == [[1.0], [2.0]]


def test_a_scheduler_that_is_stepped_too_early_is_still_told_so() -> None:
    model, optimizer = start(trained=False)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()


def test_what_a_scaler_lends_an_optimizer_is_taken_back_after_an_error() -> None:
    model, _ = start()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    lent: list[bool] = []

    def fail(*_: Any) -> None:
        lent.append(hasattr(optimizer, "found_inf"))
        raise RuntimeError("on purpose")

    before = trace(model, optimizer, scaler)
    handle = optimizer.register_step_post_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), scaler=scaler, **RANGE)
    handle.remove()
    assert lent == [True]
    assert trace(model, optimizer, scaler) == before


def test_the_random_state_of_cuda_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)]
    put_back: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", put_back.append)
    model, optimizer = start()
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert len(put_back) == 1
    assert put_back[0] is states
    put_back.clear()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)  # to ask would start it
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert not put_back


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_draws_on_a_gpu_go_on_where_they_were() -> None:
    def drawn(tested: bool) -> list[float]:
        torch.manual_seed(0)
        model = Network().cuda()
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
        torch.randn(3, device="cuda")
        if tested:
            clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), repeats=2, **RANGE)
        values: list[float] = torch.randn(5, device="cuda").tolist()
        return values

    assert drawn(True) == drawn(False)


def test_gradients_stay_those_of_before() -> None:
    model, optimizer = start()
    nn.functional.cross_entropy(model(data().tensors[0]), data().tensors[1]).backward()  # type: ignore[no-untyped-call]
    before, gradients = trace(model, optimizer), [part.grad for part in model.parameters()]
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert trace(model, optimizer) == before
    assert all(part.grad is gradient for part, gradient in zip(model.parameters(), gradients, strict=True))


def test_modes_are_as_before_and_training_is_trained() -> None:
    model, optimizer = start()
    seen = []
    model.register_forward_hook(lambda *_: seen.append([part.training for part in model.modules()]))
    model.body[1].eval()  # a batch norm that is frozen
    before = trace(model, optimizer)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), evaluate=lambda: 1.0, **RANGE)
    assert seen == [before["modes"]] * STEPS
    assert trace(model, optimizer) == before
    model.eval()
    before = trace(model, optimizer)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert seen[-1] == [True] * len(before["modes"])
    assert trace(model, optimizer) == before


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


def test_autocast_is_set_for_the_forward_pass_alone() -> None:
    model, optimizer = start()
    dtypes = []

    def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        dtypes.append(output.dtype)
        return nn.functional.cross_entropy(output.float(), target)

    clr.torch.range_test(model, optimizer, loss_of, loader(), autocast=torch.bfloat16, **RANGE)
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


def test_a_loss_that_explodes_ends_the_test_and_leaves_no_trace() -> None:
    model, optimizer = start("sgd")
    before = trace(model, optimizer)
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), min_lr=1e-5, max_lr=1e30)
    assert test.stop in ("diverged", "non-finite")
    assert trace(model, optimizer) == before


def storage(seen: set[int]) -> int:
    """The bytes of all tensors that are not in ``seen``, and notes them there."""
    total = 0
    for item in gc.get_objects():
        if type(item) in (torch.Tensor, nn.Parameter) and (own := item.untyped_storage()).data_ptr() not in seen:
            seen.add(own.data_ptr())
            total += own.nbytes()
    return total


def written() -> int:
    """The bytes that this process has written, to files of no name too; 0 where the system does not tell."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split("wchar: ")[1].split()[0]) if counts.exists() else 0


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_the_copy_is_hardly_larger_than_model_and_state(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = nn.Linear(300, 300)
    optimizer = OPTIMIZERS[name](model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    tensors = [*model.parameters(), *(t for state in optimizer.state.values() for t in state.values())]
    needed = sum(tensor.untyped_storage().nbytes() for tensor in tensors if isinstance(tensor, torch.Tensor))
    seen: set[int] = set()
    storage(seen)
    extra: list[int] = []

    files: list[Path] = []

    def train_on_batch(batch: None) -> float:
        extra.append(storage(seen))
        files.extend(tmp_path.iterdir())
        return 1.0

    on_disk = written()
    clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, repeats=2, **RANGE)
    assert written() - on_disk < needed / 10  # though whoever runs this may write a line
    assert needed <= sum(extra) <= 1.1 * needed
    assert len(extra) == 2 * STEPS
    assert not [*files, *tmp_path.iterdir()]


def test_a_copy_can_be_kept_elsewhere() -> None:
    model, optimizer = start("adamw")
    before = trace(model, optimizer)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), snapshot_device="cpu", **RANGE)
    assert trace(model, optimizer) == before


def test_batches_are_moved_to_the_device() -> None:
    model = nn.Linear(2, 1, device="meta")
    optimizer = torch.optim.SGD(model.parameters())
    seen = []

    def compute_loss(model: Any, batch: Any) -> torch.Tensor:
        seen.append((batch["x"][0].device.type, batch["y"].device.type, batch["name"]))
        raise StopIteration

    batches = [{"x": [torch.ones(1, 2)], "y": torch.ones(1), "name": "a"}]
    assert clr.torch.range_test(model, optimizer, loader=batches, compute_loss=compute_loss).stop == "data"
    assert seen == [("meta", "meta", "a")]


def test_arguments_that_make_no_sense() -> None:
    model, optimizer = start()
    loss_fn = nn.CrossEntropyLoss()
    cases: Any = [
        ((None, optimizer, loss_fn, []), {}, TypeError, "`model` must be a torch.nn.Module. Received: None"),
        ((model, None, loss_fn, []), {}, TypeError, "`optimizer` must be a torch.optim.Optimizer. Received: None"),
        ((model, optimizer), {}, TypeError, "one of `loss_fn`, `compute_loss` and `train_on_batch` must be given"),
        ((model, optimizer, loss_fn, []), {"train_on_batch": print}, TypeError, "one of `loss_fn`"),
        ((model, optimizer, 3, []), {}, TypeError, "`loss_fn` must be a function. Received: 3"),
        ((model, optimizer, loss_fn), {}, TypeError, "`loader` must be given"),
        ((model, optimizer, loss_fn, 3), {}, TypeError, "`loader` must be a DataLoader"),
        ((model, optimizer, loss_fn, [3]), {}, TypeError, "a batch must be inputs and a target"),
        (
            (model, optimizer, loss_fn, []),
            {"gradient_accumulation_steps": 0},
            ValueError,
            "`gradient_accumulation_steps` must be a whole number",
        ),
        ((model, optimizer, loss_fn, []), {"min_lr": 0.0}, ValueError, "`min_lr` must be a finite number above 0"),
        ((model, optimizer, loss_fn, []), {"evaluate": 3}, TypeError, "`evaluate` must be a function"),
        ((model, optimizer, nn.CrossEntropyLoss(reduction="none"), loader()), {}, TypeError, "with one element"),
        ((nn.LazyLinear(3), optimizer, loss_fn, []), {}, ValueError, "must know the shapes"),
    ]
    for arguments, options, error, message in cases:
        before = trace(model, optimizer)
        with pytest.raises(error, match=message):
            clr.torch.range_test(*arguments, **options)
        assert trace(model, optimizer) == before


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


def test_a_compiled_model_is_tested_too() -> None:
    model, optimizer = start()
    before = trace(model, optimizer)
    compiled: Any = torch.compile(model, backend="eager")
    test = clr.torch.range_test(compiled, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert len(test.losses) == STEPS
    assert trace(model, optimizer) == before


ALONE = """
import clr, sys, torch
from torch import distributed

distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters())
try:
    clr.torch.range_test(model, optimizer, train_on_batch=lambda batch: print("called"))
except ValueError as error:
    print(error)
sys.stdout.flush()
__import__("os")._exit(0)  # as ddp_run.py does
"""


def test_a_training_step_of_the_user_is_refused_where_there_may_be_several_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout == (
        "`train_on_batch` is not supported under DistributedDataParallel, where all processes must agree when one "
        "fails. Use `loss_fn` or `compute_loss`.\n"
    ), done.stderr[-2000:]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes(size: int, tmp_path: Path) -> None:
    program = [str(Path(__file__).with_name("ddp_run.py")), str(tmp_path)]
    if size == 2:  # as torchrun starts them
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        commands = [({**os.environ}, [sys.executable, *torchrun, *program])]
    else:
        places = [{"RANK": str(rank), "WORLD_SIZE": str(size)} for rank in range(size)]
        commands = [({**os.environ, **place}, [sys.executable, *program]) for place in places]
    started = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for environment, command in commands
    ]
    try:
        errors = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.terminate()
    assert [process.returncode for process in started] == [0] * len(started), errors[0][-2000:] + errors[-1][-2000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)]
    for rank in ranks:
        assert all(rank.pop("restored").values())
        first, second = rank["accumulated"]
        assert first == second == pytest.approx(rank.pop("plainly accumulated"), rel=1e-5)
        skipped = rank["scaled"].count(None)
        assert rank["scaled"][:skipped] == [None] * skipped
        assert 1 <= skipped < STEPS / 2
        assert rank["scaled stop"] == "completed"
        assert rank["NaN"] == rank["scaled NaN"]
        stop, losses = rank["NaN"]
        assert (stop, losses.count(","), losses[-6:]) == ("non-finite", 3, ", nan)")
        # The losses of each step, by DistributedDataParallel itself and one more reduction.
        assert rank["losses"] == pytest.approx(rank.pop("plain"), rel=1e-5)
        assert 1e-6 < rank["bounds"][0] < rank["bounds"][1] < 1000
        assert rank["stop"] in ("diverged", "non-finite")
        # The mean of what the processes return: 0, 0.1, ...
        assert [value for _, value in rank["accuracy"]] == pytest.approx([(size - 1) / 20] * 4)
        assert [rate for rate, _ in rank["accuracy"]] == pytest.approx(np.geomspace(1e-4, 1e-2, STEPS)[2::3])
        assert {place: rank[place] for place in ("time", "data", "interrupted")} == {
            "time": "time",
            "data": "data",
            "interrupted": "interrupted",
        }
        assert rank["unused"] == "completed"
        assert rank["interrupting"] == ["interrupted", 3]
        assert rank["checkpoint False"] == STEPS  # other weights at each step
        assert "checkpoints must have `use_reentrant=False`" in rank["checkpoint True"]
    for number, rank in enumerate(ranks):
        failures = rank.pop("failures")
        another = "the range test has failed in another process"
        own = "on purpose" if number == size - 1 else another
        for place in ("batch", "forward", "backward", "update", "evaluate"):
            assert failures.pop(place) == own
        for place in ("steps", "repeats", "batches", "evaluation", "scaling", "parameters"):
            assert failures.pop(place).startswith("ValueError: all processes must be given the same options. Received")
        if number < size - 1:
            assert set(failures.values()) == {f"RuntimeError: {another}"}
            continue
        for place, message in {
            "average": "MemoryError: on purpose",
            "loader": "TypeError: `loader` must be given",
            "optimizer": "TypeError: `optimizer` must be a torch.optim.Optimizer",
            "group": "ValueError: `group` must be the number or the name of a group",
            "accumulate": "ValueError: `gradient_accumulation_steps` must be",
            "range": "ValueError: `max_lr` must be",
            "limit": "ValueError: `time_limit` must be",
            "metric": "TypeError: `evaluate` must be a function",
            "also": "TypeError: `also` must be a list of things with `state_dict` and `load_state_dict`",
            "own step": "ValueError: `train_on_batch` is not supported under DistributedDataParallel",
        }.items():
            assert failures.pop(place).startswith(message)
        assert not failures
    assert all(rank == ranks[0] for rank in ranks)


class Holding(torch.optim.Optimizer):
    """Holds another optimizer, as SAM and Lookahead do, and changes tensors, lists and dicts in place."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base = base
        self.slow = [[part.detach().clone() for part in group["params"]] for group in base.param_groups]
        self.total = torch.zeros(1)
        self.history: dict[str, list[int]] = {"calls": []}
        super().__init__(base.param_groups, {})
        self.param_groups = base.param_groups

    def step(self, closure: Any = None) -> Any:
        self.base.step()
        self.total += 1
        self.history["calls"].append(1)
        for group, slow in zip(self.param_groups, self.slow, strict=True):
            for part, copy in zip(group["params"], slow, strict=True):
                copy += 0.5 * (part.detach() - copy)


def test_an_optimizer_that_holds_another_is_as_before() -> None:
    model, base = start()
    optimizer = Holding(base)
    train(model, optimizer, 2)

    def own() -> Any:
        return trace(model, base), content([optimizer.slow, optimizer.total, optimizer.history]), base.param_groups

    before, held = own(), (optimizer.slow[0], optimizer.total, optimizer.history["calls"])
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), repeats=2, **RANGE)
    assert own() == before
    assert held == (optimizer.slow[0], optimizer.total, optimizer.history["calls"])


def test_what_a_step_adds_freezes_or_replaces_is_as_before() -> None:
    model, optimizer = start()
    before = trace(model, optimizer)
    body, groups = model.body, len(optimizer.param_groups)
    first: Any = body[0]
    last: Any = body[4]
    weight, bias = first.weight, last.bias

    def train_on_batch(batch: Any) -> torch.Tensor:
        if len(optimizer.param_groups) == groups:
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
            optimizer.param_groups[0]["params"].pop()
            weight.requires_grad_(False)
            last.bias = nn.Parameter(bias.detach() + 1)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, loader=loader(), repeats=2, **RANGE)
    assert trace(model, optimizer) == before
    assert last.bias is bias
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_no_parameters_are_as_before(norm: Any) -> None:
    torch.manual_seed(0)
    model = norm(nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 6))
    weight, values = model.weight, content(model.weight)
    before = trace(model, optimizer)
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), repeats=2, **RANGE)
    assert trace(model, optimizer) == before
    assert model.weight is weight
    assert content(model.weight) == values


def test_a_loader_in_a_wrapper_goes_on_where_it_was() -> None:
    class Wrapper:
        def __init__(self) -> None:
            self.wrapped = loader(generator=torch.Generator().manual_seed(7))

        def __iter__(self) -> Iterator[Any]:
            yield from self.wrapped

    model, optimizer = start()
    without = train(model, optimizer, 9, Wrapper())
    model, optimizer = start()
    own = Wrapper()
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), own, **RANGE)
    assert train(model, optimizer, 9, own) == without
