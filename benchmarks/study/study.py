"""The study: what is compared on each task, and what it comes to over the tasks."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, NamedTuple

import torch
import typer

import clr
import clr.plot
from benchmarks import packed, tables
from benchmarks.bounds import rules
from benchmarks.bounds.tasks import LARGE
from benchmarks.bounds.training import OPTIMIZERS
from benchmarks.medians import Number, plain
from benchmarks.study.training import Peer, Training

RESULTS = Path(__file__).with_name("results")
RANGE_TEST_SEED = 1000  # none of those that are trained with
SHARES = (4, 2, 1)  # of the largest budget: a quarter, a half, all
GRID = tuple(10 ** (half / 2) for half in range(-8, 1))  # of SGD's fixed rates; a tenth of that for AdamW
FREE = {"sgd": (3, 10, 30), "adamw": (0.3, 1, 3)}  # times the upper bound, for schedule-free
OFF = {"3 x": 3, "1/3": 1 / 3}  # by what bounds are wrong, to see how much it matters
OFF_SEEDS = 3
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
    "wine": Plan(2400, 60, 10),
    "digits_mlp": Plan(4800, 120, 10),
    "mnist1d_mlp": Plan(4800, 120, 10),
    "digits_cnn": Plan(1920, 48, 10),
    "mnist1d_cnn": Plan(2400, 60, 10),
    "mnist1d_gru": Plan(2400, 60, 10),
    "digits_gru": Plan(2400, 60, 10),
    "chars": Plan(960, 48, 10),
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
        "warm_restarts": lambda steps: clr.warm_restarts(max_lr, first_cycle=steps / 7, cycle_mult=2),
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
        f"{name}, {how}": make
        for how, factor in OFF.items()
        for name, make in schedules(base_lr * factor, max_lr * factor).items()
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
                "name": f"{name} {kind}",
                "reuse": True,  # what is kept took days: a training that changes needs another folder of results
            }
            # What does not know its budget is the same at each until it ends.
            clr.compare(train, fixed_rates(kind), total_steps=plan.full, **options)
            if not fixed_only:
                test = _tested(file.with_suffix(".json"), name, kind)
                try:
                    base_lr, max_lr = test.bounds()
                except clr.NoBoundsError as refusal:
                    print(f"{name}, {kind}: {refusal}")
                    continue
                clr.compare(train, free_rates(kind, max_lr), total_steps=plan.full, **options)
                few = options | {"seeds": min(OFF_SEEDS, options["seeds"])}
                clr.compare(train, off_schedules(base_lr, max_lr), total_steps=plan.full // 2, **few)
                named = schedules(base_lr, max_lr)
                options |= {"before": dict.fromkeys(named, len(test.rates)), "range_test": test}
                clr.compare(train, named, total_steps=[plan.full // share for share in SHARES], **options)
            print(f"{name}, {kind}: done")


def _tested(file: Path, name: str, kind: str) -> clr.RangeTest:
    """The range test of a task, which is made once."""
    if not file.exists():
        torch.set_num_threads(1)
        file.write_text(rules.range_test(name, kind, RANGE_TEST_SEED))
    return clr.RangeTest.from_json(file.read_text())


@dataclass(frozen=True)
class Pair:
    """A task and an optimizer, and what has come of every schedule there.

    Attributes:
        task: The task.
        optimizer: The optimizer.
        comparison: The runs, with the same seeds under every schedule, but few of them with wrong bounds; if the range
            test was refused, at fixed rates alone.
        spent: The updates of the range test.
        refused: Whether it has found no bounds. Then whatever needs them counts as lost.
    """

    task: str
    optimizer: str
    comparison: clr.Comparison
    spent: int
    refused: bool = False

    @cached_property
    def full(self) -> int:
        """The largest budget."""
        return self.comparison.budgets[-1]

    @cached_property
    def target(self) -> float:
        """The mean final metric of the best fixed rate at the largest budget."""
        return self.final(FIXED, 1)

    @property
    def best_is_at_edge(self) -> bool:
        """Whether the best fixed rate is the first or the last of the grid."""
        return self.chosen(FIXED, 1) in (self.fixed[0], self.fixed[-1])

    @property
    def fixed(self) -> list[str]:
        """The fixed rates, from low to high."""
        return sorted(self._candidates(FIXED), key=_rate)

    def final(self, name: str, share: int, more: int = 0) -> float:
        """The mean over the seeds of the metric at the end of a part of the largest budget.

        What knows no budget can have some updates more, and then has what it had at its last evaluation by then. Minus
        infinity if a run was lost, or if there are no bounds to run with; NaN if there is none.
        """
        if self.refused and name != FIXED and name not in self.fixed:
            return -math.inf
        values = self._values(self.chosen(name, share, more), share, more)
        if not values:
            return math.nan
        return -math.inf if any(map(math.isnan, values)) else fmean(values)

    def lost(self, name: str, share: int) -> int:
        """How many runs have diverged."""
        return sum(map(math.isnan, self._values(self.chosen(name, share), share)))

    def chosen(self, name: str, share: int, more: int = 0) -> str:
        """The schedule that a name stands for at a part of the budget, or some updates later."""
        if name not in (FIXED, BEST_FREE):
            return name
        return max(self._candidates(name), key=lambda own: self.final(own, share, more), default=name)

    def iterations(self, name: str, with_test: bool = True, shares: tuple[int, ...] = SHARES) -> float:
        """The share of the largest budget after which the median run is first at the target.

        Of several budgets, each a part of the largest one, that counts which is the soonest there.
        """
        spent = 0 if name == FIXED or not with_test else self.spent
        if name in (FIXED, BEST_FREE):
            shares = (1,)  # what knows no budget has one run for all
        counts = []
        for share in shares:
            own = self.chosen(name, 1)
            found = [self.comparison.iterations(run) + spent for run in self._runs(own, share)]
            if found:
                counts.append(median(found) / self.full)
        return min(counts, default=math.inf)

    def off(self, name: str, how: str) -> float:
        """What bounds that are wrong change at half of the updates, with the seeds that were run with both.

        The best fixed rate and the best schedule-free have been run at the rates beside theirs. NaN if there is none.
        """
        if name in (FIXED, BEST_FREE):
            near = sorted(self._candidates(name), key=_rate)
            if not near:
                return math.nan
            at = near.index(self.chosen(name, 2)) + (1 if OFF[how] > 1 else -1)
            return self.final(near[at], 2) - self.final(name, 2) if 0 <= at < len(near) else math.nan
        right = dict(zip(self._seeds(name, 2), self._values(name, 2), strict=True))
        wrong = dict(zip(self._seeds(f"{name}, {how}", 2), self._values(f"{name}, {how}", 2), strict=True))
        gaps = [value - right[seed] for seed, value in wrong.items()]
        return math.nan if not gaps else -math.inf if any(map(math.isnan, gaps)) else fmean(gaps)

    def holds(self, name: str, share: int) -> bool:
        """Whether the mean at the end of a part of the largest budget is at the target."""
        return self.final(name, share) >= self.target

    def _candidates(self, name: str) -> list[str]:
        start = _SINGLE[name == BEST_FREE]
        return [own for own in self.comparison.schedules if own.startswith(start)]

    @cached_property
    def _made(self) -> dict[tuple[str, int], list[Any]]:
        """The runs of each schedule and budget."""
        made: dict[tuple[str, int], list[Any]] = {}
        for run in self.comparison.runs:
            made.setdefault((run.schedule, run.total_steps), []).append(run)
        return made

    def _runs(self, name: str, share: int) -> list[Any]:
        return self._made.get((name, self.full // share), [])

    def _seeds(self, name: str, share: int) -> list[int]:
        return [run.seed for run in self._runs(name, share)]

    def _values(self, name: str, share: int, more: int = 0) -> list[float]:
        """The metric of each seed at the end of a part of the largest budget, NaN where the run was lost."""
        runs = self._runs(name, 1 if name.startswith(_SINGLE) else share)
        return [_last(run, self.full // share + more) for run in runs]


def _last(run: Any, updates: int) -> float:
    """The metric of the last evaluation by then, NaN of a run that did not get so far."""
    by_then = [metrics["metric"] for step, metrics in run.records if step <= updates]
    return by_then[-1] if by_then and run.records[-1][0] >= updates else math.nan


_SINGLE = ("fixed", "schedule-free")  # the same at every budget until it ends
_COMPARED = [FIXED, BEST_FREE, *schedules(1.0, 2.0)]


def load(results: Path) -> list[Pair]:
    """Every pair of which all schedules were run, with the seeds that all of them have."""
    packed.unpack(results)
    pairs = []
    for file in sorted(results.glob("*.sqlite")):
        tested = file.with_suffix(".json")
        if not tested.exists():
            continue
        whole = clr.Comparison.load(file)
        task, kind = file.stem.rsplit("_", 1)
        full = PLANS[task].full
        test = clr.RangeTest.from_json(tested.read_text())
        refused = _refused(test)
        wanted = {(name, full) for name in fixed_rates(kind)}
        if not refused:
            wanted |= {(name, full) for name in free_rates(kind, 1.0)}
            wanted |= {(name, full // share) for name in schedules(1.0, 1.0) for share in SHARES}
        seeds = {key: {run.seed for run in whole.runs if (run.schedule, run.total_steps) == key} for key in wanted}
        common = set.intersection(*seeds.values())
        wanted |= {(name, full // 2) for name in off_schedules(1.0, 1.0)}
        if common:
            runs = [run for run in whole.runs if run.seed in common and (run.schedule, run.total_steps) in wanted]
            own = clr.Comparison.of(runs, whole.descriptions, "metric", "max")
            pairs.append(Pair(task, kind, own, len(test.rates), refused))
    if not pairs:
        raise typer.BadParameter(f"{results} has no task with runs of all schedules: `run` makes them")
    return pairs


def _rate(name: str) -> float:
    """The rate in a name such as "fixed 1.0e-03" or "schedule-free, 3 x"."""
    return float(name.split()[1])


def _refused(test: clr.RangeTest) -> bool:
    try:
        test.bounds()
    except clr.NoBoundsError:
        return True
    return False


Rows = list[list[str]]


def _over(pairs: list[Pair], measure: Callable[[Pair], float]) -> Number:
    """What is measured on each pair, over all; a minus infinity says that it was lost."""
    return Number.of((pair.task, measure(pair)) for pair in pairs)


def answers(pairs: list[Pair]) -> Iterator[tuple[str, list[str], Rows]]:
    """The tables, each with what it says and its headings."""
    names = _COMPARED
    rows = []
    for name in names:
        shares = [pair.iterations(name) for pair in pairs]
        rows.append(
            [
                name,
                str(_over(pairs, partial(Pair.iterations, name=name))),
                str(_over(pairs, partial(Pair.iterations, name=name, with_test=False))),
                str(_over(pairs, partial(Pair.iterations, name=name, shares=(2,)))),
                f"{sum(share <= 1 / 3 for share in shares)}",
                *(f"{sum(pair.holds(name, share) for pair in pairs)}" for share in SHARES),
            ]
        )
    yield (
        f"How soon is it as good as the best fixed rate at the end of all updates? ({len(pairs)} pairs)",
        [
            "schedule",
            "share of updates",
            "without the test",
            "with the budget 1/2",
            "pairs by 1/3",
            "mean there at 1/4",
            "at 1/2",
            "at 1",
        ],
        rows,
    )
    rows = []
    for name in names:
        lost = sum(pair.lost(name, share) for pair in pairs for share in SHARES)
        rows.append([name, *(str(_gap(pairs, name, FIXED, share)) for share in SHARES), f"{lost}"])
    yield (
        "Which is best at equal budgets, the range test left out? Points above the best fixed rate of the same budget",
        ["schedule", "at 1/4", "at 1/2", "at 1", "runs lost"],
        rows,
    )
    rows = [
        [name, *(str(_gap(pairs, name, FIXED, share, with_test=True)) for share in (4, 2))]
        for name in names
        if name != FIXED
    ]
    yield (
        "And with the range test counted in? Points above the best fixed rate after as many updates in all, "
        "at its last evaluation by then (none goes on after the budget 1)",
        ["schedule", "at 1/4", "at 1/2"],
        rows,
    )
    rows = [[name, peer, *(str(_gap(pairs, name, peer, share)) for share in SHARES)] for name in OURS for peer in PEERS]
    yield "Ours less another, in points", ["schedule", "against", "at 1/4", "at 1/2", "at 1"], rows
    rows = [[name, *(str(_over(pairs, partial(Pair.off, name=name, how=how))) for how in OFF)] for name in names]
    yield (
        "What do wrong bounds change? Points at half of the updates; the best of several rates can but lose",
        ["schedule", "3 times too high", "3 times too low"],
        rows,
    )


def _gap(pairs: list[Pair], name: str, other: str, share: int, with_test: bool = False) -> Number:
    """By how much the final metric of one is above that of another, which can have the updates of the test too."""
    return _over(pairs, lambda pair: pair.final(name, share) - pair.final(other, share, pair.spent * with_test))


def details(pairs: list[Pair]) -> tuple[str, list[str], Rows]:
    """The table of the pairs."""
    rows = []
    for pair in pairs:
        best = pair.chosen(FIXED, 1).removeprefix("fixed ") + (" (edge)" if pair.best_is_at_edge else "")
        finals = [plain(pair.final(name, share))[:5] for name in (FIXED, *OURS, *PEERS) for share in (4, 1)]
        seeds = len({run.seed for run in pair.comparison.runs})
        spent = "refused" if pair.refused else f"{pair.spent}"
        rows.append([pair.task, pair.optimizer, f"{pair.full}", f"{seeds}", spent, best, *finals])
    headings = [f"{name} {share}" for name in (FIXED, *OURS, *PEERS) for share in ("1/4", "1")]
    return (
        "Mean final metric at a quarter of the updates and at all",
        ["task", "optimizer", "updates", "seeds", "test", "best rate", *headings],
        rows,
    )


@app.command()
def draw(
    results: FolderOption = RESULTS,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("docs/figures/study.png"),
) -> None:
    """Draw how far each schedule is from the best fixed rate of the same budget, and how soon it is as good."""
    from matplotlib import pyplot

    pairs = load(results)
    names = _COMPARED[::-1]
    _, axes = pyplot.subplots(1, 2, figsize=(9, 4.5), layout="constrained", sharey=True)
    for number, share in enumerate(SHARES):
        for at, name in enumerate(names):
            _bar(axes[0], _gap(pairs, name, FIXED, share), at + (1 - number) * 0.22, f"C{number}")
        axes[0].plot([], [], "o", color=f"C{number}", label=f"1/{share} of the updates" if share > 1 else "all updates")
    for at, name in enumerate(names):
        _bar(axes[1], _over(pairs, partial(Pair.iterations, name=name)), at, "C0")
    axes[0].axvline(0, color="0.6", linewidth=1)
    axes[0].set_xlabel("points above the best fixed rate\nof the same budget")
    axes[0].set_xlim(-8, 4)
    axes[0].legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    axes[1].axvline(1 / 3, color="0.6", linewidth=1, linestyle=":")
    axes[1].set_xlim(0, 1.05)
    axes[1].set_xlabel("share of updates until as good as\nthe best fixed rate at the end")
    axes[0].set_yticks(range(len(names)), names)
    for ax in axes:
        ax.grid(axis="x", alpha=0.3)
    clr.plot.save(axes[0], out)
    print(out)


def _bar(ax: Any, number: Number, height: float, color: str) -> None:
    """A median with its interval; an end that is infinite leaves the picture."""
    low, high = number.spread or (number.value, number.value)
    ax.plot([max(low, -1e3), min(high, 1e3)], [height, height], color=color, linewidth=1.5)
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
    pairs = load(results)
    if pages:
        for pair in pairs:
            pair.comparison.report(results / f"{pair.task}_{pair.optimizer}.html")
    found = [*answers(pairs), details(pairs)]
    if as_json:
        print(json.dumps([{"title": title, "rows": [headings, *rows]} for title, headings, rows in found], indent=1))
        return
    for title, headings, rows in found:
        if markdown:
            print(f"### {title}\n")
        tables.show(headings, rows, title, markdown, 200)
        if markdown:
            print()
