"""The page of a comparison: one file of HTML that needs no other and no network."""

import html
import io
import json
import math
import re
from bisect import bisect_right
from importlib.metadata import version
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

from clr import plot
from clr.comparison.result import DIFFERENCES, Comparison
from clr.finder.result import STOPS, RangeTest
from clr.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[int, float]]
_SIZE = (5.5, 3.2)  # inches, of which a phone shows three: so that its words can be read there too
_LINE = 0.18  # inches, of a line of the legend
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; max-width: 44rem; height: auto; background: #fff; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
pre { background: var(--soft); overflow-x: auto; padding: .6rem; font-size: .8rem; }
"""


def page(comparison: Comparison) -> str:
    """The whole page."""
    parts = [
        f"<p>{_words(comparison)}</p>",
        *(
            f"<h2>{_text(comparison.metric)} over {budget} updates</h2>{_figure(_curves(comparison, budget))}"
            for budget in comparison.budgets
        ),
        "<h2>Results</h2>",
        _table(_HEADINGS, [comparison._cells(row) for row in comparison.rows()]),
        "<h2>Differences, seed by seed</h2>",
        f"<p>The final {_text(comparison.metric)} of the first schedule less that of the second.</p>",
        _table(DIFFERENCES, comparison.difference_cells()),
        "<h2>Schedules</h2>",
        _schedules(comparison),
    ]
    if comparison.range_test is not None:
        parts += ["<h2>The LR range test</h2>", _range_test(comparison.range_test)]
    parts += [*_errors(comparison), "<h2>Settings</h2>", _settings(comparison)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Schedules compared</title><style>{_STYLE}</style></head><body>\n<h1>Schedules compared</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


_HEADINGS = ("schedule", "steps", "seeds", "final", "best", "iterations", "ratio", "diverged", "failed")


def _text(value: Any) -> str:
    return html.escape(str(value))


def _words(comparison: Comparison) -> str:
    seeds = len({run.seed for run in comparison.runs})
    better = "larger" if comparison.goal == "max" else "smaller"
    words = (
        f"{len(comparison.runs)} runs of {len(comparison.schedules)} schedules with {seeds} seeds. "
        f"{_text(comparison.metric)}: {better} is better. "
        "Numbers are means over the seeds, and in parentheses 95% bootstrap intervals. "
        "Curves are medians over the runs that have finished, and their bands reach from the lowest to the highest of "
        "them; between its records a run is taken to stay as it was."
    )
    if comparison.target is not None:
        words += f" Iterations are the median over the seeds of the updates until it is {comparison.target:.4g}"
        if comparison.reference and comparison.reference[1] == comparison.target:
            words += f", which the best constant schedule, {_text(comparison.reference[0])}, has at the end"
        words += "; the ratio is that to the largest budget."
    return words


def curves(comparison: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draws the longest trainings: see `Comparison.plot`."""
    return _curves(comparison, comparison.budgets[-1], ax)


def _curves(comparison: Comparison, budget: int, ax: "Axes | None" = None) -> "Axes":
    """The median over the runs that have finished, or over all if none has, with all of them as a band."""
    ax = plot.new_axes(_SIZE) if ax is None else ax
    for number, name in enumerate(comparison.schedules):
        runs = comparison.runs_of(name, budget)
        whole = [run for run in runs if run.state == "finished"]
        curves = [curve for run in whole or runs if (curve := _finite(comparison.curve(run)))]
        if not curves:
            continue
        # From where all have begun; a run that was lost is known until then alone.
        end = (max if whole else min)(curve[-1][0] for curve in curves)
        begin = max(curve[0][0] for curve in curves)
        steps = sorted({step for curve in curves for step, _ in curve if begin <= step <= end})
        values = [[_last(curve, step) for curve in curves] for step in steps]
        label = _plain(name) + (f" ({len(whole)} of {len(runs)} runs)" if len(whole) < len(runs) else "")
        style = _style(number)
        ax.plot(steps, [median(near) for near in values], label=label, marker="o" if len(steps) == 1 else None, **style)
        low, high = [min(near) for near in values], [max(near) for near in values]
        ax.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)
    if comparison.target is not None:
        ax.axhline(comparison.target, color="0.4", linewidth=1, linestyle=":")
    plot.label(ax, _plain(comparison.metric))
    ax.set_xlabel("update")
    _legend(ax)
    return ax


def _finite(curve: Points) -> Points:
    return sorted(((step, value) for step, value in curve if math.isfinite(value)), key=itemgetter(0))


def _last(curve: Points, step: int) -> float:
    """The last record at a step or before it."""
    return curve[bisect_right(curve, (step, math.inf)) - 1][1]


def _style(number: int) -> dict[str, Any]:
    """How a schedule is drawn, told by its number."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def _rates(comparison: Comparison, budget: int) -> "Axes | None":
    """The rates of those schedules that are known as such."""
    ax = plot.new_axes(_SIZE)
    drawn = False
    for number, name in enumerate(comparison.schedules):
        schedule = comparison.schedule(name, budget)
        if schedule is not None:
            shown = range(0, budget, max(1, budget // 1000))
            ax.plot(list(shown), [schedule(step) for step in shown], label=_plain(name), **_style(number))
            drawn = True
    if not drawn:
        plot.close(ax)
        return None
    plot.label(ax, "learning rate")
    ax.set_xlabel("update")
    _legend(ax)
    return ax


def _legend(ax: "Axes") -> None:
    if count := len(ax.get_legend_handles_labels()[0]):
        figure: Any = ax.figure
        figure.set_size_inches(_SIZE[0], _SIZE[1] + _LINE * max(0, math.ceil(count / 2) - 4))  # or it leaves no room
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")


def _plain(text: str) -> str:
    """A text in which matplotlib reads no formula, nor a label that is to be left out."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _figure(ax: "Axes") -> str:
    """A picture as part of the page."""
    out = io.StringIO()
    plot.save(ax, out, "svg")
    drawing = out.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return f"<figure>{drawing}</figure>"


def _range_test(test: RangeTest) -> str:
    if not test.losses and not test.metrics:
        return f"<p>{_text(STOPS[test.stop].capitalize())}, before there was a loss.</p>"
    return _figure(test.plot(plot.new_axes(_SIZE)))


def _table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _schedules(comparison: Comparison) -> str:
    parts = []
    for budget in comparison.budgets:
        ax = _rates(comparison, budget)
        if ax is not None:
            parts.append(_figure(ax))
    rows = [[name, str(steps), text] for (name, steps), text in comparison.descriptions.items()]
    listed = "\n".join(f"{name}, {steps} updates: {text}" for name, steps, text in rows)
    return "".join(parts) + f"<details><summary>As data</summary><pre>{_text(listed)}</pre></details>"


def _errors(comparison: Comparison) -> list[str]:
    lost = [run for run in comparison.runs if run.state != "finished"]
    if not lost:
        return []
    parts = ["<h2>Runs that diverged or failed</h2>"]
    for run in lost:
        head = f"{run.schedule}, {run.total_steps} updates, seed {run.seed}: {run.state}"
        parts.append(f"<details><summary>{_text(head)}</summary><pre>{_text(run.error)}</pre></details>")
    return parts


def _settings(comparison: Comparison) -> str:
    settings = {
        "train": comparison.origin.get("train"),
        "seeds": sorted({run.seed for run in comparison.runs}),
        "engine": comparison.origin.get("engine"),
        "metric": comparison.metric,
        "goal": comparison.goal,
        "target": comparison.target,
        "updates before training": dict(comparison.before),
        "seconds of training": round(sum(run.seconds for run in comparison.runs), 1),
        "versions at the last run": comparison.origin.get("versions"),
        "versions at this page": {"clr": __version__, "matplotlib": version("matplotlib")},
    }
    return "<pre>" + _text("\n".join(f"{name}: {json.dumps(value)}" for name, value in settings.items())) + "</pre>"
