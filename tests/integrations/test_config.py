"""Schedules and schedulers from configuration: jsonargparse, LightningCLI and Hydra, by class path and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.digits import MOMENTUM, SCHEDULE, loader, network, sgd, torch, watched

jsonargparse = pytest.importorskip("jsonargparse")
CALL = {"class_path": "clr.triangular2", "init_args": {"base_lr": 0.01, "max_lr": 0.25, "step_size": 5}}
MIRROR = {"class_path": "clr.momentum", "init_args": {"schedule": CALL, "low": 0.5, "high": 0.9}}
SAVED = {"class_path": "clr.schedules.serialize.from_dict", "init_args": {"data": SCHEDULE.to_dict()}}


def parsed(*arguments: str) -> Any:
    def train(schedule: clr.Schedule, momentum: clr.Schedule | None = None) -> None:
        """Trains.

        Args:
            schedule: The rate of each update.
            momentum: The momentum of each update.
        """

    parser = jsonargparse.ArgumentParser()
    parser.add_function_arguments(train)
    made = parser.instantiate(parser.parse_args(list(arguments)))
    return made.schedule, made.momentum


@pytest.mark.parametrize(
    "arguments",
    [
        ["--schedule=clr.triangular2", "--schedule.base_lr=0.01", "--schedule.max_lr=0.25", "--schedule.step_size=5"],
        [f"--schedule={json.dumps(CALL)}"],
        [f"--schedule={json.dumps(SAVED)}"],
    ],
    ids=["by name", "class path", "saved"],
)
def test_jsonargparse_makes_a_schedule(arguments: list[str]) -> None:
    assert parsed(*arguments, f"--momentum={json.dumps(MIRROR)}") == (SCHEDULE, MOMENTUM)


def test_jsonargparse_makes_schedules_of_schedules() -> None:
    constant = {"class_path": "clr.constant", "init_args": {"lr": 0.125}}
    joined = {"class_path": "clr.join", "init_args": {"schedules": [constant, CALL], "boundaries": [7]}}
    assert parsed(f"--schedule={json.dumps(joined)}")[0] == clr.join([clr.constant(0.125), SCHEDULE], [7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule=clr.triangulr"], "has no attribute 'triangulr'"),
        (["--schedule=clr.triangular", "--schedule.base_lr=0.1"], "arguments are required: max_lr, step_size"),
        (["--schedule=clr.triangular", "--schedule.base=0.1"], "Option 'base' is not accepted"),
        (["--schedule=clr.range_test"], "clr.range_test does not correspond to a subclass of Schedule"),
    ],
)
def test_jsonargparse_says_what_is_wrong(arguments: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        parsed(*arguments)
    assert message in capsys.readouterr().err


def test_the_help_of_a_scheduler_is_its_own(capsys: Any) -> None:
    pytest.importorskip("docstring_parser")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(clr.torch.LRScheduler, "scheduler", skip={"optimizer"})
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "One schedule for all groups, a list with one for each group" in text
    assert "--scheduler.last_epoch" in text


@pytest.mark.filterwarnings("ignore")
def test_lightning_cli_takes_schedule_and_callback_by_class_path(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    cli = pytest.importorskip("lightning.pytorch.cli")
    pytest.importorskip("clr.integrations.lightning")
    seen: list[Any] = []

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any) -> Any:
            return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = sgd(self)
            seen.append(watched(optimizer))
            return optimizer

        def train_dataloader(self) -> Any:
            return loader(rows=320)

    callback = {
        "class_path": "clr.integrations.lightning.Follower",
        "init_args": {"schedule": CALL, "momentum": MIRROR},
    }
    trainer = {"callbacks": [callback], "max_epochs": 2, "accelerator": "cpu", "logger": False}
    trainer |= {"enable_progress_bar": False, "enable_checkpointing": False, "default_root_dir": str(tmp_path)}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"fit": {"trainer": trainer}}))
    cli.LightningCLI(Module, args=["--config", str(config), "fit"], save_config_callback=None)
    assert seen == [[(SCHEDULE(step), MOMENTUM(step)) for step in range(20)]]


def instantiated(config: Any, **others: Any) -> Any:
    hydra, omegaconf = pytest.importorskip("hydra.utils"), pytest.importorskip("omegaconf")
    return hydra.instantiate(omegaconf.OmegaConf.create(config), **others)


TARGET = {"_target_": "clr.triangular2", "base_lr": 0.01, "max_lr": 0.25, "step_size": 5}


def test_hydra_makes_schedules() -> None:
    assert instantiated(TARGET) == SCHEDULE
    assert instantiated({"_target_": "clr.from_dict", "data": SCHEDULE.to_dict()}) == SCHEDULE
    joined = {
        "_target_": "clr.join",
        "schedules": [{"_target_": "clr.constant", "lr": 0.125}, TARGET],
        "boundaries": [7],
    }
    assert instantiated(joined) == clr.join([clr.constant(0.125), SCHEDULE], [7])


@pytest.mark.parametrize("kind", ["LRScheduler", "Follower"])
def test_hydra_makes_a_scheduler_that_refers_to_the_schedule(kind: str) -> None:
    mirror = {"_target_": "clr.momentum", "schedule": "${schedule}", "low": 0.5, "high": 0.9}
    scheduler = {"_target_": f"clr.torch.{kind}", "_partial_": True, "schedule": "${schedule}", "momentum": mirror}
    made = instantiated({"schedule": TARGET, "scheduler": scheduler})
    model = network()
    optimizer = sgd(model)
    driver = made.scheduler(optimizer)
    seen = watched(optimizer)
    for batch in [loader(rows=64)] * 3:
        for x, _ in batch:
            model(x).sum().backward()
            optimizer.step()
            if kind == "LRScheduler":
                driver.step()
    assert seen == [(SCHEDULE(step), MOMENTUM(step)) for step in range(6)]


def test_hydra_makes_schedules_of_groups() -> None:
    by_name = {"body": TARGET, "head": {"_target_": "clr.constant", "lr": 0.125}}
    made = instantiated({"_target_": "clr.torch.LRScheduler", "_partial_": True, "schedule": by_name})
    one, two = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one], "name": "body"}, {"params": [two], "name": "head"}], lr=0.125)
    assert made(optimizer).get_last_lr() == [0.01, 0.125]


def test_hydra_says_what_is_wrong() -> None:
    with pytest.raises(Exception, match=r"`base_lr` must be a finite number, 0 or more\. Received: -1"):
        instantiated(TARGET | {"base_lr": -1})
