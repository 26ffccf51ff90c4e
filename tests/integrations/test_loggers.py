"""The recipes of the docs for loggers: what they log is what the updates were made with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import clr
from tests.integrations.digits import LOSS, MOMENTUM, SCHEDULE, loader, network, planned, sgd

pytest.importorskip("matplotlib")
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
UPDATES = 12


@pytest.fixture(scope="module")
def search() -> clr.Search:
    model = network()
    options: dict[str, Any] = {"validation": loader(320), "total_steps": 100, "budget": 200}
    return clr.torch.find_bounds(model, sgd(model), LOSS, loader(640), **options)


def logged(name: str, search: clr.Search, monkeypatch: Any, folder: Path) -> Any:
    """What a recipe of the page defines, which was run in a folder."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(folder)
    plt.switch_backend("Agg")
    model = network()
    optimizer = sgd(model)

    def train(batch: Any) -> None:
        optimizer.zero_grad()
        LOSS(model(batch[0]), batch[1]).backward()
        optimizer.step()

    known = {"search": search, "schedule": SCHEDULE, "loader": loader(32 * UPDATES), "train": train}
    known["follower"] = clr.torch.Follower(optimizer, SCHEDULE, MOMENTUM)
    section = PAGE.read_text().split("\n## Loggers\n")[1].split("\n## ")[0]
    (block,) = [one for one in re.findall(r"^```python\n(.*?)^```", section, re.M | re.S) if name in one]
    exec(block, known)
    plt.close("all")
    return known


def check(rates: list[float], momenta: list[float], cycles: list[float]) -> None:
    assert list(zip(rates, momenta, strict=True)) == [pytest.approx(pair, rel=1e-6) for pair in planned(0, UPDATES)]
    assert cycles == [SCHEDULE.cycle(step) for step in range(UPDATES)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(search: clr.Search, monkeypatch: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged("SummaryWriter", search, monkeypatch, tmp_path)
    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    names = ("learning_rate", "momentum", "cycle")
    check(*([event.value for event in events.Scalars(name)] for name in names))
    assert [event.step for event in events.Scalars("cycle")] == list(range(UPDATES))
    assert sorted(events.Tags()["images"]) == ["range test", "search"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_network(search: clr.Search, monkeypatch: Any, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged("wandb", search, monkeypatch, tmp_path)
    wandb.teardown()  # waits until all is in its file
    rows = list(_rows_of_wandb(tmp_path))
    check(*([row[name] for row in rows] for name in ("learning_rate", "momentum", "cycle")))
    assert [rows[0][f"{name}._type"] for name in ("range test", "search")] == ["image-file"] * 2
    assert len(list(tmp_path.rglob("*.png"))) == 2


def _rows_of_wandb(folder: Path) -> Any:
    """What a run without a network has logged. Its file is a log of LevelDB: blocks with parts of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = -at % 32768
        if 0 < left < 7:  # too short for the next part
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or its last part
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                yield {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }


@pytest.mark.filterwarnings("ignore")
def test_mlflow(search: clr.Search, monkeypatch: Any, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    logged("mlflow", search, monkeypatch, tmp_path)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    histories = [client.get_metric_history(run.info.run_id, name) for name in ("learning_rate", "momentum", "cycle")]
    check(*([entry.value for entry in sorted(history, key=lambda entry: entry.step)] for history in histories))
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"schedule.json", "range_test.png", "search.png"}
    assert clr.from_dict(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/schedule.json")) == SCHEDULE
