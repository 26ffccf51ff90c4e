"""The page of a comparison: one file of HTML that needs no other and no network."""

import html
import io
import json
import math
import re
import textwrap
import warnings
from bisect import bisect_right
from importlib.metadata import version
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

from clr import plot
from clr.comparison.result import Comparison
from clr.comparison.runs import clean
from clr.finder.result import STOPS
from clr.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (5.5, 3.2)  # inches, of which a phone shows three: so that its words can be read there too
_LINE = 0.18  # inches, of a line of the legend
_LETTERS = 36  # of a line of the legend
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
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
    shown, test = comparison, comparison.range_test
    parts = [f"<p>{_text(_words(shown))}</p>"]
    for budget in shown.budgets:
        parts += [f"<h2>{_text(shown.metric)} over {budget} updates</h2>", _figure(_curves(shown, budget))]
    parts += ["<h2>Results</h2>", _table(shown.cells()), "<h2>Differences, seed by seed</h2>"]
    parts += [f"<p>The final {_text(shown.metric)} of the first schedule less that of the second.</p>"]
    parts += [_table(shown.cells("differences")), "<h2>Schedules</h2>"]
    parts += [_figure(ax) for budget in shown.budgets if (ax := _rates(shown, budget)) is not None]
    listed = [f"{name}, {steps} updates: {text}" for (name, steps), text in shown.descriptions.items()]
    parts += [_details("As data", "\n".join(listed))]
    if test is not None:
        empty = f"<p>{_text(STOPS[test.stop].capitalize())}, before there was a loss.</p>"
        drawn = _figure(test.plot(plot.new_axes(_SIZE))) if test.losses or test.metrics else empty
        parts += ["<h2>The LR range test</h2>", drawn]
    if lost := [run for run in shown.runs if run.state != "finished"]:
        parts += ["<h2>Runs that diverged or failed</h2>"]
        head = "{0.schedule}, {0.total_steps} updates, seed {0.seed}: {0.state}"
        parts += [_details(head.format(run), str(run.error)) for run in lost]
    settings = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in _settings(shown).items()]
    parts += ["<h2>Settings</h2>", "<pre>" + _text("\n".join(settings)) + "</pre>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Schedules compared</title><style>{_STYLE}</style></head><body>\n<h1>Schedules compared</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def curves(comparison: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draws the longest trainings: see `Comparison.plot`."""
    return _curves(comparison, comparison.budgets[-1], ax)


def _text(value: str) -> str:
    return html.escape(clean(value, "\n\t"))


def _details(summary: str, text: str) -> str:
    return f"<details><summary>{_text(summary)}</summary><pre>{_text(text)}</pre></details>"


def _table(cells: list[list[str]]) -> str:
    head, *body = (f"<tr><td>{'</td><td>'.join(map(_text, row))}</td></tr>" for row in cells)
    head = head.replace("td>", "th>")
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>'


def _words(comparison: Comparison) -> str:
    words = (
        f"{comparison.describe().splitlines()[0]} "
        "Numbers are means over the seeds, and in parentheses 95% bootstrap intervals. "
        "Curves are medians over the runs that have finished, and their bands reach from the lowest to the highest of "
        "them; between its records a run is taken to stay as it was."
    )
    if comparison.target is not None:
        words += f" Iterations are the median over the seeds of the updates until it is {comparison.target:.4g}"
        if comparison.reference and comparison.reference[1] == comparison.target:
            words += f", which the best constant schedule, {comparison.reference[0]}, has at the end"
        words += "; the ratio is that to the largest budget."
    return words


def _curves(comparison: Comparison, budget: int, ax: "Axes | None" = None) -> "Axes":
    """The median over the runs that have finished, or over all if none has, with all of them as a band."""
    ax = plot.new_axes(_SIZE) if ax is None else ax
    for number, name in enumerate(comparison.schedules):
        runs = comparison.runs_of(name, budget)
        whole = [run for run in runs if run.state == "finished"]
        found = ([point for point in comparison.curve(run) if math.isfinite(point[1])] for run in whole or runs)
        curves = [sorted(curve, key=itemgetter(0)) for curve in found if curve]
        if not curves:
            continue
        # From where all have begun; a run that was lost is known until then alone.
        end = (max if whole else min)(curve[-1][0] for curve in curves)
        begin = max(curve[0][0] for curve in curves)
        steps = sorted({step for curve in curves for step, _ in curve if begin <= step <= end})
        # The last record of each at a step or before it.
        values = [[curve[bisect_right(curve, (step, math.inf)) - 1][1] for curve in curves] for step in steps]
        label = name + (f" ({len(whole)} of {len(runs)} runs)" if len(whole) < len(runs) else "")
        style, marker = _style(number), "o" if len(steps) == 1 else None
        ax.plot(steps, [median(near) for near in values], label=_plain(label), marker=marker, **style)
        low, high = [min(near) for near in values], [max(near) for near in values]
        ax.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)
    if comparison.target is not None:
        ax.axhline(comparison.target, color="0.4", linewidth=1, linestyle=":")
    return _finished(ax, _plain(comparison.metric))


def _rates(comparison: Comparison, budget: int) -> "Axes | None":
    """The rates of those schedules that are known as such."""
    known = {name: comparison.schedule(name, budget) for name in comparison.schedules}
    if not any(known.values()):
        return None
    ax = plot.new_axes(_SIZE)
    shown = range(0, budget, max(1, budget // 1000))
    for number, (name, schedule) in enumerate(known.items()):
        if schedule is not None:
            ax.plot(list(shown), [schedule(step) for step in shown], label=_plain(name), **_style(number))
    return _finished(ax, "learning rate")


def _style(number: int) -> dict[str, Any]:
    """How a schedule is drawn, told by its number."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def _plain(text: str) -> str:
    """A text in which matplotlib reads no formula, nor a label that is to be left out; a long one in several lines."""
    text = "\n".join(textwrap.wrap(clean(text), _LETTERS)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _finished(ax: "Axes", quantity: str) -> "Axes":
    """A picture with the names of its axes, and a legend that has its room."""
    plot.label(ax, quantity)
    ax.set_xlabel("update")
    if labels := ax.get_legend_handles_labels()[1]:
        lines = math.ceil(len(labels) / 2) * max(label.count("\n") + 1 for label in labels)
        figure: Any = ax.figure
        figure.set_size_inches(_SIZE[0], _SIZE[1] + _LINE * max(0, lines - 4))
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")
    return ax


def _figure(ax: "Axes") -> str:
    """A picture as part of the page."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it; the tables have it
        plot.save(ax, out, "svg")
    drawing = out.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    return f"<figure>{drawing}</figure>"


def _settings(comparison: Comparison) -> dict[str, object]:
    return {
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
