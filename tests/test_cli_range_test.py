"""A saved range test, on the command line and in a picture."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import clr
from tests import curves
from tests.curves import measured

COMMAND = Path(sys.executable).parent / "clr"


def run(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(COMMAND), "range-test", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "test.json"
    path.write_text(measured(curves.valley, noise=0.05).to_json())
    return path


def test_show_says_what_was_found(file: Path) -> None:
    bounds = clr.RangeTest.from_json(file.read_text()).bounds()
    done = run("show", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the loss diverged." in done.stdout.splitlines()[0]
    assert f"base_lr {bounds.base_lr!r}" in done.stdout.splitlines()
    assert f"max_lr {bounds.max_lr!r}" in done.stdout.splitlines()
    assert bounds.reason in done.stdout
    found = json.loads(run("show", file, "--json").stdout)
    assert (found["base_lr"], found["max_lr"], found["stop"]) == (bounds.base_lr, bounds.max_lr, "diverged")
    assert set(found["rules"]) == {"steepest", "minimum", "valley", "slide"}


def test_show_says_why_there_are_no_bounds(file: Path) -> None:
    file.write_text(measured(curves.endless).to_json())
    done = run("show", file)
    assert (done.returncode, done.stderr) == (1, "")
    assert "Training never diverges" in done.stdout
    assert "Make `max_lr` larger." in done.stdout


def test_plot_draws(file: Path) -> None:
    for scale in ("log", "linear"):
        out = file.with_name(f"{scale}.png")
        done = run("plot", file, "--scale", scale, "--out", out)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
        assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["show", "plot"])
@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("{}", "is not a range test: the data"), ("nonsense", "is not a range test")],
    ids=["none", "empty", "nonsense"],
)
def test_a_file_that_is_no_test_is_refused(file: Path, command: str, text: str | None, message: str) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    done = run(command, file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("clr: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def backend() -> Any:
    from matplotlib import pyplot

    before = mpl.get_backend()
    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")
    pyplot.switch_backend(before)


def named(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_picture_marks_bounds_rules_and_stop(backend: Any) -> None:
    test = measured(curves.valley, noise=0.05)
    bounds = test.bounds()
    ax = test.plot()
    assert ax.get_xscale() == "log"
    labels = named(ax)
    assert "base_lr to max_lr" in labels
    assert {label.split()[0] for label in labels} >= {"steepest", "minimum", "valley"}
    assert f"{bounds.max_lr:.3g}" in ax.get_title()
    assert any(text.get_text().startswith("diverged at") for text in ax.texts)
    assert measured(curves.valley).plot(scale="linear").get_xscale() == "linear"


def test_a_picture_without_bounds_says_why(backend: Any) -> None:
    assert "Training never diverges" in measured(curves.endless).plot().get_title()


def test_repeats_have_a_band(backend: Any) -> None:
    test = measured(curves.valley, noise=0.2, repeats=3, reset=lambda repeat: None)
    own = backend.figure().gca()
    assert test.plot(own) is own
    assert "lowest to highest" in named(own)


def test_linear_growth_has_a_linear_axis(backend: Any) -> None:
    test = clr.range_test(lambda lr: (lr - 0.5) ** 2, min_lr=0.0, max_lr=1.0, growth="linear")
    assert test.plot().get_xscale() == "linear"


def test_metrics_are_drawn(backend: Any) -> None:
    test = clr.range_test(lambda lr: lr, evaluate=lambda: 0.5, goal="max", num_steps=50, max_lr=1e-3)
    assert test.plot().get_ylabel() == "metric"


def test_nothing_can_not_be_drawn(backend: Any) -> None:
    with pytest.raises(ValueError, match="no loss to draw"):
        clr.range_test(lambda lr: None, num_steps=3).plot()
