"""What can befall a comparison: damaged and locked files, full disks, kills. No run is lost, made twice or altered."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import clr
from clr.comparison import store
from tests import trainings

ROOT = Path(__file__).parents[2]
FIXED = {"fixed": clr.constant(0.25)}
SCHEDULES = FIXED | {"cyclic": clr.triangular(0.25, 0.75, 5)}
Train = Callable[[Any, int, int], Iterator[tuple[int, dict[str, float]]]]


def compare(file: Path, train: Train = trainings.parabola, schedules: Any = None, **options: Any) -> clr.Comparison:
    options = {"seeds": 3, "total_steps": 20, "file": file, "workers": 0, "name": "own", **options}
    return clr.compare(train, SCHEDULES if schedules is None else schedules, **options)


def everything(file: Path) -> list[object]:
    """What a file says, but for how long the runs took."""
    found = clr.Comparison.load(file)
    return [found.runs, found.descriptions, found.metric, found.before, found.origin, found.range_test]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of six runs."""
    compare(tmp_path / "runs.sqlite", before={"cyclic": 7})
    return tmp_path / "runs.sqlite"


def refused(file: Path) -> bool:
    """Whether a file is refused with its name by all that opens it, and stays as it is."""
    content = file.read_bytes()
    for use in (clr.Comparison.load, compare):
        with pytest.raises(ValueError, match=r"runs\.sqlite (is not the file of a comparison, or is damaged|must be)"):
            use(file)
    assert file.read_bytes() == content
    return True


def test_a_file_that_was_cut_is_refused(file: Path) -> None:
    content = file.read_bytes()
    assert len(content) > 20 * 512
    for length in range(512, len(content), 512):
        file.write_bytes(content[:length])
        assert refused(file)


@pytest.mark.parametrize("flips", [1, 30])
def test_flipped_bytes_are_noticed_or_change_nothing(file: Path, flips: int) -> None:
    content, whole, draw = file.read_bytes(), everything(file), random.Random(19)
    noticed = unnoticed = 0
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(flips):
            damaged[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        file.write_bytes(damaged)
        try:
            found = everything(file)
        except ValueError as error:
            noticed += "runs.sqlite" in str(error)
        else:
            assert found == whole
            unnoticed += 1
    assert noticed + unnoticed == 100
    assert noticed > 20


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE runs",
        "DROP TABLE settings",
        "ALTER TABLE runs DROP COLUMN error",
        "ALTER TABLE runs ADD COLUMN more",
        "DELETE FROM runs WHERE seed = 1",
        "DELETE FROM schedules WHERE name = 'fixed'",
        "DELETE FROM settings WHERE name = 'train'",
        "DELETE FROM settings WHERE name = 'digest'",
        "INSERT INTO runs SELECT schedule, steps, 9, state, error, records, seconds FROM runs WHERE seed = 1",
        "UPDATE runs SET records = '[[1,5]]' WHERE seed = 1",
        "UPDATE runs SET records = '{}' WHERE seed = 1",
        "UPDATE runs SET records = x'00ff' WHERE seed = 1",
        "UPDATE runs SET records = CAST(x'ff' AS TEXT) WHERE seed = 1",
        "UPDATE runs SET state = 'paused' WHERE seed = 1",
        "UPDATE runs SET seconds = 'long' WHERE seed = 1",
        "UPDATE runs SET seed = seed + 10",
        "UPDATE runs SET schedule = 'cyclic ' WHERE schedule = 'cyclic'",
        "UPDATE schedules SET description = '{\"clr\": 1}'",
        "UPDATE settings SET value = '5' WHERE name = 'before'",
        "UPDATE settings SET value = '3' WHERE name = 'versions'",
        "UPDATE settings SET value = 'no JSON' WHERE name = 'metric'",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 7",
    ],
)
def test_damaged_rows_are_noticed(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as database:
        database.execute(statement)
    database.close()
    assert refused(file)


HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(sys.argv[2])
database.execute("SELECT count(*) FROM runs").fetchall()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(file: Path) -> Iterator[Callable[[str], Any]]:
    """Lets another process hold the file, until it is ended."""
    processes = []

    def begin(statement: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", HOLD, str(file), statement]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_reader_of_the_file_makes_it_wait(
    file: Path, hold: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first = clr.Comparison.load(file).runs
    holders = []

    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        if seed == 3:
            holders.append(hold("BEGIN"))
        if seed == 5:
            holders.pop().communicate(b"")
        yield from trainings.parabola(schedule, seed, steps)

    result = compare(file, train, FIXED, seeds=7, reuse=True)
    assert [run.seed for run in result.runs] == list(range(7))
    runs = clr.Comparison.load(file).runs
    assert len(runs) == 10
    assert all(run in runs for run in (*first, *result.runs))
    said = capsys.readouterr().err
    assert f"{file} is in use by another process; trying again, with 1 runs in memory until then" in said
    assert f"{file} can be used again, and nothing is lost" in said


def test_a_lock_that_stays_ends_the_comparison_and_loses_nothing(
    file: Path, hold: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    first = clr.Comparison.load(file).runs

    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        if seed == 3:
            hold("BEGIN EXCLUSIVE")
        yield from trainings.parabola(schedule, seed, steps)

    with pytest.raises(store.NotWrittenError, match=r"runs\.sqlite is in use by another process") as caught:
        compare(file, train, FIXED, seeds=6, reuse=True)
    assert len(caught.value.runs) == 9
    copy = Path(str(caught.value).split(" is ")[-1].removesuffix("."))
    assert clr.Comparison.load(copy).runs == caught.value.runs
    assert all(run in caught.value.runs for run in first)
    shutil.rmtree(copy.parent)
    with pytest.raises(ValueError, match=r"runs\.sqlite is in use by another process"):
        clr.Comparison.load(file)
    with pytest.raises(ValueError, match=r"runs\.sqlite is in use by another process"):
        compare(file)


def full(monkeypatch: pytest.MonkeyPatch, file: Path, pages: int) -> None:
    """Lets a file, and no other, have only so many pages."""
    connect = sqlite3.connect

    def limited(path: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(path, *args, **options)
        if Path(path) == file:
            database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    monkeypatch.setattr(sqlite3, "connect", limited)


def test_a_full_disk_ends_the_comparison_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    file = tmp_path / "runs.sqlite"
    full(monkeypatch, file, 9)
    with pytest.raises(
        store.NotWrittenError, match=r"runs\.sqlite cannot be .* full\. A copy with all 24 runs is"
    ) as error:
        compare(file, seeds=12)
    copy = Path(str(error.value).split(" is ")[-1].removesuffix("."))
    assert [run.seed for run in clr.Comparison.load(copy).runs] == list(range(12)) * 2
    monkeypatch.undo()
    kept = clr.Comparison.load(file).runs
    assert 0 < len(kept) < 24
    assert list(kept) == [run for run in error.value.runs if run in kept]
    shutil.move(copy, file)
    assert compare(file, seeds=12).runs == error.value.runs
    copy.parent.rmdir()


def test_a_full_disk_at_the_start_ends_it_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    full(monkeypatch, tmp_path / "runs.sqlite", 1)

    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        raise AssertionError("it has begun")

    with pytest.raises(OSError, match=r"runs\.sqlite cannot be read or written: .* full"):
        compare(tmp_path / "runs.sqlite", train)


def test_ctrl_c_while_the_file_is_locked_loses_nothing(
    file: Path, hold: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        if seed == 3:
            hold("BEGIN")
        if seed == 4:
            raise KeyboardInterrupt
        yield from trainings.parabola(schedule, seed, steps)

    with pytest.raises(KeyboardInterrupt):
        compare(file, train, FIXED, seeds=6, reuse=True)
    copy = Path(capsys.readouterr().err.strip().split(" is ")[-1].removesuffix("."))
    assert len(clr.Comparison.load(copy).runs) == 7
    shutil.rmtree(copy.parent)


def test_a_folder_that_goes_away_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    (tmp_path / "own").mkdir()

    def train(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        if seed == 1:
            shutil.rmtree(tmp_path / "own", ignore_errors=True)
        yield from trainings.parabola(schedule, seed, steps)

    with pytest.raises(store.NotWrittenError, match=r"own/runs\.sqlite .* A copy with all 6 runs") as caught:
        compare(tmp_path / "own" / "runs.sqlite", train)
    assert len(caught.value.runs) == 6
    shutil.rmtree(Path(str(caught.value).split(" is ")[-1].removesuffix(".")).parent)


def test_a_file_of_two_names_has_one_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "link").symlink_to(file)
    (file.parent / "folder").symlink_to(file.parent)
    monkeypatch.chdir(file.parent)
    with store.Store(file):
        for other in ("link", "runs.sqlite", "folder/link"):
            with pytest.raises(ValueError, match="is in use by another process"):
                compare(Path(other))
    os.link(file, "hard")
    for other in ("hard", "runs.sqlite", "link"):
        with pytest.raises(ValueError, match="has another name, by a hard link"):
            compare(Path(other))
    assert len(clr.Comparison.load("hard").runs) == 6
    Path("hard").unlink()
    assert compare(Path("link")).runs == clr.Comparison.load(file).runs


@pytest.mark.parametrize("what", ["folder", "pipe", "/dev/null"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    file = tmp_path / what
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    for use in (clr.Comparison.load, compare):
        with pytest.raises(ValueError, match="is not a file"):
            use(file)


def test_the_old_runs_stay_until_a_new_one_is_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(file)

    def stopped(schedule: Any, seed: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
        yield from trainings.parabola(schedule, 0, 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(file, stopped, fresh=True)
    with pytest.raises(RuntimeError, match="before it could begin"):
        compare(file, trainings.Unloadable(), fresh=True, workers=1)
    assert everything(file) == before
    assert capsys.readouterr().err.count("deleted") == 0
    assert len(compare(file, schedules=FIXED, fresh=True).runs) == 3
    assert capsys.readouterr().err == f"6 runs of own deleted from {file}\n"
    assert len(clr.Comparison.load(file).runs) == 3


def test_an_equal_schedule_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "runs.sqlite"
    first = compare(file, schedules={"a": clr.triangular(0.25, 0.75, 5)})
    again = compare(file, schedules={"a": clr.triangular(0.25, 0.75, 5, step_size_down=5)})
    assert again.runs == first.runs
    with pytest.raises(ValueError, match="another schedule under the name 'a'"):
        compare(file, schedules={"a": clr.triangular(0.25, 0.75, 5, step_size_down=6)})


def test_a_misspelt_metric_stays_out_of_a_file_with_runs(file: Path) -> None:
    before = everything(file)
    for seeds in (3, 5):
        with pytest.raises(ValueError, match=r"`metric` must be one of 'loss', 'weight'. Received: 'los'"):
            compare(file, metric="los", seeds=seeds)
    assert everything(file) == before


def test_a_misspelt_metric_ends_it_at_the_first_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trainings.LOG, str(tmp_path / "log"))
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"`metric` must be in .*\['loss', 'weight'\]. Received: 'los'"):
            compare(tmp_path / "runs.sqlite", metric="los", workers=workers)
    assert not (tmp_path / "log").exists()  # no training has come to its end
    assert clr.Comparison.load(tmp_path / "runs.sqlite").runs == ()
    assert compare(tmp_path / "runs.sqlite", metric="loss").rows()[0]["failed"] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_may_hold_any_text(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "runs.sqlite"
    result = compare(file, trainings.unprintable, seeds=3, workers=workers)
    assert [run.state for run in result.runs] == ["failed", "failed", "finished"] * 2
    errors = [str(run.error) for run in clr.Comparison.load(file).runs]
    assert r"data-\udcff.csv \x00 \x1b[2J \u202e" in errors[0]
    assert len(errors[1]) < 50_000
    result.report(tmp_path / "page.html")
    assert r"data-\udcff.csv" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (tmp_path / "page.html").stat().st_size < 10**6


@pytest.mark.parametrize("train", [trainings.forked, trainings.torn, trainings.idle_death])
def test_a_worker_that_dies_costs_its_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train) -> None:
    monkeypatch.setenv(trainings.LOG, str(tmp_path / "log"))
    result = compare(tmp_path / "runs.sqlite", train, FIXED, workers=1)
    assert [run.seed for run in result.runs] == [0, 1, 2]
    assert [run.state for run in result.runs[1:]] == ["finished", "finished"]
    if train is trainings.idle_death:  # once its run was sent
        assert result.runs[0].state == "finished"
    else:
        assert result.runs[0].error == f"the worker died with exit code {-signal.SIGKILL}"
    if train is trainings.forked:
        assert not any(map(lives, map(int, (tmp_path / "log").read_text().split())))


def test_an_engine_that_fails_loses_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trainings.LOG, str(tmp_path / "log"))
    file, begin, left = tmp_path / "runs.sqlite", BaseProcess.start, [1]

    def start(self: BaseProcess) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise BlockingIOError("no more processes")
        begin(self)

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(BlockingIOError):  # in place of the worker that the first run takes down
        compare(file, trainings.forked, FIXED, workers=1, seeds=[2, 1, 0, 3], reuse=True)
    assert [run.seed for run in clr.Comparison.load(file).runs] == [1, 2]
    left[0] = 1
    with pytest.raises(BlockingIOError):
        compare(file, trainings.forked, FIXED, workers=2, seeds=[4, 5], reuse=True)
    left[0] = 2
    with pytest.raises(TypeError, match="the schedule 'own' must be picklable"):
        compare(file, schedules=FIXED | {"own": lambda steps: Unsendable()}, workers=1, seeds=[6], reuse=True)
    assert [run.seed for run in clr.Comparison.load(file).runs] == [1, 2, 6]


class Unsendable:
    """A schedule that says what it is, and stays where it is."""

    def __repr__(self) -> str:
        return "Unsendable()"

    def __reduce__(self) -> str:
        raise RuntimeError("not to be sent")


PROGRAM = """
import signal, sys
import clr
from tests import trainings

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
    schedules = {"fixed": clr.constant(0.25), "cyclic": clr.triangular(0.25, 0.75, 5)}
    train = getattr(trainings, sys.argv[1])
    clr.compare(train, schedules, seeds=6, total_steps=20, file=sys.argv[2], workers=int(sys.argv[3]))
"""


class Program:
    """A comparison in a process of its own, with the processes that have noted themselves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file, self._log = folder / "runs.sqlite", folder / "log"
        (folder / "program.py").write_text(PROGRAM)

    def begin(self, train: str, workers: int) -> subprocess.Popen[str]:
        environment = os.environ | {trainings.LOG: str(self._log), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(self._folder / "program.py"), train, str(self.file), str(workers)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def noted(self) -> list[int]:
        return [int(line) for line in self._log.read_text().split()] if self._log.exists() else []

    def wait_for(self, count: int) -> None:
        while len(self.noted()) < count:
            time.sleep(0.01)

    def all_ended(self) -> bool:
        until = time.monotonic() + 20
        while any(map(lives, self.noted())) and time.monotonic() < until:
            time.sleep(0.05)
        return not any(map(lives, self.noted()))


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize(("workers", "number"), [(0, 3), (2, 4)])
def test_kills_at_any_moment_lose_nothing(tmp_path: Path, workers: int, number: int) -> None:
    program, draw = Program(tmp_path), random.Random(number)
    kept: list[object] = []
    kills = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    for sign in kills:
        process = program.begin("steady", workers)
        program.wait_for(len(program.noted()) + draw.randint(1, 3))
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(sign)
        said = process.communicate()[1]
        assert process.returncode != 0
        assert ("KeyboardInterrupt" in said) == (sign != signal.SIGKILL)
        assert sign != signal.SIGKILL or said.count("\n") == bool(kept)  # workers that are left alone say nothing
        assert program.all_ended()
        found = clr.Comparison.load(program.file).runs if program.file.stat().st_size else ()
        assert all(run in found for run in kept)
        kept = list(found)
    assert 0 < len(kept) < 12
    assert program.begin("steady", workers).communicate()[1].startswith(f"{len(kept)} of 12 runs reused")
    runs = clr.Comparison.load(program.file).runs
    assert all(run in runs for run in kept)
    assert [(run.schedule, run.seed) for run in runs] == [(name, seed) for name in SCHEDULES for seed in range(6)]
    # What was kept was not made again; what was under way at a kill was.
    assert 12 <= len(program.noted()) <= 12 + len(kills) * max(1, workers)


def test_what_ends_all_processes_of_a_job_is_no_failed_run(tmp_path: Path) -> None:
    program = Program(tmp_path)
    process = program.begin("steady", 2)
    program.wait_for(3)
    for one in set(program.noted()):
        os.kill(one, signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert "KeyboardInterrupt" in process.communicate()[1]
    found = [run.state for run in clr.Comparison.load(program.file).runs]
    assert 0 < len(found) < 12
    assert set(found) == {"finished"}


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "signs",
    [[signal.SIGKILL], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]],
    ids=["kill", "term", "hup", "int", "int twice"],
)
def test_workers_end_with_their_parent_though_they_never_yield(tmp_path: Path, signs: list[signal.Signals]) -> None:
    if signal.getsignal(signs[0]) is signal.SIG_IGN:
        pytest.skip(f"{signs[0].name} is ignored here, as under nohup")
    program = Program(tmp_path)
    process = program.begin("endless", 2)
    program.wait_for(4)  # two workers, and a process of each
    for sign in signs:
        process.send_signal(sign)
        time.sleep(0.01)
    assert ("KeyboardInterrupt" in process.communicate()[1]) == (signs[0] in (signal.SIGINT, signal.SIGTERM))
    assert program.all_ended()


def test_a_file_that_is_truncated_meanwhile_loses_no_run(tmp_path: Path) -> None:
    file = tmp_path / "runs.sqlite"
    clr.compare(trainings.parabola, {"a": clr.constant(0.1)}, seeds=2, total_steps=5, file=file, workers=0)

    def train(schedule: Any, seed: int, steps: int) -> Any:
        os.truncate(file, 0)
        yield steps, {"loss": 1.0}

    with pytest.raises(store.NotWrittenError, match=r"runs\.sqlite") as caught:
        clr.compare(
            train,
            {"a": clr.constant(0.1)},
            seeds=[7],
            total_steps=5,
            file=file,
            workers=0,
            name="tests.trainings:parabola",
            reuse=True,
        )
    assert len(caught.value.runs) == 3
    assert ".recover` may save some of its runs. A copy with all 3 runs is " in str(caught.value)
