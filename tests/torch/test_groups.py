"""Which schedule drives which group of an optimizer, and how its values get there."""

import math
import warnings
from typing import Any

import pytest

import clr
from tests.torch.optimizers import (
    MOMENTUM,
    OPTIMIZERS,
    OTHER,
    SCHEDULE,
    applied,
    applied_momentum,
    groups,
    momentum,
    parameter,
    rate,
    sgd,
)

torch = pytest.importorskip("torch")
optim = torch.optim
schedulers = torch.optim.lr_scheduler


def test_one_schedule_serves_all_groups_also_later_ones() -> None:
    optimizer = groups("a", "b")
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    optimizer.add_param_group({"params": [parameter()], "lr": 5.0})
    scheduler.step()
    assert applied(optimizer) == scheduler.get_last_lr() == [rate(1)] * 3


def test_a_schedule_for_each_group() -> None:
    optimizer = groups("a", "b", momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, [SCHEDULE, OTHER], [MOMENTUM, clr.constant(0.25)])
    assert applied(optimizer) == [rate(0), rate(0, "other")]
    optimizer.add_param_group({"params": [parameter()], "lr": 5.0})
    scheduler.step()
    assert applied(optimizer) == scheduler.get_last_lr() == [rate(1), rate(1, "other"), rate(1, "other")]
    assert applied_momentum(optimizer) == [momentum(1), 0.25, 0.25]
    assert scheduler.get_next_lr() == [rate(2), rate(2, "other"), rate(2, "other")]


def test_a_schedule_for_each_named_group() -> None:
    optimizer = groups("body", "head", "frozen")
    scheduler = clr.torch.LRScheduler(optimizer, {"head": OTHER, "body": SCHEDULE, "frozen": None})
    optimizer.add_param_group({"params": [parameter()], "lr": 5.0})
    optimizer.add_param_group({"params": [parameter()], "lr": 5.0, "name": "head"})
    with pytest.warns(UserWarning, match=r"^group 3 keeps its rate: no schedule has its name$"):
        scheduler.step()
    assert applied(optimizer) == scheduler.get_last_lr() == [rate(1), rate(1, "other"), 9.0, 5.0, rate(1, "other")]


@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
def test_groups_keep_their_ratios(drive: str) -> None:
    rates = (0.5, torch.tensor(2.0, dtype=torch.float64), 0.0)
    optimizer = optim.SGD([{"params": [parameter()], "lr": own} for own in rates])
    schedules = clr.torch.keep_ratios(optimizer, SCHEDULE)
    assert schedules[1] is SCHEDULE
    driver = getattr(clr.torch, drive)(optimizer, schedules)  # without a warning
    for step in range(6):
        assert applied(optimizer) == [rate(step) / 4, rate(step), 0.0]
        optimizer.step()
        if drive == "LRScheduler":
            driver.step()


@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
def test_one_schedule_for_different_rates_says_so(drive: str) -> None:
    optimizer = optim.SGD([{"params": [parameter()], "lr": own} for own in (0.5, 2.0, 0.5)])
    message = (
        r"^one schedule replaces the different rates of the groups: 0\.5, 2\.0\. To keep their ratios, pass `clr\.t"
    )
    with pytest.warns(UserWarning, match=message):
        getattr(clr.torch, drive)(optimizer, SCHEDULE)
    assert applied(optimizer) == [rate(0)] * 3


def test_ratios_that_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match=r"^a group must have a rate above 0, for the others keep their ratio to"):
        clr.torch.keep_ratios(groups("a", "b", lr=0.0), SCHEDULE)
    for lr, error in ((math.nan, ValueError), (-1.0, ValueError), (10**400, ValueError), ("x", TypeError)):
        optimizer = groups("a", "b")
        optimizer.param_groups[1]["lr"] = lr
        with pytest.raises(error, match="`lr` must be a finite number, 0 or more"):
            clr.torch.keep_ratios(optimizer, SCHEDULE)
    with pytest.raises(TypeError, match=r"^`schedule` must be a schedule\. Received: 0\.1\.$"):
        clr.torch.keep_ratios(groups("a"), 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^`optimizer` must be a torch\.optim\.Optimizer\. Received: None\.$"):
        clr.torch.keep_ratios(None, SCHEDULE)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_is_cycled(name: str) -> None:
    weight = parameter()
    optimizer = OPTIMIZERS[name]([weight])
    others = optimizer.param_groups[0].get("betas", (None,))[1:]
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    for step in range(12):
        assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(step)], [momentum(step)])
        assert optimizer.param_groups[0].get("betas", (None,))[1:] == others
        weight.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    assert bool(weight.isfinite().all())


def test_momentum_may_be_any_schedule() -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, clr.ramp(0.5, 0.75, steps=2))
    seen = [applied_momentum(optimizer)]
    for _ in range(3):
        scheduler.step()
        seen.append(applied_momentum(optimizer))
    assert seen == [[0.5], [0.625], [0.75], [0.75]]


def test_momentum_that_is_off_stays_off() -> None:
    optimizer = sgd(momentum=0.0)
    with pytest.warns(UserWarning, match=r"^the momentum of the optimizer is off \(0\), and stays so$"):
        scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    scheduler.step()
    assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(1)], [0.0])
    both = optim.SGD([{"params": [parameter()], "momentum": 0.0}, {"params": [parameter()], "momentum": 0.9}], lr=1.0)
    clr.torch.LRScheduler(both, SCHEDULE, MOMENTUM).step()
    assert applied_momentum(both) == [0.0, momentum(1)]


def test_momentum_that_the_schedule_brings_to_0_comes_back() -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, clr.phases((0.5, 0.0, 0.5), (1, 1)))
    seen = []
    for _ in range(3):
        seen += applied_momentum(optimizer)
        scheduler.step()
    assert seen == [0.5, 0.0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, r"`schedule` must be a schedule\. Received: None\."),
        ((0.1,), TypeError, r"`schedule` must be a schedule\. Received: 0\.1\."),
        (([SCHEDULE],), ValueError, r"`schedule` must be one schedule, or one for each group\. Received: 1 for 2\."),
        (([SCHEDULE, 1],), TypeError, r"`schedule` must be a schedule\. Received: 1\."),
        (({"c": SCHEDULE},), ValueError, r"`schedule` has names that no group has: 'c'\."),
        (({"a": SCHEDULE},), ValueError, r"`schedule` must have an entry for each group, None for .* Missing: 'b'\."),
        (({},), ValueError, r"`schedule` must have an entry for each group, .* Missing: 'a', 'b'\."),
        ((SCHEDULE, {"b": MOMENTUM}), ValueError, r"`momentum` must have an entry for each group, .* Missing: 'a'\."),
        ((SCHEDULE, 0.9), TypeError, r"`momentum` must be a schedule\. Received: 0\.9\."),
        ((SCHEDULE, SCHEDULE), ValueError, r"`momentum` must be a number from 0 to below 1\. Received: clr\.triang.*"),
        (
            (SCHEDULE, None, -2),
            ValueError,
            r"`last_epoch` must be -1, or a whole number of steps, 0 or more\. Received: -2\.",
        ),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        clr.torch.LRScheduler(groups("a", "b", momentum=0.9), *arguments)


def test_bad_optimizers() -> None:
    rule = r'^`schedule` must be one schedule, or a list with one for each group, where the groups have no "name"\. Rec'
    given: Any = ({}, {"a": SCHEDULE}, {None: SCHEDULE})
    for schedules in given:
        with pytest.raises(ValueError, match=rule):
            clr.torch.LRScheduler(sgd(), schedules)
    with pytest.raises(TypeError, match=r"^`optimizer` must be a torch\.optim\.Optimizer\. Received: 3\.$"):
        clr.torch.LRScheduler(3, SCHEDULE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^`momentum` needs an optimizer that has one\. Received: Adagrad\.$"):
        clr.torch.LRScheduler(optim.Adagrad([parameter()]), SCHEDULE, MOMENTUM)


def test_tensors_are_written_in_place() -> None:
    rate_tensor, beta = torch.tensor(9.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    optimizer = optim.Adam([parameter()], lr=rate_tensor, betas=(beta, torch.tensor(0.999)), capturable=False)
    held = optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    for step in range(1, 6):
        scheduler.step()
        assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(step)], [momentum(step)])
    assert optimizer.param_groups[0]["lr"] is held[0]
    assert optimizer.param_groups[0]["betas"] is held[1]


def test_tensors_are_never_shared_between_groups() -> None:
    shared = torch.tensor(9.0, dtype=torch.float64)
    optimizer = optim.SGD([{"params": [parameter()], "lr": shared}, {"params": [parameter()], "lr": shared}], lr=shared)
    scheduler = clr.torch.LRScheduler(optimizer, [SCHEDULE, OTHER])
    assert applied(optimizer) == [rate(0), rate(0, "other")]
    optimizer.add_param_group({"params": [parameter()], "lr": optimizer.param_groups[0]["lr"]})
    scheduler.step()
    assert applied(optimizer) == [rate(1), rate(1, "other"), rate(1, "other")]
    assert optimizer.param_groups[0]["lr"] is shared
    assert len({id(group["lr"]) for group in optimizer.param_groups}) == 3


# The follower breaks a second graph off; with a scheduler, rates that are not tensors would make a second.
@pytest.mark.parametrize(("drive", "graphs"), [("scheduler", 1), ("follower", 2)])
def test_a_compiled_step_is_not_compiled_again(drive: str, graphs: int) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    lr, beta = torch.tensor(9.0, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    optimizer = optim.Adam([weight], lr=lr, betas=(beta, torch.tensor(0.999)))
    made: Any = clr.torch.LRScheduler if drive == "scheduler" else clr.torch.Follower
    driver = made(optimizer, SCHEDULE, MOMENTUM)
    compiled = torch.compile(optimizer.step, backend="eager")
    frames = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(200):
            assert (float(lr), float(beta)) == (rate(step), momentum(step))
            weight.grad = torch.ones_like(weight)
            compiled()
            if drive == "scheduler":
                driver.step()
            frames.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert frames[1:] == [graphs] * 199
