"""Several optimizers in one training: PyTorch's Muon for the matrices, beside AdamW for the rest, on real digits."""

from typing import Any

import pytest

import clr
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, copied, digits, loader, network, planned, torch, watched

RATIO = 0.1  # of AdamW's rate to Muon's


class Both:
    """A network with its two optimizers."""

    def __init__(self) -> None:
        self.model = network()
        parameters = list(self.model.parameters())
        matrices = [part for part in parameters if part.ndim == 2]
        self.muon = torch.optim.Muon(matrices, lr=0.05, momentum=0.9, weight_decay=0.0)
        self.adamw = torch.optim.AdamW([part for part in parameters if part.ndim != 2], lr=0.005)

    def train(self, batch: Any) -> float:
        for optimizer in (self.muon, self.adamw):
            optimizer.zero_grad()
        loss = LOSS(self.model(batch[0]), batch[1])
        loss.backward()
        for optimizer in (self.muon, self.adamw):
            optimizer.step()
        return float(loss.item())

    def train_in_ratio(self, batch: Any) -> float:
        self.adamw.param_groups[0]["lr"] = self.muon.param_groups[0]["lr"] * RATIO
        return self.train(batch)


pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
Seen = list[tuple[float, float]]


def scaled(start: int, stop: int) -> Seen:
    return [(SCHEDULE(step) * RATIO, MOMENTUM(step)) for step in range(start, stop)]


@pytest.mark.parametrize("kind", ["scheduler", "follower"])
def test_each_optimizer_has_a_driver_of_its_own(kind: str) -> None:
    def driven(both: Both) -> tuple[list[Any], Seen, Seen]:
        make: Any = clr.torch.LRScheduler if kind == "scheduler" else clr.torch.Follower
        drivers = [make(both.muon, SCHEDULE, MOMENTUM), make(both.adamw, SCHEDULE * RATIO, MOMENTUM)]
        return drivers, watched(both.muon), watched(both.adamw)

    def train(both: Both, drivers: list[Any], rows: int) -> None:
        for batch in loader(rows):
            both.train(batch)
            for driver in drivers if kind == "scheduler" else ():
                driver.step()

    both = Both()
    drivers, of_muon, of_adamw = driven(both)
    train(both, drivers, 224)
    assert (of_muon, of_adamw) == (planned(0, 7), scaled(0, 7))
    again = Both()
    others, of_muon, of_adamw = driven(again)
    for own, other in ((both.muon, again.muon), (both.adamw, again.adamw)):
        other.load_state_dict(own.state_dict())
    for own, other in zip(drivers, others, strict=True) if kind == "scheduler" else ():
        other.load_state_dict(own.state_dict())
    train(again, others, 160)
    assert (of_muon, of_adamw) == (planned(7, 12), scaled(7, 12))


@pytest.mark.parametrize("way", ["one", "both"])
@pytest.mark.parametrize("kind", ["range test", "search"])
def test_bounds_for_muon_beside_adamw(kind: str, way: str) -> None:
    both = Both()
    both.train(digits(64))  # so that both have a state
    before = copied(both.model, both.muon, both.adamw)
    of_muon, of_adamw = watched(both.muon), watched(both.adamw)
    train = both.train if way == "one" else both.train_in_ratio
    x, y = (part[1500:] for part in digits())
    if kind == "range test":
        found: Any = clr.torch.range_test(
            both.model, both.muon, loader=loader(1500), train_on_batch=train, also=[both.adamw], num_steps=60
        )
        assert [rate for rate, _ in of_muon] == list(found.rates)
    else:
        found = clr.torch.find_bounds(
            both.model,
            both.muon,
            loader=loader(1500),
            train_on_batch=train,
            also=[both.adamw],
            evaluate=lambda: LOSS(both.model(x), y),
            total_steps=300,
            budget=300,
        )
    assert [rate for rate, _ in of_adamw] == [0.005 if way == "one" else rate * RATIO for rate, _ in of_muon]
    assert copied(both.model, both.muon, both.adamw) == before
    assert 0.001 < found.bounds().max_lr < 3  # in the region where Muon trains this network
