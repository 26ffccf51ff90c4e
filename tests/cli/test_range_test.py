"""A saved range test, on the command line and in a picture."""

import json
import math
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


def test_show_says_how_often_and_how_long_it_was_to_train(file: Path) -> None:
    calls: list[float] = []

    def step(lr: float) -> float:
        calls.append(lr)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return 1 / (1 + lr)

    options: dict[str, Any] = {"num_steps": 40, "repeats": 3, "time_limit": 600}
    file.write_text(clr.range_test(step, lambda repeat: None, **options).to_json())
    assert run("show", file).stdout.splitlines()[0] == (
        "40 of 40 steps, up to 10, 2 of 3 repeats, at most 600 seconds: it was interrupted."
    )
    found = json.loads(run("show", file, "--json").stdout)
    assert (found["repeats"], found["time_limit"]) == (3, 600.0)


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
    ax: Any = test.plot()
    assert ax.get_xscale() == "log"
    labels = named(ax)
    assert "base_lr to max_lr" in labels
    assert f"{bounds.max_lr:.3g}" in ax.get_title()
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(tuple(bounds))
    for rule in ("steepest", "minimum", "valley", "slide"):
        (mark,) = (line for line in ax.lines if str(line.get_label()).startswith(f"{rule} "))
        rate = test.suggest(rule)
        at = min(range(len(test.rates)), key=lambda at: abs(math.log(test.rates[at] / rate)))
        assert list(mark.get_xdata()) == [rate]
        assert list(mark.get_ydata()) == pytest.approx([test.smoothed[at]], abs=0.05)
        assert f"{rule} {rate:.2g}" in labels
    (stop,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert list(stop.get_xdata()) == [test.rates[-1]] * 2
    assert [text.get_text() for text in ax.texts] == [f"diverged at {test.rates[-1]:.2g}"]
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


def test_metrics_are_drawn_where_no_step_gives_a_loss(backend: Any) -> None:
    test = clr.range_test(
        lambda lr: None, evaluate=lambda: 0.5, min_lr=0.25, max_lr=0.75, num_steps=3, growth="linear", evaluate_every=2
    )
    ax: Any = test.plot()
    (stop,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert list(stop.get_xdata()) == [0.5, 0.5]  # the second and last evaluated
    assert [text.get_text() for text in ax.texts] == ["completed at 0.5"]


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 100 + [1 - at / 60 for at in range(60)] + [-1e305] * 8,
        [2.0] * 100 + [1 - at / 60 for at in range(60)] + [-1.7e308] * 8,
        [1.7e308, -1.7e308] * 20,
        [1e99, -1e99] * 20,
        [5e-324, 0.0] * 20,
        [math.nan, math.nan],
    ],
    ids=["far", "farthest", "both ways", "near", "tiny", "NaN"],
)
def test_no_loss_is_too_far_away_to_draw(backend: Any, losses: list[float], repeats: int) -> None:
    left = iter(losses * repeats)
    test = clr.range_test(lambda lr: next(left), lambda repeat: None, repeats=repeats, num_steps=len(losses))
    ax: Any = test.plot()
    ax.get_figure().canvas.draw()
    low, high = ax.get_ylim()
    assert math.isfinite(low)
    assert low < high < math.inf


def test_nothing_can_not_be_drawn(backend: Any) -> None:
    with pytest.raises(ValueError, match="no loss to draw"):
        clr.range_test(lambda lr: None, num_steps=3).plot()
