"""Pictures and notebook pages."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

import clr
from clr.plot import notebook_page
from tests import curves, reference
from tests.curves import measured
from tests.reference import ulps


@pytest.fixture(autouse=True)
def agg() -> Iterator[None]:
    mpl.use("Agg")
    yield
    pyplot.close("all")


def drawn(ax: Axes) -> tuple[list[int], list[float]]:
    """The steps and rates of the one line on ``ax``."""
    (line,) = ax.lines
    x, y = (np.asarray(data) for data in line.get_data())
    return x.tolist(), y.tolist()


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(
    ("up", "down", "count"),
    [("20", "20", 160), ("20.3", "20.3", 163), ("5", "2.5", 30), ("0.7", "0.7", 6), ("2500", "2500", 20_000)],
)
def test_line_is_the_rate_of_every_step_of_four_cycles(mode: Any, up: str, down: str, count: int) -> None:
    ax = clr.cyclic(0.001, 0.006, float(up), step_size_down=float(down), mode=mode).plot()
    assert isinstance(ax, Axes)
    steps, rates = drawn(ax)
    assert steps == list(range(count))
    for step, rate in zip(steps, rates, strict=True):
        expected = reference.rate(step, 0.001, 0.006, Fraction(up), Fraction(down), mode, 0.99994)
        assert ulps(rate, expected) <= 1, step


@pytest.mark.parametrize("steps", [1, 2, 33, np.int64(33)])
def test_line_has_as_many_steps_as_asked(steps: int) -> None:
    at, rates = drawn(clr.triangular2(0.25, 1.25, 4).plot(steps))
    assert at == list(range(steps))
    assert rates == [reference.rate(step, 0.25, 1.25, 4, mode="triangular2") for step in at]


def test_draws_on_a_given_axes_and_opens_no_figure() -> None:
    figure, (left, right) = pyplot.subplots(ncols=2)
    assert clr.triangular(0.25, 1.25, 4).plot(ax=right) is right
    assert clr.triangular2(0.25, 1.25, 4).plot(10, right) is right
    assert [len(ax.lines) for ax in (left, right)] == [0, 2]
    assert pyplot.get_fignums() == [figure.number]


def test_each_plot_without_axes_has_its_own_figure() -> None:
    schedule = clr.triangular(0.25, 1.25, 4)
    assert schedule.plot() is not schedule.plot()
    assert len(pyplot.get_fignums()) == 2


def test_axes_say_what_they_show() -> None:
    ax = clr.triangular(0.25, 1.25, 4).plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "learning rate")
    assert ax.get_title() == "triangular(base_lr=0.25, max_lr=1.25, step_size=4)"


@pytest.mark.parametrize(
    ("steps", "error"),
    [(0, ValueError), (-1, ValueError), (10.0, TypeError), (2.5, TypeError), ("10", TypeError), (True, TypeError)],
)
def test_bad_steps_are_refused_and_nothing_is_opened(steps: Any, error: type[Exception]) -> None:
    message = f"`steps` must be a whole number, 1 or more. Received: {steps!r}."
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        clr.triangular(0.25, 1.25, 4).plot(steps)
    assert caught.type is error
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("step_size", "steps"),
    [
        pytest.param(123_457, None, id="long cycles"),
        pytest.param(10**9 + 7, None, id="longer cycles"),
        pytest.param(2000, 10**6, id="many cycles"),
        pytest.param(5, 10**6, id="cycles finer than the picture"),
        pytest.param(50, 2_000_000, id="cycles as long as the stride"),
    ],
)
def test_a_long_line_has_few_points_and_still_both_bounds(step_size: int, steps: int | None) -> None:
    at, rates = drawn(clr.triangular(0.001, 0.006, step_size).plot(steps))
    assert len(at) <= 100_000
    assert at[0] == 0
    assert at[-1] >= 0.999 * (steps or 8 * step_size)
    assert max(rates) == pytest.approx(0.006, rel=0.01)
    assert min(rates) == pytest.approx(0.001, rel=0.01)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_can_be_saved(kind: str, tmp_path: Any) -> None:
    figure = clr.triangular2(0.001, 0.006, 20).plot().get_figure(root=True)
    assert figure is not None
    figure.savefig(tmp_path / f"rate.{kind}")
    assert (tmp_path / f"rate.{kind}").stat().st_size > 1000


def test_the_axis_of_rates_is_linear_where_they_are_evenly_spaced() -> None:
    assert measured(curves.valley).plot().get_xscale() == "log"
    assert measured(curves.valley, min_lr=0.01, growth="linear").plot().get_xscale() == "linear"
    recorded = clr.RangeTest.from_losses([0.0, 1.0, 4.0, 9.0], [1.0] * 4)
    assert recorded.plot().get_xscale() == "linear"  # a logarithm has no place for 0
    assert clr.RangeTest.from_losses([0.5, 1.0, 4.0, 9.0], [1.0] * 4).plot().get_xscale() == "log"
    assert measured(curves.valley).plot(scale="linear").get_xscale() == "linear"


def test_a_range_test_is_drawn_with_its_bounds() -> None:
    test = measured(curves.valley, noise=0.05)
    ax = test.plot()
    points, smoothed = ax.lines[:2]
    assert np.asarray(points.get_xdata()).tolist() == list(test.rates)
    assert np.asarray(points.get_ydata()).tolist() == list(test.losses)
    assert np.asarray(smoothed.get_ydata()).tolist() == list(test.smoothed)
    base_lr, max_lr = test.bounds()
    assert ax.get_title().startswith(f"base_lr {base_lr:.3g}, max_lr {max_lr:.3g}, confidence 0.")
    refused = measured(curves.flat)
    assert refused.plot().get_title().startswith("The loss does not fall")
    with pytest.raises(ValueError, match="the range test has no loss to draw"):
        clr.range_test(lambda lr: None, num_steps=3).plot()


@pytest.mark.parametrize("value", [clr.one_cycle(0.1, 100), measured(curves.valley), measured(curves.flat)], ids=repr)
def test_a_notebook_shows_the_words_and_the_picture(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = value._repr_html_()
    words, picture = page.split("\n<svg", 1)
    assert ET.fromstring(words).text == value.describe()
    assert ET.fromstring(f"<svg{picture}").tag.endswith("svg")
    assert pyplot.get_fignums() == []
    monkeypatch.setattr("clr.plot.find_spec", lambda name: None)  # without matplotlib
    assert value._repr_html_() == words


class Described:
    def describe(self) -> str:
        return "a < b & c"


class Broken(Described):
    def plot(self, ax: Axes) -> None:
        raise ZeroDivisionError("<no picture>")


def test_a_notebook_page_is_escaped_and_raises_nothing() -> None:
    words, error = "<pre>a &lt; b &amp; c</pre>", "<pre>ZeroDivisionError: &lt;no picture&gt;</pre>"
    assert notebook_page(Broken()) == f"{words}\n{error}"
    assert "no loss to draw" in clr.range_test(lambda lr: None, num_steps=3)._repr_html_()
    assert notebook_page(Described()) == words
    assert pyplot.get_fignums() == []
