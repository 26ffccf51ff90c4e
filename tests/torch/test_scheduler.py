"""The scheduler in PyTorch's own training loops, beside other schedulers, and resumed."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.torch.optimizers import (
    HIGH,
    LOW,
    MOMENTUM,
    OTHER,
    SCHEDULE,
    UP,
    applied,
    applied_momentum,
    groups,
    momentum,
    rate,
    saved,
    sgd,
    update,
)

torch = pytest.importorskip("torch")
optim = torch.optim
schedulers = torch.optim.lr_scheduler


def test_it_is_one_of_pytorchs_schedulers() -> None:
    scheduler = clr.torch.LRScheduler(sgd(), SCHEDULE)
    assert isinstance(scheduler, schedulers.LRScheduler)
    assert scheduler.optimizer.param_groups[0]["lr"] == rate(0)


def test_rates_are_those_of_the_schedule_and_have_their_own_names() -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    for step in range(30):
        assert applied(optimizer) == scheduler.get_last_lr() == [rate(step)]
        assert scheduler.get_next_lr() == [rate(step + 1)]
        assert scheduler.last_epoch == step
        optimizer.step()
        scheduler.step()


def test_it_starts_where_it_is_told() -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, last_epoch=6)
    assert (scheduler.last_epoch, applied(optimizer)) == (7, [rate(7)])
    scheduler.step(2)
    assert (scheduler.last_epoch, applied(optimizer)) == (2, [rate(2)])


def test_initial_lr_is_neither_written_nor_read() -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, last_epoch=3)
    scheduler.load_state_dict(scheduler.state_dict())
    assert "initial_lr" not in optimizer.param_groups[0]
    optimizer.param_groups[0]["initial_lr"] = 77.0
    scheduler.step()
    assert optimizer.param_groups[0]["initial_lr"] == 77.0
    assert applied(optimizer) == [rate(5)]
    assert scheduler.base_lrs == [rate(0)]


def test_a_rate_that_is_asked_for_changes_nothing() -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    scheduler.last_epoch = 3
    assert scheduler.get_lr() == [rate(3)]
    assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(0)], [momentum(0)])
    assert scheduler.get_last_momentum() == [momentum(3)]


@pytest.mark.parametrize("make", ["LRScheduler", "Follower"])
def test_nothing_is_kept_alive(make: str) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters())
    driver = getattr(clr.torch, make)(optimizer, SCHEDULE, MOMENTUM)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    references = [weakref.ref(thing) for thing in (model, optimizer, driver)]
    gc.collect()
    gc.disable()
    try:
        del model, optimizer, driver
        assert [reference() for reference in references] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_copies_drive_an_optimizer_of_their_own(way: Any) -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM, last_epoch=2)
    again = way(scheduler)
    again.step()
    assert (applied(optimizer), applied(again.optimizer)) == ([rate(3)], [rate(4)])
    assert applied_momentum(again.optimizer) == [momentum(4)]


def test_state_is_the_step_and_the_schedules_as_plain_data() -> None:
    scheduler = clr.torch.LRScheduler(sgd(momentum=0.9), SCHEDULE, MOMENTUM)
    scheduler.step()
    state = scheduler.state_dict()
    assert state == {"last_epoch": 1, "applied": True, "schedule": SCHEDULE.to_dict(), "momentum": MOMENTUM.to_dict()}
    assert saved(state) == state


def test_loading_applies_the_rate_and_leaves_the_caller_s_state_alone() -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    for _ in range(7):
        scheduler.step()
    state = saved(scheduler.state_dict())
    before = copy.deepcopy(state)
    fresh = sgd(momentum=0.9)
    again = clr.torch.LRScheduler(fresh, SCHEDULE, MOMENTUM)
    for _ in range(2):
        again.load_state_dict(state)
        assert state == before
        assert (again.last_epoch, applied(fresh), applied_momentum(fresh)) == (7, [rate(7)], [momentum(7)])


def test_loading_the_state_of_another_schedule_says_so() -> None:
    state = clr.torch.LRScheduler(sgd(), SCHEDULE, last_epoch=4).state_dict()
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, OTHER)
    with pytest.warns(
        UserWarning, match=r"^the state was saved with another schedule, \{'clr': 1, .*; it goes on with"
    ):
        scheduler.load_state_dict(state)
    assert applied(optimizer) == [rate(5, "other")]
    with pytest.raises(
        ValueError, match=r"^the state of a scheduler must have `last_epoch`\. Received: \['_step'\]\.$"
    ):
        scheduler.load_state_dict({"_step": 3})


def test_an_equal_schedule_in_another_form_says_nothing() -> None:
    schedule = clr.triangular(1, 2, 4)
    saved_by = {"schedule": {**schedule.to_dict(), "base_lr": 1, "max_lr": 2}, "momentum": None, "last_epoch": 3}
    for own, state in (
        (clr.triangular(1.0, 2.0, 4.0), saved_by),
        ([schedule], {**saved_by, "schedule": [saved_by["schedule"]]}),
        ({"a": schedule}, {**saved_by, "schedule": {"a": saved_by["schedule"]}}),
    ):
        scheduler = clr.torch.LRScheduler(groups("a"), own)
        scheduler.load_state_dict(state)
        assert scheduler.last_epoch == 3
        others: Any = ({"clr": 1, "kind": "nothing"}, 5, [], {"a": 5}, {**schedule.to_dict(), "max_lr": 3})
        for other in others:
            with pytest.warns(UserWarning, match="^the state was saved with another schedule"):
                scheduler.load_state_dict({**state, "schedule": other})


def test_the_state_of_pytorchs_scheduler_gives_its_step() -> None:
    old = schedulers.CyclicLR(sgd(), LOW, HIGH, UP, cycle_momentum=False)
    for _ in range(3):
        update(old.optimizer)
        old.step()
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    with pytest.warns(
        UserWarning, match=r"^the state has no schedule\. Its step is taken, and it goes on with"
    ) as told:
        scheduler.load_state_dict(old.state_dict())
    assert len(told) == 1
    assert applied(optimizer) == [rate(3)]


def test_a_scaling_function_without_a_name_can_be_saved_too() -> None:
    schedule = clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle)
    scheduler = clr.torch.LRScheduler(sgd(), [schedule])
    scheduler.step()
    state = saved(scheduler.state_dict())
    again = clr.torch.LRScheduler(sgd(), [schedule])
    again.load_state_dict(state)
    assert again.get_last_lr() == [0.25]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (5, TypeError, r"`state_dict` must be a dict with the data that was saved\. Received: 5\."),
        ({"last_epoch": True}, TypeError, r"`last_epoch` must be -1, or a whole number of .*\. Received: True\."),
        ({"last_epoch": -2}, ValueError, r"`last_epoch` must be -1, or a whole number of .*\. Received: -2\."),
    ],
)
def test_states_that_make_no_sense(state: Any, error: type[Exception], message: str) -> None:
    scheduler = clr.torch.LRScheduler(sgd(), SCHEDULE, last_epoch=3)
    with pytest.raises(error, match=f"^{message}$"):
        scheduler.load_state_dict(state)
    assert scheduler.last_epoch == 4


def test_notes_of_pytorchs_schedulers_can_be_set() -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    scheduler.last_epoch = 5
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    scheduler.base_lrs = list(scheduler.base_lrs)
    assert scheduler.get_last_lr() == scheduler._last_lr == [rate(5)]
    scheduler.step()
    assert applied(optimizer) == [rate(6)]
    with pytest.warns(UserWarning, match=r"^`base_lrs` is left at \[0\.25\], the first rates .* Received: \[7\.0\]\.$"):
        scheduler.base_lrs = [7.0]
    assert scheduler.base_lrs == [rate(0)]


# Beside others


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_in_a_sequence() -> None:
    optimizer = sgd(lr=8.0)
    first = schedulers.ConstantLR(optimizer, factor=0.5, total_iters=100)
    second = clr.torch.LRScheduler(optimizer, SCHEDULE)
    sequence = schedulers.SequentialLR(optimizer, [first, second], milestones=[3])
    seen = []
    for _ in range(10):
        seen += applied(optimizer)
        assert sequence.get_last_lr() == applied(optimizer)
        optimizer.step()
        sequence.step()
    assert seen == [4.0] * 3 + [rate(step) for step in range(7)]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_in_a_chain() -> None:
    optimizer = groups("a", "b")
    first = clr.torch.LRScheduler(optimizer, {"a": SCHEDULE, "b": None})
    second = clr.torch.LRScheduler(optimizer, {"a": None, "b": OTHER})
    chain = schedulers.ChainedScheduler([first, second], optimizer=optimizer)
    for step in range(6):
        assert applied(optimizer) == [rate(step), rate(step, "other")]
        optimizer.step()
        chain.step()
    assert chain.get_last_lr() == [rate(6), rate(6, "other")]


# Resuming in another process

STEPS = 9
PROGRAM = """
import sys, torch, clr
from pathlib import Path

folder, drive, start, stop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(0)
x = torch.rand(64, 8, generator=torch.Generator().manual_seed(1))
y = x.sum(1, keepdim=True).sin()
schedule = clr.warmup(clr.triangular2(0.01, 0.1, 2.5, step_size_down=3), 2)

def train(start, stop, state, save):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    make = clr.torch.LRScheduler if drive == "scheduler" else clr.torch.Follower
    driver = make(optimizer, schedule, clr.momentum(schedule))
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if drive == "scheduler":
            driver.load_state_dict(state["driver"])
    rates = []
    for step in range(start, stop):
        if save:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "driver": driver.state_dict() if drive == "scheduler" else None}, folder / f"{step}.pt")
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]))
        optimizer.step()
        if drive == "scheduler":
            driver.step()
    return [p.detach().clone() for p in model.parameters()], rates

if start == 0:
    torch.save(train(0, stop, None, True), folder / "whole.pt")
else:
    whole, rates = torch.load(folder / "whole.pt")
    for step in range(stop):
        weights, later = train(step, stop, torch.load(folder / f"{step}.pt", weights_only=True), False)
        assert later == rates[step:], (step, later, rates)
        assert all(torch.equal(a, b) for a, b in zip(weights, whole, strict=True)), step
        print(step)
"""


@pytest.mark.parametrize("drive", ["scheduler", "follower"])
def test_resuming_at_any_step_in_another_process_changes_nothing(drive: str, tmp_path: Path) -> None:
    for start in (0, 1):
        arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), drive, str(start), str(STEPS)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(step) for step in range(STEPS)]
