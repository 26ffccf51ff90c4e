"""Pictures of range tests: what they mark, and that no loss is too far away to draw."""

import math
from typing import Any

import matplotlib as mpl
import pytest

import clr
from tests import curves
from tests.curves import measured


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


def test_repeats_have_a_band(backend: Any) -> None:
    test = measured(curves.valley, noise=0.2, repeats=3, reset=lambda repeat: None)
    own = backend.figure().gca()
    assert test.plot(own) is own
    assert "lowest to highest" in named(own)


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
