"""Where runs are made: processes with one thread each, and a Ray cluster."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import clr
from clr.comparison import engines
from tests import trainings
from tests.comparison.common import ROOT, compare, kept


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


@pytest.mark.skipif(os.cpu_count() == 1 or sys.platform != "linux", reason="needs two cores and /proc")
@pytest.mark.parametrize("framework", ["no", "torch", "jax", "tensorflow"])
def test_workers_are_processes_with_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str) -> None:
    if framework != "no":
        pytest.importorskip(framework)
    count = 2 if framework == "no" else 1  # for they are slow to import
    for variable in engines._THREADS:
        monkeypatch.delenv(variable, raising=False)

    def threads(name: str) -> set[float]:
        train = getattr(trainings, "threads" if framework == "no" else f"{framework}_threads")
        options: dict[str, Any] = {"seeds": count, "workers": count, "file": tmp_path / name}
        runs = compare(tmp_path, train, {"one": clr.constant(0.1)}, **options).runs
        assert os.getpid() not in {run.records[0][1]["process"] for run in runs}
        return {run.records[0][1]["threads"] for run in runs}

    assert threads("limited") == {1.0}
    assert not any(variable in os.environ for variable in engines._THREADS)
    monkeypatch.setattr(engines, "_THREADS", {})
    assert min(threads("free")) != 1


def test_there_is_a_worker_for_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    options: dict[str, Any] = {"seeds": 6, "workers": None, "metric": "process"}
    result = compare(tmp_path, trainings.threads_for_a_while, {"one": clr.constant(0.1)}, **options)
    assert len({run.records[0][1]["process"] for run in result.runs}) == 3


def test_a_worker_may_have_processes_of_its_own(tmp_path: Path) -> None:
    (run,) = compare(tmp_path, trainings.nested, {"one": clr.constant(0.1)}, seeds=1, workers=1).runs
    assert (run.state, run.records) == ("finished", ((20, {"loss": 10.0}),))


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
