"""Comparisons of schedules: what they find, what they keep, and what they survive."""

import csv
import functools
import html
import importlib.metadata
import io
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clr
from clr.comparison import engines
from clr.comparison.report import _curves, _rates
from clr.comparison.result import interval
from clr.comparison.runs import Run
from tests import trainings

SCHEDULES = {"fixed": clr.constant(0.25), "low": clr.constant(0.125), "cyclic": clr.triangular(0.25, 0.75, 5)}
ROOT = Path(__file__).parents[2]
# Two passes of 40 updates.
TEST = clr.range_test(lambda lr: 1 / (1 + 100 * lr), lambda repeat: None, max_lr=1, num_steps=40, repeats=2)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def compare(tmp_path: Path, train: Any = trainings.parabola, schedules: Any = None, **options: Any) -> clr.Comparison:
    options = {"seeds": 3, "total_steps": 20, "file": tmp_path / "runs.sqlite", "workers": 0, **options}
    if options["file"] is not None and "<locals>" in getattr(train, "__qualname__", ""):
        options.setdefault("name", "own")
    return clr.compare(train, SCHEDULES if schedules is None else schedules, **options)


def kept(tmp_path: Path) -> clr.Comparison:
    return clr.Comparison.load(tmp_path / "runs.sqlite")


def final(rates: list[float], seed: int) -> float:
    """The loss after a training with these rates."""
    return ((1.0 + seed) * math.prod(1 - rate for rate in rates)) ** 2


def test_the_numbers_are_those_of_the_runs(tmp_path: Path) -> None:
    result = compare(tmp_path)
    rows = {row["schedule"]: row for row in result.rows()}
    assert list(rows) == ["fixed", "low", "cyclic"]
    for name, rate in (("fixed", 0.25), ("low", 0.125)):
        assert rows[name]["final"] == pytest.approx(sum(final([rate] * 20, seed) for seed in range(3)) / 3)
    cycle = [0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.65, 0.55, 0.45, 0.35] * 2
    assert rows["cyclic"]["final"] == pytest.approx(sum(final(cycle, seed) for seed in range(3)) / 3)
    # The target is what the best constant rate comes to.
    assert result.reference == ("fixed", rows["fixed"]["final"])
    assert result.target == pytest.approx(rows["fixed"]["final"])
    assert (result.metric, result.goal) == ("loss", "min")
    reached = []
    for seed in range(3):
        steps = [step for step in range(1, 21) if final(cycle[:step], seed) <= rows["fixed"]["final"]]
        reached.append(min(steps))
    assert rows["cyclic"]["iterations"] == sorted(reached)[1]
    assert rows["cyclic"]["ratio"] == sorted(reached)[1] / 20
    assert (rows["low"]["iterations"], rows["low"]["reached"]) == (math.inf, 0.0)
    assert rows["low"]["iterations_interval"] is None
    assert rows["fixed"]["reached"] == pytest.approx(2 / 3)  # the third starts too far away
    assert rows["fixed"]["best"] == rows["fixed"]["final"]


def test_iterations_before_the_training_count(tmp_path: Path) -> None:
    without = {row["schedule"]: row["iterations"] for row in compare(tmp_path).rows()}
    within = {row["schedule"]: row["iterations"] for row in compare(tmp_path, before={"cyclic": 7}).rows()}
    assert within["cyclic"] == without["cyclic"] + 7
    assert within["fixed"] == without["fixed"]


def test_differences_are_seed_by_seed(tmp_path: Path) -> None:
    result = compare(tmp_path)
    rows = {(row["schedule"], row["against"]): row for row in result.differences()}
    assert set(rows) == {("low", "fixed"), ("cyclic", "fixed"), ("cyclic", "low")}
    values = [final([0.125] * 20, seed) - final([0.25] * 20, seed) for seed in range(3)]
    row = rows["low", "fixed"]
    assert row["difference"] == pytest.approx(sum(values) / 3)
    low, high = row["interval"]
    assert min(values) - 1e-12 <= low < row["difference"] < high <= max(values) + 1e-12
    assert {row["schedule"] for row in result.differences("low")} == {"fixed", "cyclic"}
    with pytest.raises(ValueError, match="`against` must be one of"):
        result.differences("other")


def test_differences_are_of_the_seeds_that_both_have_finished() -> None:
    def run(name: str, seed: int, value: float, state: str = "finished") -> Run:
        return Run(name, 10, seed, state, None, ((10, {"acc": value}),), 1.0)

    runs = [run("a", seed, value) for seed, value in enumerate((0.5, 0.6, 0.7, 0.8))]
    runs += [run("b", 1, 0.7), run("b", 2, 0.75), run("b", 3, 0.1, "failed"), run("b", 5, 0.0)]
    result = clr.Comparison.of(runs, {})
    (row,) = result.differences()
    assert (row["schedule"], row["against"], row["total_steps"], row["seeds"]) == ("b", "a", 10, 2)
    assert row["difference"] == pytest.approx(0.075)  # 0.1 with seed 1, and 0.05 with seed 2
    assert row["interval"] == pytest.approx((0.05, 0.1))
    frame = result.to_frame("differences")
    assert frame["difference"].tolist() == pytest.approx([0.075])
    (read,) = csv.DictReader(io.StringIO(result.to_csv("differences")))
    assert list(read) == ["schedule", "against", "total_steps", "seeds", "difference", "low", "high"]
    assert float(read["low"]) == pytest.approx(0.05)
    assert float(read["high"]) == pytest.approx(0.1)
    from rich.console import Console

    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(result.table("differences"))
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert lines[0] == ["schedules", "steps", "seeds", "difference", "95% interval"]
    assert lines[2] == ["b - a", "10", "2", "+0.075", "+0.05 to +0.1"]
    for show in (result.table, result.to_frame, result.to_csv):
        with pytest.raises(ValueError, match="`part` must be one of"):
            show("all")  # type: ignore[arg-type]
    # A run alone has no interval, and one that was lost no difference.
    (row,) = clr.Comparison.of([run("a", 0, 0.5), run("b", 0, 0.75)], {}).differences()
    assert (row["difference"], row["interval"]) == (0.25, None)
    assert clr.Comparison.of([run("a", 0, 0.5), run("b", 0, 0.75, "failed")], {}).differences() == []


def test_an_interval_is_that_of_the_mean() -> None:
    values = [float(value) for value in range(100)]
    found = interval(values)
    assert found is not None
    # 1.96 standard errors of 0..99, whose standard deviation is 28.87.
    assert found == pytest.approx((49.5 - 1.96 * 2.887, 49.5 + 1.96 * 2.887), abs=0.3)
    assert interval([1.0]) is None
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_several_budgets_and_functions_of_them(tmp_path: Path) -> None:
    budgets = []

    def made(steps: int) -> clr.Schedule:
        budgets.append(steps)
        return clr.triangular(0.25, 0.75, steps / 4)

    result = compare(
        tmp_path, schedules={"cyclic": made, "fixed": clr.constant(0.25)}, total_steps=[20, 8], seeds=[5, 2]
    )
    assert sorted(budgets) == [8, 20]
    assert result.budgets == (8, 20)
    assert [(row["schedule"], row["total_steps"], row["seeds"]) for row in result.rows()] == [
        ("cyclic", 8, 2), ("fixed", 8, 2), ("cyclic", 20, 2), ("fixed", 20, 2),
    ]  # fmt: skip
    assert {run.seed for run in result.runs} == {2, 5}
    assert result.schedule("cyclic", 8) == clr.triangular(0.25, 0.75, 2)
    assert all(run.records[-1][0] == run.total_steps for run in result.runs)


def test_what_is_no_schedule_of_ours_is_handed_on(tmp_path: Path) -> None:
    seen = []

    def train(schedule: Any, seed: int, steps: int) -> Any:
        seen.append(schedule)
        yield steps, {"accuracy": 0.5}

    result = compare(tmp_path, train, {"own": "a word", "made": lambda steps: ("tuple", steps)}, seeds=1, name="own")
    assert seen == ["a word", ("tuple", 20)]
    assert result.reference is None
    assert result.target is None
    assert (result.goal, result.schedule("own", 20)) == ("max", None)


def test_a_schedule_can_be_an_array(tmp_path: Path) -> None:
    def train(schedule: Any, seed: int, steps: int) -> Any:
        yield steps, {"loss": float(schedule.sum())}

    result = compare(tmp_path, train, {"own": lambda steps: np.full(2, steps)}, seeds=2, total_steps=[10, 20])
    assert [(run.total_steps, run.records[0][1]["loss"]) for run in result.runs] == [(10, 20)] * 2 + [(20, 40)] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_is_a_result(tmp_path: Path, workers: int) -> None:
    seeds = [0, 1, 2, 4] if workers == 0 else [0, 1, 2, 4, 3, 5]
    result = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=seeds, workers=workers)
    states = {run.seed: run.state for run in result.runs}
    assert [states[seed] for seed in seeds] == ["finished", "failed", "diverged", *["failed"] * (len(seeds) - 3)]
    errors = {run.seed: str(run.error) for run in result.runs}
    assert errors[0] == "None"
    assert errors[1].endswith("ValueError: <b>no</b> luck")
    assert "in troubled" in errors[1]
    assert errors[2] == "accuracy was nan at step 2"
    assert errors[4].endswith("SystemExit: enough")
    if workers:
        assert errors[3] == f"the worker died with exit code {-signal.SIGKILL}"
        assert errors[5] == "the worker died with exit code 3"
    (row,) = result.rows()
    assert (row["final"], row["seeds"]) == (0.75, len(seeds))
    assert row["diverged"] == pytest.approx(1 / len(seeds))
    assert row["failed"] == pytest.approx((len(seeds) - 2) / len(seeds))
    # They are kept, and not run again.
    again = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=seeds, workers=workers)
    assert again.runs[0] == result.runs[0]
    assert [(run.state, run.error) for run in again.runs] == [(run.state, run.error) for run in result.runs]


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    alone = compare(tmp_path / "one")
    many = compare(tmp_path, workers=2)
    assert [run.records for run in many.runs] == [run.records for run in alone.runs]
    assert many.rows() == alone.rows()


def test_workers_are_processes_with_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    result = compare(tmp_path, trainings.threads, {"one": clr.constant(0.1)}, seeds=4, workers=2, metric="threads")
    assert {run.records[0][1]["threads"] for run in result.runs} == {1.0}
    assert os.getpid() not in {run.records[0][1]["process"] for run in result.runs}
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.skipif(os.cpu_count() == 1, reason="PyTorch has one thread anyway")
def test_torch_has_one_thread_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    (run,) = compare(tmp_path, trainings.torch_threads, {"one": clr.constant(0.1)}, seeds=1, workers=1).runs
    assert run.records == ((20, {"threads": 1.0}),)


@pytest.mark.skipif(os.cpu_count() == 1 or sys.platform != "linux", reason="needs two cores and /proc")
@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_jax_and_tensorflow_have_one_thread_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    pytest.importorskip(framework)
    for variable in engines._THREADS:
        monkeypatch.delenv(variable, raising=False)

    def threads(name: str) -> float:
        train = getattr(trainings, f"{framework}_threads")
        options: dict[str, Any] = {"seeds": 1, "workers": 1, "file": tmp_path / name}
        (run,) = compare(tmp_path, train, {"one": clr.constant(0.1)}, **options).runs
        return run.records[0][1]["threads"]

    assert threads("limited") == 1
    monkeypatch.setattr(engines, "_THREADS", {})
    assert threads("free") > 1


def test_there_is_a_worker_for_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    options: dict[str, Any] = {"seeds": 6, "workers": None, "metric": "process"}
    result = compare(tmp_path, trainings.threads_for_a_while, {"one": clr.constant(0.1)}, **options)
    assert len({run.records[0][1]["process"] for run in result.runs}) == 3


def test_a_worker_may_have_processes_of_its_own(tmp_path: Path) -> None:
    (run,) = compare(tmp_path, trainings.nested, {"one": clr.constant(0.1)}, seeds=1, workers=1).runs
    assert (run.state, run.records) == ("finished", ((20, {"loss": 10.0}),))


def test_a_worker_that_dies_is_noticed_though_a_process_of_its_own_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trainings.LOG, str(tmp_path / "log"))
    result = compare(tmp_path, trainings.forked, {"one": clr.constant(0.1)}, seeds=[0, 2], workers=1)
    (orphan, _) = map(int, (tmp_path / "log").read_text().split())
    os.kill(orphan, signal.SIGKILL)  # which lives on until then
    assert [run.state for run in result.runs] == ["failed", "finished"]
    assert result.runs[0].error == f"the worker died with exit code {-signal.SIGKILL}"


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_the_workers_and_what_they_have_started(tmp_path: Path, presses: int) -> None:
    log = tmp_path / "log"
    program = PROGRAM.replace("trainings.slow", "trainings.forked").replace("seeds=4", "seeds=[1]")
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {trainings.LOG: str(log), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "runs.sqlite"), "3"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not log.exists() or len(log.read_text().split()) < 3:
            assert process.poll() is None
            time.sleep(0.02)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        said = process.communicate(timeout=60)[1]
    assert "KeyboardInterrupt" in said
    for started in map(int, log.read_text().split()):
        until = time.monotonic() + 30
        while Path(f"/proc/{started}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{started}").exists()


def test_the_progress_is_that_of_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(tmp_path, seeds=[0], progress=False)
    assert capsys.readouterr() == ("", "")
    compare(tmp_path, seeds=[1], progress=None)  # no terminal is there
    assert capsys.readouterr() == ("", "")
    compare(tmp_path, seeds=4, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("6 of 12 runs reused from ")
    assert "240/240" in said.err


UNGUARDED = """
import sys
import clr

def train(schedule, seed, steps):
    yield steps, {"loss": schedule(0)}

clr.compare(train, {"a": clr.constant(0.25)}, seeds=3, total_steps=5, file=sys.argv[1], workers=2)
"""


@pytest.mark.parametrize("form", ["script", "standard input"])
def test_what_workers_cannot_import_is_no_failed_run(tmp_path: Path, form: str) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    program = str(tmp_path / "script.py") if form == "script" else "-"
    command = [sys.executable, program, str(tmp_path / "runs.sqlite")]
    done = subprocess.run(command, input=UNGUARDED, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("RuntimeError: the worker died with exit code 1 before it could begin: `train` and the")
    assert "importable from a module" in message
    assert 'if __name__ == "__main__":' in message
    assert kept(tmp_path).runs == ()


@pytest.mark.parametrize("what", ["train", "schedule"])
def test_what_workers_cannot_load_is_no_failed_run(tmp_path: Path, what: str) -> None:
    own = trainings.Unloadable()
    train, schedule = (own, clr.constant(0.25)) if what == "train" else (trainings.parabola, own)
    with pytest.raises(RuntimeError, match="before it could begin"):
        compare(tmp_path, train, {"own": lambda steps: schedule}, workers=2, file=None)


def test_nothing_is_run_twice_and_more_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(trainings.LOG, str(log))
    compare(tmp_path, seeds=2)
    assert len(log.read_text().splitlines()) == 6
    compare(tmp_path, seeds=2)
    assert len(log.read_text().splitlines()) == 6
    more = compare(tmp_path, seeds=3, schedules=SCHEDULES | {"more": clr.constant(0.5)})
    assert len(log.read_text().splitlines()) == 12
    assert len(more.runs) == 12
    few = compare(tmp_path, seeds=1, schedules={"low": SCHEDULES["low"]})
    assert [(run.schedule, run.seed) for run in few.runs] == [("low", 0)]
    assert len(clr.Comparison.load(tmp_path / "runs.sqlite").runs) == 12


PROGRAM = """
import signal, sys
from pathlib import Path
import clr
from tests import trainings
from tests.comparison.test_compare import SCHEDULES

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
    clr.compare(trainings.slow, SCHEDULES, seeds=4, total_steps=20, file=sys.argv[1], workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_it_goes_on_after_the_end_of_its_process(tmp_path: Path, sign: signal.Signals, workers: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    log, file = tmp_path / "log", tmp_path / "runs.sqlite"
    environment = os.environ | {trainings.LOG: str(log), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "program.py"), str(file), workers]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not log.exists() or len(log.read_text().splitlines()) < 4:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(sign)
        said = process.communicate()[1]
    assert process.returncode != 0
    if sign == signal.SIGKILL:
        assert said == ""  # by workers that are left alone
    first = clr.Comparison.load(file).runs
    assert 2 <= len(first) < 12
    subprocess.run(command, env=environment, check=True)
    runs = clr.Comparison.load(file).runs
    assert len(runs) == 12
    assert all(run in runs for run in first)
    # What was kept was not run again; what was running when it ended may have been.
    assert 12 <= len(log.read_text().splitlines()) <= 12 + max(2, int(workers))


CHANGED = """
import sys
import clr

def train(schedule, seed, total_steps):
    yield total_steps, {"loss": LOSS}

file, options = sys.argv[1], dict.fromkeys(sys.argv[2:], True)
print(clr.compare(train, {"a": clr.constant(0.25)}, seeds=SEEDS, total_steps=5, file=file, workers=0, **options).rows())
"""


def test_a_changed_training_does_not_answer_with_old_numbers(tmp_path: Path) -> None:
    file = str(tmp_path / "runs.sqlite")

    def script(loss: str, *options: str, seeds: str = "2") -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(CHANGED.replace("LOSS", loss).replace("SEEDS", seeds))
        command = [sys.executable, str(tmp_path / "script.py"), file, *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "'final': 0.5" in script("0.5").stdout
    again = script("0.5")
    assert "'final': 0.5" in again.stdout
    assert again.stderr == f"2 of 2 runs reused from {file}, made {date.today().isoformat()} by __main__:train\n"
    assert script("0.5", seeds="1 + 2").stderr.startswith("2 of 3 runs reused")
    refused = script("0.25")
    assert refused.returncode == 1
    assert "the source of __main__:train is another than that of the runs in" in refused.stderr
    assert "`fresh=True` deletes them and makes all anew; `reuse=True` uses them as they are." in refused.stderr
    assert "'final': 0.5" in script("0.25", "reuse").stdout
    assert script("0.25").returncode == 1  # what was reused is still of the old source
    fresh = script("0.75", "fresh")
    assert "'final': 0.75" in fresh.stdout
    assert fresh.stderr == f"3 runs of __main__:train deleted from {file}\n"
    assert len(kept(tmp_path).runs) == 2


class Told:
    """A schedule that says what it is."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __repr__(self) -> str:
        return f"Told({self.rate})"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (object(), "must have a repr that says what it is"),
        (np.arange(5000), "must have a repr that says what it is"),
        (clr.cyclic(0.1, 0.5, 5, scale_fn=lambda cycle: 1 / cycle), "register its scaling function"),
    ],
    ids=["object", "array", "function"],
)
def test_what_can_not_be_known_again_is_not_kept(tmp_path: Path, schedule: Any, message: str) -> None:
    def train(schedule: Any, seed: int, total_steps: int) -> Any:
        yield total_steps, {"loss": 0.5}

    with pytest.raises(ValueError, match=message):
        compare(tmp_path, train, {"own": lambda steps: schedule})
    assert len(compare(tmp_path, train, {"own": lambda steps: schedule}, file=None).runs) == 3
    assert not list(tmp_path.iterdir()) or not kept(tmp_path).runs
    compare(tmp_path, train, {"own": Told(0.5)})
    with pytest.raises(ValueError, match="another schedule under the name 'own'"):
        compare(tmp_path, train, {"own": Told(0.25)})


def test_a_training_without_a_name_needs_one_to_be_kept(tmp_path: Path) -> None:
    train = functools.partial(trainings.parabola)

    def holding(*given: Any) -> Any:
        return train(*given)

    for nameless in (train, holding, lambda *given: trainings.parabola(*given)):
        with pytest.raises(ValueError, match="`name` must be given to keep the runs"):
            clr.compare(nameless, SCHEDULES, total_steps=20, file=tmp_path / "runs.sqlite", workers=0)
    assert len(compare(tmp_path, train, name="mine").runs) == 9
    with pytest.raises(ValueError, match=r"has the runs of 'mine', not of 'tests.trainings:parabola'"):
        compare(tmp_path)


def test_without_a_file_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(compare(tmp_path, file=None).runs) == 9
    assert not list(tmp_path.iterdir())


def test_how_runs_are_compared_is_kept_before_they_are_made(tmp_path: Path) -> None:
    def train(schedule: Any, seed: int, steps: int) -> Any:
        if seed == 2:
            raise KeyboardInterrupt
        yield from trainings.parabola(schedule, seed, steps)

    options: dict[str, Any] = {"metric": "weight", "goal": "max", "target": 0.5, "before": {"cyclic": 7}}
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, train, range_test=TEST, **options)
    found = kept(tmp_path)
    assert len(found.runs) == 6
    assert {name: getattr(found, name) for name in options} == options
    assert found.range_test == TEST


def test_what_was_before_training_is_kept_when_schedules_are_added(tmp_path: Path) -> None:
    compare(tmp_path, before={"cyclic": 7, "low": 1}, range_test=TEST)
    result = compare(tmp_path, schedules=SCHEDULES | {"more": clr.constant(0.5)}, before={"more": 2, "low": 3})
    for found in (result, kept(tmp_path)):
        assert found.before == {"cyclic": 7, "low": 3, "more": 2}
        assert found.range_test == TEST


def test_the_file_is_of_one_comparison_and_one_process(tmp_path: Path) -> None:
    from clr.comparison.store import Store

    file = tmp_path / "runs.sqlite"
    compare(tmp_path, seeds=1)
    with pytest.raises(ValueError, match=r"has the runs of 'tests.trainings:parabola', not of 'tests.trainings:slow'"):
        compare(tmp_path, trainings.slow)
    with pytest.raises(ValueError, match="another schedule under the name 'low'"):
        compare(tmp_path, schedules={"low": clr.constant(0.5)})
    with Store(file), pytest.raises(ValueError, match="is in use by another process"):
        compare(tmp_path)
    with Store(file) as store:
        assert len(clr.Comparison.load(file).runs) == 3  # can be read meanwhile
        # As SQLite says it, each commit then waits for the disk, and outlasts a power cut.
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    other = tmp_path / "other.sqlite"
    other.write_text("not a database, but long enough to look like one" * 30)
    with pytest.raises(ValueError, match="is not the file of a comparison, or is damaged"):
        clr.Comparison.load(other)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE mine (a)")
    database.close()
    with pytest.raises(ValueError, match="is not the file of a comparison"):
        compare(tmp_path, file=foreign)
    with pytest.raises(ValueError, match="is not the file of a comparison"):
        clr.Comparison.load(foreign)
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ValueError, match=r"must be of version 2. Received: 9"):
        clr.Comparison.load(file)
    for missing in (tmp_path / "none.sqlite", tmp_path / "no" / "folder.sqlite"):
        with pytest.raises(OSError, match="No such"):
            clr.Comparison.load(missing)
    with pytest.raises(OSError, match="No such folder"):
        compare(tmp_path, file=tmp_path / "no" / "folder.sqlite")


def test_what_it_found_in_other_forms(tmp_path: Path) -> None:
    result = compare(tmp_path, before={"cyclic": 2})
    data = json.loads(result.to_json())
    assert [row["schedule"] for row in data["rows"]] == ["fixed", "low", "cyclic"]
    assert data["rows"][1]["iterations"] is None  # infinite
    assert data["rows"][0]["final"] == result.rows()[0]["final"]
    assert data["before"] == {"cyclic": 2}
    assert len(data["differences"]) == 3
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [row["schedule"] for row in rows] == ["fixed", "low", "cyclic"]
    assert float(rows[0]["final"]) == result.rows()[0]["final"]
    assert float(rows[0]["final_low"]) < float(rows[0]["final"]) < float(rows[0]["final_high"])
    assert rows[1]["iterations"] == "inf"
    frame = result.to_frame()
    assert frame["final"].tolist() == [row["final"] for row in result.rows()]
    from rich.console import Console

    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(result.table())
    text = " ".join(console.export_text().split())
    for word in (
        "fixed",
        "low",
        "cyclic",
        "loss: smaller is better",
        f"{result.rows()[0]['final']:.4g}",
        "mean of fixed",
    ):
        assert word in text


def test_every_number_has_its_interval(tmp_path: Path) -> None:
    curves = [((10, 0.5), (50, 0.8), (100, 0.7)), ((10, 0.3), (20, 0.5), (100, 0.9))]
    name = "fixed, two drops"
    runs = [
        Run(name, 100, seed, "finished", None, tuple((step, {"acc": value}) for step, value in curve), 1.0)
        for seed, curve in enumerate(curves)
    ]
    runs += [
        Run("b", 100, 0, "finished", None, ((100, {"acc": 0.4}),), 1.0),
        Run("b", 100, 1, "diverged", "acc was nan at step 1", ((1, {"acc": math.nan}),), 1.0),
        *(Run("b", 100, seed, "failed", "no luck", (), 1.0) for seed in (2, 3)),
    ]
    result = clr.Comparison.of(runs, {}, target=0.5)
    # A quarter of all samples of two values has the first one twice, and a quarter the other.
    row, lost = result.rows()
    assert (row["final_interval"], row["best_interval"]) == (pytest.approx((0.7, 0.9)), pytest.approx((0.8, 0.9)))
    assert (row["iterations"], row["iterations_interval"]) == (15, (10, 20))
    assert (row["ratio"], row["ratio_interval"]) == (pytest.approx(0.15), pytest.approx((0.1, 0.2)))
    assert (lost["ratio_interval"], lost["diverged"], lost["failed"]) == (None, 0.25, 0.5)
    assert json.loads(result.to_json())["rows"][0]["ratio_interval"] == pytest.approx([0.1, 0.2])
    first, second = csv.DictReader(io.StringIO(result.to_csv()))
    assert (float(first["ratio_low"]), float(first["ratio_high"])) == pytest.approx((0.1, 0.2))
    assert (second["ratio_low"], second["diverged"], second["failed"]) == ("", "0.25", "0.5")
    assert result.to_frame()["ratio_interval"][0] == pytest.approx((0.1, 0.2))
    headings = ["schedule", "steps", "seeds", "final", "best", "iterations", "ratio", "diverged", "failed"]
    cells = [
        [name, "100", "2", "0.8 (0.7, 0.9)", "0.85 (0.8, 0.9)", "15 (10, 20)", "0.15 (0.10, 0.20)", "-", "-"],
        ["b", "100", "4", "0.4", "0.4", "-", "-", "25%", "50%"],
    ]
    from rich.console import Console

    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(result.table())
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert [heading.removesuffix(" acc") for heading in lines[0]] == headings
    assert lines[2:4] == cells
    narrow = Console(width=80, file=io.StringIO(), record=True)
    narrow.print(clr.Comparison.of(runs[:2], {}, target=0.5).table())
    text = narrow.export_text()
    assert "diverged" not in text
    assert all(word in text for word in (name, "iterations", "(0.10,", "0.20)"))
    result.report(tmp_path / "page.html")
    (table, _) = re.findall("<table>.*?</table>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert re.findall("<th>(.*?)</th>", table) == headings
    assert re.findall("<td>(.*?)</td>", table) == cells[0] + cells[1]


def test_another_metric_of_the_same_runs(tmp_path: Path) -> None:
    compare(tmp_path)
    other = clr.Comparison.load(tmp_path / "runs.sqlite", metric="weight", goal="min", target=0.5)
    assert (other.metric, other.target) == ("weight", 0.5)
    assert other.rows()[0]["final"] == pytest.approx(2 * 0.75**20)
    assert other.rows()[0]["iterations"] == 5  # 2 * 0.75**5 is the first below a half
    with pytest.raises(ValueError, match="`metric` must be one of"):
        clr.Comparison.load(tmp_path / "runs.sqlite", metric="other")


def test_a_single_run_has_no_interval(tmp_path: Path) -> None:
    (row,) = compare(tmp_path, schedules={"fixed": clr.constant(0.25)}, seeds=1).rows()
    assert (row["final_interval"], row["best_interval"]) == (None, None)
    assert row["ratio"] == 1.0


def test_a_target_that_is_reached_by_a_large_metric() -> None:
    runs = [Run("a", 30, 0, "finished", None, ((10, {"acc": 0.5}), (20, {"acc": 0.9}), (30, {"acc": 0.7})), 1.0)]
    result = clr.Comparison.of(runs, {}, target=0.6)
    (row,) = result.rows()
    assert (row["final"], row["best"], row["iterations"]) == (0.7, 0.9, 20)


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    cases: list[Any] = [
        ({"train": 3}, TypeError, "`train` must be a function"),
        ({"schedules": []}, TypeError, "`schedules`"),
        ({"schedules": {}}, ValueError, "`schedules` must be a dict of one or more schedules"),
        ({"schedules": {3: clr.constant(0.1)}}, TypeError, "`schedules` must be a dict of .*, each under a name of"),
        ({"seeds": 0}, ValueError, "`seeds`"),
        ({"seeds": [1, 1]}, ValueError, "`seeds` must be one or more numbers, each once"),
        ({"total_steps": 0}, ValueError, "`total_steps` must be a whole number, 1 or more"),
        ({"total_steps": []}, ValueError, "`total_steps` must be one or more"),
        ({"goal": "best"}, ValueError, "`goal` must be one of"),
        ({"target": math.nan}, ValueError, "`target`"),
        ({"before": {"other": 3}}, ValueError, "`before`"),
        ({"engine": "cloud"}, ValueError, "`engine` must be one of"),
        ({"workers": -1}, ValueError, "`workers`"),
        ({"workers": 0, "engine": "ray"}, ValueError, "`workers` must be a whole number, 1 or more"),
        ({"train": lambda *_: None, "workers": 1}, TypeError, "`train` must be a function of a module, or `workers` 0"),
        ({"seeds": [2**63]}, ValueError, "`seeds` must be below 2"),
        ({"seeds": 10**12}, ValueError, "at most 100,000 runs together"),
        ({"before": 5}, TypeError, "`before` must be a dict with a number of updates for each name"),
        ({"before": {"fixed": 2**63}}, ValueError, "`before` must be below 2"),
        ({"metric": 5}, TypeError, "`metric` must be a name of"),
        ({"file": ":memory:"}, ValueError, "`file` must be the path of a file. Received: ':memory:'"),
        ({"file": ""}, ValueError, "`file` must be the path of a file"),
        ({"file": "a\0b"}, ValueError, "`file` must be the path of a file"),
        ({"file": 5}, TypeError, "`file` must be the path of a file"),
        ({"file": b"runs.sqlite"}, TypeError, "`file` must be the path of a file"),
        (
            {"schedules": {"own": lambda steps: lambda: steps}, "workers": 1, "file": None, "name": None},
            TypeError,
            "the schedule 'own' must be picklable to be sent to another process",
        ),
    ]
    for number, (options, error, message) in enumerate(cases):
        with pytest.raises(error, match=message):
            compare(tmp_path, **{"train": trainings.parabola, "file": tmp_path / str(number), "name": "own", **options})


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", SimpleNamespace(__version__="0.0.7"))  # as if it had been loaded
    names = {"<script>alert(1)</script>": clr.constant(0.25), "a $b$ & _c": clr.triangular(0.25, 0.75, 5)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    compare(tmp_path, schedules=names, range_test=test, total_steps=[10, 20])
    page = tmp_path / "page.html"
    clr.Comparison.load(tmp_path / "runs.sqlite").report(page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/", "")  # but for the names of SVG's own words
    assert text.count("<svg") == 5  # two of curves, two of rates, one range test
    assert 'name="viewport"' in text
    assert "Curves are medians over the runs that have finished, and their bands reach from the lowest" in text
    settings = html.unescape(text.split("<h2>Settings</h2>")[1])
    assert 'train: "tests.trainings:parabola"\nseeds: [0, 1, 2]\nengine: "local"\nmetric: "loss"\n' in settings
    versions = json.loads(settings.split("versions at the last run: ")[1].splitlines()[0])
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (versions["clr"], versions["numpy"]) == (importlib.metadata.version("cyclic-learning-rate"), np.__version__)
    assert versions["optax"] == "0.0.7"
    broken = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=3, file=tmp_path / "b.sqlite")
    broken.report(page)
    text = page.read_text(encoding="utf-8")
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; luck" in text
    assert "accuracy was nan at step 2" in text


def curve(name: str, seed: int, *values: tuple[int, float], state: str = "finished") -> Run:
    return Run(name, 40, seed, state, None, tuple((step, {"acc": value}) for step, value in values), 1.0)


def drawn(ax: Any, number: int = 0) -> tuple[list[list[float]], set[tuple[float, float]]]:
    """The points of a line, and those of the band around it."""
    band = ax.collections[number].get_paths()[0].vertices
    return ax.lines[number].get_xydata().tolist(), {(float(x), float(y)) for x, y in band}


def test_curves_are_medians_with_a_band_over_the_seeds() -> None:
    runs = [
        curve("a", 0, (10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)),
        curve("a", 1, (10, 0.2), (20, 0.6), (30, 0.6), (40, 0.9)),
        curve("a", 2, (10, 0.9), (20, 0.5), (30, 0.5), (40, 0.5)),
    ]
    ax = _curves(clr.Comparison.of(runs, {}, target=0.45), 40)
    line, band = drawn(ax)
    assert line == [[10, 0.2], [20, 0.5], [30, 0.5], [40, 0.5]]
    assert band == {(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4), (10, 0.9), (20, 0.6), (30, 0.6), (40, 0.9)}
    assert ax.lines[1].get_ydata() == [0.45, 0.45]
    assert (ax.lines[0].get_label(), ax.get_ylabel(), ax.get_xlabel()) == ("a", "acc", "update")


def test_curves_with_records_at_other_steps_are_taken_together() -> None:
    runs = [curve("a", 0, (10, 0.0), (30, 0.0)), curve("a", 1, (20, 1.0), (40, 1.0))]
    line, band = drawn(_curves(clr.Comparison.of(runs, {}), 40))
    assert line == [[20, 0.5], [30, 0.5], [40, 0.5]]
    assert band == {(step, value) for step in (20, 30, 40) for value in (0.0, 1.0)}


def test_curves_leave_out_what_was_lost_and_say_so() -> None:
    runs = [
        curve("a", 0, (20, 0.1), (40, 0.2)),
        curve("a", 1, (20, 0.9), state="failed"),
        curve("a", 2, (20, 0.8), (40, math.nan), state="diverged"),
        curve("b", 0, (10, 0.5), (20, 0.5), (30, math.inf), state="diverged"),
        curve("b", 1, (10, 0.25), state="failed"),
        curve("c", 0, state="failed"),
    ]
    ax = _curves(clr.Comparison.of(runs, {}), 40)
    assert [line.get_label() for line in ax.lines] == ["a (1 of 3 runs)", "b (0 of 2 runs)"]
    assert drawn(ax, 0)[0] == [[20, 0.1], [40, 0.2]]
    assert drawn(ax, 1)[0] == [[10, 0.375]]


def test_the_rates_that_are_drawn_are_those_of_the_schedules(tmp_path: Path) -> None:
    result = compare(tmp_path, schedules={"a": clr.triangular(0.25, 0.75, 4)}, seeds=1)
    ax: Any = _rates(result, 20)
    (line,) = ax.lines
    assert line.get_xdata().tolist() == list(range(20))
    up, down = [0.25, 0.375, 0.5, 0.625], [0.75, 0.625, 0.5, 0.375]
    assert line.get_ydata().tolist() == pytest.approx((up + down) * 2 + up)
    assert (line.get_label(), ax.get_ylabel(), ax.get_xlabel()) == ("a", "learning rate", "update")


def test_a_range_test_without_a_loss_is_told_in_words(tmp_path: Path) -> None:
    def interrupted(lr: float) -> float:
        raise KeyboardInterrupt

    test = clr.range_test(interrupted)
    assert test.stop == "interrupted"
    compare(tmp_path, range_test=test).report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search("<h2>The LR range test</h2>\n<p>[^<]*, before there was a loss.</p>", text)


def test_no_text_of_the_user_is_markup(tmp_path: Path) -> None:
    evil = '<b id=evil>$x$ & "y"</b>'

    class Own:
        def __repr__(self) -> str:
            return evil

        def __call__(self, step: int) -> float:
            return 0.25

    class Train:
        name = evil

        def __call__(self, schedule: Any, seed: int, steps: int) -> Any:
            yield steps, {evil: 0.5}

    own = Own()
    compare(tmp_path, Train(), {"a": lambda steps: own}, seeds=1, metric=evil, name="own").report(
        tmp_path / "page.html"
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b id=evil>" not in text
    words = html.unescape(re.sub("<[^>]*>", "", text))
    assert words.count(evil) >= 4  # the metric, the schedule and the training


def test_many_schedules_leave_room_for_their_curves(tmp_path: Path) -> None:
    result = compare(tmp_path, schedules={f"number {number}": clr.constant(0.01) for number in range(30)}, seeds=1)
    page = tmp_path / "page.html"
    result.report(page)
    drawings = re.findall("<svg.*?</svg>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(drawings) == 2  # the curves and the schedules
    for drawing in drawings:
        frame = re.search(r'id="patch_2">\s*<path d="([^"]*)"', drawing)  # that of the axes
        assert frame
        heights = [float(height) for height in re.findall(r"[ML] \S+ (\S+)", frame[1])]
        assert max(heights) - min(heights) > 108  # points, an inch and a half


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    names = {f"schedule_with_a_long_name_{number}": clr.constant(0.02 * (number + 1)) for number in range(12)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    compare(tmp_path, schedules=names, range_test=test).report(tmp_path / "page.html")
    # The page in a frame, for a window of Chromium is no less than 500 wide; and what a script sees of it.
    (tmp_path / "frame.html").write_text(f"""<!doctype html><title></title>
<iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentWindow, all = what => [...page.document.querySelectorAll(what)];
  const wide = all("body > *").filter(e => e.getBoundingClientRect().right > page.innerWidth + 1);
  document.title = JSON.stringify({{
    width: page.innerWidth, over: page.document.documentElement.scrollWidth - page.innerWidth, wide: wide.length,
    drawings: all("svg").map(e => e.getBoundingClientRect().width), rows: all("tbody tr").length,
    letters: Math.min(...all("p, td, th, pre").map(e => parseFloat(page.getComputedStyle(e).fontSize))),
    fetched: page.performance.getEntriesByType("resource").length}});
}};
</script>""")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options = [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1300,900", "--dump-dom"]
    command += [*options, (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(html.unescape(str(re.findall("<title>(.*?)</title>", done.stdout)[0])))
    assert abs(found["width"] - width) <= 20  # but for a scroll bar
    assert found["over"] <= 0
    assert found["wide"] == 0
    assert found["fetched"] == 0
    assert found["rows"] == 12 + 11  # results, and differences from the best constant
    assert found["letters"] >= 12
    assert len(found["drawings"]) == 3
    assert all(min(0.8 * width, 600) < drawing <= width for drawing in found["drawings"])


RAY = """
import functools, json, os, subprocess, sys, threading, time
import ray
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    import clr
    from tests import trainings

    log = os.environ[trainings.LOG]
    schedules = {"a": clr.constant(0.25), "b": clr.constant(0.5)}
    options = {"total_steps": 10, "file": sys.argv[1], "engine": "ray"}
    first = clr.compare(trainings.once_killed, schedules, seeds=[1], **options)
    result = clr.compare(trainings.once_killed, schedules, seeds=3, **options)
    assert [run for run in result.runs if run.seed == 1] == list(first.runs)

    options["file"] += "-2"
    try:
        clr.compare(trainings.Unloadable(), schedules, seeds=1, name="own", **options)
    except RuntimeError as error:
        assert "'a' could not begin on Ray" in str(error) or "'b' could not begin on Ray" in str(error), error
        assert "no number" in str(error), error
        assert clr.Comparison.load(options["file"]).runs == ()
    else:
        raise AssertionError("it has begun")

    # Begun here, and gone on with there; and what always takes its process down is a failed run in the end.
    options |= {"file": sys.argv[1] + "-3", "schedules": {"a": clr.constant(0.25)}}
    train = functools.partial(trainings.mortal, log + "-mortal")
    options["name"] = "mortal"
    here = clr.compare(train, seeds=[1], **options | {"engine": "local", "workers": 0})
    there = clr.compare(train, seeds=[0, 1, 2], **options)
    assert there.runs[1] == here.runs[0]
    assert [run.state for run in there.runs] == ["failed", "finished", "finished"], there.runs
    assert there.runs[0].error.startswith("the worker died: "), there.runs[0].error

    def begun(log, count):
        while not os.path.exists(log) or len(open(log).readlines()) < count:
            time.sleep(0.02)

    # The program that compares dies, and is called again.
    options |= {"file": sys.argv[1] + "-4", "seeds": [5, 6, 7, 8]}
    driver = (
        "import functools, sys, ray, clr; from tests import trainings; ray.init(address=sys.argv[1]); "
        "clr.compare(functools.partial(trainings.mortal, sys.argv[2]), {'a': clr.constant(0.25)}, name='mortal', "
        "seeds=[5, 6, 7, 8], total_steps=10, file=sys.argv[3], engine='ray', workers=1)"
    )
    words = [cluster.address, log + "-driver", options["file"]]
    process = subprocess.Popen([sys.executable, "-c", driver, *words], stderr=subprocess.DEVNULL)
    begun(log + "-driver", 2)
    while not clr.Comparison.load(options["file"]).runs:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = clr.Comparison.load(options["file"]).runs
    assert 1 <= len(before) < 4, before
    after = clr.compare(functools.partial(trainings.mortal, log + "-driver"), **options).runs
    assert [run.state for run in after] == ["finished"] * 4, after
    assert after[0] == before[0]

    # A machine goes away while it trains.
    options |= {"file": sys.argv[1] + "-5", "name": "stranded"}

    def away():
        begun(log + "-node", 1)
        cluster.remove_node(other, allow_graceful=False)

    thread = threading.Thread(target=away)
    thread.start()
    left = clr.compare(functools.partial(trainings.stranded, log + "-node", other.node_id), **options)
    thread.join()
    assert [run.state for run in left.runs] == ["finished"] * 4, left.runs

    with open(sys.argv[2], "w") as file:  # for Ray prints as it likes
        json.dump([[run.schedule, run.seed, run.state, run.records] for run in result.runs], file)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_ray_cluster_of_two_nodes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    environment = os.environ | {trainings.LOG: str(tmp_path / "log"), "PYTHONPATH": str(ROOT)}
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    command = [sys.executable, "-c", RAY, str(tmp_path / "runs.sqlite"), str(tmp_path / "found.json")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads((tmp_path / "found.json").read_text())
    assert [run[:3] for run in runs] == [[name, seed, "finished"] for name in "ab" for seed in range(3)]
    assert [run[3][0][1]["loss"] for run in runs] == [0.25, 1.25, 2.25, 0.5, 1.5, 2.5]
    assert len({run[3][0][1]["node"] for run in runs}) == 2
    assert (tmp_path / "mark-0").exists()  # one has died on the way
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "0", "1", "1", "2", "2"]  # none was run twice
    assert (tmp_path / "log-mortal").read_text().split().count("0") == 4  # it was tried again three times
    # No run could end on the machine that has gone, and all have ended: so what began there was tried elsewhere.
    assert (tmp_path / "log-node").read_text().split()
