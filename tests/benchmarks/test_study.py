"""What the study trains, and what it makes of its runs, on runs of which the answers can be told by hand."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import clr

pytest.importorskip("torch")
pytest.importorskip("schedulefree")
pytest.importorskip("sklearn")

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks import medians, packed
from benchmarks.bounds.tasks import ALL
from benchmarks.medians import Number, plain
from benchmarks.study import study, training
from benchmarks.study.study import Pair, Plan
from benchmarks.study.training import Peer, Training
from clr.comparison.runs import Job, Run, perform
from tests.kept import unpacked

PAGE = Path(__file__).parents[2] / "docs" / "study.md"
FULL = 400


def run(schedule: str, seed: int, steps: int, metrics: list[float]) -> Run:
    """A run that was evaluated every 100 updates, and was lost at the first NaN."""
    records = tuple((100 * (at + 1), {"metric": value}) for at, value in enumerate(metrics))
    state = "diverged" if any(map(math.isnan, metrics)) else "finished"
    return Run(schedule, steps, seed, state, None, records, 1.0)


def pair(*more: Run, refused: bool = False, task: str = "one", spent: int = 50) -> Pair:
    """Fixed rates that come to 80 and 90 in the mean, and more."""
    fixed = [
        run("fixed 1.0e-03", 0, FULL, [10, 60, 70, 80]),
        run("fixed 1.0e-03", 1, FULL, [10, 60, 70, 80]),
        run("fixed 1.0e-02", 0, FULL, [20, 50, 70, 88]),
        run("fixed 1.0e-02", 1, FULL, [20, 50, 95, 92]),
    ]
    runs = [*fixed, *more]
    constant = clr.constant(0.1).to_json()
    descriptions = {(own.schedule, own.total_steps): constant if own in fixed else "" for own in runs}
    comparison = clr.Comparison.of(runs, descriptions, "metric", "max")
    return Pair(task, "sgd", comparison, spent, refused)


def ours(first: list[float], second: list[float]) -> list[Run]:
    return [run("one_cycle", seed, 100 * len(own), own) for seed, own in enumerate((first, second))]


def test_the_best_fixed_rate_is_named_after_the_fact() -> None:
    found = pair()
    assert found.chosen("best fixed", 1) == "fixed 1.0e-02"
    assert found.chosen("best fixed", 2) == "fixed 1.0e-03"
    assert (found.target, found.final("best fixed", 2), found.final("best fixed", 4)) == (90, 60, 20)
    assert found.best_is_at_edge
    assert found.iterations("best fixed") == math.inf  # the median of 300 updates and never
    assert found.holds("best fixed", 1)


def test_iterations_are_those_of_the_soonest_budget_with_the_test() -> None:
    found = pair(*ours([10, 40, 60, 91], [10, 40, 90, 95]), *ours([10, 91], [90, 80]))
    assert found.iterations("one_cycle") == (150 + 50) / 400  # seeds at 200 and 100
    assert found.iterations("one_cycle", with_test=False) == 150 / 400
    assert found.iterations("one_cycle", shares=(1,)) == (350 + 50) / 400
    assert found.iterations("one_cycle", shares=(4,)) == math.inf
    assert (found.final("one_cycle", 1), found.final("one_cycle", 2)) == (93, 85.5)
    assert found.holds("one_cycle", 1)
    assert not found.holds("one_cycle", 2)


def test_a_lost_run_and_a_refused_test_are_worst() -> None:
    found = pair(*ours([10, 40, 60, 91], [10, math.nan]))
    lost = pair(run("one_cycle", 0, FULL, [10, 40, 60, 91]), run("one_cycle", 1, FULL, [10, math.nan]))
    assert (lost.final("one_cycle", 1), lost.lost("one_cycle", 1)) == (-math.inf, 1)
    assert found.final("one_cycle", 1) == 91
    refused = pair(refused=True)
    for name in ("one_cycle", "cosine", "best schedule-free"):
        assert refused.final(name, 2) == -math.inf
        assert refused.iterations(name) == math.inf
        assert not refused.holds(name, 1)
    assert refused.target == 90


def test_wrong_bounds_are_compared_by_seed() -> None:
    wrong = [run("one_cycle, 3 x", 1, 200, [10, 70])]
    found = pair(*ours([10, 91], [90, 80]), *wrong)
    assert found.off("one_cycle", "3 x") == 70 - 80
    assert math.isnan(found.off("one_cycle", "1/3"))
    lost = pair(*ours([10, 91], [90, 80]), run("one_cycle, 3 x", 0, 200, [10, math.nan]))
    assert lost.off("one_cycle", "3 x") == -math.inf
    assert found.off("best fixed", "3 x") == 50 - 60  # the lower rate is the best at a half
    assert math.isnan(found.off("best fixed", "1/3"))
    free = [run(f"schedule-free, {rate} x", 0, FULL, [0, best, 0, 0]) for rate, best in ((10, 7), (3, 9), (30, 4))]
    assert pair(*free).off("best schedule-free", "3 x") == 7 - 9


def test_the_tables_count_pairs() -> None:
    both = [
        pair(*ours([10, 40, 60, 91], [10, 40, 90, 95]), *ours([91, 91], [90, 80]), task="a"),
        pair(refused=True, task="b"),
    ]
    _, headings, rows = next(study.answers(both))
    row = dict(zip(headings, next(row for row in rows if row[0] == "one_cycle"), strict=True))
    assert row["share of updates"] == "never (0.38, never)"  # the median of 150 of 400 and never
    assert (row["pairs by 1/3"], row["mean there at 1/4"], row["at 1/2"], row["at 1"]) == ("0", "0", "0", "1")


def counted_in(*pairs: Pair) -> dict[str, list[str]]:
    """The table in which the range test is counted in, by schedule."""
    rows = next(rows for title, _, rows in study.answers(list(pairs)) if "test counted in" in title)
    return {name: cells for name, *cells in rows}


def test_the_range_test_is_counted_in_at_equal_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medians, "RESAMPLES", 40)  # one task has no interval
    runs = [*ours([71], [73]), *ours([10, 91], [90, 80]), *ours([10, 40, 60, 91], [10, 40, 90, 95])]
    # After 100 + 50 and 200 + 50 updates, the fixed rates are where they were after 100 and 200: at 20 and 60.
    assert counted_in(pair(*runs))["one_cycle"] == ["52.00", "25.50"]
    # After 100 + 120 and 200 + 120 they are at 60 and at 82.5, which is another one.
    assert counted_in(pair(*runs, spent=120))["one_cycle"] == ["12.00", "3.00"]
    assert counted_in(pair(*runs, spent=100))["one_cycle"] == ["12.00", "3.00"]  # evaluated at that very update
    assert "best fixed" not in counted_in(pair())
    assert counted_in(pair(refused=True))["one_cycle"] == ["lost", "lost"]
    free = [run("schedule-free, 3 x", seed, FULL, [30, 65, 99, 99]) for seed in (0, 1)]
    assert counted_in(pair(*free, spent=120))["best schedule-free"] == ["-30.00", "-17.50"]  # it needs the test too


def test_a_fixed_rate_counts_until_it_is_lost() -> None:
    found = pair(*(run("fixed 1.0e-01", seed, FULL, [10, 99, math.nan]) for seed in (0, 1)))
    assert found.final("best fixed", 4, 120) == 99
    assert found.final("fixed 1.0e-01", 2, 120) == -math.inf
    assert found.final("best fixed", 2, 120) == 82.5
    broken = Run("fixed 1.0e-01", FULL, 0, "failed", "died", ((100, {"metric": 99.0}),), 1.0)
    assert pair(broken).final("best fixed", 4) == 99
    assert pair(broken).final("best fixed", 4, 50) == 20  # who knows what it had come to


def test_medians_over_tasks() -> None:
    assert Number.of([("a", 1.0), ("a", 2.0), ("b", 6.0)])[0] == 2
    assert str(Number.of([("a", 1.0), ("b", 1.0), ("c", math.nan)])) == "1.00 (1.00, 1.00)"
    assert str(Number.of([("a", 1.0), ("a", 3.0)])) == "2.00"
    value, spread = Number.of([("a", 0.0), ("a", 0.0), ("b", 8.0), ("b", 8.0)])
    assert (value, spread) == (4, (0, 8))
    assert str(Number.of([])) == "-"
    assert (plain(math.inf), plain(-math.inf), plain(0.125)) == ("never", "lost", "0.12")


def down(first: float, last: float, part: float) -> float:
    """Half a cosine, from one rate to another."""
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


# At a rate of 0.5 and a budget of 8. OneCycleLR rises until 0.3 * 8 - 1, and falls until 7.
APPLIED: dict[str, list[float]] = {
    "step decay": [0.5] * 4 + [0.05] * 2 + [0.005] * 2,
    "exponential": [0.5 * 10 ** (-step / 4) for step in range(8)],
    "cosine": [0.25 * (1 + math.cos(math.pi * step / 8)) for step in range(8)],
    "OneCycleLR": [
        0.02,
        down(0.02, 0.5, 1 / 1.4),
        *(down(0.5, 0.02 / 10_000, (step - 1.4) / 5.6) for step in range(2, 8)),
    ],
    "schedule-free": [0.5] * 8,
}


@pytest.fixture
def updates() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Each update's optimizer, with the settings that it is made with."""
    found: list[tuple[str, dict[str, Any]]] = []

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        found.append((type(optimizer).__name__, optimizer.param_groups[0] | {"params": None}))

    hook = register_optimizer_step_pre_hook(note)
    yield found
    hook.remove()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", list(APPLIED))
def test_peers_have_the_rates_that_they_are_known_for(
    kind: str, optimizer: str, updates: list[tuple[str, dict[str, Any]]]
) -> None:
    records = list(Training("wine", optimizer, 3)(Peer(kind, 0.5, 8), 0, 8))
    assert [step for step, _ in records] == [3, 6, 8]
    assert [group["lr"] for _, group in updates] == pytest.approx(APPLIED[kind], rel=1e-12)
    free = "ScheduleFree" if kind == "schedule-free" else ""
    assert {own for own, _ in updates} == {{"sgd": "SGD", "adamw": "AdamW"}[optimizer] + free}
    settings = updates[0][1]
    assert settings["weight_decay"] == {"sgd": 0, "adamw": 0.01}[optimizer]
    if kind != "OneCycleLR":  # which has its own
        assert settings["momentum"] == 0.9 if optimizer == "sgd" else settings["betas"] == (0.9, 0.999)
    assert not free or settings["warmup_steps"] == 0


def test_our_schedules_are_applied_step_by_step(updates: list[tuple[str, dict[str, Any]]]) -> None:
    train = Training("wine", "sgd", 8)
    list(train(clr.triangular(0.1, 0.5, 4), 0, 10))
    list(train(clr.constant(0.03), 0, 2))
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.03, 0.03]
    assert [group["lr"] for _, group in updates] == pytest.approx(expected, rel=1e-12)
    assert {own for own, _ in updates} == {"SGD"}
    assert {group["momentum"] for _, group in updates} == {0.9}


def test_a_training_is_made_by_its_seed_and_learns() -> None:
    train = Training("wine", "adamw", 60)
    first, again, other = (list(train(clr.constant(0.01), seed, 120)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [step for step, _ in first] == [60, 120]
    assert first[-1][1]["metric"] > 90  # percent of three kinds


def test_a_loss_that_is_not_finite_ends_a_run() -> None:
    lost = perform(Training("diabetes", "sgd", 1000), Job("fixed", clr.constant(1e3), 0, 1000))
    assert (lost.state, len(lost.records)) == ("diverged", 1)
    assert 1 < lost.records[0][0] < 1000


def test_scores_are_those_of_the_weights_that_would_be_used() -> None:
    """Of schedule-free the mean of the updates, with batch normalization of its own; and without dropout."""
    norm, linear = torch.nn.BatchNorm1d(1, affine=False), torch.nn.Linear(1, 1, bias=False)
    model = torch.nn.Sequential(norm, linear, torch.nn.Dropout(0.999))
    weight = linear.weight.requires_grad_(False)
    x = torch.tensor([2.0, 4.0] * 256 + [1000.0] * 100)[:, None]  # the mean of the first 512 is 3, their spread 1
    task = replace(ALL["wine"], score=lambda output, target: float(output))

    def score(optimizer: Any, at: float) -> float:
        return training._score(task, model, optimizer, x, torch.tensor([[at]]), torch.zeros(1))

    torch.nn.init.zeros_(weight)
    optimizer, scheduler = Training("wine", "sgd", 1)._driven(model, Peer("schedule-free", 1.0, 0))
    assert scheduler is None
    for _ in range(3):
        weight.grad = torch.ones(1, 1)
        optimizer.step()
    # Plain SGD is at -1, -2 and -3; their mean is -2, and gradients are taken at a tenth of -3 and the rest of -2.
    assert float(weight) == pytest.approx(-2.1)
    assert score(optimizer, 4.0) == pytest.approx(-2.0, rel=2e-3)  # 512 / 511 of the variance
    assert float(weight) == pytest.approx(-2.1)
    assert norm.momentum == 0.1
    assert model.training

    norm.reset_running_stats()
    torch.nn.init.constant_(weight, 5.0)
    optimizer, _ = Training("wine", "sgd", 1)._driven(model, clr.constant(0.1))
    assert score(optimizer, 1.0) == pytest.approx(5.0, rel=1e-4)  # the statistics are those of the training, here none
    assert model.training


def test_plans_are_for_all_tasks() -> None:
    assert set(study.PLANS) == set(ALL)
    for plan in study.PLANS.values():
        assert plan.full % (4 * plan.every) == 0  # so that each budget ends with an evaluation
        assert plan.seeds >= 1


def test_the_rates_of_a_grid() -> None:
    decades = [1e-4, 10**-3.5, 1e-3, 10**-2.5, 0.01, 10**-1.5, 0.1, 10**-0.5, 1]
    for optimizer, scale in (("sgd", 1.0), ("adamw", 0.1)):
        fixed = study.fixed_rates(optimizer)
        assert [schedule(at) for schedule in fixed.values() for at in (0, 999)] == pytest.approx(
            [rate * scale for rate in decades for _ in range(2)]
        )
        assert [float(name.removeprefix("fixed ")) for name in fixed] == pytest.approx(
            [rate * scale for rate in decades], rel=0.02
        )
    assert {name: (own.kind, own.lr) for name, own in study.free_rates("sgd", 0.5).items()} == {
        "schedule-free, 3 x": ("schedule-free", 1.5),
        "schedule-free, 10 x": ("schedule-free", 5),
        "schedule-free, 30 x": ("schedule-free", 15),
    }
    assert [own.lr for own in study.free_rates("adamw", 0.5).values()] == pytest.approx([0.15, 0.5, 1.5])


def test_the_schedules_of_a_budget() -> None:
    made = {name: make(800) for name, make in study.schedules(0.1, 1.0).items()}
    peers = {kind: Peer(kind, 1.0, 800) for kind in ("step decay", "exponential", "cosine", "OneCycleLR")}
    assert {name: own for name, own in made.items() if isinstance(own, Peer)} == peers
    rates = {name: {step: own(step) for step in STEPS} for name, own in made.items() if name not in peers}
    assert rates["triangular"] == pytest.approx(dict(zip(STEPS, [0.1, 0.55, 1.0, 0.1, 1.0, 0.1, 1.0], strict=True)))
    assert rates["triangular2"] == pytest.approx(
        dict(zip(STEPS, [0.1, 0.55, 1.0, 0.1, 0.55, 0.1, 0.2125], strict=True))
    )
    decayed = [0.1, 0.1 + 0.45 * 0.1 ** (1 / 16), 0.1 + 0.9 * 0.1 ** (1 / 8), 0.1, 0.1 + 0.9 * 0.1 ** (3 / 8), 0.1]
    assert rates["exp_range"] == pytest.approx(dict(zip(STEPS, [*decayed, 0.1 + 0.9 * 0.1 ** (7 / 8)], strict=True)))
    assert (made["one_cycle"](0), made["one_cycle"](239)) == pytest.approx((0.1, 1.0))
    assert made["one_cycle"](799) == pytest.approx(0.1 / 10_000)
    restarts = study.schedules(0.1, 1.0)["warm_restarts"](700)  # cycles of 100, 200 and 400
    assert [restarts(step) for step in (0, 50, 100, 200, 300, 500)] == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5])
    assert restarts(99) < 1e-3
    assert restarts(699) < 1e-4


STEPS = (0, 50, 100, 200, 300, 400, 700)


def test_wrong_bounds_are_wrong_by_three() -> None:
    off = study.off_schedules(0.3, 3.0)
    assert set(off) == {f"{name}, {how}" for name in study.schedules(1, 1) for how in ("3 x", "1/3")}
    assert len(off) == 18
    assert off["cosine, 3 x"](800) == Peer("cosine", 9.0, 800)
    assert off["OneCycleLR, 1/3"](800) == Peer("OneCycleLR", 1.0, 800)
    for name, low, high in (("triangular, 3 x", 0.9, 9.0), ("triangular, 1/3", 0.1, 1.0)):
        assert (off[name](800)(0), off[name](800)(100)) == pytest.approx((low, high))
    assert off["one_cycle, 1/3"](800)(0) == pytest.approx(0.1)
    assert off["one_cycle, 3 x"](800)(239) == pytest.approx(9.0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The trainings that are complete, of a study of one task, made in this process."""
    monkeypatch.setattr(study, "PLANS", {"wine": Plan(32, 8, 1)})
    monkeypatch.setattr(clr, "compare", partial(clr.compare, workers=0))
    complete: list[tuple[Any, ...]] = []
    whole = Training.__call__

    def noted(self: Training, schedule: Any, seed: int, steps: int) -> Iterator[Any]:
        if len(complete) == 20:
            complete.append(("Ctrl-C",))
            raise KeyboardInterrupt
        yield from whole(self, schedule, seed, steps)
        complete.append((self, repr(schedule), seed, steps))

    monkeypatch.setattr(Training, "__call__", noted)
    return complete


def test_a_study_goes_on_where_it_was(
    tmp_path: Path, trained: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    run: Callable[[], None] = partial(study.run, results, None, None, None, False)
    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    trained.remove(("Ctrl-C",))
    # Nine fixed rates of each optimizer; with AdamW three of schedule-free, nine schedules at each of three budgets,
    # and as many at one with either kind of wrong bounds. With SGD the range test is refused.
    assert len(trained) == len(set(trained)) == 9 + 9 + 3 + 3 * 9 + 2 * 9
    assert "wine, sgd: " in capsys.readouterr().out
    assert [(own.optimizer, own.refused) for own in study.load(results)] == [("adamw", False), ("sgd", True)]
    study.pack(results)
    shutil.rmtree(results)
    done = list(trained)
    run()
    assert trained == done
    assert [own.optimizer for own in study.load(results)] == ["adamw", "sgd"]


def test_results_come_back_as_they_were_packed(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    contents = {"a.json": b"{}", "a.sqlite": bytes(range(256)), "a.sqlite-lock": b"", "a.html": b"<p>"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    archive = packed.pack(folder)
    assert archive == tmp_path / "results.tar.xz"
    packed.unpack(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == contents  # what is there stays
    shutil.rmtree(folder)
    packed.unpack(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: contents[name]
        for name in ("a.json", "a.sqlite")  # without locks and pages, which are made anew
    }
    assert {file.name for file in tmp_path.iterdir()} == {"results", "results.tar.xz"}
    file = tmp_path / "lines.jsonl"
    file.write_text("1\n")
    packed.pack(file)
    file.unlink()
    packed.unpack(file)
    assert file.read_text() == "1\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results behind the page, unpacked elsewhere."""
    return unpacked(study.RESULTS, tmp_path_factory.mktemp("study"))


def tables(text: str) -> dict[str, str]:
    """The tables under each heading of the third level."""
    parts = (part.partition("\n") for part in text.split("### ")[1:])
    return {title: table.strip() for title, _, table in parts}


def test_the_tables_of_the_page_are_those_of_the_kept_runs(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.report(kept, pages=False, markdown=True, as_json=False)
    printed, shown = tables(capsys.readouterr().out), tables(PAGE.read_text())
    assert len(shown) == 6
    assert shown == printed


def test_the_kept_runs_are_found_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Training, schedule: Any, seed: int, steps: int) -> None:
        pytest.fail(f"{self} would be trained again under {schedule}")

    monkeypatch.setattr(clr, "compare", partial(clr.compare, workers=0))
    monkeypatch.setattr(Training, "__call__", never)
    study.run(kept, seeds=1)
