"""Lightning, with its own trainer, precision, checkpoints, logger and validation, on real digits."""

import copy
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.common import alike, in_processes
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, digits, network, planned, torch, watched

pl = pytest.importorskip("lightning.pytorch")
ours = pytest.importorskip("clr.integrations.lightning")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*LeafSpec",
    "ignore:.*have no `val_dataloader`",
    "ignore:.*Checkpoint directory .* exists",
    "ignore:.*mid-epoch checkpoint",
    "ignore:.*exists and is not empty",
)


def loader(first: int, last: int, size: int = 32, shuffle: bool = False) -> Any:
    x, y = digits(last)
    data = torch.utils.data.TensorDataset(x[first:], y[first:])
    return torch.utils.data.DataLoader(data, size, shuffle=shuffle)


class Module(pl.LightningModule):  # type: ignore[name-defined,misc]
    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.1), network())
        self.automatic_optimization = optimizers == 1
        self.count = optimizers
        self.seen: list[Any] = []
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert self.trainer.training
        loss = LOSS(self.network(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True)
        self.losses.append(loss.item())
        if self.count > 1:
            self.manual_backward(loss)
            for number, optimizer in enumerate(self.optimizers()):
                if batch_idx % (number + 1) == 0:  # the second makes half as many updates
                    optimizer.step()
                    optimizer.zero_grad()
            return None
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        output = self.network(batch[0])
        self.log_dict({"val_loss": LOSS(output, batch[1]), "accuracy": (output.argmax(1) == batch[1]).float().mean()})

    def configure_optimizers(self) -> Any:
        layers = self.network[2]
        parts = [self.parameters()] if self.count == 1 else [layers[0].parameters(), layers[2].parameters()]
        optimizers = [torch.optim.SGD(part, lr=9.0, momentum=0.7) for part in parts]
        self.seen = [watched(optimizer) for optimizer in optimizers]
        return optimizers


class Data(pl.LightningDataModule):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def train_dataloader(self) -> Any:
        x, y = digits(640)
        data = torch.utils.data.TensorDataset(x, y)
        return torch.utils.data.DataLoader(data, 32, shuffle=True, generator=self.generator)

    def val_dataloader(self) -> Any:
        return loader(640, 1000, 90)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Any:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "max_epochs": 2}
    options = {**quiet, "accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder, **options}
    return pl.Trainer(callbacks=[*callbacks], **options)


def follower(**options: Any) -> Any:
    return ours.Follower(SCHEDULE, MOMENTUM, **options)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_rate_and_momentum_of_every_update(accumulation: int, precision: str, tmp_path: Path) -> None:
    module, callback = Module(), follower()
    own = trainer(tmp_path, callback, accumulate_grad_batches=accumulation, precision=precision)
    own.fit(module, loader(0, 640))
    assert module.seen == [planned(0, 40 // accumulation)]
    assert callback.follower.updates == own.global_step == 40 // accumulation
    again = Module()
    trainer(tmp_path, callback).fit(again, loader(0, 640))  # another training begins anew
    assert again.seen == [planned(0, 40)]


def test_several_optimizers_with_manual_optimization(tmp_path: Path) -> None:
    module, other = Module(optimizers=2), clr.constant(0.125)
    trainer(tmp_path, follower(optimizer=0), ours.Follower(other, optimizer=1)).fit(module, loader(0, 640))
    assert module.seen == [planned(0, 40), [(0.125, 0.7)] * 20]
    for number, named in ((None, "None"), (2, "2")):
        with pytest.raises(
            ValueError, match=f"`optimizer` must be the number of one of 2 optimizers. Received: {named}"
        ):
            trainer(tmp_path, follower(optimizer=number)).fit(Module(optimizers=2), loader(0, 640))


def test_another_scheduler_is_refused(tmp_path: Path) -> None:
    class Scheduled(Module):
        def configure_optimizers(self) -> Any:
            (optimizer,) = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    with pytest.raises(ValueError, match="`configure_optimizers` returns a scheduler, and the trainer has a Follower"):
        trainer(tmp_path, follower()).fit(Scheduled(), loader(0, 640))


def resumed(folder: Path) -> Any:
    module = Module()
    own = trainer(folder, follower(), max_steps=40, accumulate_grad_batches=2)
    own.fit(module, loader(0, 640), ckpt_path=str(folder / "checkpoints" / "middle.ckpt"))
    return module.seen


def test_resumes_in_a_fresh_process(tmp_path: Path) -> None:
    module = Module()
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "checkpoints", "middle", every_n_train_steps=7, save_top_k=1)
    own = trainer(tmp_path, saving, follower(), max_steps=7, accumulate_grad_batches=2, enable_checkpointing=True)
    own.fit(module, loader(0, 640))
    assert module.seen == [planned(0, 7)]
    assert in_processes(resumed, tmp_path) == [[[list(pair) for pair in planned(7, 20)]]]


def test_own_logging(tmp_path: Path) -> None:
    monitor = pl.callbacks.LearningRateMonitor("step", log_momentum=True)
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer(tmp_path, follower(), monitor, logger=logger, log_every_n_steps=1).fit(Module(), loader(0, 640))
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    rate, momentum = names.index("lr-SGD"), names.index("lr-SGD-momentum")
    logged = [row.split(",") for row in rows[1:]]
    assert [(float(row[rate]), float(row[momentum])) for row in logged if row[rate]] == planned(0, 40)


def found(own: Any, module: Any, data: Any, validation: Any = None) -> list[Any]:
    test = ours.range_test(own, module, data, min_lr=1e-4, max_lr=100.0, num_steps=60)
    search = ours.find_bounds(own, module, data, validation=validation, budget=200)
    assert search.total_steps * own.world_size == 40 // own.accumulate_grad_batches
    return [*test.bounds(), *search.bounds()]


@pytest.mark.parametrize("kind", ["loaders", "data module", "accumulation", "bf16-mixed"])
def test_finders_leave_no_trace(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": kind} if kind == "bf16-mixed" else {}
    options |= {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0} if kind == "accumulation" else {}
    trained = []
    for searched in (False, True):
        pl.seed_everything(1, verbose=False)
        module, callback = Module(), follower()
        logger = pl.loggers.CSVLogger(tmp_path, version=int(searched))
        own = trainer(tmp_path, callback, logger=logger, **options)
        data = Data() if kind == "data module" else loader(0, 640, shuffle=True)
        validation = None if kind == "data module" else loader(640, 1000, 90)
        if searched:
            state = copy.deepcopy([own.fit_loop.state_dict(), vars(own.state), sorted(vars(own)), sorted(vars(module))])
            base, top, low, high = found(own, module, data, validation)
            assert 1e-3 < base < top < 3
            assert 1e-3 < low < high < 3
            assert [own.fit_loop.state_dict(), vars(own.state), sorted(vars(own)), sorted(vars(module))] == state
            assert module.losses == module.seen == []
            assert own.callbacks == [callback]
            assert own.loggers == [logger]
            assert not Path(logger.log_dir).exists()
        if kind == "data module":
            own.fit(module, datamodule=data)
        else:
            own.fit(module, data, validation)
        trained.append([module.losses, module.seen, [part.tolist() for part in module.state_dict().values()]])
    assert trained[0] == trained[1]
    assert trained[0][1] == [planned(0, 40 // options.get("accumulate_grad_batches", 1))]


def test_a_finder_between_two_trainings_leaves_no_trace(tmp_path: Path) -> None:
    trained = []
    for searched in (False, True):
        pl.seed_everything(1, verbose=False)
        module, own, data = Module(), trainer(tmp_path, follower(), max_epochs=1), loader(0, 640, shuffle=True)
        own.fit(module, data)
        own.fit_loop.max_epochs = 3
        if searched:
            ours.range_test(own, module, data, num_steps=30)
        own.fit(module, data)
        trained.append([module.losses, own.fit_loop.state_dict()])
    assert trained[0] == trained[1]


def test_a_training_that_is_at_its_end_is_refused(tmp_path: Path) -> None:
    module, own, data = Module(), trainer(tmp_path, max_epochs=1), loader(0, 640)
    own.fit(module, data)
    with pytest.raises(ValueError, match="`trainer` has no training to do"):
        ours.range_test(own, module, data)
    with pytest.raises(ValueError, match="`trainer` has no training to do"):
        ours.range_test(trainer(tmp_path, limit_train_batches=0), module, data)


def test_a_batch_without_a_loss_is_refused(tmp_path: Path) -> None:
    class Skipping(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 3 else super().training_step(batch, batch_idx)

    with pytest.raises(TypeError, match="`training_step` returns a loss for every batch"):
        ours.range_test(trainer(tmp_path), Skipping(), loader(0, 640))


def test_hooks_at_the_start_come_before_the_updates_and_others_are_named(tmp_path: Path) -> None:
    class Hooked(Module):
        def on_train_start(self) -> None:
            self.scale = 0.0

        def on_train_epoch_start(self) -> None:
            self.log("scale", self.scale)
            self.scale += 2.0

        def on_after_backward(self) -> None:
            raise AssertionError

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx)["loss"] * self.scale

    module, options = Hooked(), {"min_lr": 1e-4, "max_lr": 1e-3, "num_steps": 10}
    plain = Module()
    plain.load_state_dict(module.state_dict())
    pl.seed_everything(1, verbose=False)
    with pytest.warns(UserWarning, match="does not call on_after_backward of the module"):
        test = ours.range_test(trainer(tmp_path), module, loader(0, 640), **options)
    assert not hasattr(module, "scale")
    pl.seed_everything(1, verbose=False)
    assert test.losses[0] == 2 * ours.range_test(trainer(tmp_path), plain, loader(0, 640), **options).losses[0]


def test_a_range_test_makes_the_updates_of_the_trainer(tmp_path: Path) -> None:
    class Sweeping(Module):
        def configure_optimizers(self) -> Any:
            (optimizer,) = super().configure_optimizers()
            rates = iter(test.rates)
            optimizer.register_step_pre_hook(lambda own, *_: own.param_groups[0].update(lr=next(rates)))
            return optimizer

    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "max_epochs": 1, "precision": "bf16-mixed"}
    module = Module()
    module.network[1].p = 0.0  # for the random state at the start of the test is not that at the first batch
    sweeping = copy.deepcopy(module)
    test = ours.range_test(trainer(tmp_path, **options), module, loader(0, 640), min_lr=0.01, max_lr=0.1, num_steps=10)
    sweeping.__class__ = Sweeping
    trainer(tmp_path, **options).fit(sweeping, loader(0, 640))
    losses = sweeping.losses
    assert test.losses == pytest.approx([(losses[at] + losses[at + 1]) / 2 for at in range(0, 20, 2)], rel=1e-6)


def test_a_search_judges_by_what_the_module_logs(tmp_path: Path) -> None:
    module, own = Module(), trainer(tmp_path, max_epochs=1)
    data = (loader(0, 640), loader(640, 1000, 90))
    search = ours.find_bounds(own, module, data[0], validation=data[1], monitor="accuracy", goal="max")
    assert all(0 <= trial.score <= 1 for trial in search.trials if trial.score is not None)
    assert max(trial.score for trial in search.trials if trial.score is not None) > 0.5
    with pytest.raises(ValueError, match="`monitor` must be a name that the module logs in its validation, of"):
        ours.find_bounds(own, module, data[0], validation=data[1], monitor="val_los")
    with pytest.raises(ValueError, match="`total_steps` must be given"):
        ours.find_bounds(trainer(tmp_path, max_epochs=-1), module, data[0], validation=data[1])


def test_groups_keep_the_ratio_that_they_had_before_a_scheduler(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Warmed(Module):
        def configure_optimizers(self) -> Any:
            layers = [self.network[2][0], self.network[2][2]]
            groups = [
                {"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, (0.5, 0.25), strict=True)
            ]
            optimizer = torch.optim.SGD(groups)
            optimizer.register_step_pre_hook(lambda own, *_: seen.append([group["lr"] for group in own.param_groups]))
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.0, lambda step: step])]

    test = ours.range_test(trainer(tmp_path), Warmed(), loader(0, 640), min_lr=0.01, max_lr=0.1, num_steps=10)
    assert seen == [[rate, rate / 2] for rate in test.rates]


def test_what_a_finder_cannot_do_is_refused(tmp_path: Path) -> None:
    own = trainer(tmp_path)
    with pytest.raises(TypeError, match=r"`trainer` must be a lightning\.pytorch\.Trainer"):
        ours.range_test(None, Module(), loader(0, 640))
    with pytest.raises(TypeError, match=r"`module` must be a lightning\.pytorch\.LightningModule"):
        ours.range_test(own, network(), loader(0, 640))
    with pytest.raises(ValueError, match="`module` must use automatic optimization"):
        ours.range_test(own, Module(optimizers=2), loader(0, 640))
    with pytest.raises(ValueError, match="`trainer` must not start its processes by spawn or fork"):
        ours.range_test(trainer(tmp_path, strategy="ddp_spawn", devices=2), Module(), loader(0, 640))

    class Own(Module):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError

    with pytest.warns(UserWarning, match="makes its updates itself, and does not call optimizer_step of the module"):
        ours.range_test(own, Own(), loader(0, 640), num_steps=10)

    class Failing(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyboardInterrupt if batch_idx else RuntimeError("on purpose")

    module = Failing()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(RuntimeError, match="on purpose"):
        ours.range_test(own, module, loader(0, 640))
    assert own.callbacks == []
    assert all(map(torch.equal, before.values(), module.state_dict().values()))


def both(folder: Path) -> Any:
    pl.seed_everything(1, verbose=False)
    module, callback = Module(), follower()
    own = trainer(folder, callback, strategy="ddp", devices=2, accumulate_grad_batches=2)
    results = {"bounds": found(own, module, loader(0, 640), loader(640, 1000, 90))}
    own.fit(module, loader(0, 640), loader(640, 1000, 90))
    weights = [part.tolist() for part in module.parameters()]
    return {**results, "seen": module.seen, "weights": weights, "updates": callback.follower.updates}


def test_two_processes(tmp_path: Path) -> None:
    result = alike(in_processes(both, tmp_path, 2))
    base, top, low, high = result["bounds"]
    assert 1e-3 < base < top < 3
    assert 1e-3 < low < high < 3
    assert result["seen"] == [[list(pair) for pair in planned(0, 10)]]
    assert result["updates"] == 10
