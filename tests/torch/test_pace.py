"""What is said, once, where the calls of `step` do not keep up with the updates, and where nothing is said."""

import warnings

import pytest

import clr
from tests.torch.optimizers import (
    OTHER,
    SCHEDULE,
    applied,
    groups,
    rate,
    sgd,
    update,
)

torch = pytest.importorskip("torch")
optim = torch.optim
schedulers = torch.optim.lr_scheduler

OUT_OF_STEP = r"^the rate is out of step with the training: `step\(\)` of LRScheduler is called "


@pytest.mark.parametrize("tensor", [False, True])
def test_a_step_after_several_updates_is_told_of_once(tensor: bool) -> None:
    optimizer = sgd(lr=torch.tensor(9.0) if tensor else 9.0)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    for epoch in range(5):
        for _ in range(3):
            update(optimizer)
        if epoch == 1:  # for the first step may come late
            with pytest.warns(UserWarning, match=OUT_OF_STEP + r"once after 3 updates\. Call it once after each upd"):
                scheduler.step()
        else:
            scheduler.step()
    assert scheduler.get_last_lr() == [rate(5)]


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("backward", ["none", "each"])
def test_several_steps_after_each_update_are_told_of_once(steps: int, backward: str) -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)

    def train(updates: int) -> None:
        for _ in range(updates):
            update(optimizer)
            for _ in range(steps):
                scheduler.step()
                if backward == "each":  # as with gradients that accumulate, and a step for each batch
                    (optimizer.param_groups[0]["params"][0] * 2).sum().backward()

    train(2)
    with pytest.warns(UserWarning, match=OUT_OF_STEP + "several times after each update") as told:
        train(4)
    assert len(told) == 1


def test_a_warning_names_the_line_of_the_user() -> None:
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            update(optimizer)
            update(optimizer)
            scheduler.step()
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("emptied", ["before", "after"])
@pytest.mark.parametrize("fused", [False, True])
def test_updates_that_a_scaler_skips_are_in_step(fused: bool, emptied: str) -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = optim.Adam([weight], lr=9.0, fused=fused)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    for factor in (1.0, float("inf")) * 6:
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        if emptied == "before":
            optimizer.zero_grad()
        scheduler.step()
        optimizer.zero_grad()
    assert scheduler.last_epoch == 12


def test_steps_that_are_in_step_in_their_way_say_nothing() -> None:
    # What is loaded, and what comes before the first step.
    optimizer = sgd()
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    for _ in range(3):
        update(optimizer)
    scheduler.step()
    scheduler.load_state_dict(scheduler.state_dict())
    for _ in range(2):
        update(optimizer)
    scheduler.step()
    # A range test.
    weight = optimizer.param_groups[0]["params"][0]
    test = clr.torch.range_test(
        torch.nn.ParameterList([weight]),
        optimizer,
        compute_loss=lambda *_: weight.sum() * 0 + 1,
        loader=[torch.ones(1)],
        num_steps=5,
    )
    assert len(test.losses) == 5
    update(optimizer)
    scheduler.step()
    # A distributed checkpoint, which makes an update to ask for the state of one without a state.
    optimizer.zero_grad()
    checkpoints = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    checkpoints._init_optim_state(optimizer)
    update(optimizer)
    scheduler.step()
    # Another scheduler, which has its turn.
    other = schedulers.ConstantLR(optimizer, factor=0.5, total_iters=100)
    for _ in range(3):
        update(optimizer)
        other.step()
    update(optimizer)
    scheduler.step()
    # Several schedulers for one optimizer.
    both = groups("a", "b")
    made = [
        clr.torch.LRScheduler(both, {"a": SCHEDULE, "b": None}),
        clr.torch.LRScheduler(both, {"a": None, "b": OTHER}),
    ]
    for step in range(6):
        assert applied(both) == [rate(step), rate(step, "other")]
        update(both)
        for one in made:
            one.step()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_sequence_is_in_step(first: str) -> None:
    optimizer = sgd(lr=0.05)
    theirs, ours = schedulers.ExponentialLR(optimizer, 0.9), clr.torch.LRScheduler(optimizer, SCHEDULE)
    order = [ours, theirs] if first == "ours" else [theirs, ours]
    sequence = schedulers.SequentialLR(optimizer, order, milestones=[3])
    for _ in range(9):
        update(optimizer)
        sequence.step()


def test_compiled_updates_are_not_seen_and_nothing_is_said() -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = optim.SGD([weight], lr=torch.tensor(9.0))
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE)
    update(optimizer)
    scheduler.step()
    torch.compiler.reset()
    compiled = torch.compile(optimizer.step, backend="eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?!the rate is out of step)")
        for _ in range(6):
            weight.grad = torch.ones(1)
            compiled()
            scheduler.step()
    torch.compiler.reset()
