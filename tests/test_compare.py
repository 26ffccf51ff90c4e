"""Comparisons of schedules: what they find, what they keep, and what they survive."""

import csv
import html
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
from pathlib import Path
from typing import Any

import pytest

import clr
from clr.comparison.result import interval
from clr.comparison.runs import Run
from tests import trainings

SCHEDULES = {"fixed": clr.constant(0.25), "low": clr.constant(0.125), "cyclic": clr.triangular(0.25, 0.75, 5)}
ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def compare(tmp_path: Path, train: Any = trainings.parabola, schedules: Any = None, **options: Any) -> clr.Comparison:
    options = {"seeds": 3, "steps": 20, "file": tmp_path / "runs.sqlite", "workers": 0, **options}
    return clr.compare(train, SCHEDULES if schedules is None else schedules, **options)


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

    result = compare(tmp_path, schedules={"cyclic": made, "fixed": clr.constant(0.25)}, steps=[20, 8], seeds=[5, 2])
    assert sorted(budgets) == [8, 20]
    assert result.budgets == (8, 20)
    assert [(row["schedule"], row["steps"], row["seeds"]) for row in result.rows()] == [
        ("cyclic", 8, 2), ("fixed", 8, 2), ("cyclic", 20, 2), ("fixed", 20, 2),
    ]  # fmt: skip
    assert {run.seed for run in result.runs} == {2, 5}
    assert result.schedule("cyclic", 8) == clr.triangular(0.25, 0.75, 2)
    assert all(run.records[-1][0] == run.steps for run in result.runs)


def test_what_is_no_schedule_of_ours_is_handed_on(tmp_path: Path) -> None:
    seen = []

    def train(schedule: Any, seed: int, steps: int) -> Any:
        seen.append(schedule)
        yield steps, {"accuracy": 0.5}

    result = compare(tmp_path, train, {"own": "a word", "made": lambda steps: ("tuple", steps)}, seeds=1)
    assert seen == ["a word", ("tuple", 20)]
    assert result.reference is None
    assert result.target is None
    assert (result.goal, result.schedule("own", 20)) == ("max", None)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_is_a_result(tmp_path: Path, workers: int) -> None:
    seeds = [0, 1, 2] if workers == 0 else [0, 1, 2, 3, 4]
    result = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=seeds, workers=workers)
    states = {run.seed: run.state for run in result.runs}
    assert [states[seed] for seed in seeds] == ["finished", "failed", "diverged", "failed", "failed"][: len(seeds)]
    errors = {run.seed: str(run.error) for run in result.runs}
    assert errors[0] == "None"
    assert errors[1].endswith("ValueError: <b>no</b> luck")
    assert "in troubled" in errors[1]
    assert errors[2] == "accuracy was nan at step 2"
    if workers:
        assert errors[3] == f"the worker died with exit code {-signal.SIGKILL}"
        assert errors[4] == "the worker died with exit code 3"
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


def test_workers_are_processes_with_one_thread(tmp_path: Path) -> None:
    result = compare(tmp_path, trainings.threads, {"one": clr.constant(0.1)}, seeds=4, workers=2, metric="threads")
    assert {run.records[0][1]["threads"] for run in result.runs} == {1.0}
    assert os.getpid() not in {run.records[0][1]["process"] for run in result.runs}
    assert "OMP_NUM_THREADS" not in os.environ


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
from tests.test_compare import SCHEDULES

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
    clr.compare(trainings.slow, SCHEDULES, seeds=4, steps=20, file=sys.argv[1], workers=int(sys.argv[2]))
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


def test_the_file_is_of_one_comparison_and_one_process(tmp_path: Path) -> None:
    from clr.comparison.store import Store

    file = tmp_path / "runs.sqlite"
    compare(tmp_path, seeds=1)
    with pytest.raises(ValueError, match=r"has the runs of tests.trainings:parabola, not of tests.trainings:slow"):
        compare(tmp_path, trainings.slow)
    with pytest.raises(ValueError, match="another schedule under the name 'low'"):
        compare(tmp_path, schedules={"low": clr.constant(0.5)})
    with Store(file), pytest.raises(ValueError, match="is in use by another process"):
        compare(tmp_path)
    with Store(file):
        assert len(clr.Comparison.load(file).runs) == 3  # can be read meanwhile
    other = tmp_path / "other.sqlite"
    other.write_text("not a database, but long enough to look like one" * 30)
    with pytest.raises(ValueError, match="is not the file of a comparison"):
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
    with pytest.raises(ValueError, match=r"must be of version 1. Received: 9"):
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
    text = console.export_text()
    for word in (
        "fixed",
        "low",
        "cyclic",
        "loss: smaller is better",
        f"{result.rows()[0]['final']:.4g}",
        "mean of fixed",
    ):
        assert word in text


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
        ({"schedules": {}}, ValueError, "`schedules` must have a name"),
        ({"schedules": {3: clr.constant(0.1)}}, ValueError, "`schedules` must have a name"),
        ({"seeds": 0}, ValueError, "`seeds`"),
        ({"seeds": [1, 1]}, ValueError, "`seeds` must be one or more numbers, each once"),
        ({"steps": 0}, ValueError, "`steps` must be whole numbers from 1"),
        ({"steps": []}, ValueError, "`steps` must be one or more"),
        ({"goal": "best"}, ValueError, "`goal` must be one of"),
        ({"target": math.nan}, ValueError, "`target`"),
        ({"before": {"other": 3}}, ValueError, "`before`"),
        ({"engine": "cloud"}, ValueError, "`engine` must be one of"),
        ({"workers": -1}, ValueError, "`workers`"),
        ({"train": lambda *_: None, "workers": 1}, TypeError, "`train` must be a function of a module, or `workers` 0"),
        (
            {"schedules": {"own": lambda steps: lambda: steps}, "workers": 1},
            TypeError,
            "the schedule 'own' can not be sent to another process",
        ),
    ]
    for number, (options, error, message) in enumerate(cases):
        with pytest.raises(error, match=message):
            compare(tmp_path, **{"train": trainings.parabola, "file": tmp_path / str(number), **options})


def test_the_page(tmp_path: Path) -> None:
    names = {"<script>alert(1)</script>": clr.constant(0.25), "a $b$ & _c": clr.triangular(0.25, 0.75, 5)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    compare(tmp_path, schedules=names, range_test=test, steps=[10, 20])
    page = tmp_path / "page.html"
    clr.Comparison.load(tmp_path / "runs.sqlite").report(page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/", "")  # but for the names of SVG's own words
    assert text.count("<svg") == 5  # two of curves, two of rates, one range test
    assert 'name="viewport"' in text
    broken = compare(tmp_path, trainings.troubled, {"one": clr.constant(0.1)}, seeds=3, file=tmp_path / "b.sqlite")
    broken.report(page)
    text = page.read_text(encoding="utf-8")
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; luck" in text
    assert "accuracy was nan at step 2" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser_as_wide_as_a_phone(tmp_path: Path) -> None:
    names = {f"schedule_with_a_long_name_{number}": clr.constant(0.02 * (number + 1)) for number in range(12)}
    test = clr.range_test(lambda lr: 1 / (1 + 100 * lr) + lr**2, min_lr=1e-6, max_lr=100)
    result = compare(tmp_path, schedules=names, range_test=test)
    page = tmp_path / "page.html"
    result.report(page)
    # What a script of the page would see; the page itself has none.
    measure = """<script>
const wide = [...document.querySelectorAll("body > *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
document.title = JSON.stringify({
  width: innerWidth, over: document.documentElement.scrollWidth - innerWidth, wide: wide.length,
  drawings: [...document.querySelectorAll("svg")].map(e => e.getBoundingClientRect().width),
  rows: document.querySelectorAll("tbody tr").length, fetched: performance.getEntriesByType("resource").length});
</script>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", measure + "</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'browser'}",
    ]
    options = ["--window-size=390,844", "--dump-dom", page.as_uri()]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(html.unescape(str(re.findall("<title>(.*?)</title>", done.stdout)[0])))
    assert found["width"] <= 500  # the least that a window of Chromium may have
    assert found["over"] <= 0
    assert found["wide"] == 0
    assert found["fetched"] == 0
    assert found["rows"] == 12 + 11  # results, and differences from the best constant
    assert len(found["drawings"]) == 3
    assert all(0.8 * found["width"] < width <= found["width"] for width in found["drawings"])


def test_the_command(tmp_path: Path) -> None:
    schedules = tmp_path / "schedules.json"
    schedules.write_text(json.dumps({name: schedule.to_dict() for name, schedule in SCHEDULES.items()}))

    def clr_compare(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from clr.cli import main; main()", "compare", *arguments]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)

    runs, page = str(tmp_path / "runs.sqlite"), str(tmp_path / "page.html")
    given = ("tests.trainings:parabola", "--schedules", str(schedules), "--steps", "20", "--runs", runs)
    done = clr_compare(*given, "--seeds", "2", "--workers", "1", "--format", "json", "--out", page)
    assert done.returncode == 0, done.stderr
    assert [row["schedule"] for row in json.loads(done.stdout)["rows"]] == list(SCHEDULES)
    assert Path(page).read_text().startswith("<!doctype html>")
    done = clr_compare("report", runs, "--format", "csv", "--metric", "weight", "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("schedule,steps,seeds,final,")
    done = clr_compare("report", runs, "--out", page)
    assert "cyclic" in done.stdout
    for wrong, message in [
        (("report",), "needs the file of the runs"),
        (("report", "none.sqlite"), "cannot read none.sqlite: No such file"),
        (("tests.trainings",), "needs --schedules and --steps"),
        (("tests.trainings", *given[1:]), "must be named as MODULE:FUNCTION. Received: tests.trainings"),
        (("tests.trainings:none", *given[1:]), "cannot find tests.trainings:none"),
        (("tests.none:train", *given[1:]), "cannot find tests.none:train"),
        ((given[0], "--schedules", "none.json", "--steps", "3"), "cannot read none.json"),
        ((given[0], "--schedules", page, "--steps", "3"), "has no schedules"),
        (("tests.trainings:slow", *given[1:]), "has the runs of tests.trainings:parabola"),
    ]:
        done = clr_compare(*wrong)
        assert done.returncode == 2, wrong
        assert message in done.stderr
        assert "Traceback" not in done.stderr


RAY = """
import json, os, sys
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
import clr
from tests import trainings

result = clr.compare(
    trainings.once_killed, {"a": clr.constant(0.25), "b": clr.constant(0.5)},
    seeds=3, steps=10, file=sys.argv[1], engine="ray",
)
print(json.dumps([[run.schedule, run.seed, run.state, run.records] for run in result.runs]))
ray.shutdown()
cluster.shutdown()
"""


def test_a_ray_cluster_of_two_nodes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    environment = os.environ | {trainings.LOG: str(tmp_path / "log"), "PYTHONPATH": str(ROOT)}
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    command = [sys.executable, "-c", RAY, str(tmp_path / "runs.sqlite")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads(done.stdout.splitlines()[-1])
    assert [run[:3] for run in runs] == [[name, seed, "finished"] for name in "ab" for seed in range(3)]
    assert [run[3][0][1]["loss"] for run in runs] == [0.25, 1.25, 2.25, 0.5, 1.5, 2.5]
    assert len({run[3][0][1]["node"] for run in runs}) == 2
    assert (tmp_path / "mark-0").exists()  # one has died on the way
