"""skorch: nets as scikit-learn sees them, with skorch's own checkpoints, on real digits."""

import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests.integrations.common import in_processes
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, copied, digits, network, planned, sgd, torch, watched

skorch = pytest.importorskip("skorch")
callbacks = pytest.importorskip("skorch.callbacks")
helper = pytest.importorskip("skorch.helper")
ours = pytest.importorskip("clr.integrations.skorch")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.data:UserWarning")


def data(rows: int = 320) -> tuple[Any, Any]:
    return tuple(part.numpy() for part in digits(rows))


class Accumulating(skorch.NeuralNetClassifier):  # type: ignore[misc, name-defined]
    """Two batches for an update, as skorch's documentation has it."""

    def get_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_loss(*args, **kwargs) / 2

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        number = len(self.history[-1, "batches"])
        self.module_.train()
        step = self.train_step_single(batch, **fit_params)
        if number % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


def net(*more: Any, kind: Any = skorch.NeuralNetClassifier, **options: Any) -> Any:
    settings = {
        "criterion": torch.nn.CrossEntropyLoss,
        "optimizer__momentum": 0.7,
        "max_epochs": 2,
        "batch_size": 32,
        "train_split": None,
        "verbose": 0,
        "callbacks": [("follower", ours.Follower(SCHEDULE, MOMENTUM)), *more],
    }
    return kind(network(), **settings | options)


def trained(own: Any) -> list[tuple[float, float]]:
    """What the optimizer of a new net has at each update of its epochs, of ten batches each."""
    return going_on(own.initialize())


def going_on(own: Any) -> list[tuple[float, float]]:
    seen = watched(own.optimizer_)
    own.partial_fit(*data())
    return seen


def test_rate_and_momentum_of_every_update_and_in_the_history() -> None:
    own = net()
    assert trained(own) == planned(0, 20)
    logged = [own.history[:, "batches", :, name] for name in ("learning_rate", "momentum")]
    assert list(zip(*map(chain.from_iterable, logged), strict=True)) == planned(0, 20)
    of_epochs = list(zip(*(own.history[:, name] for name in ("learning_rate", "momentum")), strict=True))
    assert of_epochs == [planned(9, 10)[0], planned(19, 20)[0]]


def test_accumulated_gradients_are_one_update() -> None:
    assert trained(net(kind=Accumulating)) == planned(0, 10)


def test_partial_fit_goes_on_and_fit_begins_anew() -> None:
    own = net()
    assert trained(own) == planned(0, 20)
    seen = watched(own.optimizer_)
    own.partial_fit(*data())
    assert seen == planned(20, 40)
    own.fit(*data())
    assert own.history[0, "batches", :, "learning_rate"] == [SCHEDULE(step) for step in range(10)]


def test_a_changed_optimizer_goes_on_too() -> None:
    own = net()
    trained(own)
    own.set_params(optimizer__weight_decay=0.1)
    assert going_on(own) == planned(20, 40)


def test_a_pickled_net_and_a_clone() -> None:
    sklearn = pytest.importorskip("sklearn.base")
    own = net()
    trained(own)
    again = pickle.loads(pickle.dumps(own))
    assert going_on(again) == planned(20, 40)
    fresh = sklearn.clone(own)
    fresh.set_params(callbacks__follower__schedule=clr.constant(0.125), callbacks__follower__momentum=None)
    assert trained(fresh) == [(0.125, 0.7)] * 20


def run(folder: Path, epochs: int) -> Any:
    """Trains from what is saved in a folder, if it is, and saves there."""
    checkpoint = callbacks.Checkpoint(dirname=str(folder), monitor=None, f_pickle=None)
    own = net(checkpoint, callbacks.LoadInitState(checkpoint), max_epochs=epochs)
    seen = trained(own)
    return [list(map(list, seen)), own.module_[0].weight.tolist()]


def going_on_from(folder: Path) -> Any:
    return run(folder, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_net_that_is_loaded_in_a_fresh_process_goes_on_exactly(tmp_path: Path) -> None:
    whole, weights = run(tmp_path / "whole", 3)
    before, _ = run(tmp_path / "some", 1)
    ((after, resumed),) = in_processes(going_on_from, tmp_path / "some")
    assert list(map(tuple, whole)) == planned(0, 30)
    assert before + after == whole
    assert resumed == weights


def batches(arrays: Any) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*arrays), 32)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_range_test_is_that_of_the_same_training_by_hand(accumulation: int) -> None:
    kind = Accumulating if accumulation == 2 else skorch.NeuralNetClassifier
    own = net(kind=kind, lr=0.1)
    found = ours.range_test(own, *data(640), num_steps=40)
    model = network()
    # The loss that an accumulating net gives is a half of that of its batch.
    expected = clr.torch.range_test(
        model,
        sgd(model),
        LOSS,
        batches(digits(640)),
        num_steps=40,
        gradient_accumulation_steps=accumulation,
    )
    assert [loss * accumulation for loss in found.losses] == pytest.approx(expected.losses, rel=1e-5)
    assert not own.initialized_


def test_a_search_judges_by_the_nets_own_validation_split() -> None:
    x, y = data(1280)
    rest = (x[1000:], y[1000:])
    fitted = net(train_split=helper.predefined_split(skorch.dataset.Dataset(*rest)))
    found = ours.find_bounds(fitted, x[:1000], y[:1000], total_steps=300, budget=300)
    model = network()
    train, validation = (batches([torch.from_numpy(part) for part in own]) for own in ((x[:1000], y[:1000]), rest))
    expected = clr.torch.find_bounds(model, sgd(model), LOSS, train, validation=validation, total_steps=300, budget=300)
    assert [trial.max_lr for trial in found.trials] == pytest.approx([trial.max_lr for trial in expected.trials])
    assert [trial.score for trial in found.trials] == pytest.approx([trial.score for trial in expected.trials])
    assert found.start == pytest.approx(expected.start)


@pytest.mark.parametrize("kind", ["range test", "search"])
def test_a_finder_leaves_no_trace(kind: str) -> None:
    own = net(train_split=skorch.dataset.ValidSplit(4), iterator_train__shuffle=True)
    seen = trained(own)
    updates = len(seen)

    def state() -> Any:
        random = [torch.get_rng_state().tolist(), str(np.random.get_state())]  # noqa: NPY002
        return [copied(own.module_, own.optimizer_), own.module_.training, list(own.history), set(vars(own)), random]

    before = state()
    if kind == "range test":
        ours.range_test(own, *data(), num_steps=30, repeats=2)
    else:
        ours.find_bounds(own, *data(), total_steps=100, budget=200)
    assert state() == before
    del seen[:]
    own.partial_fit(*data())
    assert seen == planned(updates, 2 * updates)


def test_the_winner_is_kept() -> None:
    own = net(train_split=skorch.dataset.ValidSplit(4))
    with pytest.raises(ValueError, match='`keep` can be "winner" only for a net that is initialized'):
        ours.find_bounds(own, *data(), total_steps=100, keep="winner")
    own.initialize()
    before = own.module_[0].weight.tolist()
    found = ours.find_bounds(own, *data(), total_steps=100, budget=200, keep="winner")
    assert found.trials
    assert own.module_[0].weight.tolist() != before


def test_what_is_used_wrongly_is_said() -> None:
    with pytest.raises(TypeError, match=r"`net` must be a skorch\.NeuralNet"):
        ours.range_test(network(), *data())
    with pytest.raises(ValueError, match="`net` must have a `train_split`"):
        ours.find_bounds(net(), *data(), total_steps=100)
    own = net(callbacks=[ours.Follower(0.1)])
    with pytest.raises(TypeError, match="`schedule` must be a schedule"):
        own.fit(*data())
