"""Pictures of schedules and range tests, and pages of a notebook."""

import math
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


def test_what_no_axis_holds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`steps` must be .*below 2\*\*63\. Received: 9223372036854775808"):
        clr.triangular(0.25, 1.25, 4).plot(2**63)
    with pytest.raises(
        ValueError, match=r"^a schedule with a rate above 1e\+300 has no picture\. Received: clr\.constant"
    ):
        clr.constant(1e308).plot()
    assert pyplot.get_fignums() == []
    for far in (clr.triangular(0.25, 1.25, 2**53, cycle_mult=1000), clr.constant(1e300)):
        far.plot().figure.canvas.draw()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("$x$", "$x$"),
        ("$\\frac{$", "$\\frac{$"),
        ("$$", "$$"),
        ("\\", "\\"),
        ("a\x1bb\0", "a\\x1bb\\x00"),
        ("\udcff\ufffe\n", "\\udcff\\ufffe\\n"),
        ("日本", "日本"),
    ],
    ids=ascii,
)
def test_names_are_drawn_as_they_are(name: str, shown: str) -> None:
    class Scale:
        def __call__(self, cycle: int) -> float:
            return 1.0

        def __repr__(self) -> str:
            return name

    with mpl.rc_context({"svg.fonttype": "none"}):
        page = clr.cyclic(0.25, 1.25, 4, scale_fn=Scale())._repr_html_()
    texts = ET.fromstring(page[page.index("<svg") :]).itertext()
    assert any(f"scale_fn={shown}" in text for text in texts)


def test_a_long_name_is_cut() -> None:
    ax = clr.join([clr.constant(0.1)] * 100, list(range(1, 100))).plot()
    assert re.fullmatch(r"join\(.{114}…", ax.get_title())


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


def named(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_range_test_is_drawn_with_bounds_rules_and_stop() -> None:
    test = measured(curves.valley, noise=0.05)
    bounds = test.bounds()
    ax: Any = test.plot()
    points, smoothed = ax.lines[:2]
    assert list(points.get_xdata()) == list(test.rates)
    assert list(points.get_ydata()) == list(test.losses)
    assert list(smoothed.get_ydata()) == list(test.smoothed)
    labels = named(ax)
    assert "base_lr to max_lr" in labels
    title = f"base_lr {bounds.base_lr:.3g}, max_lr {bounds.max_lr:.3g}, confidence 0."
    assert ax.get_title().startswith(title)
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


def test_a_range_test_without_bounds_is_drawn_too() -> None:
    assert measured(curves.flat).plot().get_title().startswith("The loss does not fall")
    with pytest.raises(ValueError, match="the range test has no loss to draw"):
        clr.range_test(lambda lr: None, num_steps=3).plot()


def test_repeats_have_a_band() -> None:
    test = measured(curves.valley, noise=0.2, repeats=3, reset=lambda repeat: None)
    own = pyplot.figure().gca()
    assert test.plot(own) is own
    assert "lowest to highest" in named(own)


def test_metrics_are_drawn_also_where_no_step_gives_a_loss() -> None:
    test = clr.range_test(lambda lr: lr, evaluate=lambda: 0.5, goal="max", num_steps=50, max_lr=1e-3)
    assert test.plot().get_ylabel() == "metric"
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
def test_no_loss_is_too_far_away_to_draw(losses: list[float], repeats: int) -> None:
    left = iter(losses * repeats)
    test = clr.range_test(lambda lr: next(left), lambda repeat: None, repeats=repeats, num_steps=len(losses))
    ax: Any = test.plot()
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert math.isfinite(low)
    assert low < high < math.inf


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
