"""The file of a comparison: an SQLite database in which a run is there whole or not at all."""

import json
import math
import sqlite3
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

from clr.comparison.runs import STATES, Job, Run
from clr.finder.result import RangeTest

VERSION = 1
APPLICATION = 0x636C7231  # says of an SQLite file what it is
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE schedules (name TEXT, steps INTEGER, description TEXT NOT NULL, PRIMARY KEY (name, steps));
CREATE TABLE runs (
    schedule TEXT, steps INTEGER, seed INTEGER, state TEXT NOT NULL, error TEXT, records TEXT NOT NULL,
    seconds REAL NOT NULL, PRIMARY KEY (schedule, steps, seed)
);
"""


class Training(NamedTuple):
    """What makes the runs of a file."""

    name: str
    source: str | None  # a digest of it, None where there is none


class Store:
    """The runs in a file, which one process at a time may add to.

    Args:
        file: Where they are, or will be.
        reading: Whether nothing is to be added: then the file has to be there, and may be in use.

    Raises:
        ValueError: The file is none of a comparison, or in use.
        OSError: It cannot be read or written.
    """

    def __init__(self, file: str | Path, reading: bool = False) -> None:
        self._path = Path(file)
        self._reading = reading

    def __enter__(self) -> Self:
        if self._reading and not self._path.is_file():
            raise FileNotFoundError(2, "No such file", str(self._path))
        if not self._path.parent.is_dir():
            raise FileNotFoundError(2, "No such folder", str(self._path.parent))
        # The lock is a database of its own, so that the runs can be read while it is held. It goes with its process.
        self._lock = None if self._reading else sqlite3.connect(f"{self._path}-lock", isolation_level=None, timeout=0)
        try:
            if self._lock is not None:
                self._lock.execute("BEGIN EXCLUSIVE")
            self._database = sqlite3.connect(self._path)
            self._open()
        except sqlite3.OperationalError as error:
            self._close()
            if "locked" in str(error):
                raise ValueError(f"{self._path} is in use by another process") from None
            raise OSError(13, str(error), str(self._path)) from None
        except sqlite3.DatabaseError:
            self._close()
            raise ValueError(f"{self._path} is not the file of a comparison, or is damaged") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()
        self._close()

    def settle(self, train: Training, descriptions: Mapping[tuple[str, int], str], fresh: bool, reuse: bool) -> None:
        """Takes note of what is to be run; refuses what does not go with what was run before."""
        (count,) = self._rows("SELECT count(*) FROM runs")[0]
        settings = self.settings() if count else {}
        known = settings.get("train", train.name)
        if known != train.name:
            raise ValueError(
                f"{self._path} has the runs of {known!r}, not of {train.name!r}. Give another `file`, or, if it is the "
                f"same training, `name={known!r}`."
            )
        if fresh or not count:
            if count:
                print(f"{count} runs of {known} deleted from {self._path}", file=sys.stderr)
            with self._database:
                for table in ("runs", "schedules", "settings"):
                    self._database.execute(f"DELETE FROM {table}")
        elif (train.source is None or settings.get("source") != train.source) and not reuse:
            raise ValueError(
                f"the source of {train.name} is another than that of the runs in {self._path}, made "
                f"{settings.get('made', 'before')}. `fresh=True` deletes them and makes all anew; `reuse=True` uses "
                "them as they are."
            )
        described = self.schedules()
        for key, text in descriptions.items():
            if described.get(key, text) != text:
                raise ValueError(
                    f"{self._path} has the runs of another schedule under the name {key[0]!r}. "
                    f"Received: {text}, there: {described[key]}."
                )
        noted = {"train": train.name}
        if fresh or not count:  # what is reused stays what it was
            noted["source"] = train.source or ""
        with self._database:
            self._put(noted)
            rows = [(*key, text) for key, text in descriptions.items()]
            self._database.executemany("INSERT OR REPLACE INTO schedules VALUES (?, ?, ?)", rows)

    def words_of_reuse(self, count: int, wanted: int) -> str:
        """Says which runs are not made again."""
        settings = self.settings()
        made = settings.get("made", "before")
        return f"{count} of {wanted} runs reused from {self._path}, made {made} by {settings['train']}"

    def note(self, settings: dict[str, Any], before: dict[str, int], range_test: str | None) -> None:
        """Takes note of how the runs are compared. What was known of other schedules and the range test is kept."""
        noted = settings | {"before": self.settings().get("before", {}) | before}
        if range_test is not None:
            noted["range_test"] = range_test
        with self._database:
            self._put(noted)

    def _put(self, settings: Mapping[str, object]) -> None:
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        self._database.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def settings(self) -> dict[str, Any]:
        """All that was noted."""
        return {name: self._read(value) for name, value in self._rows("SELECT name, value FROM settings")}

    def context(self) -> dict[str, Any]:
        """What was noted of how the runs came about, as `Comparison.of` takes it."""
        settings = self.settings()
        test = settings.get("range_test")
        return {
            "before": settings.get("before"),
            "range_test": None if test is None else RangeTest.from_json(test),
            "origin": {name: settings[name] for name in ("train", "engine", "versions") if name in settings},
        }

    def schedules(self) -> dict[tuple[str, int], str]:
        """What each name stands for at each budget."""
        found = self._rows("SELECT name, steps, description FROM schedules ORDER BY rowid")
        return {(name, steps): text for name, steps, text in found}

    def has(self, job: Job) -> bool:
        """Whether a run was made."""
        where = "SELECT 1 FROM runs WHERE (schedule, steps, seed) = (?, ?, ?)"
        return self._database.execute(where, job.key).fetchone() is not None

    def add(self, run: Run) -> None:
        """Keeps a run, for good when this returns."""
        records = [[step, {name: _plain(value) for name, value in metrics.items()}] for step, metrics in run.records]
        row = (*run.key, run.state, run.error, json.dumps(records), run.seconds)
        with self._database:
            self._database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._put({"made": date.today().isoformat()})

    def runs(self) -> list[Run]:
        """All runs, in the order of their schedules."""
        order = {key: at for at, key in enumerate(self.schedules())}
        found = self._rows("SELECT schedule, steps, seed, state, error, records, seconds FROM runs")
        runs = [
            Run(schedule, steps, seed, *_known(state, error), _records(self._read(records)), seconds)
            for schedule, steps, seed, state, error, records, seconds in found
        ]
        return sorted(runs, key=lambda run: (order[run.schedule, run.total_steps], run.seed))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query).fetchall()
        except sqlite3.DatabaseError:
            raise self._damaged() from None

    def _read(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._damaged() from None

    def _open(self) -> None:
        self._database.execute("PRAGMA synchronous = FULL")  # so that a run that was kept outlasts a power cut
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables and not application and not self._reading:
            self._database.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif application != APPLICATION:
            raise ValueError(f"{self._path} is not the file of a comparison")
        elif version != VERSION:
            raise ValueError(f"{self._path} must be of version {VERSION}. Received: {version}.")
        (size,) = self._database.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
        (health,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if size > self._path.stat().st_size or health != "ok":
            raise self._damaged()

    def _damaged(self) -> ValueError:
        return ValueError(f"{self._path} is damaged. `sqlite3 {self._path.name} .recover` may save some of its runs.")

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()


def _known(state: str, error: str | None) -> tuple[str, str | None]:
    """A state that a later version may have written counts as a failure, so that no run is hidden."""
    return (state, error) if state in STATES else ("failed", f"the state {state!r} is not known: {error}")


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _records(data: list[tuple[int, dict[str, Any]]]) -> tuple[tuple[int, dict[str, float]], ...]:
    return tuple((step, {name: float(value) for name, value in metrics.items()}) for step, metrics in data)
