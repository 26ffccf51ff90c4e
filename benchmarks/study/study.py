"""The study: what is compared on each task, and what it comes to over the tasks."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

import clr
import clr.plot
from benchmarks import packed
from benchmarks.bounds.tasks import LARGE
from benchmarks.bounds.training import OPTIMIZERS
from benchmarks.study.training import Peer, Training, range_test
from clr.comparison.result import Interval, interval

RESULTS = Path(__file__).with_name("results")
SHARES = (4, 2, 1)  # of the largest budget: a quarter, a half, all
GRID = tuple(10 ** (half / 2) for half in range(-7, 0))  # of SGD's fixed rates; a tenth of that for AdamW
FREE = {"sgd": (3, 10, 30), "adamw": (0.3, 1, 3)}  # times the upper bound, for schedule-free
OFF = {"3 x": 3, "1/3": 1 / 3}  # by what bounds are wrong, to see how much it matters
OURS = ("triangular", "triangular2", "exp_range", "one_cycle")
PEERS = ("OneCycleLR", "cosine", "best schedule-free")
FIXED, BEST_FREE = "best fixed", "best schedule-free"  # named after the fact


class Plan(NamedTuple):
    """How long a task is trained: updates of the largest budget and from one evaluation to the next, and seeds."""

    full: int
    every: int
    seeds: int


PLANS = {
    "breast_cancer": Plan(3200, 80, 10),
    "diabetes": Plan(3200, 80, 10),
    "digits_mlp": Plan(4800, 120, 10),
    "mnist1d_mlp": Plan(4800, 120, 10),
    "digits_cnn": Plan(1920, 48, 10),
    "mnist1d_cnn": Plan(2400, 60, 5),
    "mnist1d_gru": Plan(2400, 60, 5),
    "chars": Plan(960, 48, 3),
    LARGE.name: Plan(3000, 150, 2),
}

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Does it train better?")
FolderOption = Annotated[Path, typer.Option(help="The folder with a file of runs for each task and optimizer.")]
TaskOption = Annotated[list[str] | None, typer.Option(help="A task, by default all.")]


def fixed_rates(optimizer: str) -> dict[str, clr.Schedule]:
    """The fixed rates, from low to high."""
    scale = 1.0 if optimizer == "sgd" else 0.1
    return {f"fixed {rate * scale:.1e}": clr.constant(rate * scale) for rate in GRID}


def free_rates(optimizer: str, max_lr: float) -> dict[str, Peer]:
    """Schedule-free at its rates. It knows no budget."""
    return {f"schedule-free, {factor:g} x": Peer("schedule-free", factor * max_lr, 0) for factor in FREE[optimizer]}


def schedules(base_lr: float, max_lr: float) -> dict[str, Callable[[int], Any]]:
    """What depends on the budget, at the bounds that the range test has found; that of the cycles is of four."""
    peers = {kind: _peer(kind, max_lr) for kind in ("step decay", "exponential", "cosine", "OneCycleLR")}
    return peers | {
        "warm_restarts": lambda steps: clr.warm_restarts(max_lr, steps / 7, cycle_mult=2),
        "triangular": lambda steps: clr.triangular(base_lr, max_lr, steps / 8),
        "triangular2": lambda steps: clr.triangular2(base_lr, max_lr, steps / 8),
        "exp_range": lambda steps: clr.exp_range(base_lr, max_lr, steps / 8, gamma=0.1 ** (1 / steps)),
        "one_cycle": lambda steps: clr.one_cycle(max_lr, steps, div_factor=max_lr / base_lr),
    }


def _peer(kind: str, lr: float) -> Callable[[int], Peer]:
    return lambda steps: Peer(kind, lr, steps)


def off_schedules(base_lr: float, max_lr: float) -> dict[str, Callable[[int], Any]]:
    """The same with bounds that are wrong by a factor."""
    return {
        f"{name}, {how}": schedules(base_lr * factor, max_lr * factor)[name]
        for how, factor in OFF.items()
        for name in ("triangular", "one_cycle")
    }


@app.command()
def run(
    results: FolderOption = RESULTS,
    task: TaskOption = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="sgd or adamw, by default both.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="At most so many per task.")] = None,
    fixed_only: Annotated[bool, typer.Option(help="Train at the fixed rates alone.")] = False,
) -> None:
    """Train what has not been trained yet. Ctrl-C ends it, and the next run goes on."""
    packed.unpack(results)
    results.mkdir(parents=True, exist_ok=True)
    for name in task or PLANS:
        plan = PLANS[name]
        for kind in optimizer or OPTIMIZERS:
            file = results / f"{name}_{kind}"
            train = Training(name, kind, plan.every)
            options: dict[str, Any] = {
                "seeds": min(plan.seeds, seeds or plan.seeds),
                "metric": "metric",
                "goal": "max",
                "file": file.with_suffix(".sqlite"),
            }
            # What does not know its budget is the same at each until it ends.
            clr.compare(train, fixed_rates(kind), steps=plan.full, **options)
            if not fixed_only:
                test = _tested(file.with_suffix(".json"), name, kind)
                base_lr, max_lr = test.bounds()
                clr.compare(train, free_rates(kind, max_lr), steps=plan.full, **options)
                clr.compare(train, off_schedules(base_lr, max_lr), steps=plan.full // 2, **options)
                named = schedules(base_lr, max_lr)
                options |= {"before": dict.fromkeys(named, len(test.rates)), "range_test": test}
                clr.compare(train, named, steps=[plan.full // share for share in SHARES], **options)
            print(f"{name}, {kind}: done")


def _tested(file: Path, name: str, kind: str) -> clr.RangeTest:
    """The range test of a task, which is made once."""
    if not file.exists():
        file.write_text(range_test(name, kind).to_json())
    return clr.RangeTest.from_json(file.read_text())


@dataclass(frozen=True)
class Pair:
    """A task and an optimizer, and what has come of every schedule there."""

    name: str
    comparison: clr.Comparison

    @cached_property
    def full(self) -> int:
        """The largest budget."""
        return self.comparison.budgets[-1]

    @property
    def names(self) -> list[str]:
        """The schedules, with the best of those that know no budget in place of each."""
        single = ("fixed", "schedule-free")
        return [FIXED, BEST_FREE, *(own for own in self.comparison.schedules if not own.startswith(single))]

    @cached_property
    def target(self) -> float:
        """The mean final metric of the best fixed rate at the largest budget."""
        return self.final(FIXED, 1)

    def final(self, name: str, share: int) -> float:
        """The mean over the seeds of the metric at the end of a part of the largest budget; NaN if a run was lost."""
        if name in (FIXED, BEST_FREE):
            return max((self.final(own, share) for own in self._candidates(name)), key=_worst_first)
        values = self._values(name, share)
        return fmean(values) if values else math.nan

    def lost(self, name: str, share: int) -> int:
        """How many runs have diverged."""
        own = self.chosen(name, share)
        return sum(map(math.isnan, self._values(own, share)))

    def chosen(self, name: str, share: int) -> str:
        """The schedule that a name stands for at a part of the budget."""
        if name not in (FIXED, BEST_FREE):
            return name
        return max(self._candidates(name), key=lambda own: _worst_first(self.final(own, share)))

    def iterations(self, name: str, with_test: bool = True) -> float:
        """The share of the largest budget after which the median run is at the target; by the best of the budgets."""
        counts = []
        for share in SHARES:
            own = self.chosen(name, 1)
            found = [self._reached(run, with_test) for run in self._runs(own, share)]
            if found:
                counts.append(median(found) / self.full)
        return min(counts, default=math.inf)

    def holds(self, name: str, share: int) -> bool:
        """Whether the mean at the end of a part of the largest budget is at the target."""
        return self.final(name, share) >= self.target

    def _candidates(self, name: str) -> list[str]:
        start = "fixed" if name == FIXED else "schedule-free"
        return [own for own in self.comparison.schedules if own.startswith(start)]

    def _runs(self, name: str, share: int) -> list[Any]:
        return [run for run in self.comparison.runs if (run.schedule, run.steps) == (name, self.full // share)]

    def _reached(self, run: Any, with_test: bool) -> float:
        return self.comparison.iterations(run) - (0 if with_test else self.comparison.before.get(run.schedule, 0))

    def _values(self, name: str, share: int) -> list[float]:
        """The metric of each seed at the end of a part of the largest budget."""
        if (name.startswith(("fixed", "schedule-free"))) and share > 1:
            at = self.full // share
            return [
                next((metrics["metric"] for step, metrics in run.records if step == at), math.nan)
                for run in self._runs(name, 1)
            ]
        return [
            run.records[-1][1]["metric"] if run.state == "finished" else math.nan for run in self._runs(name, share)
        ]


def _worst_first(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def load(results: Path) -> list[Pair]:
    """What the folder has of pairs that are complete."""
    pairs = [Pair(file.stem, clr.Comparison.load(file)) for file in sorted(results.glob("*.sqlite"))]
    return [pair for pair in pairs if set(OURS) <= set(pair.comparison.schedules)]


class Number(NamedTuple):
    """A median over the pairs, with its 95% bootstrap interval."""

    value: float
    spread: Interval

    @classmethod
    def of(cls, values: Sequence[float]) -> "Number":
        """That of some values. One that is infinite counts as such."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, None)
        return cls(median(known), interval(known, median))

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "-"
        low, high = (_plain(value) for value in self.spread or (math.nan, math.nan))
        return f"{_plain(self.value)} ({low}, {high})" if self.spread else _plain(self.value)


def _plain(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "never"


Rows = list[list[str]]


def answers(pairs: list[Pair]) -> Iterator[tuple[str, list[str], Rows]]:
    """The tables, each with what it says and its headings."""
    names = _compared(pairs)
    rows = []
    for name in names:
        shares = [pair.iterations(name) for pair in pairs]
        alone = [pair.iterations(name, with_test=False) for pair in pairs]
        third = sum(share <= 1 / 3 for share in shares)
        at = [f"{sum(pair.holds(name, share) for pair in pairs)}" for share in SHARES]
        rows.append([name, str(Number.of(shares)), str(Number.of(alone)), f"{third}", *at])
    yield (
        f"How soon is it as good as the best fixed rate at the end of all updates? ({len(pairs)} pairs)",
        ["schedule", "share of updates", "without the test", "pairs at 1/3", "at the end of 1/4", "1/2", "1"],
        rows,
    )
    rows = []
    for name in names:
        gaps = [_gap(pairs, name, FIXED, share) for share in SHARES]
        lost = sum(pair.lost(name, share) for pair in pairs for share in SHARES)
        rows.append([name, *map(str, gaps), f"{lost}"])
    yield (
        "Which is best at equal budgets? Points above the best fixed rate of the same budget",
        ["schedule", "at 1/4", "at 1/2", "at 1", "runs lost"],
        rows,
    )
    rows = []
    for name in OURS:
        for peer in PEERS:
            gaps = [_gap(pairs, name, peer, share) for share in SHARES]
            rows.append([name, peer, *map(str, gaps)])
    yield "Ours less another, in points", ["schedule", "against", "at 1/4", "at 1/2", "at 1"], rows
    rows = []
    for name in ("triangular", "one_cycle"):
        gaps = [Number.of([pair.final(f"{name}, {how}", 2) - pair.final(name, 2) for pair in pairs]) for how in OFF]
        rows.append([name, *map(str, gaps)])
    rows.append([FIXED, *(str(Number.of([_beside(pair, aside) for pair in pairs])) for aside in (1, -1))])
    yield (
        "What do wrong bounds cost? Points lost at half of the updates (the fixed rate: by a factor of 3.2)",
        ["schedule", "3 times too high", "3 times too low"],
        rows,
    )


def _compared(pairs: list[Pair]) -> list[str]:
    """The schedules with bounds as they were found."""
    return [name for name in pairs[0].names if not name.endswith(tuple(OFF))]


def _gap(pairs: list[Pair], name: str, other: str, share: int) -> Number:
    """By how much the final metric of one is above that of another."""
    return Number.of([pair.final(name, share) - pair.final(other, share) for pair in pairs])


def _beside(pair: Pair, aside: int) -> float:
    """What the neighbour of the best fixed rate is worse by, at half of the updates."""
    grid = [own for own in pair.comparison.schedules if own.startswith("fixed")]
    at = grid.index(pair.chosen(FIXED, 2)) + aside
    return pair.final(grid[at], 2) - pair.final(FIXED, 2) if 0 <= at < len(grid) else math.nan


def details(pairs: list[Pair]) -> tuple[str, list[str], Rows]:
    """The table of the pairs."""
    rows = []
    for pair in pairs:
        task, kind = pair.name.rsplit("_", 1)
        finals = [f"{pair.final(name, share):.1f}" for name in (FIXED, *OURS, *PEERS) for share in (4, 1)]
        rows.append([task, kind, pair.chosen(FIXED, 1).removeprefix("fixed "), *finals])
    headings = [f"{name} {share}" for name in (FIXED, *OURS, *PEERS) for share in ("1/4", "1")]
    return "Mean final metric at a quarter of the updates and at all", ["task", "optimizer", "rate", *headings], rows


@app.command()
def draw(
    results: FolderOption = RESULTS,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("docs/figures/study.png"),
) -> None:
    """Draw how far each schedule is from the best fixed rate of the same budget, and how soon it is as good."""
    from matplotlib import pyplot

    packed.unpack(results)
    pairs = load(results)
    names = _compared(pairs)[::-1]
    _, axes = pyplot.subplots(1, 2, figsize=(9, 4.5), layout="constrained", sharey=True)
    for number, share in enumerate(SHARES):
        for at, name in enumerate(names):
            _bar(axes[0], _gap(pairs, name, FIXED, share), at + (1 - number) * 0.22, f"C{number}")
        axes[0].plot([], [], "o", color=f"C{number}", label=f"1/{share} of the updates" if share > 1 else "all updates")
    for at, name in enumerate(names):
        _bar(axes[1], Number.of([pair.iterations(name) for pair in pairs]), at, "C0")
    axes[0].axvline(0, color="0.6", linewidth=1)
    axes[0].set_xlabel("points above the best fixed rate of the same budget")
    axes[0].legend(fontsize="small")
    axes[1].axvline(1 / 3, color="0.6", linewidth=1, linestyle=":")
    axes[1].set_xlim(0, 1.05)
    axes[1].set_xlabel("share of updates until as good as the best fixed rate at the end")
    axes[0].set_yticks(range(len(names)), names)
    for ax in axes:
        ax.grid(axis="x", alpha=0.3)
    clr.plot.save(axes[0], out)
    print(out)


def _bar(ax: Any, number: Number, height: float, color: str) -> None:
    """A median with its interval; an end that is infinite leaves the picture."""
    low, high = number.spread or (number.value, number.value)
    ax.plot([low, min(high, 1e3)], [height, height], color=color, linewidth=1.5)
    if math.isfinite(number.value):
        ax.plot(number.value, height, "o", color=color, markersize=4)


@app.command()
def pack(results: FolderOption = RESULTS) -> None:
    """Keep the runs in one small file, from which `run` and `report` go on elsewhere."""
    print(packed.pack(results))


@app.command()
def report(
    results: FolderOption = RESULTS,
    pages: Annotated[bool, typer.Option(help="Write a page of HTML for each task and optimizer.")] = False,
    markdown: Annotated[bool, typer.Option(help="Tables for a page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Print the answers over the tasks."""
    packed.unpack(results)
    pairs = load(results)
    if not pairs:
        raise typer.BadParameter(f"{results} has no runs of all schedules: `run` makes them")
    if pages:
        for pair in pairs:
            pair.comparison.report(results / f"{pair.name}.html")
    tables = [*answers(pairs), details(pairs)]
    if as_json:
        print(json.dumps([{"title": title, "rows": [headings, *rows]} for title, headings, rows in tables], indent=1))
        return
    for title, headings, rows in tables:
        if markdown:
            lines = [headings, ["---"] * len(headings), *rows]
            print(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
            continue
        shown = Table(*headings, title=title)
        for row in rows:
            shown.add_row(*row)
        Console(width=200).print(shown)
