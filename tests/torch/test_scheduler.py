"""The scheduler and the follower in PyTorch's own training loops."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.reference import exact_rate

torch = pytest.importorskip("torch")
optim = torch.optim
schedulers = torch.optim.lr_scheduler

LOW, HIGH, UP = 0.25, 1.25, 4
SCHEDULE = clr.triangular(LOW, HIGH, UP)
OTHER = clr.triangular2(0.0, 2.0, 2)
MOMENTUM = clr.momentum(SCHEDULE, low=0.5, high=0.75)
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=9.0, momentum=0.9),
    "nesterov": lambda parameters: optim.SGD(parameters, lr=9.0, momentum=0.9, nesterov=True),
    "rmsprop": lambda parameters: optim.RMSprop(parameters, lr=9.0, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, lr=9.0),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=9.0),
    "nadam": lambda parameters: optim.NAdam(parameters, lr=9.0),
    "adamax": lambda parameters: optim.Adamax(parameters, lr=9.0),
}


def rate(step: int, schedule: str = "first") -> float:
    """The exact rate; all are float64 numbers."""
    if schedule == "first":
        return float(exact_rate(step, LOW, HIGH, UP))
    return float(exact_rate(step, 0.0, 2.0, 2, mode="triangular2"))


def momentum(step: int) -> float:
    """The mirror of the exact rate."""
    return float(Fraction(3, 4) - (Fraction(rate(step)) - Fraction(LOW)) / 4)


def parameter() -> Any:
    return torch.zeros(2, requires_grad=True)


def sgd(**options: Any) -> Any:
    return optim.SGD([parameter()], **{"lr": 9.0} | options)


def groups(*names: str, **options: Any) -> Any:
    return optim.SGD([{"params": [parameter()], "name": name} for name in names], **{"lr": 9.0} | options)


def applied(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def applied_momentum(optimizer: Any) -> list[float]:
    return [float(g["betas"][0] if "betas" in g else g["momentum"]) for g in optimizer.param_groups]


# The scheduler


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


# Groups


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
    with pytest.raises(TypeError, match=r"^`schedule` must be a schedule\. Received: 0\.1\.$"):
        clr.torch.keep_ratios(groups("a"), 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^`optimizer` must be a torch\.optim\.Optimizer\. Received: None\.$"):
        clr.torch.keep_ratios(None, SCHEDULE)  # type: ignore[arg-type]


# Past the end of the schedule

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


# Tensors


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


# State


def saved(state: Any) -> Any:
    """Through a file, read without running any code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


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


def test_a_scaling_function_without_a_name_can_be_saved_too() -> None:
    schedule = clr.cyclic(0.0, 1.0, 4, scale_fn=lambda cycle: 1 / cycle)
    scheduler = clr.torch.LRScheduler(sgd(), [schedule])
    scheduler.step()
    state = saved(scheduler.state_dict())
    again = clr.torch.LRScheduler(sgd(), [schedule])
    again.load_state_dict(state)
    assert again.get_last_lr() == [0.25]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_copies_drive_an_optimizer_of_their_own(way: Any) -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM, last_epoch=2)
    again = way(scheduler)
    again.step()
    assert (applied(optimizer), applied(again.optimizer)) == ([rate(3)], [rate(4)])
    assert applied_momentum(again.optimizer) == [momentum(4)]


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


# Beside PyTorch's own schedulers


@pytest.fixture
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        yield


@pytest.mark.usefixtures("_quiet")
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


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("loaded", [("optimizer", "sequence"), ("sequence", "optimizer")], ids=" first, ".join)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_in_a_sequence_saved_and_resumed_at_every_step(first: str, loaded: tuple[str, str]) -> None:
    def make() -> dict[str, Any]:
        optimizer = sgd(lr=0.05)
        theirs = schedulers.ExponentialLR(optimizer, 0.9)
        ours = clr.torch.LRScheduler(optimizer, clr.ramp(0.01, 0.05, 3))
        order = [ours, theirs] if first == "ours" else [theirs, ours]
        return {"optimizer": optimizer, "sequence": schedulers.SequentialLR(optimizer, order, milestones=[3])}

    def rates(parts: dict[str, Any], steps: int) -> list[float]:
        seen = []
        for _ in range(steps):
            seen += applied(parts["optimizer"])
            parts["optimizer"].step()
            parts["sequence"].step()
        return seen

    ramp, fall = [0.01 + 0.04 / 3 * step for step in range(3)] + [0.05] * 9, [0.05 * 0.9**step for step in range(12)]
    expected = ramp[:3] + fall[:9] if first == "ours" else fall[:3] + ramp[:9]
    for start in range(12):
        parts = make()
        seen = rates(parts, start)
        state = saved({name: part.state_dict() for name, part in parts.items()})
        again = make()
        for name in loaded:
            again[name].load_state_dict(state[name])
        assert seen + rates(again, 12 - start) == pytest.approx(expected, rel=1e-12), start


@pytest.mark.usefixtures("_quiet")
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


# The pace

OUT_OF_STEP = r"^the rate is out of step with the training: `step\(\)` of LRScheduler is called "


def update(optimizer: Any, gradient: float = 1.0) -> None:
    for group in optimizer.param_groups:
        for part in group["params"]:
            part.grad = torch.full_like(part, gradient)
    optimizer.step()


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


@pytest.mark.usefixtures("_quiet")
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


# Beside ignite


@pytest.mark.filterwarnings("ignore:Please make sure to attach scheduler")
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("way", ["plain", "legacy", "warm-up", "warm-up to another rate", "concatenated"])
def test_ignite_drives_rate_and_momentum_as_those_of_pytorchs_scheduler(way: str, tensor: bool) -> None:
    engines, handlers = pytest.importorskip("ignite.engine"), pytest.importorskip("ignite.handlers")
    events = engines.Events

    def handler(scheduler: Any) -> Any:
        if way in ("plain", "legacy"):
            return handlers.LRScheduler(scheduler, use_legacy=way == "legacy")
        if way == "concatenated":
            before = handlers.LinearCyclicalScheduler(scheduler.optimizer, "lr", 0.5, 1.0, 6)
            return handlers.ConcatScheduler([before, handlers.LRScheduler(scheduler)], durations=[3])
        return handlers.create_lr_scheduler_with_warmup(scheduler, 0.0, 3, LOW if way == "warm-up" else 0.75)

    def trained(make: Callable[[Any], Any], resumed_at: int | None) -> Any:
        seen: list[Any] = []

        def made() -> tuple[Any, Any]:
            optimizer = sgd(lr=torch.tensor(LOW, dtype=torch.float64) if tensor else LOW, momentum=0.75)
            return optimizer, handler(make(optimizer))

        def run(optimizer: Any, attached: Any, steps: int) -> None:
            def train(engine: Any, batch: Any) -> None:
                seen.append((applied(optimizer), applied_momentum(optimizer)))
                update(optimizer)

            engine = engines.Engine(train)
            event = events.ITERATION_COMPLETED if way == "legacy" else events.ITERATION_STARTED
            engine.add_event_handler(event, attached)
            engine.run([0] * steps, max_epochs=1)

        optimizer, attached = made()
        if resumed_at is None:
            run(optimizer, attached, 12)
            return seen
        run(optimizer, attached, resumed_at)
        states = saved((optimizer.state_dict(), attached.state_dict()))
        optimizer, attached = made()
        for part, state in zip((optimizer, attached), states, strict=True):
            part.load_state_dict(state)
        run(optimizer, attached, 12 - resumed_at)
        return seen

    def theirs(optimizer: Any) -> Any:
        return schedulers.CyclicLR(optimizer, LOW, HIGH, UP, base_momentum=0.5, max_momentum=0.75)

    expected = trained(theirs, None)
    assert len({momenta[0] for _, momenta in expected}) > 3
    for resumed_at in (None, 5):
        found = trained(lambda optimizer: clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM), resumed_at)
        for (rates, momenta), (their_rates, their_momenta) in zip(found, expected, strict=True):
            assert rates == pytest.approx(their_rates, rel=1e-12)
            assert momenta == pytest.approx(their_momenta, rel=1e-12)


def test_a_rate_that_is_asked_for_changes_nothing() -> None:
    optimizer = sgd(momentum=0.9)
    scheduler = clr.torch.LRScheduler(optimizer, SCHEDULE, MOMENTUM)
    scheduler.last_epoch = 3
    assert scheduler.get_lr() == [rate(3)]
    assert (applied(optimizer), applied_momentum(optimizer)) == ([rate(0)], [momentum(0)])
    assert scheduler.get_last_momentum() == [momentum(3)]


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


# Resumed by hand


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
