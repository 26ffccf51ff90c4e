"""What is said, once, where a training goes on after the end of its schedule, and an end in an error."""

import copy
import pickle
import warnings
from typing import Any

import pytest

import clr
from tests.torch.optimizers import (
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

SHORT = clr.one_cycle(1.0, total_steps=4)
PAST_END = (
    r"^the training goes on after the 4 steps of its schedule, at the last rate\. To say that this is wanted, use"
)


def past_end(drive: str, schedule: Any, updates: int) -> Any:
    """Updates, each with the step of a scheduler after it."""
    optimizer = groups("a", "b")
    driver = getattr(clr.torch, drive)(optimizer, schedule)
    for _ in range(updates):
        optimizer.step()
        if drive == "LRScheduler":
            driver.step()
    return optimizer, driver


@pytest.mark.parametrize("schedule", [SHORT, [SHORT * 0.5, SCHEDULE], {"a": None, "b": SHORT}], ids=str)
@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
def test_an_update_past_the_end_says_so_once(drive: str, schedule: Any) -> None:
    optimizer, _ = past_end(
        drive, schedule, 4
    )  # without a warning, also where the scheduler has been stepped to the end
    assert applied(optimizer)[1] == (rate(4) if isinstance(schedule, list) else SHORT(4))
    with pytest.warns(UserWarning, match=PAST_END) as told:
        past_end(drive, schedule, 9)
    assert len(told) == 1


@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
def test_an_end_that_is_meant_or_not_passed_says_nothing(drive: str) -> None:
    past_end(drive, SHORT.after_end("hold"), 9)
    past_end(drive, SCHEDULE, 99)
    optimizer, _driver = past_end(drive, SHORT, 4)
    weight = optimizer.param_groups[0]["params"][0]

    def train_on_batch(batch: None) -> float:
        weight.grad = torch.ones(2)
        optimizer.step()
        return float(weight.detach().sum())

    # The updates of a range test are none of the training.
    clr.torch.range_test(torch.nn.ParameterList([weight]), optimizer, train_on_batch=train_on_batch, num_steps=20)
    with pytest.warns(UserWarning, match=PAST_END):
        optimizer.step()


def test_a_warning_is_not_swallowed_by_that_of_another_training() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for drive in ("LRScheduler", "Follower") * 2:
            past_end(drive, SHORT, 9)
        optimizer = sgd()
        scheduler = clr.torch.LRScheduler(optimizer, SHORT)
        for _ in range(4):
            optimizer.step()
            scheduler.step()
        for again in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
            again.optimizer.step()
    assert [str(warning.message)[:30] for warning in told] == ["the training goes on after the"] * 6
    assert {warning.filename for warning in told} == {__file__}


def test_an_end_under_ignite_is_told_of() -> None:
    engines, handlers = pytest.importorskip("ignite.engine"), pytest.importorskip("ignite.handlers")

    def run(steps: int) -> None:
        optimizer = sgd()
        engine = engines.Engine(lambda engine, batch: update(optimizer))
        scheduler = handlers.LRScheduler(clr.torch.LRScheduler(optimizer, SHORT))
        engine.add_event_handler(engines.Events.ITERATION_STARTED, scheduler)
        engine.run([0] * steps, max_epochs=1)

    run(4)
    with pytest.warns(UserWarning, match=PAST_END) as told:
        run(8)
    assert len(told) == 1


def test_a_schedule_that_ends_in_an_error_lets_its_last_update_be_made() -> None:
    schedule = clr.linear(1.0, 3).after_end("error")
    for drive in (clr.torch.LRScheduler, clr.torch.Follower):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        driver: Any = drive(optimizer, schedule)
        applied = []
        for _ in range(3):
            applied.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            getattr(driver, "step", lambda: None)()
        assert applied == [1.0, 0.5, 0.0]
        with pytest.raises(ValueError, match="`step` must be below 3, where the schedule ends"):
            optimizer.step(), getattr(driver, "step", lambda: None)()


@pytest.mark.parametrize("drive", ["LRScheduler", "Follower"])
@pytest.mark.parametrize(
    "schedule",
    [
        clr.linear(1.0, 3).after_end("error") * 0.5,
        clr.join([clr.constant(0.5), clr.linear(1.0, 3).after_end("error")], [2]),
        clr.warmup(clr.linear(1.0, 3).after_end("error"), 2),
    ],
    ids=["multiple", "join", "warmup"],
)
def test_an_end_in_an_error_within_other_schedules(schedule: Any, drive: str) -> None:
    optimizer = sgd()
    driver = getattr(clr.torch, drive)(optimizer, schedule)
    step = getattr(driver, "step", lambda: None)
    for number in range(schedule.total_steps):
        assert applied(optimizer) == [schedule(number)]
        optimizer.step()
        step()
    with pytest.raises(ValueError, match="must be below"):
        optimizer.step(), step()
