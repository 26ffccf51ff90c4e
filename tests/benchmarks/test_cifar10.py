"""The case of CIFAR-10, on files of its format that are made here."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import clr
from benchmarks.cifar10 import __main__ as command
from benchmarks.cifar10 import cifar10

COUNT = 20


def record(label: int, red: int) -> bytes:
    """An image with one red level, whose other pixels are known by their place."""
    planes = [bytes([red]) * 1024, bytes(range(256)) * 4, bytes([255]) * 1024]
    return bytes([label]) + b"".join(planes)


def write(folder: Path, count: int = COUNT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate((*cifar10.FILES, cifar10.TEST_FILE)):
        # What can be learned: dark images are even, and bright ones odd.
        (folder / name).write_bytes(b"".join(record(at % 2, 200 * (at % 2) + number) for at in range(count)))
    return folder


def archive(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name in (*cifar10.FILES, cifar10.TEST_FILE):
            content = (folder / name).read_bytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["folder", "folder above", "archive"])
def test_the_official_files(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "cifar-10-batches-bin")
    path = {"folder": folder, "folder above": tmp_path}.get(form) or archive(folder, tmp_path / "cifar.tar.gz")
    (images, labels), (test_images, test_labels) = cifar10.load(path)
    assert (images.shape, labels.shape) == ((5 * COUNT, 3, 32, 32), (5 * COUNT,))
    assert (test_images.shape, test_labels.shape) == ((COUNT, 3, 32, 32), (COUNT,))
    assert labels[:4].tolist() == [0, 1, 0, 1]
    assert set(images[0, 0].ravel().tolist()) == {0}  # red comes first
    assert set(images[COUNT + 1, 0].ravel().tolist()) == {201}  # of the second file
    assert set(test_images[1, 0].ravel().tolist()) == {205}
    assert images[3, 1, 0].tolist() == list(range(32))  # row by row
    assert images[3, 1, 1, 0] == 32
    assert set(images[3, 2].ravel().tolist()) == {255}


def test_files_that_are_not_those(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "data_batch_2.bin").write_bytes(record(1, 0)[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2.bin must be records of 3073 bytes. Received: 3072 bytes."):
        cifar10.load(folder)
    (folder / "data_batch_2.bin").write_bytes(record(10, 0))
    with pytest.raises(ValueError, match=r"data_batch_2.bin must have labels from 0 to 9. Received: 10."):
        cifar10.load(folder)
    (folder / "data_batch_2.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data_batch_2.bin must be records"):
        cifar10.load(folder)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(FileNotFoundError):
        cifar10.load(folder)
    (tmp_path / "no.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="neither a folder nor an archive"):
        cifar10.load(tmp_path / "no.tar.gz")
    whole = archive(write(tmp_path / "whole"), tmp_path / "whole.tar.gz").read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + b"\xff" * 20 + whole[middle + 20 :]):
        (tmp_path / "no.tar.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="neither a folder nor an archive"):
            cifar10.load(tmp_path / "no.tar.gz")
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"Missing: data_batch_1.bin, .*test_batch.bin"):
        cifar10.load(tmp_path / "empty.tar.gz")


CONVOLUTIONS = [(32, 3, 5, 5), (32,), (32, 32, 5, 5), (32,), (64, 32, 5, 5), (64,)]


@pytest.mark.parametrize(
    ("name", "dense", "count"),
    [("full", [(10, 1024), (10,)], 89_578), ("quick", [(64, 1024), (64,), (10, 64), (10,)], 145_578)],
)
def test_the_networks_are_those_of_caffe(name: str, dense: list[tuple[int, ...]], count: int) -> None:
    model = cifar10.network(name)
    assert [tuple(own.shape) for own in model.parameters()] == CONVOLUTIONS + dense
    assert sum(own.numel() for own in model.parameters()) == count
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "layers", "deviations"),
    [
        ("full", "conv max relu norm conv relu avg norm conv relu avg flatten linear", [1e-4, 0.01, 0.01, 0.01]),
        ("quick", "conv max relu conv relu avg conv relu avg flatten linear linear", [1e-4, 0.01, 0.01, 0.1, 0.1]),
    ],
)
def test_layers_and_initial_weights_are_those_of_caffe(name: str, layers: str, deviations: list[float]) -> None:
    torch.manual_seed(0)
    model = cifar10.network(name)
    words = {"Conv2d": "conv", "MaxPool2d": "max", "ReLU": "relu", "AvgPool2d": "avg", "Flatten": "flatten"}
    words |= {"Linear": "linear", "_Normalized": "norm"}
    assert [words[type(layer).__name__] for layer in model] == layers.split()
    weights, biases = ([own for own in model.parameters() if (own.dim() == 1) == flat] for flat in (False, True))
    assert [float(own.detach().std()) for own in weights] == pytest.approx(deviations, rel=0.1)
    assert not any(own.any() for own in biases)


def test_the_full_network_normalizes_as_caffe_does() -> None:
    normalize = next(layer for layer in cifar10.network("full") if not type(layer).__module__.startswith("torch"))
    image = np.random.default_rng(0).uniform(-200, 200, (4, 5))
    expected = np.empty_like(image)
    for row in range(4):
        for column in range(5):
            near = image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected[row, column] = image[row, column] / (1 + 5e-5 / 9 * (near**2).sum()) ** 0.75
    assert normalize(torch.tensor(image)[None, None])[0, 0].numpy() == pytest.approx(expected, rel=1e-12)


# Rate and weight decay of weights and biases, layer by layer, as they stand in Caffe's files.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("full", [(1, 0.004), (2, 0.004), (1, 0.004), (2, 0.004), (1, 0.004), (1, 0.004), (1, 1.0), (2, 0.0)]),
        ("quick", [(1, 0.004), (2, 0.004)] * 5),
    ],
)
def test_rates_and_decays_are_those_of_caffe(name: str, expected: list[tuple[float, float]]) -> None:
    model = cifar10.network(name)
    groups, multiples = cifar10.groups(name, model)
    assert [(multiple, group["weight_decay"]) for multiple, group in zip(multiples, groups, strict=True)] == expected
    assert [own for group in groups for own in group["params"]] == list(model.parameters())


def test_the_schedules_are_those_of_the_paper() -> None:
    made: dict[str, Any] = cifar10.schedules()
    dropping = made["fixed, two drops"](70_000)
    assert [dropping(step) for step in (0, 59_999, 60_000, 64_999, 65_000, 69_999)] == pytest.approx(
        [0.001, 0.001, 0.0001, 0.0001, 0.00001, 0.00001]
    )
    assert set(made) == {"fixed, two drops", "triangular2", "triangular", "exp_range"}
    steps = (0, 1000, 2000, 3000, 4000, 6000, 10_000)
    heights = {  # above 0.001; the gamma is the paper's
        "triangular": [0, 0.0025, 0.005, 0.0025, 0, 0.005, 0.005],
        "triangular2": [0, 0.0025, 0.005, 0.0025, 0, 0.0025, 0.00125],
        "exp_range": [
            height * 0.99994**step
            for height, step in zip((0, 0.0025, 0.005, 0.0025, 0, 0.005, 0.005), steps, strict=True)
        ],
    }
    for name, expected in heights.items():
        assert [made[name](step) - 0.001 for step in steps] == pytest.approx(expected, rel=1e-9, abs=1e-15), name


def test_a_training_is_that_of_the_paper(tmp_path: Path) -> None:
    """Batches of 100, momentum 0.9, and the rate of each layer a multiple of the schedule's."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    sizes: list[int] = []
    groups: list[list[dict[str, Any]]] = []

    def size(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        if isinstance(module, torch.nn.Flatten):
            sizes.append(len(arguments[0]))

    def note(optimizer: torch.optim.Optimizer, arguments: object, named: object) -> None:
        groups.append([group | {"params": None} for group in optimizer.param_groups])

    hooks = [register_module_forward_pre_hook(size), register_optimizer_step_pre_hook(note)]
    try:
        list(cifar10.Training(str(write(tmp_path / "data", 41)), "full")(clr.triangular(0.001, 0.003, 2), 0, 3))
    finally:
        for hook in hooks:
            hook.remove()
    assert sizes == [100, 100, 100, 41]  # of 205 images, and then those for testing
    assert {group["momentum"] for update in groups for group in update} == {0.9}
    multiples = [1, 2, 1, 2, 1, 1, 1, 2]
    assert [[group["lr"] for group in update] for update in groups] == [
        pytest.approx([rate * multiple for multiple in multiples]) for rate in (0.001, 0.002, 0.003)
    ]


def test_the_command_takes_the_lengths_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def compare(train: object, schedules: dict[str, object], **options: object) -> None:
        asked.update(options, schedules=set(schedules))
        raise KeyboardInterrupt

    monkeypatch.setattr(clr, "compare", compare)
    with pytest.raises(typer.Exit) as end:
        command.main(write(tmp_path / "data"))
    assert end.value.exit_code == 130
    assert list(asked["total_steps"]) == [25_000, 70_000]
    assert asked["schedules"] == {"fixed, two drops", "triangular2", "triangular", "exp_range"}


@pytest.mark.parametrize("network", ["full", "quick"])
def test_it_trains_and_can_be_made_again(tmp_path: Path, network: str) -> None:
    train = cifar10.Training(str(write(tmp_path / "data")), network)
    first, second = (list(train(clr.constant(1e-4), 0, 30)) for _ in range(2))
    assert first == second
    ((step, metrics),) = first
    assert step == 30
    assert metrics["accuracy"] == 100.0
    assert 0 < metrics["loss"] < np.log(10)


def test_the_command(tmp_path: Path) -> None:
    write(tmp_path / "data")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "benchmarks.cifar10", *arguments]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    done = run("--data", "data", "--total-steps", "4", "--total-steps", "2", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "triangular2" in done.stdout
    assert (tmp_path / "clr-cifar10-full.html").read_text().startswith("<!doctype html>")
    assert len(clr.Comparison.load(tmp_path / "clr-cifar10-full.sqlite").runs) == 8
    done = run("--data", "data", "--network", "quick", "--total-steps", "2", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clr-cifar10-quick.sqlite").exists()
    done = run("--data", "data", "--network", "full", "--total-steps", "2", "--runs", "clr-cifar10-quick.sqlite")
    assert done.returncode == 2
    assert "cifar10 quick" in done.stderr
    assert "cifar10 full" in done.stderr
    with pytest.raises(ValueError, match="`network` must be one of 'full', 'quick'"):
        cifar10.Training("data", "fll")
    whole = archive(tmp_path / "data", tmp_path / "cut.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    done = run("--data", "cut.tar.gz")
    assert done.returncode == 2
    assert done.stderr.startswith("cut.tar.gz is neither a folder nor an archive of CIFAR-10")
    done = run("--data", "none")
    assert (done.returncode, done.stderr) == (2, "[Errno 2] No such file or directory: 'none'\n")
