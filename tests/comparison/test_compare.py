"""Comparisons: what they run, keep, say and refuse."""

import functools
import math
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clr
from tests import trainings
from tests.comparison.common import SCHEDULES, TEST, compare, kept


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


def test_numbers_may_be_those_of_numpy(tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_steps": np.int32(20), "target": np.float32(0.5), "before": {"low": np.int8(3)}}
    result = compare(tmp_path, seeds=np.int64(2), workers=np.int8(0), **options)
    assert (len(result.runs), result.target, result.before) == (6, 0.5, {"low": 3})
    assert [(run.total_steps, run.seed) for run in result.runs] == [(20, 0), (20, 1)] * 3


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


HELPED = """
import sys
import clr
from inner import helper

SETTINGS = {}
SETTINGS.update(rate=RATE)


def train(schedule, seed, total_steps):
    yield total_steps, {"loss": helper.loss() * SETTINGS["rate"]}


print(clr.compare(train, {"a": clr.constant(0.25)}, seeds=1, total_steps=5, file=sys.argv[1], workers=0).rows())
"""


def test_an_edit_of_what_a_training_imports_is_noticed(tmp_path: Path) -> None:
    file, folder = str(tmp_path / "runs.sqlite"), tmp_path / "inner"
    folder.mkdir()
    (folder / "__init__.py").write_text("")

    def script(loss: str, rate: str = "1", comment: str = "") -> subprocess.CompletedProcess[str]:
        (folder / "deep.py").write_text(f"{comment}\nVALUE = {loss}\n")
        (folder / "helper.py").write_text("from inner import deep\n\ndef loss():\n    return deep.VALUE\n")
        (tmp_path / "script.py").write_text(HELPED.replace("RATE", rate))
        command = [sys.executable, "-B", str(tmp_path / "script.py"), file]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "'final': 0.5" in script("0.5").stdout
    assert script("0.5", comment="# a comment counts for nothing").returncode == 0
    for changed in (script("0.25"), script("0.5", rate="2")):
        assert changed.returncode == 1
        assert "the source of __main__:train is another" in changed.stderr


def test_names_that_look_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names that look different"):
        compare(tmp_path, schedules={"caf\u00e9": clr.constant(0.1), "cafe\u0301": clr.constant(0.2)})


@pytest.mark.parametrize("error", [BaseException, GeneratorExit, SystemExit])
def test_whatever_a_training_raises_is_a_failed_run(tmp_path: Path, error: type[BaseException]) -> None:
    def train(schedule: Any, seed: int, steps: int) -> Any:
        yield 1, {"loss": 1.0}
        raise error

    result = compare(tmp_path, train, schedules={"a": clr.constant(0.1)}, seeds=1)
    assert [run.state for run in result.runs] == ["failed"]


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
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE mine (a)")
    database.close()
    (tmp_path / "other.sqlite").write_text("not a database, but long enough to look like one" * 30)
    for other in (foreign, tmp_path / "other.sqlite"):
        for use in (clr.Comparison.load, lambda other: compare(tmp_path, file=other)):
            with pytest.raises(ValueError, match="is not the file of a comparison, or is damaged"):
                use(other)
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
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
        ({"progress": "no"}, TypeError, "`progress` must be True or False"),
        ({"fresh": 1}, TypeError, "`fresh` must be True or False"),
        ({"range_test": 5}, TypeError, "`range_test` must be a range test"),
        ({"metric": 5}, TypeError, "`metric` must be a name of"),
        ({"file": ":memory:"}, ValueError, "`file` must be the path of a file. Received: ':memory:'"),
        ({"file": "file:runs?mode=memory"}, ValueError, "`file` must be the path of a file"),
        ({"file": ""}, ValueError, "`file` must be the path of a file"),
        ({"file": "a\0b"}, ValueError, "`file` must be the path of a file"),
        ({"file": 5}, TypeError, "`file` must be the path of a file"),
        ({"file": b"runs.sqlite"}, TypeError, "`file` must be the path of a file"),
        (
            {"schedules": {"own": lambda steps: lambda: steps}, "workers": 1, "file": None, "name": None},
            TypeError,
            "the schedule 'own' must be picklable to be sent to another process",
        ),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(tmp_path, **{"name": "own", **options})
