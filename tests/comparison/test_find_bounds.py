"""The search over a training as comparisons take it: the number of processes does not change what it finds."""

import functools
import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clr
from clr.comparison import engines
from clr.comparison.find_bounds import _Queue
from clr.comparison.runs import Job, Run
from tests import trainings
from tests.comparison.common import ROOT


def find(train: Any = trainings.judged, **options: Any) -> clr.Search:
    return clr.comparison.find_bounds(train, **{"total_steps": 1000, "workers": 0} | options)


@pytest.mark.parametrize("best", [1e-5, 3e-3, 0.05, 0.12])
def test_the_best_rate_of_trials_as_long_as_the_training_is_the_upper_bound(best: float) -> None:
    found = find(functools.partial(trainings.judged, best=best), total_steps=40)
    assert found.bounds().max_lr == pytest.approx(best, rel=1e-6)
    assert found.stop == "completed"
    assert found.start == 3.0
    assert found.range_test is None


def test_it_begins_with_usual_rates_a_decade_apart_and_ends_half_a_decade_apart() -> None:
    found = find()
    first = [trial.max_lr for trial in found.trials if trial.rung == 1]  # of 0.01, 0.001 and 0.1, the last is best
    assert first == pytest.approx([0.01, 0.001, 0.1, 1.0, 0.1 / math.sqrt(10), 0.1 * math.sqrt(10)])
    for rung in (1, 2):
        own = sorted(trial.max_lr for trial in found.trials if trial.rung == rung)
        assert found.winner is not None
        at = min(range(len(own)), key=lambda place: abs(math.log(own[place] / 0.05)))
        assert [own[at + 1] / own[at], own[at] / own[at - 1]] == pytest.approx([math.sqrt(10)] * 2)


def test_each_trial_has_the_same_seed_and_the_lengths_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(trainings.LOG, str(log))
    found = find(seed=7)
    assert log.read_text().splitlines() == [f"7 {trial.num_steps}" for trial in found.trials]
    assert {trial.num_steps for trial in found.trials if trial.rung == 1} == {40}


@pytest.mark.parametrize("metric", [None, "error", "accuracy"])
def test_the_metric_says_what_is_better(metric: str | None) -> None:
    found = find(metric=metric, total_steps=40)
    assert found.goal == ("max" if metric == "accuracy" else "min")
    assert found.start == (0.0 if metric == "accuracy" else 3.0)
    assert found.bounds().max_lr == pytest.approx(0.05, rel=1e-6)


def test_the_goal_may_be_given() -> None:
    found = find(goal="max")
    assert found.goal == "max"
    assert found.winner is not None
    assert abs(math.log10(found.winner.max_lr / 0.05)) > 1


def test_a_trial_that_raises_or_diverges_has_no_score_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = find(functools.partial(trainings.judged, best=0.9))
    lost = {trial.max_lr: trial for trial in found.trials if trial.score is None}
    assert {trial.stop for rate, trial in lost.items() if 1 <= rate < 5} == {"non-finite"}
    assert all(len(trial.losses) == 7 for trial in lost.values() if trial.stop == "non-finite")
    said = capsys.readouterr().err
    assert "The trial of rung 1 at the rate 1 has no score: error was nan at step 7\n" in said
    assert found.updates == sum(len(trial.losses) for trial in found.trials) <= 800
    assert found.bounds().max_lr < 1
    assert clr.from_json(found.to_json()) == found


def fails(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    if schedule.limits[1] > 0.05:
        raise OSError("out of memory")
    yield from trainings.judged(schedule, seed, steps, best=0.02)


def test_a_trial_that_raises_ends_no_search(capsys: pytest.CaptureFixture[str]) -> None:
    found = find(fails)
    assert {trial.stop for trial in found.trials if trial.max_lr > 0.05} == {"failed"}
    assert 0.005 < found.bounds().max_lr < 0.05
    assert "at the rate 0.1 has no score: OSError: out of memory\n" in capsys.readouterr().err
    assert "0.1 (failed)" in found.describe()


def forgets(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    yield 1, {"loss" if schedule.limits[1] < 0.05 else "error": 1.0}


def test_a_trial_without_the_metric_has_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    found = find(forgets)
    assert {trial.stop for trial in found.trials if trial.max_lr > 0.05} == {"failed"}
    assert "at the rate 0.1 has no score: `train` gave no 'loss'\n" in capsys.readouterr().err


def test_bounds_are_refused_where_no_trial_is_better_than_none() -> None:
    found = find(lambda schedule, seed, steps: iter([(0, {"loss": 1.0}), (steps, {"loss": 1.5})]))
    with pytest.raises(clr.NoBoundsError, match="before any training, 1"):
        found.bounds()


@pytest.mark.parametrize("budget", [200, 300, 1000])
def test_the_budget_holds(budget: int) -> None:
    found = find(functools.partial(trainings.judged, best=1e-9), budget=budget)
    assert found.updates <= budget
    assert found.stop == ("completed" if budget == 1000 else "budget")


@pytest.mark.parametrize("after", [2, 5])
def test_after_ctrl_c_what_is_known_is_returned(after: int) -> None:
    calls = 0

    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        yield from trainings.judged(schedule, seed, steps)

    found = find(train)
    assert found.stop == "interrupted"
    assert len(found.trials) == after
    assert [trial.max_lr for trial in found.trials] == [trial.max_lr for trial in find().trials][:after]


def test_processes_find_what_one_finds() -> None:
    alone, one, two = (find(trainings.digits, total_steps=2000, workers=workers) for workers in (0, 1, 2))
    assert one == two
    assert [trial.max_lr for trial in alone.trials] == pytest.approx([trial.max_lr for trial in two.trials])
    assert [trial.score for trial in alone.trials] == pytest.approx([trial.score for trial in two.trials])
    assert alone.bounds().max_lr == pytest.approx(two.bounds().max_lr)
    assert 0.01 < two.bounds().max_lr < 3
    assert len({trial.rung for trial in two.trials}) == 2


RAY = """
    import sys
    import ray

    if __name__ == "__main__":
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        import clr
        from tests import trainings

        found = clr.comparison.find_bounds(trainings.judged, total_steps=1000, engine="ray")
        open(sys.argv[1], "w").write(found.to_json())
"""


def test_a_ray_cluster_finds_what_one_process_finds(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    command = [sys.executable, "-c", textwrap.dedent(RAY), str(tmp_path / "found.json")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(find().to_json())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": 1}, "`train` must"),
        ({"total_steps": 0}, "`total_steps` must"),
        ({"budget": 10}, "`budget` must"),
        ({"metric": 1}, "`metric` must"),
        ({"metric": "loss"}, "`metric` must be in the first record"),
        ({"goal": "low"}, "`goal` must"),
        ({"seed": -1}, "`seed` must"),
        ({"engine": "slurm"}, "`engine` must"),
        ({"workers": -1}, "`workers` must"),
        ({"engine": "ray", "workers": 0}, "`workers` must"),
        ({"progress": 1}, "`progress` must"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        find(**{"train": trainings.judged} | changed)


def test_jobs_that_come_later_go_to_all_idle_workers() -> None:
    jobs = _Queue([Job(name, clr.constant(0.1), 0, 10) for name in "ab"])
    events = engines.local(trainings.threads_for_a_while, jobs, None, 2)
    seen: list[set[float]] = []
    for names in ("cd", ""):
        runs: list[Run] = []
        while len(runs) < 2:
            _, _, run = next(events)
            runs += [] if run is None else [run]
        seen.append({run.records[0][1]["process"] for run in runs})
        jobs.extend(Job(name, clr.constant(0.1), 0, 10) for name in names)
    assert next(events, None) is None
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2
