"""The study with the bounds of a search, whose updates are counted in: what is trained, and what it comes to.

``python -m benchmarks.study.searched run`` trains, and can be stopped and resumed; ``report`` prints the tables.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress

import clr
from benchmarks import packed, tables
from benchmarks.bounds import rules
from benchmarks.bounds.study import Key, Results
from benchmarks.bounds.training import EVERY, OPTIMIZERS, fresh
from benchmarks.medians import Number
from benchmarks.study import study
from benchmarks.study.study import BEST_FREE, FIXED, SHARES, Plan
from benchmarks.study.training import Peer, Training, Winner

RESULTS = Path(__file__).with_name("searched.jsonl")
SEEDS = 2
SEARCH_SEED = study.RANGE_TEST_SEED  # none of those that are trained with
LONG = {
    "mnist1d_mlp": Plan(6000, 150, SEEDS),
    "mnist1d_cnn": Plan(5000, 125, SEEDS),
    "digits_mlp": Plan(5000, 125, SEEDS),
    "diamonds": Plan(5000, 125, SEEDS),
}
SHORT = {task: plan for task, plan in study.PLANS.items() if task not in LONG and task in EVERY}
PLANS = LONG | SHORT
OURS = ("one_cycle", "linear", "wsd", "triangular")
PEERS = ("OneCycleLR", "cosine", "prodigy")
WINNER = "one_cycle from the winner"
THIRD = 3  # of the updates, less those of the search: what the aim allows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Does it train better, the search counted in?")
ResultsOption = Annotated[Path, typer.Option(help="The file with a line for each result.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Trainings of each kind.")]
MarkdownOption = Annotated[bool, typer.Option(help="Tables for a page.")]


def searched(task: str, optimizer: str) -> Any:
    """The search of a pair, as plain data."""
    torch.set_num_threads(1)
    whole, model, own, loader = fresh(task, optimizer, SEARCH_SEED)
    options: dict[str, Any] = {"validation": 0.2, "total_steps": PLANS[task].full}
    return rules.short(clr.torch.find_bounds(model, own, whole.loss_fn, loader, **options).to_dict())


def schedule_of(name: str, search: clr.Search, steps: int) -> Any:
    """A schedule over so many steps, between the bounds of a search for a training of that length."""
    if name in OURS:
        return search.schedule(name, total_steps=steps)
    return Peer(name, search.bounds(steps).max_lr, steps)


def work(key: Key, search: Any) -> Any:
    """The result of a key: a search, or the evaluations of a training."""
    kind, task, optimizer, *rest = key
    if kind == "search":
        return searched(task, optimizer)
    seed, name, steps = rest
    own = None if search is None else clr.Search.from_dict(search)
    schedule: Any
    if name.startswith("fixed"):
        schedule = study.fixed_rates(optimizer)[name]
    elif name == WINNER:
        schedule = Winner(steps)
    elif own is not None and name.startswith("schedule-free"):
        schedule = study.free_rates(optimizer, own.bounds().max_lr)[name]
    else:
        schedule = schedule_of(name, own, steps)  # type: ignore[arg-type]
    made = Training(task, optimizer, PLANS[task].every)(schedule, seed, steps)
    return [[step, _finite(metrics["metric"])] for step, metrics in made]


def _finite(metric: float) -> float | None:
    return metric if math.isfinite(metric) else None


def planned(results: Results, seeds: int) -> Iterator[Key]:
    """The keys of the trainings, seed by seed."""
    for seed in range(seeds):
        for task, plan in PLANS.items():
            for optimizer in OPTIMIZERS:
                search = clr.Search.from_dict(results.get(("search", task, optimizer)))
                budgets = {share: plan.full // share for share in SHARES}
                third = plan.full // THIRD - search.updates
                for name in (*OURS, *PEERS):
                    for steps in budgets.values():
                        yield ("run", task, optimizer, seed, name, steps)
                    if name in OURS and third >= plan.every:
                        yield ("run", task, optimizer, seed, name, third)
                for steps in (plan.full // THIRD, plan.full // 2, plan.full):
                    if steps >= search.updates + plan.every:
                        yield ("run", task, optimizer, seed, WINNER, steps)
                singles = [*study.free_rates(optimizer, 1.0)]
                if task in LONG:
                    singles += study.fixed_rates(optimizer)
                for name in singles:
                    yield ("run", task, optimizer, seed, name, plan.full)


@app.command()
def run(results: ResultsOption = RESULTS, seeds: SeedsOption = SEEDS) -> None:
    """Train what has not been trained yet. Ctrl-C ends it, and the next run goes on."""
    kept = Results(results)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool, Progress() as progress:
        try:
            searches: list[Key] = [("search", task, optimizer) for task in PLANS for optimizer in OPTIMIZERS]
            _complete(kept, searches, pool, progress)
            _complete(kept, [*planned(kept, seeds)], pool, progress)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)


def _complete(kept: Results, keys: list[Key], pool: ProcessPoolExecutor, progress: Progress) -> None:
    missing = [key for key in dict.fromkeys(keys) if kept.get(key) is None]
    futures = {pool.submit(work, key, kept.get(("search", *key[1:3]))): key for key in missing}
    bar = progress.add_task(keys[0][0], total=len(futures))
    for future in as_completed(futures):
        kept.add(futures[future], future.result())
        progress.update(bar, advance=1)


@app.command()
def pack(results: ResultsOption = RESULTS) -> None:
    """Keep the results in one small file, from which `run` and `report` go on elsewhere."""
    print(packed.pack(results))


@cache
def _kept_fixed(task: str, optimizer: str) -> dict[tuple[str, int], list[list[Any]]]:
    """The runs at fixed rates that the other study has made, of as many updates, by rate and seed."""
    for pair in study.load(study.RESULTS):
        if (pair.task, pair.optimizer) == (task, optimizer):
            return {
                (run.schedule, run.seed): [[step, metrics["metric"]] for step, metrics in run.records]
                for run in pair.comparison.runs
                if run.schedule.startswith("fixed")
            }
    return {}


@dataclass(frozen=True)
class Pair:
    """A task and an optimizer, and what has come of every schedule there."""

    task: str
    optimizer: str
    results: Results
    seeds: int

    @property
    def full(self) -> int:
        """The largest budget."""
        return PLANS[self.task].full

    @property
    def spent(self) -> int:
        """The updates of the search."""
        return clr.Search.from_dict(self.results.get(("search", self.task, self.optimizer))).updates

    def runs(self, name: str, steps: int) -> list[list[list[Any]]]:
        """The evaluations of each seed."""
        if name.startswith("fixed") and self.task not in LONG:
            kept = _kept_fixed(self.task, self.optimizer)
            return [kept[name, seed] for seed in range(self.seeds) if (name, seed) in kept]
        keys = [("run", self.task, self.optimizer, seed, name, steps) for seed in range(self.seeds)]
        return [run for run in map(self.results.get, keys) if run is not None]

    def final(self, name: str, steps: int) -> float:
        """The mean metric over the seeds after so many updates; minus infinity if a run was lost."""
        single = name.startswith(study._SINGLE)
        values = [_at(run, steps) for run in self.runs(name, self.full if single else steps)]
        if not values:
            return math.nan
        there = [value for value in values if value is not None]
        return fmean(there) if len(there) == len(values) else -math.inf

    def chosen(self, name: str, steps: int) -> str:
        """The single rate that a name stands for: the best after so many updates."""
        if name not in (FIXED, BEST_FREE):
            return name
        rates = study.fixed_rates(self.optimizer) if name == FIXED else study.free_rates(self.optimizer, 1.0)
        return max(rates, key=lambda own: self.final(own, steps))

    def value(self, name: str, steps: int) -> float:
        """`final` of the rate or schedule that a name stands for."""
        return self.final(self.chosen(name, steps), steps)

    @property
    def target(self) -> float:
        """The mean final metric of the best fixed rate."""
        return self.value(FIXED, self.full)

    def budgets(self, name: str) -> list[int]:
        """The lengths that a schedule was run at."""
        if name in (FIXED, BEST_FREE):
            return [self.full]
        known = [*(self.full // share for share in SHARES), self.full // THIRD]
        return sorted({steps for steps in (*known, self.full // THIRD - self.spent) if self.runs(name, steps)})

    def soonest(self, name: str) -> float:
        """The share of the largest budget after which the median run is first at the target, the search counted in."""
        before = 0 if name in (FIXED, WINNER, "prodigy") else self.spent
        shares = [math.inf]
        for steps in self.budgets(name):
            first = [_first(run, self.target) + before for run in self.runs(self.chosen(name, self.full), steps)]
            shares.append(median(first) / self.full)
        return min(shares)

    def third(self, name: str) -> float:
        """Points above the best fixed rate's end after a third of its updates in all; NaN if the search takes more."""
        steps = self.full // THIRD - (0 if name == WINNER else self.spent)
        return self.final(name, steps) - self.target if self.runs(name, steps) else math.nan


def _at(run: list[list[Any]], steps: int) -> float | None:
    """The metric of the last evaluation by then, None if the run was lost before."""
    by_then = [metric for step, metric in run if step <= steps]
    return by_then[-1] if by_then and run[-1][0] >= steps else None


def _first(run: list[list[Any]], target: float) -> float:
    return next((float(step) for step, metric in run if metric is not None and metric >= target), math.inf)


def load(results: Path, seeds: int = SEEDS) -> list[Pair]:
    """Every pair of which all is there."""
    kept = Results(results)
    whole = [(task, optimizer) for task in PLANS for optimizer in OPTIMIZERS if kept.get(("search", task, optimizer))]
    if len(whole) < 2 * len(PLANS):
        raise typer.BadParameter(f"{results} has not all searches: `run` makes them")
    missing = {key[1:3] for key in planned(kept, seeds) if kept.get(key) is None}
    return [Pair(*own, kept, seeds) for own in whole if own not in missing]


def answers(pairs: list[Pair]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """The tables, each with what it says and its headings."""
    names = [FIXED, BEST_FREE, *PEERS, *OURS, WINNER]
    rows = []
    for name in names:
        soonest = [pair.soonest(name) for pair in pairs]
        long = [pair for pair in pairs if pair.task in LONG]
        rows.append(
            [
                name,
                str(_over(pairs, partial(Pair.soonest, name=name))),
                f"{sum(share <= 1 / THIRD for share in soonest)} of {len(pairs)}",
                str(_over(long, partial(Pair.soonest, name=name))),
                f"{sum(pair.soonest(name) <= 1 / THIRD for pair in long)} of {len(long)}",
            ]
        )
    yield (
        "How soon is it as good as the best fixed rate at the end, the search counted in?",
        ["schedule", "share of updates", "by 1/3", "of 5,000 updates and more", "by 1/3"],
        rows,
    )
    rows = []
    for name in names:
        gaps = [
            _over(pairs, lambda pair, name=name, share=share: _gap(pair, name, pair.full // share)) for share in SHARES
        ]
        worst = min(_gap(pair, name, pair.full) for pair in pairs)
        rows.append([name, *map(str, gaps), f"{worst:.1f}"])
    yield (
        "Points above the best fixed rate after as many updates, the search left out",
        ["schedule", "at 1/4", "at 1/2", "at 1", "worst at 1"],
        rows,
    )
    rows = [
        [
            pair.task,
            pair.optimizer,
            f"{pair.full}",
            f"{pair.spent}",
            pair.chosen(FIXED, pair.full).removeprefix("fixed "),
            f"{pair.target:.1f}",
            *(f"{_gap(pair, name, pair.full):+.1f}" for name in names[1:]),
            f"{pair.third('one_cycle'):+.1f}",
        ]
        for pair in pairs
    ]
    yield (
        "Points above the best fixed rate at the end; one_cycle also after a third of the updates in all",
        ["task", "optimizer", "updates", "search", "best rate", "its end", *names[1:], "one_cycle, 1/3 in all"],
        rows,
    )


def _gap(pair: Pair, name: str, steps: int) -> float:
    """Points above the best fixed rate after as many updates; NaN where there is no such run."""
    return pair.value(name, steps) - pair.value(FIXED, steps)


def _over(pairs: list[Pair], measure: Any) -> Number | str:
    """What is measured on each pair that has it, over all."""
    values = [(pair.task, measure(pair)) for pair in pairs]
    known = [(task, value) for task, value in values if not math.isnan(value)]
    return Number.of(known) if known else "-"


@app.command()
def report(results: ResultsOption = RESULTS, seeds: SeedsOption = SEEDS, markdown: MarkdownOption = False) -> None:
    """Print the answers over the tasks."""
    for title, headings, rows in answers(load(results, seeds)):
        if markdown:
            print(f"### {title}\n")
        tables.show(headings, rows, title, markdown, 220)
        if markdown:
            print()


if __name__ == "__main__":
    app()
