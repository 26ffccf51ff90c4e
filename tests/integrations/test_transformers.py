"""Transformers, with its own Trainer, checkpoints, log and evaluation, on real digits."""

import copy
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.common import alike, in_processes
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, digits, network, planned, sgd, torch, watched

transformers = pytest.importorskip("transformers")
ours = pytest.importorskip("clr.integrations.transformers")


class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
    def __init__(self, first: int, last: int) -> None:
        self.x, self.labels = (part[first:] for part in digits(last))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        return {"x": self.x[row], "labels": self.labels[row]}


class Model(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.BatchNorm1d(64), torch.nn.Dropout(dropout), network())
        self.losses: list[float] = []

    def forward(self, x: Any, labels: Any = None) -> Any:
        logits = self.network(x)
        loss = LOSS(logits, labels)
        if self.training:
            self.losses.append(loss.item())
        return {"loss": loss, "logits": logits}


class ByItems(Model):
    """Its loss is a sum, divided by the items of all batches of an update."""

    def forward(self, x: Any, labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        logits = self.network(x)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        loss = loss / (len(x) if num_items_in_batch is None else num_items_in_batch)
        if self.training:
            self.losses.append(loss.item())
        return {"loss": loss, "logits": logits}


def accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def trainer(folder: Path, model: Any = None, **options: Any) -> Any:
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": [], "save_strategy": "no", "logging_steps": 1}
    options = {**quiet, "num_train_epochs": 2, "per_device_train_batch_size": 32, **options}
    model = Model() if model is None else model
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), **options),
        train_dataset=Rows(0, 640),
        eval_dataset=Rows(640, 1000),
        optimizers=(sgd(model), None),
        compute_metrics=accuracy,
    )


def trained(own: Any, **options: Any) -> list[tuple[float, float]]:
    """The rate and the momentum of every update."""
    seen = watched(own.optimizer)
    own.train(**options)
    return seen


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_rate_and_momentum_of_every_update(accumulation: int, precision: str, tmp_path: Path) -> None:
    own = trainer(tmp_path, gradient_accumulation_steps=accumulation, bf16=precision == "bf16")
    ours.set_schedule(own, SCHEDULE, MOMENTUM)
    assert trained(own) == planned(0, 40 // accumulation)
    logged = [row["learning_rate"] for row in own.state.log_history if "learning_rate" in row]
    assert logged == [rate for rate, _ in planned(0, 40 // accumulation)]


def test_another_training_begins_anew(tmp_path: Path) -> None:
    own = trainer(tmp_path, num_train_epochs=1)
    ours.set_schedule(own, SCHEDULE, MOMENTUM)
    seen = watched(own.optimizer)
    own.train()
    assert seen == planned(0, 20)
    ours.range_test(own, num_steps=10)
    seen.clear()
    own.train()
    assert seen == planned(0, 20)


def resumed(folder: Path) -> Any:
    own = trainer(folder, gradient_accumulation_steps=2, save_strategy="steps", save_steps=7)
    ours.set_schedule(own, SCHEDULE, MOMENTUM)
    return trained(own, resume_from_checkpoint=str(folder / "checkpoint-7"))


def test_resumes_in_a_fresh_process(tmp_path: Path) -> None:
    own = trainer(tmp_path, gradient_accumulation_steps=2, save_strategy="steps", save_steps=7)
    ours.set_schedule(own, SCHEDULE, MOMENTUM)
    own.train()
    assert in_processes(resumed, tmp_path) == [[list(pair) for pair in planned(7, 20)]]


def found(own: Any) -> list[Any]:
    test = ours.range_test(own, min_lr=1e-4, max_lr=100.0, num_steps=60)
    search = ours.find_bounds(own, budget=200)
    return [*test.bounds(), *search.bounds(), search.total_steps]


@pytest.mark.parametrize("kind", ["plain", "accumulation", "by items", "bf16"])
def test_finders_leave_no_trace(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"bf16": True} if kind == "bf16" else {}
    options |= {"gradient_accumulation_steps": 2} if kind in ("accumulation", "by items") else {}
    results = []
    for searched in (False, True):
        torch.manual_seed(1)
        model = ByItems() if kind == "by items" else Model()
        own = trainer(tmp_path, model, **options)
        ours.set_schedule(own, SCHEDULE, MOMENTUM)
        if searched:
            before, inner = dict(vars(own)), [copy.copy(vars(part)) for part in (own.accelerator, own.callback_handler)]
            state, control = copy.deepcopy(own.state), copy.deepcopy(own.control)
            base, top, low, high, total = found(own)
            assert 1e-3 < base < top < 3
            assert 1e-3 < low < high < 3
            assert total == 40 // own.args.gradient_accumulation_steps
            assert vars(own) == before
            assert [vars(part) for part in (own.accelerator, own.callback_handler)] == inner
            assert (own.state, own.control) == (state, control)
            assert model.losses == own.accelerator._models == []
        seen = trained(own)
        results.append([seen, model.losses, [part.tolist() for part in model.state_dict().values()]])
    assert results[0] == results[1]


def test_a_finder_after_a_training_whose_rate_ended_at_zero(tmp_path: Path) -> None:
    own = trainer(tmp_path, learning_rate=0.01, weight_decay=0.1, max_steps=3)
    own.optimizer = None  # so that it makes its own, with two groups
    own.train()
    seen = []
    groups = own.optimizer.param_groups
    own.optimizer.optimizer.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in groups]))
    test = ours.range_test(own, min_lr=1e-4, max_lr=1e-2, num_steps=10)
    assert seen == [[rate, rate] for rate in test.rates]
    assert [group["lr"] for group in groups] == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["plain", "by items", "bf16"])
def test_a_range_test_makes_the_updates_of_the_trainer(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "num_train_epochs": 1}
    own = trainer(tmp_path, ByItems(0.0) if kind == "by items" else Model(0.0), **options, bf16=kind == "bf16")
    test = ours.range_test(own, min_lr=0.01, max_lr=0.1, num_steps=10)
    rates = iter(test.rates)
    own.optimizer.register_step_pre_hook(lambda optimizer, *_: optimizer.param_groups[0].update(lr=next(rates)))
    own.train()
    parts = own.model.losses
    losses = [(parts[at] + parts[at + 1]) / (1 if kind == "by items" else 2) for at in range(0, 20, 2)]
    assert test.losses == pytest.approx(losses, rel=1e-6)


def test_a_search_judges_by_the_evaluation(tmp_path: Path) -> None:
    own = trainer(tmp_path, max_steps=20)
    search = ours.find_bounds(own, metric="accuracy", goal="max")
    best = max(trial.score for trial in search.trials if trial.score is not None)
    assert 0.5 < best <= 1
    with pytest.raises(ValueError, match=r"`metric` must be one of \['eval_accuracy', 'eval_loss'"):
        ours.find_bounds(own, metric="f1")
    own = trainer(tmp_path, max_steps=20, metric_for_best_model="accuracy")
    assert ours.find_bounds(own).bounds() == search.bounds()


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    own = trainer(tmp_path)
    with pytest.raises(TypeError, match=r"`trainer` must be a transformers\.Trainer"):
        ours.set_schedule(own.model, SCHEDULE)
    with pytest.raises(TypeError, match="`schedule` must be a schedule"):
        ours.set_schedule(own, 0.1)
    own.lr_scheduler = clr.torch.LRScheduler(own.optimizer, SCHEDULE)
    with pytest.raises(ValueError, match="`trainer` must be one without another scheduler"):
        ours.set_schedule(own, SCHEDULE)
    own.eval_dataset = None
    with pytest.raises(ValueError, match="requires an eval_dataset"):
        ours.find_bounds(own)

    class Own(transformers.Trainer):  # type: ignore[name-defined,misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

    own.__class__ = Own
    with pytest.warns(UserWarning, match="does not call `training_step` of the trainer"):
        ours.range_test(own, num_steps=10)


@pytest.mark.parametrize("name", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_finders_refuse_deepspeed_and_fsdp(name: str, tmp_path: Path) -> None:
    own = trainer(tmp_path)
    setattr(own, name, True)
    with pytest.raises(ValueError, match="the finders do not support a Trainer with DeepSpeed or FSDP"):
        ours.find_bounds(own)


def both(folder: Path) -> Any:
    torch.manual_seed(0)
    own = trainer(folder, gradient_accumulation_steps=2)
    bounds = found(own)
    ours.set_schedule(own, SCHEDULE, MOMENTUM)
    seen = [*trained(own)]  # the list grows with the updates of the range test below
    weights = [part.tolist() for part in own.model.parameters()]
    assert isinstance(own.model_wrapped, torch.nn.parallel.DistributedDataParallel)
    again = ours.range_test(own, min_lr=1e-4, max_lr=1.0, num_steps=20)
    assert weights == [part.tolist() for part in own.model.parameters()]
    return {"bounds": bounds, "seen": seen, "weights": weights, "again": again.losses}


def test_two_processes(tmp_path: Path) -> None:
    result = alike(in_processes(both, tmp_path, 2))
    base, top, low, high, total = result["bounds"]
    assert 1e-3 < base < top < 3
    assert 1e-3 < low < high < 3
    assert total == 10
    assert result["seen"] == [list(pair) for pair in planned(0, 10)]
