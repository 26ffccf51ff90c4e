"""Pictures of schedules, range tests and searches. The only file that imports matplotlib."""

import math
import warnings
from bisect import bisect_left
from contextlib import suppress
from html import escape
from importlib.util import find_spec
from io import StringIO
from typing import IO, TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from clr import checks
from clr.finder.curve import RULES, NoBoundsError
from clr.finder.result import HUGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clr.finder.result import RangeTest
    from clr.finder.trials import Search
    from clr.schedules.base import Schedule

_MOST_POINTS = 20_000  # far more than a picture has pixels across
_MOST_STEPS = 2**63 - 1  # what an array of steps holds
_MOST_RATE = 1e300  # what an axis holds, with room above
_MOST_SIGNS = 120  # of a name; more have no room on a picture
_SIZE = 8, 3.5  # of a picture, in inches; it suits a curve over steps
_GOLDEN = (math.sqrt(5) - 1) / 2  # the multiples of this number spread evenly, modulo 1


def plot_schedule(schedule: "Schedule", steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draws the rate of each step below ``steps`` and returns the Axes.

    Args:
        schedule: What to draw.
        steps: How many steps; by default the whole schedule, or its first cycles where it has no end.
        ax: Where to draw; by default on a new figure.
    """
    count = min(schedule._preview, _MOST_STEPS) if steps is None else checks.count("steps", steps)
    if count > _MOST_STEPS:
        checks.fail(ValueError, "steps", "far_step", steps)
    if schedule.limits[1] > _MOST_RATE:
        raise ValueError(f"a schedule with a rate above {_MOST_RATE:g} has no picture. Received: {schedule!r}.")
    if ax is None:
        ax = new_axes()
    import numpy as np  # matplotlib has brought it

    at = np.arange(min(count, _MOST_POINTS))
    if count > _MOST_POINTS:
        # One step out of each of many stretches, at a changing place in it: steps at a fixed distance would make
        # cycles of that length look flat.
        at = ((at + at * _GOLDEN % 1) * (count / _MOST_POINTS)).astype(np.int64)
        at[-1] = count - 1
    ax.plot(at, schedule(at), linewidth=1.5)
    label(ax, "learning rate")
    ax.set_title(plain(repr(schedule).removeprefix("clr.")), fontsize="medium")
    return ax


def plot_range_test(test: "RangeTest", ax: "Axes | None" = None, scale: str | None = None) -> "Axes":
    """Draws the losses of an LR range test with its bounds, and returns the Axes.

    Args:
        test: What to draw.
        ax: Where to draw; by default on a new figure.
        scale: The axis of the rates, ``"log"`` or ``"linear"``; by default ``"linear"`` if they are evenly spaced.
    """
    even = test.min_lr == 0 or _even(test.planned_rates)
    scale = ("linear" if even else "log") if scale is None else checks.choice("scale", scale, ("log", "linear"))
    if ax is None:
        ax = new_axes()
    ax.set_xscale(scale)
    curve, smoothed = test.curve, test.smoothed
    judged = test.metrics if test.metrics else tuple(zip(test.rates, test.losses, strict=True))
    if not judged:
        raise ValueError("the range test has no loss to draw")
    if len(test.sweeps) > 1 and not test.metrics:
        low, high = (_drawable(values) for values in zip(*test.band, strict=True))
        ax.fill_between(test.rates, low, high, color="C0", alpha=0.15, linewidth=0, label="lowest to highest")
    rates, values = zip(*judged, strict=True)
    ax.plot(rates, _drawable(values), ".", color="C0", alpha=0.4, markersize=3)
    ax.plot(curve.rates, smoothed, color="C0", linewidth=1.5)
    end = (test.rates or rates)[-1]
    ax.axvline(end, color="0.4", linestyle=":", linewidth=1)
    ax.annotate(
        f"{test.stop} at {end:.2g}",
        (end, 0.5),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        fontsize="small",
        color="0.4",
    )
    try:
        bounds = test.bounds()
    except NoBoundsError as refusal:
        title = str(refusal)
    else:
        title = f"base_lr {bounds.base_lr:.3g}, max_lr {bounds.max_lr:.3g}, confidence {bounds.confidence:.2f}"
        ax.axvspan(*bounds, color="C2", alpha=0.12, label="base_lr to max_lr")
        for at, rule in enumerate(RULES):
            with suppress(NoBoundsError):
                rate = test.suggest(rule)
                height = smoothed[min(bisect_left(curve.rates, rate), len(smoothed) - 1)]
                ax.plot(rate, height, "ovs^"[at], color=f"C{at + 3}", markersize=6, label=f"{rule} {rate:.2g}")
    if smoothed:
        # The last losses may be far above the smoothed curve, and would flatten the rest of the picture.
        span = max(smoothed) - min(smoothed) or abs(smoothed[0]) or 1.0
        ax.set_ylim(min(smoothed) - 0.15 * span, max(smoothed) + 0.15 * span)
    label(ax, "metric" if test.metrics else "loss")
    ax.set_xlabel("learning rate")
    ax.set_title(title, fontsize="medium", wrap=True)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="best")
    return ax


def plot_search(search: "Search", ax: "Axes | None" = None) -> "Axes":
    """Draws the score of each trial of a search over its rate, with the bounds, and returns the Axes.

    Args:
        search: What to draw.
        ax: Where to draw; by default on a new figure.
    """
    if not search.trials:
        if search.range_test is None:
            raise ValueError("the search has no trial to draw")
        return plot_range_test(search.range_test, ax)
    if ax is None:
        ax = new_axes()
    ax.set_xscale("log")
    for number in sorted({trial.rung for trial in search.trials}):
        own = sorted((trial for trial in search.trials if trial.rung == number), key=lambda trial: trial.max_lr)
        scored = [(trial.max_lr, trial.score) for trial in own if trial.score is not None]
        lost = [(trial.max_lr, trial.stop) for trial in own if trial.score is None]
        text, colour = f"trials of {own[0].num_steps} updates", f"C{number - 1}"
        if scored:
            ax.plot(*zip(*scored, strict=True), "o-", color=colour, markersize=5, linewidth=1.5, label=text)
        for rate, stop in lost:  # at the top, where they would be
            ax.plot(rate, 0.97, "x", color=colour, transform=ax.get_xaxis_transform())
            ax.annotate(
                stop,
                (rate, 0.95),
                xycoords=ax.get_xaxis_transform(),
                rotation=90,
                ha="center",
                va="top",
                fontsize="small",
                color="0.4",
            )
    if search.winner is not None and search.winner.score is not None:
        ax.plot(search.winner.max_lr, search.winner.score, "o", color="C3", markersize=9, zorder=3, label="winner")
    try:
        bounds = search.bounds()
    except NoBoundsError as refusal:
        title = str(refusal)
    else:
        title = f"base_lr {bounds.base_lr:.3g}, max_lr {bounds.max_lr:.3g}, confidence {bounds.confidence:.2f}"
        ax.axvspan(*bounds, color="C2", alpha=0.12, label="base_lr to max_lr")
    _zoom(ax, search)
    label(ax, "held-out value")
    ax.set_xlabel("highest learning rate of the trial")
    ax.set_title(title, fontsize="medium", wrap=True)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="best")
    return ax


def _zoom(ax: "Axes", search: "Search") -> None:
    """Shows the scores that are no worse than no training at all; others are far away, and would flatten the rest."""
    scores = [trial.score for trial in search.trials if trial.score is not None]
    if not scores:
        return
    low, high = min(scores), max(scores)
    if search.start is not None and search.goal == "min" and search.start > low:
        high = min(high, search.start)
    if search.start is not None and search.goal == "max" and search.start < high:
        low = max(low, search.start)
    margin = 0.08 * (high - low) or abs(high) or 1.0
    ax.set_ylim(low - margin, high + margin)


def _even(rates: "Sequence[float]") -> bool:
    """Whether rates are evenly spaced."""
    return math.isclose(
        rates[len(rates) // 2], rates[0] + (rates[-1] - rates[0]) * (len(rates) // 2) / (len(rates) - 1)
    )


class Described(Protocol):
    """A value that says what it is in words."""

    def describe(self) -> str:
        """The value in words."""


@runtime_checkable
class Drawn(Protocol):
    """A value that can be drawn."""

    def plot(self, *, ax: "Axes") -> object:
        """Draws the value on ``ax``."""


def notebook_page(shown: Described) -> str:
    """A schedule, range test or comparison as HTML for a notebook: its words, and its picture if it has one.

    Needs no matplotlib, but without it there is no picture. An error is shown on the page, and not raised.
    """
    parts = []
    for make in (_words, _picture):
        try:
            parts.append(make(shown))
        except Exception as error:  # which a notebook would print with its whole traceback
            parts.append(f"<pre>{escape(f'{type(error).__name__}: {error}')}</pre>")
    return "\n".join(filter(None, parts))


def _words(shown: Described) -> str:
    return f"<pre>{escape(shown.describe())}</pre>"


def _picture(shown: Described) -> str:
    """The picture of a value as SVG. Its figure is unknown to pyplot, which would show it a second time."""
    if find_spec("matplotlib") is None or not isinstance(shown, Drawn):
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    shown.plot(ax=figure.subplots())
    file = StringIO()
    _write(figure, file, "svg")
    text = file.getvalue()
    return text[text.index("<svg") :]  # HTML has no place for what is before that


def plain(text: str) -> str:
    """A text that a picture shows as it is: without formulas, signs that no font has, and labels that are left out."""
    if len(text) > _MOST_SIGNS:
        text = f"{text[: _MOST_SIGNS - 1]}…"
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _drawable(values: "Sequence[float]") -> list[float]:
    """Values, with NaN for those that no axis can hold."""
    return [value if abs(value) < HUGE else math.nan for value in values]


def new_axes(size: tuple[float, float] = _SIZE) -> "Axes":
    """The Axes of a new figure of a size in inches."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'cyclic-learning-rate[plot]'") from error

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def label(ax: "Axes", quantity: str) -> None:
    """Names the axes of a curve over steps."""
    ax.set_xlabel("step")
    ax.set_ylabel(quantity)
    ax.grid(alpha=0.3)


def save(ax: "Axes", path: "str | Path | IO[Any]", form: str | None = None) -> None:
    """Writes the figure of ``ax`` and closes it."""
    try:
        _write(cast("Figure", ax.get_figure(root=True)), path, form)
    finally:
        close(ax)


def _write(figure: "Figure", path: "str | Path | IO[Any]", form: str | None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a box takes its place
        figure.savefig(path, dpi=150, format=form)


def close(ax: "Axes") -> None:
    """Closes the figure of ``ax``."""
    from matplotlib import pyplot

    pyplot.close(cast("Figure", ax.get_figure(root=True)))
