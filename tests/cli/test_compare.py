"""``clr compare``: what it runs, keeps, prints and refuses."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import clr
from tests import trainings

Call = Callable[..., tuple[int, str, str]]
SCHEDULES = {"fixed": clr.constant(0.25), "low": clr.constant(0.125), "cyclic": clr.triangular(0.25, 0.75, 5)}
# Two passes of 40 updates.
TEST = clr.range_test(lambda lr: 1 / (1 + 100 * lr), lambda repeat: None, max_lr=1, num_steps=40, repeats=2)
GIVEN = ("compare", "tests.trainings:parabola", "--schedules", "schedules.json", "--total-steps", "20")
JSON = ("--workers", "0", "--format", "json")


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that has a line for each run. The working directory has a file of schedules and one of a range test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trainings.LOG, str(tmp_path / "log"))
    monkeypatch.setenv("COLUMNS", "100")
    Path("schedules.json").write_text(json.dumps({name: value.to_dict() for name, value in SCHEDULES.items()}))
    Path("test.json").write_text(TEST.to_json())
    return tmp_path / "log"


def test_it_keeps_the_runs_and_goes_on(call: Call, log: Path) -> None:
    code, out, err = call(*GIVEN, "--seeds", "2", *JSON, "--out", "page.html")
    assert (code, Path("clr-compare.sqlite").exists()) == (0, True), err
    assert [row["schedule"] for row in json.loads(out)["rows"]] == list(SCHEDULES)
    assert [row["total_steps"] for row in json.loads(out)["rows"]] == [20, 20, 20]
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert "The LR range test" not in Path("page.html").read_text()
    assert len(log.read_text().splitlines()) == 6
    # It goes on with one more seed, and hears of the range test.
    code, out, err = call(*GIVEN, "--seeds", "3", *JSON, "--range-test", "test.json", "--out", "page.html")
    assert code == 0, err
    assert len(log.read_text().splitlines()) == 9
    assert [row["seeds"] for row in json.loads(out)["rows"]] == [3, 3, 3]
    assert json.loads(out)["before"] == {"cyclic": 80}
    assert "The LR range test" in Path("page.html").read_text()


def test_report_reads_the_file_of_the_runs(call: Call) -> None:
    assert call(*GIVEN, "--seeds", "2", *JSON, "--runs", "runs.sqlite")[0] == 0
    report = ("compare", "report", "runs.sqlite")
    code, out, _ = call(*report)
    assert (code, out.splitlines()[-1]) == (0, "clr-compare.html")
    assert Path("clr-compare.html").read_text().startswith("<!doctype html>")
    assert "cyclic" in out
    assert "low - fixed" not in out
    assert "low - fixed" in call(*report, "--differences")[1]
    code, out, _ = call(*report, "--format", "csv", "--metric", "weight")
    assert (code, out.startswith('"schedule","total_steps","seeds","final",')) == (0, True)
    out = call(*report, "--differences", "--format", "csv")[1]
    assert out.startswith('"schedule","against","total_steps","seeds","difference","low","high"\n"low","fixed",20,2,')


def test_a_file_is_of_one_training(call: Call, log: Path) -> None:
    given = (*GIVEN, *JSON, "--seeds", "1")
    assert call(*given, "--name", "mine")[0] == 0
    code, out, err = call(*given, "--name", "other")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "Give another --runs, or, if it is the same training, `--name 'mine'`." in err
    assert call(*given, "--name", "other", "--fresh")[0] == 2  # it deletes no runs but its own
    assert call(*given, "--name", "mine", "--fresh")[0] == 0
    assert len(log.read_text().splitlines()) == 6


def test_a_changed_training_is_refused_unless_told_otherwise(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def final(value: float, *options: str) -> tuple[int, float | None, str]:
        """The exit code, the final metric and the errors after a training that comes to a value."""
        source = f"def train(schedule, seed, total_steps):\n    yield total_steps, {{'accuracy': {value}}}\n"
        Path("changing.py").write_text(source)
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        code, out, err = call("compare", "changing:train", *GIVEN[2:], *JSON, "--seeds", "1", *options)
        return code, json.loads(out)["rows"][0]["final"] if out else None, err

    assert final(0.5)[:2] == (0, 0.5)
    assert final(0.5)[:2] == (0, 0.5)
    code, found, err = final(0.625)
    assert (code, found, len(err.splitlines())) == (2, None, 1)
    assert "--fresh deletes them" in err
    assert "--reuse uses them" in err
    code, found, err = final(0.625, "--reuse")
    assert (code, found) == (0, 0.5)
    assert "3 of 3 runs reused from clr-compare.sqlite" in err
    assert final(0.6875, "--fresh")[:2] == (0, 0.6875)
