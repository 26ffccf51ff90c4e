"""What other schedulers and handlers do around ours: PyTorch's in a sequence, and ignite's, resumed too."""

from collections.abc import Callable
from typing import Any

import pytest

import clr
from tests.torch.optimizers import HIGH, LOW, MOMENTUM, SCHEDULE, UP, applied, applied_momentum, saved, sgd, update

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
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
