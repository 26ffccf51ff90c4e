"""The follower: it counts the optimizer's own updates, whoever else touches the optimizer."""

import gc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.torch.optimizers import (
    MOMENTUM,
    OTHER,
    SCHEDULE,
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


def test_the_rate_follows_the_optimizer_s_updates() -> None:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = optim.SGD([weight], lr=9.0)
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    sum_of_rates = Fraction(0)
    for step in range(20):
        assert (follower.updates, follower.get_next_lr(), applied(optimizer)) == (
            step,
            [rate(step)],
            [rate(step)],
        )
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert follower.get_last_lr() == [rate(step)]
        sum_of_rates += Fraction(rate(step))
    assert float(weight.detach()) == -sum_of_rates


def test_accumulated_gradients_are_one_update() -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = optim.SGD([weight], lr=9.0, momentum=0.9)
    follower = clr.torch.Follower(optimizer, SCHEDULE, MOMENTUM)
    for batch in range(12):
        (weight * 2).sum().backward()
        if batch % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    assert follower.updates == 3
    assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(3)], [momentum(3)])


@pytest.mark.parametrize("fused", [False, True])
def test_updates_that_a_scaler_skips_do_not_count(fused: bool) -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = optim.Adam([weight], lr=9.0, fused=fused)
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**10, growth_interval=1000)
    counts = []
    for factor in (1.0, float("inf"), 1.0, float("inf"), float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        counts.append(follower.updates)
    assert counts == [1, 1, 2, 2, 2, 3]
    assert applied(optimizer) == [rate(3)]


@pytest.mark.parametrize("order", ["follower first", "state first"])
def test_the_count_travels_in_the_optimizer_s_state(order: str) -> None:
    optimizer = groups("a", "b", momentum=0.9)
    clr.torch.Follower(optimizer, [SCHEDULE, OTHER], MOMENTUM)
    for _ in range(5):
        optimizer.step()
    state = saved(optimizer.state_dict())
    fresh = groups("a", "b", momentum=0.9)
    if order == "state first":
        fresh.load_state_dict(state)
    follower = clr.torch.Follower(fresh, [SCHEDULE, OTHER], MOMENTUM)
    if order == "follower first":
        fresh.load_state_dict(state)
    assert follower.updates == 5
    fresh.step()
    assert (follower.updates, applied(fresh)) == (6, [rate(6), rate(6, "other")])
    assert applied_momentum(fresh) == [momentum(6)] * 2


def test_a_state_without_a_count_says_so() -> None:
    state = sgd().state_dict()
    optimizer = sgd()
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    optimizer.step()
    with pytest.warns(UserWarning, match=r"^the state has no count of updates; it goes on from 1$"):
        optimizer.load_state_dict(state)
    assert (follower.updates, applied(optimizer)) == (1, [rate(1)])


def test_a_removed_follower_leaves_the_optimizer_alone() -> None:
    optimizer = sgd()
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    follower.remove()
    optimizer.step()
    assert (follower.updates, applied(optimizer)) == (0, [rate(0)])
    del optimizer
    gc.collect()
    with pytest.raises(ReferenceError, match=r"^the optimizer of this follower is gone$"):
        follower.get_next_lr()


def test_momenta_of_the_last_update() -> None:
    optimizer = groups("a", "b", momentum=0.9)
    follower = clr.torch.Follower(optimizer, SCHEDULE, {"a": MOMENTUM, "b": None})
    assert follower.get_last_momentum() == [momentum(0), 0.9]
    for step in range(4):
        update(optimizer)
        assert follower.get_last_momentum() == [momentum(step), 0.9]
    assert clr.torch.Follower(optim.Adagrad([torch.ones(1)]), SCHEDULE).get_last_momentum() == [None]


@pytest.mark.parametrize("tensor", [False, True])
def test_another_scheduler_that_sets_the_rates_is_told_of_once(tensor: bool) -> None:
    optimizer = sgd(lr=torch.tensor(9.0, dtype=torch.float64) if tensor else 9.0)
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    other = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))  # the first rate is ours
    update(optimizer)
    other.step()
    with pytest.warns(
        UserWarning,
        match=r"^another scheduler sets the rates that this follower sets: update 1 was made at \[0\.125\] in place of "
        r"\[0\.5\]\. Use one of them$",
    ):
        update(optimizer)
    assert follower.get_last_lr() == [0.125]
    other.step()
    update(optimizer)  # without another warning
    assert follower.get_last_lr() == [pytest.approx(0.25 / 3)]
    update(optimizer)
    assert follower.get_last_lr() == [rate(3)]


def test_rates_that_are_written_again_as_they_are_say_nothing() -> None:
    for lr in (9.0, torch.tensor(9.0, dtype=torch.float64)):
        optimizer = sgd(lr=lr)
        clr.torch.Follower(optimizer, SCHEDULE)
        for step in range(4):
            if isinstance(lr, float):
                optimizer.param_groups[0]["lr"] = float(f"{optimizer.param_groups[0]['lr']!r}")
            else:
                lr.fill_(lr.item())
            assert applied(optimizer) == [rate(step)]
            update(optimizer)
        optimizer.add_param_group({"params": [torch.ones(1)], "lr": 5.0})
        update(optimizer)
        assert applied(optimizer) == [rate(5)] * 2


def test_a_second_follower_replaces_the_first() -> None:
    optimizer = sgd(momentum=0.9)
    clr.torch.Follower(optimizer, SCHEDULE)
    for _ in range(3):
        update(optimizer)
    with pytest.warns(
        UserWarning, match=r"^the optimizer has a follower already\. The new one replaces it, and goes on from 3$"
    ):
        follower = clr.torch.Follower(optimizer, OTHER, MOMENTUM)
    for step in range(3, 8):
        assert (follower.updates, applied(optimizer)) == (step, [rate(step, "other")])
        assert applied_momentum(optimizer) == [momentum(step)]
        update(optimizer)


def test_updates_of_a_range_test_neither_count_nor_move_the_momentum() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=9.0, momentum=0.9)
    follower = clr.torch.Follower(optimizer, SCHEDULE, MOMENTUM)
    seen = []

    def train_on_batch(batch: None) -> float:
        seen.append(applied_momentum(optimizer))
        update(optimizer, 0.0)
        return 1.0

    clr.torch.range_test(model, optimizer, train_on_batch=train_on_batch, num_steps=5)
    assert seen == [[momentum(0)]] * 5
    assert (follower.updates, applied(optimizer)) == (0, [rate(0)])


# Distributed checkpoints


@pytest.mark.parametrize("low", [0.0, 0.25])
@pytest.mark.parametrize("tensor", [False, True])
def test_the_update_that_a_distributed_checkpoint_makes_does_not_count(low: float, tensor: bool) -> None:
    checkpoints = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    model = torch.nn.Linear(2, 1)
    lr = torch.tensor(9.0, dtype=torch.float64) if tensor else 9.0
    optimizer = optim.SGD(model.parameters(), lr=lr)  # which has no state, so each checkpoint makes one
    follower = clr.torch.Follower(optimizer, clr.triangular(low, low + 1.0, 4))
    made = []
    optimizer.register_step_post_hook(lambda *_: made.append(1))
    for step in range(4):
        checkpoints.get_optimizer_state_dict(model, optimizer)
        assert (follower.updates, applied(optimizer)) == (step, [low + step / 4])
        update(optimizer)
        optimizer.zero_grad()
    assert len(made) == 8


def test_a_flattened_distributed_checkpoint_brings_the_count() -> None:
    checkpoints = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    flat = checkpoints.StateDictOptions(flatten_optimizer_state_dict=True)

    def made(followed: bool) -> Any:
        model = torch.nn.Linear(2, 1)
        optimizer = optim.Adam(model.parameters(), lr=9.0)
        return model, optimizer, clr.torch.Follower(optimizer, SCHEDULE) if followed else None

    states = {}
    for followed in (False, True):
        model, optimizer, _ = made(followed)
        for _ in range(3):
            update(optimizer)
        states[followed] = checkpoints.get_optimizer_state_dict(model, optimizer, options=flat)
    model, optimizer, follower = made(True)
    checkpoints.set_optimizer_state_dict(model, optimizer, states[True], options=flat)
    assert (follower.updates, applied(optimizer)) == (3, [rate(3)])
    with pytest.raises(KeyError, match="clr_updates"):
        checkpoints.set_optimizer_state_dict(model, optimizer, states[False], options=flat)
    follower.remove()
    assert follower.updates == 3
    checkpoints.set_optimizer_state_dict(model, optimizer, states[False], options=flat)
    follower = clr.torch.Follower(optimizer, SCHEDULE)
    assert (follower.updates, applied(optimizer)) == (0, [rate(0)])


# Optimizers around an optimizer


class Sam(optim.Optimizer):  # type: ignore[misc, name-defined]
    """Makes its updates by two calls, neither of which is `step`."""

    def __init__(self, base: Any) -> None:
        super().__init__(base.param_groups, {})
        self.base = base
        self.param_groups = base.param_groups

    def second_step(self) -> None:
        self.base.step()

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.base.param_groups = self.param_groups


class Bare(optim.Optimizer):  # type: ignore[misc, name-defined]
    """Has not called the constructor of its base class, as Accelerate's wrapper and many of Lookahead."""

    def __init__(self, base: Any) -> None:
        self.held = {"all": [base]}
        self.base = base
        self.param_groups = base.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.base.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)


def accelerated(base: Any) -> Any:
    return pytest.importorskip("accelerate").Accelerator(cpu=True).prepare(base)


@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
@pytest.mark.parametrize("wrap", [Sam, Bare, accelerated, lambda base: Sam(Bare(base))])
def test_optimizers_around_an_optimizer_are_driven(wrap: Callable[[Any], Any], drive: str) -> None:
    base = sgd(momentum=0.9)
    optimizer = wrap(base)
    driver = getattr(clr.torch, drive)(optimizer, clr.one_cycle(1.0, 4))
    expected = [clr.one_cycle(1.0, 4)(step) for step in range(4)]
    seen = []
    base.register_step_pre_hook(lambda *_: seen.append(applied(base)[0]))

    def step() -> None:
        base.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.second_step() if isinstance(optimizer, Sam) else optimizer.step()
        if drive == "LRScheduler":
            driver.step()

    for _ in range(4):
        step()
    assert seen == expected
    with pytest.warns(UserWarning, match="^the training goes on after the 4 steps"):
        step()


def test_the_count_in_the_state_of_an_optimizer_around_another() -> None:
    def made() -> Any:
        optimizer = Sam(sgd(momentum=0.9))
        return optimizer, clr.torch.Follower(optimizer, SCHEDULE)

    optimizer, _ = made()
    for _ in range(3):
        optimizer.second_step()
    state = saved(optimizer.state_dict())
    optimizer, follower = made()
    optimizer.load_state_dict(state)
    assert (follower.updates, applied(optimizer), applied(optimizer.base)) == (3, [rate(3)], [rate(3)])
    optimizer.second_step()
    assert (follower.updates, applied(optimizer.base)) == (4, [rate(4)])


def test_an_optimizer_that_outlives_the_one_around_it_is_left_alone() -> None:
    base = sgd()
    clr.torch.Follower(Sam(base), SCHEDULE)
    gc.collect()
    state = base.state_dict()
    update(base)
    base.load_state_dict(state)
    assert applied(base) == [rate(0)]


def test_a_sharded_optimizer_is_driven(tmp_path: Path) -> None:
    distributed = torch.distributed
    sharded = pytest.importorskip("torch.distributed.optim").ZeroRedundancyOptimizer
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = sharded([weight], optimizer_class=optim.SGD, lr=9.0)
        follower = clr.torch.Follower(optimizer, SCHEDULE)
        for step in range(6):
            assert (follower.updates, applied(optimizer)) == (step, [rate(step)])
            update(optimizer)
        assert float(weight.detach()) == -sum(rate(step) for step in range(6))
    finally:
        distributed.destroy_process_group()


def test_an_optimizer_that_tells_of_no_update() -> None:
    class Silent(optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.param_groups = sgd().param_groups

        def __repr__(self) -> str:
            return "Silent()"

    with pytest.raises(TypeError, match=r"^`optimizer` must be one that tells of its updates by hooks, as .*Silent"):
        clr.torch.Follower(Silent(), SCHEDULE)
    scheduler = clr.torch.LRScheduler(Silent(), clr.one_cycle(1.0, 2))
    for _ in range(4):
        scheduler.step()
    assert scheduler.get_last_lr() == [clr.one_cycle(1.0, 2)(1)]
