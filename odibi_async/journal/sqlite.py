"""The rows of a journal in a directory: an SQLite file, and a lock for each run that is alive."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from blake3 import blake3

from odibi_async.errors import JournalUnavailable
from odibi_async.failpoints import passing
from odibi_async.journal.backend import LEARNS, Hold, MarkChange, RunRow, StepRow, foreign
from odibi_async.journal.records import FORMAT
from odibi_async.store.locks import file_lock, remove, try_lock

T = TypeVar("T")
PATIENCE: Final = 30.0
"""Seconds to wait for another process that writes."""
PAUSES: Final = (0.02, 0.1, 0.4)
"""Seconds after which what failed is tried again."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS steps (
    run INTEGER NOT NULL, step TEXT NOT NULL, element INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (run, step, element)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS durations (
    pipeline TEXT NOT NULL, step TEXT NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (pipeline, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


class SqliteBackend:
    """
    A `Backend` in a directory.

    One connection serves all threads, one at a time. It waits for the disk at each commit.

    Args:
        directory: Made with mode 0700 when it is needed first.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._identity = ""

    @property
    def name(self) -> str:
        return str(self._directory)

    @property
    def home(self) -> str:
        return os.path.abspath(self._directory)

    def identity(self) -> str:
        self._do(lambda _: None)
        return self._identity

    def begin(self, run_id: str, pipeline: str, text: str) -> int | None:
        insert = "INSERT INTO runs (run_id, pipeline, text) VALUES (?, ?, ?) ON CONFLICT (run_id) DO NOTHING"
        select = "SELECT number FROM runs WHERE run_id = ? AND text = ?"  # a second attempt finds its own row

        def begin(connection: sqlite3.Connection) -> int | None:
            _committed(connection, insert, (run_id, pipeline, text))
            found = connection.execute(select, (run_id, text)).fetchone()
            return None if found is None else int(found[0])

        return self._do(begin)

    def rewrite(self, number: int, text: str) -> None:
        update = "UPDATE runs SET text = ? WHERE number = ?"
        self._do(lambda connection: _committed(connection, update, (text, number)))

    def write(self, rows: Sequence[StepRow]) -> None:
        # One statement is one transaction, and leaves Python's own lock just once: each time may cost milliseconds.
        insert = f"INSERT OR REPLACE INTO steps VALUES {', '.join(['(?, ?, ?, ?)'] * len(rows))}"
        members = [member for row in rows for member in (row.run, row.step, row.element, row.text)]
        self._do(lambda connection: _committed(connection, insert, members))

    def run(self, run_id: str) -> RunRow | None:
        found = self._all("SELECT number, run_id, pipeline, text FROM runs WHERE run_id = ?", run_id)
        return _run_row(*found[0]) if found else None

    def runs(self, pipeline: str | None = None, *, before: int | None = None, most: int | None = None) -> list[RunRow]:
        asked = (("pipeline = ?", pipeline), ("number < ?", before))
        terms = [(term, member) for term, member in asked if member is not None]
        where = f" WHERE {' AND '.join(term for term, _ in terms)}" if terms else ""
        limit = "" if most is None else f" LIMIT {int(most)}"
        select = f"SELECT number, run_id, pipeline, text FROM runs{where} ORDER BY number DESC{limit}"
        return [_run_row(*found) for found in self._all(select, *(member for _, member in terms))]

    def steps(self, number: int) -> Iterator[StepRow]:
        for step, element, text in self._all("SELECT step, element, text FROM steps WHERE run = ?", number):
            yield StepRow(run=number, step=step, element=element, text=text)

    def forget(self, numbers: Sequence[int]) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                for number in numbers:
                    connection.execute("DELETE FROM steps WHERE run = ?", (number,))
                    connection.execute("DELETE FROM runs WHERE number = ?", (number,))

        self._do(forget)

    def seconds(self, pipeline: str) -> dict[str, float]:
        return dict(self._all("SELECT step, seconds FROM durations WHERE pipeline = ?", pipeline))

    def learn(self, pipeline: str, seconds: Mapping[str, float]) -> None:
        insert = (
            "INSERT INTO durations VALUES (?, ?, ?) ON CONFLICT (pipeline, step) "
            f"DO UPDATE SET seconds = seconds * {1 - LEARNS} + excluded.seconds * {LEARNS}"
        )
        rows = [(pipeline, step, each) for step, each in seconds.items()]

        def learn(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(insert, rows)

        self._do(learn)

    def mark(self, name: str) -> str | None:
        found = self._all("SELECT text FROM marks WHERE name = ?", name)
        return str(found[0][0]) if found else None

    def marks(self, prefix: str) -> dict[str, str]:
        return dict(self._all("SELECT name, text FROM marks WHERE substr(name, 1, ?) = ?", len(prefix), prefix))

    def replace_mark(self, name: str, old: str | None, new: str | None) -> bool:
        return self.replace_marks([MarkChange(name, old, new)])[0]

    def replace_marks(self, changes: Sequence[MarkChange]) -> list[bool]:
        def replace(connection: sqlite3.Connection) -> list[bool]:
            with _transaction(connection):
                return [_replaced(connection, *change) for change in changes]

        return self._do(replace)

    def check(self) -> None:
        [(said,), *_] = self._all("PRAGMA quick_check(1)")
        if said != "ok":
            raise JournalUnavailable(self.name, f"its file is damaged: {said}")

    def hold(self, name: str) -> Hold | None:
        folder = self._directory / "locks"
        path = folder / f"{blake3(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.lock"
        lock = file_lock(path)
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            return _FileHold(path, lock) if try_lock(lock) else None
        except OSError as error:
            raise JournalUnavailable(self.name, f"{error.strerror}.") from error

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(sqlite3.Error):  # a damaged file; what was committed is committed
                opened.close()

    def _all(self, select: str, *members: Any) -> list[Any]:
        return self._do(lambda connection: connection.execute(select, members).fetchall())

    def _do(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """What a call does with the open file; what fails for the moment is tried again, on a new connection."""
        with self._lock:
            pauses = iter(PAUSES)
            while True:
                try:
                    if self._opened is None:
                        self._opened = self._open()
                    return call(self._opened)
                except (sqlite3.Error, OSError) as error:
                    self._close()
                    pause = next(pauses, None)
                    if pause is None or not _is_passing(error):
                        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                        raise JournalUnavailable(self.name, f"{reason}.") from error
                    time.sleep(pause)
                except UnicodeError as error:  # SQLite takes no half of a surrogate pair
                    raise JournalUnavailable(self.name, f"a name cannot be written: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._directory / "journal.db", os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            self._directory / "journal.db", timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            _write_ahead(connection)
            for pragma in ("synchronous = full", "mmap_size = 0", "trusted_schema = off"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            self._identity = self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> str:
        """Makes the tables where there are none; the journal's identity."""
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            with _transaction(connection):
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                said = (("format", FORMAT), ("identity", secrets.token_hex(16)))
                connection.executemany("INSERT INTO about VALUES (?, ?) ON CONFLICT DO NOTHING", said)
        try:
            about: dict[str, str] = dict(connection.execute("SELECT name, value FROM about").fetchall())
        except sqlite3.OperationalError:
            about = {}
        if about.get("format") != FORMAT:
            raise JournalUnavailable(self.name, foreign(about.get("format")))
        return str(about.get("identity"))


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Has SQLite write ahead. A new file that others open at the same moment is locked, and SQLite does not wait."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = wal").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _is_passing(error: sqlite3.Error | OSError) -> bool:
    """Whether it may go well the next time: not where the file is damaged, or others write longer than one can wait."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, sqlite3.OperationalError) and "locked" not in str(error)


def _committed(connection: sqlite3.Connection, statement: str, members: Sequence[Any]) -> None:
    """A transaction of one statement."""
    passing("before commit")
    connection.execute(statement, members)
    passing("after commit")


class _FileHold:
    """A lock that the system releases when its process ends, however it ends."""

    def __init__(self, path: Path, lock: Any) -> None:
        self._path = path
        self._lock = lock

    def release(self) -> None:
        if self._lock.is_locked:
            remove(self._path)
            self._lock.release()


def _replaced(connection: sqlite3.Connection, name: str, old: str | None, new: str | None) -> bool:
    """Whether a mark is now what it is to be, because it was what it had to be."""
    found = connection.execute("SELECT text FROM marks WHERE name = ?", (name,)).fetchone()
    now = None if found is None else str(found[0])
    if now != old:
        return now == new  # a second attempt finds its own text
    if new is None:
        connection.execute("DELETE FROM marks WHERE name = ?", (name,))
    else:
        connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, new))
    return True


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        passing("before commit")
        connection.execute("COMMIT")
        passing("after commit")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _run_row(number: int, run_id: str, pipeline: str, text: str) -> RunRow:
    return RunRow(number=number, run_id=run_id, pipeline=pipeline, text=text)
