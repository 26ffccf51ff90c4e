"""The study: what to train, the file of results, and the tables and pictures of the page."""

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, variance
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from rich.progress import Progress

import clr
import clr.finder.curve
import clr.plot
from benchmarks import packed, tables
from benchmarks.bounds import rules, training
from benchmarks.bounds.more import FIRST, MORE
from benchmarks.bounds.smoothers import SMOOTHERS
from benchmarks.bounds.tasks import TASKS
from benchmarks.medians import Number

SEEDS = 3  # more can be added later
RATIOS = (10, 3, 100)  # of the upper to the lower bound, in the grid
RESULTS = Path(__file__).with_name("results.jsonl")
CLOSE = 1.0  # points from the best of the grid
FARTHEST = 20.0  # points behind it, in the picture: the darkest
BINS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)  # of confidence
WIDTH = 180  # characters of a table
UNTESTED = (rules.TEXTBOOK, rules.CONSTANT, *training.FREE)  # which have no test of their own
TESTED = tuple(kind for kind in dict.fromkeys((*rules.KINDS, *rules.LENGTHS)) if kind not in UNTESTED)

Key = tuple[Any, ...]
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Are the bounds good?")
ResultsOption = Annotated[Path, typer.Option(help="The file with a line for each result.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Trainings of each kind.")]
MarkdownOption = Annotated[bool, typer.Option(help="A table for a page.")]


class Results:
    """The results by their keys, in a file with a line for each. A new file starts with the packed results."""

    def __init__(self, path: Path) -> None:
        packed.unpack(path)
        self._path = path
        self._lines: dict[Key, Any] = {}
        self.constants: dict[str, float] = {}  # see `best_constant`
        text = path.read_text() if path.exists() else ""
        whole, _, rest = text.rpartition("\n")
        for line in whole.splitlines():
            *key, value = json.loads(line)
            self._lines[tuple(key)] = value
        if rest:  # a line that was cut off
            path.write_text(whole + "\n" if whole else "")

    def add(self, key: Key, value: object) -> None:
        """Adds a result, and writes it to the file."""
        self._lines[key] = value
        with self._path.open("a") as file:
            file.write(json.dumps([*key, value]) + "\n")

    def get(self, key: Key) -> Any:
        """The result of a key, or None."""
        return self._lines.get(key)


def cells(tasks: Iterable[str] | None = None) -> list[tuple[str, str]]:
    """The tasks, by default all, each with both optimizers."""
    names = (*TASKS, *MORE) if tasks is None else tasks
    return [(task, optimizer) for task in names for optimizer in training.OPTIMIZERS]


def complete(results: Results, seeds: int) -> list[str]:
    """The tasks of which every planned result is there. The tables are of these."""
    missing = {key[2] if key[0] in ("test", "free") else key[1] for key in planned(seeds) if results.get(key) is None}
    return [task for task in (*TASKS, *MORE) if task not in missing]


def ratios(task: str) -> tuple[int, ...]:
    """The ratios of the upper to the lower bound in the grid of a task."""
    return RATIOS[:1] if task in MORE else RATIOS


def grid(optimizer: str, ratio: float, task: str = "") -> Iterator[tuple[float, float]]:
    """Bounds on a grid of half decades."""
    first = FIRST.get((task, optimizer), 1e-3 if optimizer == "sgd" else 1e-4)
    for half in range(8):
        max_lr = first * 10 ** (half / 2)
        yield max_lr / ratio, max_lr


def planned(seeds: int) -> Iterator[Key]:
    """The keys of tests and of trainings on the grid, the most important first."""
    for kind in TESTED:
        for seed in range(seeds):
            for task, optimizer in cells(None if kind in rules.KINDS else TASKS):
                yield ("test", kind, task, optimizer, seed)
    for seed in range(seeds):
        for task, optimizer in cells():
            for ratio in ratios(task):
                for base_lr, max_lr in grid(optimizer, ratio, task):
                    yield ("training", task, optimizer, seed, base_lr, max_lr)
    for kind in training.FREE:
        for seed in range(seeds):
            for task, optimizer in cells():
                yield ("free", kind, task, optimizer, seed)


def bounds(results: Results, kind: str, task: str, optimizer: str, seed: int) -> tuple[float, float] | str:
    """The bounds that a rule has found, or why it has found none."""
    if kind == rules.TEXTBOOK:
        return _at(optimizer, rules.TEXTBOOK_RATES[optimizer])
    if kind == rules.CONSTANT:
        return _at(optimizer, best_constant(results, optimizer))
    found = results.get(("test", kind, task, optimizer, seed))
    if isinstance(found, str):
        return found
    if kind in rules.PEERS:
        return found / 10, found
    try:
        kept: Any = clr.from_dict(found)
        base_lr, max_lr = kept.bounds()
    except clr.NoBoundsError as refusal:
        return str(refusal)
    return base_lr, max_lr


def _at(optimizer: str, rate: float) -> tuple[float, float]:
    """The bounds of the grid whose upper one is nearest to a rate."""
    return min(grid(optimizer, RATIOS[0]), key=lambda pair: abs(math.log(pair[1] / rate)))


def best_constant(results: Results, optimizer: str) -> float:
    """The one upper bound of the grid that is within a point of the best on most tasks: known only after the fact."""
    if optimizer not in results.constants:
        rows = summary(results, SEEDS, (), complete(results, SEEDS))
        rows = [row for row in rows if row["optimizer"] == optimizer and "metric" in row]
        near = {
            pair: sum(row["grid"].get(pair, -math.inf) >= row["metric"] - CLOSE for row in rows)
            for pair in grid(optimizer, RATIOS[0])
        }
        results.constants[optimizer] = max(near, key=near.__getitem__)[1]
    return results.constants[optimizer]


def followed(results: Results, seeds: int) -> Iterator[Key]:
    """The keys of the trainings between the bounds that were found."""
    for kind in (*TESTED, rules.TEXTBOOK, rules.CONSTANT):
        for seed in range(seeds):
            for task, optimizer in cells(None if kind in rules.KINDS else TASKS):
                found = bounds(results, kind, task, optimizer, seed)
                if not isinstance(found, str):
                    yield ("training", task, optimizer, seed, *found)


def work(key: Key) -> Any:
    """The result of a key."""
    torch.set_num_threads(1)
    if key[0] == "training":
        return training.train(*key[1:])
    if key[0] == "free":
        return training.train_free(*key[1:])
    _, kind, *rest = key
    if kind in rules.LENGTHS:
        return json.loads(rules.range_test(*rest, **rules.LENGTHS[kind]))
    if kind == rules.SEARCH:
        return json.loads(rules.searched(*rest))
    if kind == rules.EVALUATED:
        return json.loads(rules.evaluated(*rest))
    try:
        return rules.suggestion(kind, *rest)
    except Exception as error:  # whatever a peer may raise is its answer
        return f"{type(error).__name__}: {error}"


@app.command()
def run(results: ResultsOption = RESULTS, seeds: SeedsOption = SEEDS) -> None:
    """Train what has not been trained yet. Ctrl-C ends it, and the next run goes on."""
    kept = Results(results)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool, Progress() as progress:
        try:
            for name, keys in (("grid", planned(seeds)), ("bounds", followed(kept, seeds))):
                _complete(kept, dict.fromkeys(key for key in keys if kept.get(key) is None), name, pool, progress)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)


def _complete(kept: Results, keys: Iterable[Key], name: str, pool: ProcessPoolExecutor, progress: Progress) -> None:
    futures = {pool.submit(work, key): key for key in keys}
    bar = progress.add_task(name, total=len(futures))
    for future in as_completed(futures):
        kept.add(futures[future], future.result())
        progress.update(bar, advance=1)


def summary(
    results: Results, seeds: int, kinds: Collection[str] = rules.KINDS, tasks: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """A row for each task and optimizer: the best of the grid, and the outcome of each rule."""
    rows = []
    for task, optimizer in cells(tasks):
        candidates: dict[tuple[float, float], float] = {}
        for ratio in ratios(task):
            for pair in grid(optimizer, ratio, task):
                outcomes = [results.get(("training", task, optimizer, seed, *pair)) for seed in range(seeds)]
                known = [outcome for outcome in outcomes if outcome is not None]
                if known and not any(diverged or metric is None for metric, diverged in known):
                    candidates[pair] = mean(metric for metric, _ in known)
        row: dict[str, Any] = {"task": task, "optimizer": optimizer, "tuning": training.EVERY[task].tuning, "rules": {}}
        row["grid"] = candidates
        if candidates:
            row["best"] = max(candidates, key=candidates.__getitem__)
            row["metric"] = candidates[row["best"]]
            row["noise"] = _noise(results, row, seeds)
        for kind in kinds:
            row["rules"][kind] = _outcome(results, kind, task, optimizer, seeds)
        rows.append(row)
    return rows


def _noise(results: Results, row: dict[str, Any], seeds: int) -> float:
    """The noise of the seeds: the standard error of how far the best of the grid is ahead of the rates beside it."""
    low, high = row["best"]
    rates = [pair for pair in row["grid"] if math.isclose(pair[1] / pair[0], high / low)]
    at, spreads = rates.index(row["best"]), []
    best = _metrics(results, row, seeds, row["best"])
    for near in rates[max(at - 1, 0) : at] + rates[at + 1 : at + 2]:
        gaps = [own - other for own, other in zip(best, _metrics(results, row, seeds, near), strict=True)]
        if len(gaps) > 1:
            spreads.append(variance(gaps))
    return math.sqrt(mean(spreads) / seeds) if spreads else 0.0


def _metrics(results: Results, row: dict[str, Any], seeds: int, pair: tuple[float, float]) -> list[float]:
    """The metric of each seed between two bounds of the grid, of those that are known."""
    outcomes = [results.get(("training", row["task"], row["optimizer"], seed, *pair)) for seed in range(seeds)]
    return [metric for metric, _ in (outcome for outcome in outcomes if outcome is not None)]


def tolerance(row: dict[str, Any]) -> float:
    """How many points behind the best still count as near: one, or the noise of the seeds where that is more."""
    return max(CLOSE, float(row.get("noise", 0.0)))


def _outcome(results: Results, kind: str, task: str, optimizer: str, seeds: int) -> dict[str, Any]:
    metrics, failed, diverged, pairs = [], [], 0, []
    for seed in range(seeds):
        if kind in training.FREE:
            outcome = results.get(("free", kind, task, optimizer, seed))
        elif kind in TESTED and results.get(("test", kind, task, optimizer, seed)) is None:
            continue
        else:
            found = bounds(results, kind, task, optimizer, seed)
            if isinstance(found, str):
                failed.append(found)
                continue
            pairs.append(found)
            outcome = results.get(("training", task, optimizer, seed, *found))
        if outcome is not None:
            metric, burst = outcome
            diverged += burst
            metrics.append(0.0 if metric is None else metric)
    return {"metric": mean(metrics) if metrics else None, "failed": failed, "diverged": diverged, "bounds": pairs}


@app.command()
def pack(results: ResultsOption = RESULTS) -> None:
    """Keep the results in one small file, from which `run` and `report` go on elsewhere."""
    print(packed.pack(results))


@app.command()
def report(
    results: ResultsOption = RESULTS,
    seeds: SeedsOption = SEEDS,
    markdown: MarkdownOption = False,
) -> None:
    """Print how far each rule stays behind the best of the grid."""
    kept = Results(results)
    rows = summary(kept, seeds, tasks=complete(kept, seeds))
    kinds = rules.KINDS
    table = [["task", "optimizer", "", "grid's best", "of", "noise", *kinds]]
    for row in rows:
        best = row.get("metric")
        pair = "-" if best is None else "{:.1e} to {:.1e}".format(*row["best"])
        cell = [row["task"], row["optimizer"], "tuning" if row["tuning"] else "held out"]
        table.append([*cell, "-" if best is None else f"{best:.1f}", pair, f"{row.get('noise', 0.0):.1f}"])
        table[-1] += [_said(row, kind) for kind in kinds]
    for half in ("tuning", "held out", "all"):
        own = [row for row in rows if half == "all" or row["tuning"] == (half == "tuning")]
        table.append([f"within {CLOSE:g} point", "", half, "", "", "", *(_close(own, kind) for kind in kinds)])
        table.append(["diverged or failed", "", half, "", "", "", *(_lost(own, kind) for kind in kinds)])
        gaps = (str(_gap(own, kind)) for kind in kinds)
        table.append(["median (95% interval)", "", half, "", "", "", *gaps])
    table.append(["updates, median", "", "all", "", "", "", *(_cost(kept, rows, seeds, kind) for kind in kinds)])
    title = "Final metric under each rule's bounds, less that of the best pair of the grid"
    tables.show(table[0], table[1:], title, markdown, WIDTH)


def sure(results: Results, kind: str, seeds: int) -> list[tuple[float, bool]]:
    """The confidence of each answer of a rule of ours, and whether its training is near the best of the same seed."""
    found = []
    for row in _known(summary(results, seeds, (), complete(results, seeds))):
        for seed in range(seeds):
            kept: Any = clr.from_dict(results.get(("test", kind, row["task"], row["optimizer"], seed)))
            try:
                own = kept.bounds()
            except clr.NoBoundsError:
                continue
            metric, diverged = results.get(("training", row["task"], row["optimizer"], seed, *own))
            best = _metrics(results, row, seeds, row["best"])[seed]
            near = max(CLOSE, row["noise"] * math.sqrt(seeds))  # the noise of a single seed
            found.append((own.confidence, metric is not None and not diverged and metric >= best - near))
    return found


@app.command()
def reliability(
    results: ResultsOption = RESULTS,
    seeds: SeedsOption = SEEDS,
    markdown: MarkdownOption = False,
) -> None:
    """Print how often bounds were near the best, by the confidence that was said."""
    kept = Results(results)
    table = []
    for kind in (rules.OURS, rules.SEARCH):
        for low, high, own in _bins(sure(kept, kind, seeds)):
            said, near = mean(said for said, _ in own), mean(near for _, near in own)
            table.append([kind, f"{low:g} to {high:g}", f"{len(own)}", f"{said:.2f}", f"{near:.2f}"])
    headings = ("rule", "confidence", "answers", "its mean", "share near the best")
    tables.show(headings, table, "How often the bounds are near the best", markdown, WIDTH)


def _bins(found: list[tuple[float, bool]]) -> Iterator[tuple[float, float, list[tuple[float, bool]]]]:
    for low, high in pairwise(BINS):
        own = [(said, near) for said, near in found if low <= said < high]
        if own:
            yield low, high, own


@app.command()
def lengths(
    results: ResultsOption = RESULTS,
    seeds: SeedsOption = SEEDS,
    markdown: MarkdownOption = False,
) -> None:
    """Print how good our bounds are after shorter and longer tests."""
    kept = Results(results)
    rows = summary(kept, seeds, rules.LENGTHS, TASKS)
    halves = [[row for row in rows if row["tuning"] == half] for half in (True, False)]
    table = []
    for kind in rules.LENGTHS:
        keys = [("test", kind, *cell, seed) for cell in cells(TASKS) for seed in range(seeds)]
        tests = [clr.RangeTest.from_dict(found) for found in map(kept.get, keys) if found is not None]
        updates = [test.updates for test in tests]
        table.append(
            [
                kind,
                f"{median(updates):.0f}" if updates else "-",
                _lost(rows, kind),
                *(_close(own, kind) for own in (*halves, rows)),
                str(_gap(rows, kind)),
            ]
        )
    headings = ["test", "updates", "diverged or failed", f"within {CLOSE:g} point, tuning", "held out", "all"]
    title = "Our bounds after tests of other lengths"
    tables.show([*headings, "median (95% interval)"], table, title, markdown, WIDTH)


@app.command()
def draw(
    results: ResultsOption = RESULTS,
    seeds: SeedsOption = SEEDS,
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("docs/figures"),
) -> None:
    """Draw how far each rule stays behind, and our range tests with the bounds that they have found."""
    kept = Results(results)
    for path, ax in (
        (folder / "bounds_reliability.png", _drawn_reliability(kept, seeds)),
        (folder / "bounds.png", _drawn_gaps(summary(kept, seeds, tasks=complete(kept, seeds)))),
        (folder / "bounds_curves.png", _drawn_curves(kept)),
    ):
        clr.plot.save(ax, path)
        print(path)


@app.command()
def smoothers(
    results: ResultsOption = RESULTS,
    seeds: SeedsOption = SEEDS,
    markdown: MarkdownOption = False,
) -> None:
    """Print what our rule would find on curves that were smoothed in other ways, as the grid has measured it."""
    kept = Results(results)
    pairs = summary(kept, seeds, (), TASKS)
    headings = ("smoother", "refused", f"within {CLOSE:g} point, tuning", "held out", "median (95% interval)")
    table = []
    for name, smoother in SMOOTHERS.items():
        with patch.object(clr.finder.curve, "smooth", smoother):
            found = [[_on_grid(kept, row, seed, seeds) for seed in range(seeds)] for row in pairs]
        gaps = [mean(own) for own in found]
        refused = sum(own.count(-math.inf) for own in found)
        near = {
            half: [gap >= -CLOSE for gap, row in zip(gaps, pairs, strict=True) if row["tuning"] == half]
            for half in (True, False)
        }
        halves = (f"{sum(near[half])} of {len(near[half])}" for half in (True, False))
        number = Number.of((row["task"], gap) for gap, row in zip(gaps, pairs, strict=True))
        table.append([name, str(refused), *halves, str(number)])
    tables.show(headings, table, "Our rule with other smoothers, between the points of the grid", markdown, WIDTH)


def _on_grid(results: Results, row: dict[str, Any], seed: int, seeds: int) -> float:
    """How far our bounds of a test are behind the best of the grid, between whose points the metric is a line."""
    found = bounds(results, rules.OURS, row["task"], row["optimizer"], seed)
    if isinstance(found, str):
        return -math.inf
    rates, metrics = [], []
    for pair in grid(row["optimizer"], RATIOS[0]):
        outcomes = [results.get(("training", row["task"], row["optimizer"], at, *pair)) for at in range(seeds)]
        rates.append(math.log(pair[1]))
        metrics.append(mean(0.0 if metric is None or diverged else metric for metric, diverged in outcomes))
    return float(np.interp(math.log(found[1]), rates, metrics)) - float(row["metric"])


def _drawn_gaps(rows: list[dict[str, Any]]) -> Any:
    """A table of the rules' metrics, less that of the best of the grid: the darker, the farther behind."""
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    rows = _known(rows)
    gaps = np.array([[_behind(row, kind) for kind in rules.KINDS] for row in rows])
    _, ax = pyplot.subplots(figsize=(9, 0.24 * len(rows) + 1.2), layout="constrained")
    ax.imshow(np.sqrt(np.clip(-gaps, 0, FARTHEST)), cmap="cividis_r", aspect="auto", vmin=0, vmax=math.sqrt(FARTHEST))
    for at, row in enumerate(rows):
        for number, kind in enumerate(rules.KINDS):
            gap, lost = gaps[at, number], _runs_lost(row, kind)
            text = "lost" if lost else f"{gap:+.1f}"
            dark = lost or gap < -FARTHEST / 4
            weight = "bold" if not lost and gap >= -tolerance(row) else "normal"
            ax.text(number, at, text, ha="center", va="center", fontsize=7, color="w" if dark else "k", weight=weight)
            if lost:
                ax.add_patch(Rectangle((number - 0.5, at - 0.5), 1, 1, color="0.25", zorder=1))
    ax.set_xticks(range(len(rules.KINDS)), rules.KINDS, rotation=30, ha="left", fontsize="small")
    ax.set_yticks(range(len(rows)), [f"{row['task']}, {row['optimizer']}" for row in rows], fontsize="small")
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    ax.spines[:].set_visible(False)
    return ax


def _drawn_reliability(results: Results, seeds: int) -> Any:
    """How often the bounds were near the best over what was said; bars are standard errors."""
    from matplotlib import pyplot

    _, ax = pyplot.subplots(figsize=(5, 4.5), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, kind in enumerate((rules.OURS, rules.SEARCH)):
        bins = [own for _, _, own in _bins(sure(results, kind, seeds))]
        said = [mean(confidence for confidence, _ in own) for own in bins]
        near = [mean(near for _, near in own) for own in bins]
        error = [math.sqrt(part * (1 - part) / len(own)) for part, own in zip(near, bins, strict=True)]
        ax.errorbar(said, near, error, fmt="o-", color=f"C{number}", capsize=3, label=kind)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share of answers near the best")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def _drawn_curves(results: Results) -> Any:
    """The first range test of each pair."""
    from matplotlib import pyplot

    pairs = cells(TASKS)
    _, axes = pyplot.subplots(5, len(pairs) // 5, figsize=(12, 13), layout="constrained")
    for ax, (task, optimizer) in zip(axes.flat, pairs, strict=True):
        test = clr.RangeTest.from_dict(results.get(("test", rules.OURS, task, optimizer, 0)))
        test.plot(ax)
        try:
            said = "{:.2g} to {:.2g}".format(*test.bounds())
        except clr.NoBoundsError as refusal:
            said = f"refused: {refusal.kind}"
        ax.set_title(f"{task}, {optimizer}: {said}", fontsize="small")
        ax.set(xlabel="", ylabel="")
        if (legend := ax.get_legend()) is not None:
            legend.remove()
    return axes.flat[0]


def _said(row: dict[str, Any], kind: str) -> str:
    outcome, lost = row["rules"][kind], _runs_lost(row, kind)
    if outcome["metric"] is None or "metric" not in row:
        return "failed" if outcome["failed"] else "-"
    return f"{_behind(row, kind):+.1f}" + (f" ({lost} lost)" if lost else "")


def _gap(rows: list[dict[str, Any]], kind: str) -> Number:
    """The median of how far a rule is above the best of the grid, where the grid has one."""
    return Number.of((row["task"], _behind(row, kind)) for row in rows if "metric" in row)


def _cost(results: Results, rows: list[dict[str, Any]], seeds: int, kind: str) -> str:
    """The median of the updates that a rule takes before the training."""
    if kind in UNTESTED:
        return "0"
    if kind in rules.PEERS:
        return f"{rules.UPDATES[kind]}"
    keys = [("test", kind, row["task"], row["optimizer"], seed) for row in _known(rows) for seed in range(seeds)]
    tests: list[Any] = [clr.from_dict(found) for found in map(results.get, keys) if found is not None]
    updates = [test.updates for test in tests]
    return f"{median(updates):.0f}" if updates else "-"


def _behind(row: dict[str, Any], kind: str) -> float:
    metric: float | None = row["rules"][kind]["metric"]
    return -math.inf if metric is None else metric - float(row["metric"])


def _close(rows: list[dict[str, Any]], kind: str) -> str:
    near = 0
    known = _known(rows)
    for row in known:
        outcome = row["rules"][kind]
        whole = not _runs_lost(row, kind) and outcome["metric"] is not None
        near += whole and outcome["metric"] >= row["metric"] - tolerance(row)
    return f"{near} of {len(known)}"


def _lost(rows: list[dict[str, Any]], kind: str) -> str:
    return str(sum(_runs_lost(row, kind) for row in _known(rows)))


def _known(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs that some rate of the grid trains. Where none does, no rule can be right or wrong."""
    return [row for row in rows if "metric" in row]


def _runs_lost(row: dict[str, Any], kind: str) -> int:
    return len(row["rules"][kind]["failed"]) + int(row["rules"][kind]["diverged"])
