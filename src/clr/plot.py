"""Pictures of schedules. The only file that imports matplotlib."""

import math
from typing import TYPE_CHECKING, Any, cast

from clr import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clr.schedule import Schedule

_MOST_POINTS = 20_000  # far more than a picture has pixels across
_GOLDEN = (math.sqrt(5) - 1) / 2  # the multiples of this number spread evenly, modulo 1


def plot(schedule: "Schedule", steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draws the rate of each step below ``steps`` and returns the Axes.

    Args:
        schedule: What to draw.
        steps: How many steps; by default the schedule's ``preview``.
        ax: Where to draw; by default on a new figure.
    """
    count = schedule.preview if steps is None else checks.count("steps", steps)
    if ax is None:
        ax = new_axes()
    import numpy as np  # matplotlib has brought it

    at = np.arange(min(count, _MOST_POINTS))
    if count > _MOST_POINTS:
        # One step out of each of as many stretches, and not always the same one: at a fixed distance, cycles as
        # long as that would look flat.
        at = ((at + at * _GOLDEN % 1) * (count / _MOST_POINTS)).astype(np.int64)
        at[-1] = count - 1
    ax.plot(at, schedule(at), linewidth=1.5)
    label(ax, "learning rate")
    ax.set_title(repr(schedule).removeprefix("clr."), fontsize="medium")
    return ax


def new_axes() -> "Axes":
    """The Axes of a new figure, of a size that suits a curve over steps."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'cyclic-learning-rate[plot]'") from error

    return pyplot.subplots(figsize=(8, 3.5), layout="constrained")[1]


def label(ax: "Axes", quantity: str) -> None:
    """Names the axes of a curve over steps."""
    ax.set_xlabel("step")
    ax.set_ylabel(quantity)
    ax.grid(alpha=0.3)


def save(ax: "Axes", path: Any) -> None:
    """Writes the figure that ``ax`` is part of and closes it."""
    from matplotlib import pyplot

    figure = cast("Figure", ax.get_figure(root=True))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
