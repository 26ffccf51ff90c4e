"""The file of a comparison: an SQLite database in which a run is there whole or not at all."""

import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import date
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

from clr import checks
from clr.comparison.runs import Key, Run
from clr.finder.result import RangeTest
from clr.progress import say
from clr.saved import from_json

VERSION = 2
APPLICATION = 0x636C7231  # says of an SQLite file what it is
PATIENCE = 30.0  # seconds in which a file that cannot be read or written is tried again
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DENIED = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS schedules (name TEXT, steps INTEGER, description TEXT NOT NULL, PRIMARY KEY (name, steps));
CREATE TABLE IF NOT EXISTS runs (
    schedule TEXT, steps INTEGER, seed INTEGER, state TEXT NOT NULL, error TEXT, records TEXT NOT NULL,
    seconds REAL NOT NULL, PRIMARY KEY (schedule, steps, seed)
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION}
"""
_KEYS = {"settings": 1, "schedules": 2, "runs": 3}  # the length of the primary key of each table
Row = tuple[Any, ...]


class NotWrittenError(OSError):
    """Runs could not be written to their file.

    Attributes:
        runs: All runs that are known, those of the file too.
    """

    def __init__(self, message: str, runs: tuple[Run, ...]) -> None:
        super().__init__(message)
        self.runs = runs


class Store:
    """The runs in a file, which one process at a time may add to. Memory has them too, and more if the file is full.

    Args:
        file: Where they are, or will be; None keeps them in memory alone.
        reading: Whether nothing is to be added: then the file has to be there, and may be in use.

    Raises:
        ValueError: The file is none of a comparison, damaged, or in use.
        OSError: It cannot be read or written.
    """

    def __init__(self, file: str | Path | None, reading: bool = False) -> None:
        self._path = Path(os.devnull) if file is None else _path(file)
        self._reading, self._in_memory = reading, file is None
        self._rows: dict[Row, Row] = {}  # by table and primary key
        self._unsaved: dict[Row, Row] = {}
        self._written: str | None = None  # the digest in the file
        self._sum = 0  # of a hash of each row: the file has it, and so shows any damage
        self._replaced = 0  # runs that are deleted once the first new one is written
        self._is_said = False  # that the file cannot be read or written

    def __enter__(self) -> Self:
        self._open = ExitStack()
        if self._in_memory:
            return self
        real = Path(os.path.realpath(self._path))  # so that a file has one lock, whatever it is called
        if not real.parent.is_dir():
            raise FileNotFoundError(2, "No such folder", str(self._path.parent))
        if self._reading and not real.exists():
            raise FileNotFoundError(2, "No such file", str(self._path))
        if real.exists() and not real.is_file():
            raise ValueError(f"{self._path} is not a file")
        if not self._reading and real.exists() and real.stat().st_nlink > 1:
            # SQLite's journal goes by the name of the file, so a crash under one name is not mended under another.
            raise ValueError(f"{self._path} has another name, by a hard link. Give a copy of it as `file`.")
        with ExitStack() as opened:
            try:
                if not self._reading:
                    # A database of its own, so that the runs can be read while it is held. It goes with its process.
                    lock = opened.enter_context(closing(sqlite3.connect(f"{real}-lock", timeout=0)))
                    lock.execute("BEGIN EXCLUSIVE")
                connection = sqlite3.connect(real, isolation_level=None, timeout=min(1, PATIENCE))
            except sqlite3.Error as error:
                raise self._problem(error) from None
            self._database = opened.enter_context(closing(connection))
            self._try(self._load, PATIENCE)
            self._open = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        with self._open:
            if any(table == "runs" for table, *_ in self._unsaved):
                try:
                    self._try(self._write, PATIENCE if kind is None else 0)
                except (OSError, ValueError) as error:
                    words = self._rescued(error)
                    if kind is None:
                        raise NotWrittenError(words, tuple(self.runs().values())) from None
                    say(words)
                except KeyboardInterrupt:
                    say(self._rescued("interrupted"))
                    raise

    def settle(
        self, train: str, source: str | None, descriptions: Mapping[tuple[str, int], str], fresh: bool, reuse: bool
    ) -> None:
        """Takes note of what is to be run; refuses what does not go with what was run before.

        Args:
            train: The name of the training.
            source: A digest of its source, None where there is none.
            descriptions: What each name stands for at each budget.
            fresh: Whether the old runs are to be replaced.
            reuse: Whether runs of another source are good enough.
        """
        count, settings = len(self._table("runs")), self.settings()
        if count and settings["train"] != train:
            raise ValueError(
                f"{self._path} has the runs of {settings['train']!r}, not of {train!r}. Give another `file`, or, "
                f"if it is the same training, `name={settings['train']!r}`."
            )
        if fresh or not count:
            self._rows, self._unsaved, self._sum, self._replaced = {}, {}, 0, count
            self._note("train", train)
            self._note("source", source or "")
        elif (source is None or settings["source"] != source) and not reuse:
            raise ValueError(
                f"the source of {train} is another than that of the runs in {self._path}, made {settings['made']}."
                " `fresh=True` deletes them and makes all anew; `reuse=True` uses them as they are."
            )
        described = self.schedules()
        for key, text in descriptions.items():
            there = described.get(key)
            if there is None:
                self._put("schedules", *key, text)
            elif there != text and not _equal(there, text):
                raise ValueError(
                    f"{self._path} has the runs of another schedule under the name {key[0]!r}. "
                    f"Received: {checks.shown(text)}, there: {checks.shown(there)}."
                )

    def note(self, settings: dict[str, Any], before: dict[str, int], range_test: str | None) -> None:
        """Takes note of how the runs are compared. What was known of other schedules and the range test is kept."""
        tested = {} if range_test is None else {"range_test": range_test}
        for name, value in (settings | tested | {"before": self.settings().get("before", {}) | before}).items():
            self._note(name, value)
        if not self._replaced:
            self._try(self._write, PATIENCE)

    def add(self, run: Run) -> None:
        """Keeps a run: in the file if that can be written, and else in memory until it can."""
        records = [[step, {name: _plain(value) for name, value in metrics.items()}] for step, metrics in run.records]
        self._put("runs", *run.key, run.state, run.error, json.dumps(records), run.seconds)
        self._note("made", date.today().isoformat())
        try:
            self._try(self._write, 0)
        except (OSError, ValueError) as problem:  # it is tried again with the next run, and at the end
            self._say(problem)

    def settings(self) -> dict[str, Any]:
        """All that was noted."""
        return {name: json.loads(value) for name, value in self._table("settings")}

    def content(self) -> dict[str, Any]:
        """All there is, as `Comparison.of` takes it."""
        settings = self.settings()
        test = settings.get("range_test")
        return {name: settings.get(name) for name in ("metric", "goal", "target", "before")} | {
            "runs": tuple(self.runs().values()),
            "descriptions": self.schedules(),
            "range_test": None if test is None else RangeTest.from_json(test),
            "origin": {name: settings[name] for name in ("train", "engine", "versions") if name in settings},
        }

    def schedules(self) -> dict[tuple[str, int], str]:
        """What each name stands for at each budget."""
        return {(name, steps): text for name, steps, text in self._table("schedules")}

    def runs(self) -> dict[Key, Run]:
        """All runs, in the order of their schedules."""
        order = {key: at for at, key in enumerate(self.schedules())}
        rows = sorted(self._table("runs"), key=lambda row: (order[row[:2]], row[2]))
        return {
            (schedule, steps, seed): Run(schedule, steps, seed, state, error, _records(records), seconds)
            for schedule, steps, seed, state, error, records, seconds in rows
        }

    def _table(self, wanted: str) -> list[Row]:
        return [row for (table, *_), row in self._rows.items() if table == wanted]

    def _note(self, name: str, value: object) -> None:
        self._put("settings", name, json.dumps(value))

    def _put(self, table: str, *row: Any) -> None:
        key = (table, *row[: _KEYS[table]])
        old = self._rows.get(key)
        if old != row:
            self._sum += _hash(table, row) - (0 if old is None else _hash(table, old))
            self._rows[key] = self._unsaved[key] = row

    def _digest(self) -> Row:
        return "digest", f"{self._sum % 2**256:064x}"

    def _load(self) -> None:
        """Reads all rows at one moment, and checks them."""
        execute = self._database.execute
        execute("PRAGMA synchronous = FULL")  # so that a run that was kept outlasts a power cut
        with self._database:
            execute("BEGIN")
            (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = execute("PRAGMA application_id").fetchone()
            (version,) = execute("PRAGMA user_version").fetchone()
            if not tables and not application and not self._reading:
                return
            if application == APPLICATION and version != VERSION:
                raise ValueError(f"{self._path} must be of version {VERSION}. Received: {version}.")
            if application != APPLICATION or execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise self._damaged()
            found = {
                (table, *row[:length]): row
                for table, length in _KEYS.items()
                for row in execute(f"SELECT * FROM {table} ORDER BY rowid")
            }
        digest = found.pop(("settings", "digest"), None)
        self._rows, self._sum = found, sum(_hash(table, row) for (table, *_), row in found.items())
        if digest != self._digest():
            raise self._damaged()
        self._written = digest[1]

    def _write(self) -> None:
        """Writes what is new."""
        if self._unsaved and not self._in_memory:
            self._fill(self._database, self._unsaved)
            if self._replaced:
                say(f"{self._replaced} runs of {self.settings()['train']} deleted from {self._path}")
            if self._is_said:
                say(f"{self._path} can be used again, and nothing is lost")
            self._replaced, self._is_said = 0, False
            self._written = self._digest()[1]
        self._unsaved.clear()

    def _fill(self, database: sqlite3.Connection, rows: Mapping[Row, Row]) -> None:
        """Writes rows in one transaction."""
        with database:
            deleted = [f"DELETE FROM {table}" for table in _KEYS if self._replaced]
            for statement in ["BEGIN IMMEDIATE", *_TABLES.split(";")]:
                database.execute(statement)
            if database is self._database:  # whose content nobody else may have changed
                there = database.execute("SELECT value FROM settings WHERE name = 'digest'").fetchone()
                if (there and there[0]) != self._written:
                    raise self._damaged()
            for statement in deleted:
                database.execute(statement)
            for (table, *_), row in [*rows.items(), (("settings",), self._digest())]:
                database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def _rescued(self, problem: object) -> str:
        """Writes all runs to a file elsewhere, and says so."""
        try:
            copy = Path(mkdtemp(prefix="clr-")) / self._path.name
            with closing(sqlite3.connect(copy, isolation_level=None)) as database:
                self._fill(database, self._rows)
        except (OSError, sqlite3.Error):
            return f"{problem}. A copy cannot be written either. The attribute `runs` of this error has all runs."
        return f"{problem}. A copy with all {len(self._table('runs'))} runs is {copy}."

    def _try(self, action: Callable[[], None], wait: float) -> None:
        """Does something to the file, again and again while another program or a full disk does not let it."""
        until = time.monotonic() + wait
        while True:
            try:
                return action()
            except (sqlite3.Error, UnicodeError) as error:  # the latter at a damaged text in SQLite's own message
                problem = self._problem(error)
            if time.monotonic() >= until or problem.args == self._damaged().args:
                raise problem
            self._say(problem)
            time.sleep(0.1)

    def _say(self, problem: object) -> None:
        """Says what keeps the file from being read or written, once until it can be."""
        if not self._is_said:
            self._is_said = True
            unsaved = sum(table == "runs" for table, *_ in self._unsaved)
            say(f"{problem}; trying again" + (f", with {unsaved} runs in memory until then" if unsaved else ""))

    def _problem(self, error: Exception) -> OSError | ValueError:
        """An error of SQLite as one that names the file."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return ValueError(f"{self._path} is in use by another process")
        if code in (*_DENIED, sqlite3.SQLITE_CANTOPEN):
            return OSError(f"{self._path} cannot be read or written: {error}")
        return self._damaged()

    def _damaged(self) -> ValueError:
        return ValueError(
            f"{self._path} is not the file of a comparison, or is damaged. `sqlite3 {self._path.name} .recover` may "
            "save some of its runs"
        )


def _path(file: object) -> Path:
    """The path of a file."""
    text = os.fspath(file) if isinstance(file, os.PathLike) else file
    if not isinstance(text, str):
        checks.fail(TypeError, "file", "the path of a file", file)
    if not text or "\0" in text or text.startswith((":memory:", "file:")):  # which SQLite would not take for a path
        checks.fail(ValueError, "file", "the path of a file", file)
    return Path(text)


def _hash(table: str, row: Row) -> int:
    return int.from_bytes(hashlib.sha256(repr((table, row)).encode()).digest(), "big")


def _equal(one: str, other: str) -> bool:
    """Whether two texts describe the same schedule."""
    try:
        return from_json(one) == from_json(other)
    except (TypeError, ValueError):
        return False


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _records(text: str) -> tuple[tuple[int, dict[str, float]], ...]:
    return tuple((step, {name: float(value) for name, value in metrics.items()}) for step, metrics in json.loads(text))
