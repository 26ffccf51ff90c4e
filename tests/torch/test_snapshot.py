"""A range test in PyTorch leaves no trace, however it ends."""

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

import clr
from tests.torch.networks import OPTIMIZERS, RANGE, STEPS, Counter, Network, content, data, loader, start, trace, train


@pytest.mark.parametrize(
    "options", [{}, {"repeats": 2}, {"snapshot_device": "cpu"}, {"max_lr": 1e30, "num_steps": 200}]
)
@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_is_as_before_and_training_goes_on_as_if_there_had_been_no_test(
    name: str, trained: bool, options: dict[str, Any]
) -> None:
    model, optimizer = start(name, trained)
    without = train(model, optimizer, 9)
    model, optimizer = start(name, trained)
    before = trace(model, optimizer)
    test = clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **{**RANGE, **options})
    assert trace(model, optimizer) == before
    assert test.stop == "completed" if "max_lr" not in options else test.stop in ("diverged", "non-finite")
    assert len(test.losses) == STEPS or test.stop != "completed"
    assert train(model, optimizer, 9) == without


class Wrapper:
    """A loader that holds the one that draws."""

    def __init__(self, wrapped: DataLoader[Any]) -> None:
        self.wrapped = wrapped

    def __iter__(self) -> Iterator[Any]:
        yield from self.wrapped


@pytest.mark.parametrize("wrap", [lambda own: own, Wrapper], ids=["bare", "wrapped"])
def test_a_loader_with_a_generator_goes_on_where_it_was(wrap: Any) -> None:
    def batches() -> Any:
        return wrap(loader(generator=torch.Generator().manual_seed(7)))

    model, optimizer = start()
    without = train(model, optimizer, 9, batches())
    model, optimizer = start()
    own = batches()
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), own, **RANGE)
    assert train(model, optimizer, 9, own) == without


class Drawing(Sampler[int]):
    """Draws from a generator that is not PyTorch's."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Iterator[int]:
        order = list(range(40))
        self.draw.shuffle(order)
        yield from order


@pytest.mark.parametrize("kind", [random.Random, np.random.default_rng, np.random.RandomState])
def test_a_sampler_with_another_generator_goes_on_where_it_was(kind: Callable[[int], Any]) -> None:
    model, optimizer = start()
    without = train(model, optimizer, 9, DataLoader(data(), 8, sampler=Drawing(kind(7))))
    model, optimizer = start()
    own = DataLoader(data(), 8, sampler=Drawing(kind(7)))
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), own, **RANGE)
    assert train(model, optimizer, 9, own) == without


class Remembering(torch.optim.SGD):
    """Changes attributes of many kinds in place."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queue, self.seen, self.array = deque([0.5]), {0.5}, np.zeros(3)
        self.draws: list[Any] = [torch.Generator().manual_seed(1), random.Random(1), np.random.default_rng(1)]

    def step(self, closure: Any = None) -> Any:
        self.queue.append(1.0)
        self.seen.add(len(self.queue))
        self.array += 1
        torch.rand(1, generator=self.draws[0])
        self.draws[1].random()
        self.draws[2].random()
        return super().step(closure)


def test_what_an_optimizer_remembers_is_as_before() -> None:
    model, _ = start()
    optimizer: Any = Remembering(model.parameters(), lr=0.1)
    queue, array = optimizer.queue, optimizer.array
    clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), loader(), **RANGE)
    assert optimizer.queue is queue
    assert list(queue) == [0.5]
    assert optimizer.seen == {0.5}
    assert optimizer.array is array
    assert array.tolist() == [0.0] * 3
    assert torch.equal(optimizer.draws[0].get_state(), torch.Generator().manual_seed(1).get_state())
    assert optimizer.draws[1].random() == random.Random(1).random()
    assert optimizer.draws[2].random() == np.random.default_rng(1).random()


class Counting(Sampler[int]):
    """Draws by the number of the epoch, which it counts."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        yield from torch.randperm(40, generator=torch.Generator().manual_seed(self.epoch)).tolist()


@pytest.mark.parametrize("prepared", [False, True])
def test_a_loader_that_counts_its_epochs_goes_on_where_it_was(prepared: bool) -> None:
    def batches() -> Any:
        own: Any = DataLoader(data(), batch_size=8, sampler=Counting())
        if prepared:
            accelerate = pytest.importorskip("accelerate")
            configuration = accelerate.utils.DataLoaderConfiguration(use_seedable_sampler=True)
            own = accelerate.Accelerator(cpu=True, dataloader_config=configuration).prepare(loader())
        return own

    def trained(tested: bool) -> list[bytes]:
        model, optimizer = start()
        own = batches()
        train(model, optimizer, 5, own)
        if tested:
            clr.torch.range_test(model, optimizer, nn.CrossEntropyLoss(), own, **RANGE)
        return train(model, optimizer, 9, own)

    assert trained(True) == trained(False)


PERSISTENT = """
import clr, sys, torch
from tests.torch.networks import RANGE, data, start, train

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
            body[2] = nn.Tanh()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, loader=loader(), repeats=2, **RANGE)
    assert trace(model, optimizer) == before
    assert last.bias is bias
    assert type(body[2]) is nn.ReLU
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))


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
