"""The rows of a journal in PostgreSQL, and an advisory lock for each run that is alive."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from blake3 import blake3

from odibi_async.errors import ExtraMissing, JournalUnavailable
from odibi_async.failpoints import passing
from odibi_async.journal.backend import GLANCE, GLANCES, LEARNS, Hold, MarkChange, RunRow, StepRow, foreign
from odibi_async.journal.records import FORMAT

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Connection = Any  # of psycopg, which not everybody has
PAUSES: Final = (0.1, 0.4, 1.0, 2.0)
"""Seconds after which what failed is tried again: a server that is restarted is away for a moment."""
_CONNECTION: Final[dict[str, Any]] = {
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "odibi_async journal",
}
_IDLE: Final = 0
"""The state of a connection that is in no transaction."""
_SETTINGS: Final = """
SET synchronous_commit = on; SET client_min_messages = warning;
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
"""
"""A host that is gone without a word loses its locks after half a minute."""
_TABLES: Final = """
SELECT pg_advisory_xact_lock(6872460132094);
CREATE TABLE IF NOT EXISTS odibi_journal (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS odibi_runs (
    number BIGSERIAL PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS odibi_steps (
    run BIGINT NOT NULL, step TEXT NOT NULL, element INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (run, step, element));
CREATE TABLE IF NOT EXISTS odibi_durations (
    pipeline TEXT NOT NULL, step TEXT NOT NULL, seconds DOUBLE PRECISION NOT NULL, PRIMARY KEY (pipeline, step));
CREATE TABLE IF NOT EXISTS odibi_marks (name TEXT PRIMARY KEY, text TEXT NOT NULL);
"""


class PostgresBackend:
    """
    A `Backend` in a PostgreSQL database.

    One connection serves all threads, one at a time, and holds the locks of the runs that are alive here. When it is
    lost, the next one takes these locks again, unless another process has one by then.

    Args:
        url: `postgresql://...`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._opened: psycopg.Connection[Any] | None = None
        self._identity = ""
        self._held: dict[int, str] = {}

    @property
    def name(self) -> str:
        parts = urlsplit(self._url)
        user = f"{parts.username}@" if parts.username else ""
        return f"{parts.scheme}://{user}{parts.hostname or ''}{parts.path}"

    @property
    def home(self) -> str:
        return ""

    def identity(self) -> str:
        self._do(lambda _: None)
        return self._identity

    def begin(self, run_id: str, pipeline: str, text: str) -> int | None:
        def begin(connection: Connection) -> int | None:
            passing("before commit")
            connection.execute(
                "INSERT INTO odibi_runs (run_id, pipeline, text) VALUES (%s, %s, %s) ON CONFLICT (run_id) DO NOTHING",
                (run_id, pipeline, text),
            )
            passing("after commit")
            found = connection.execute(  # a second attempt finds its own row
                "SELECT number FROM odibi_runs WHERE run_id = %s AND text = %s", (run_id, text)
            ).fetchone()
            return None if found is None else int(found[0])

        return self._do(begin)

    def rewrite(self, number: int, text: str) -> None:
        def rewrite(connection: Connection) -> None:
            passing("before commit")
            connection.execute("UPDATE odibi_runs SET text = %s WHERE number = %s", (text, number))
            passing("after commit")

        self._do(rewrite)

    def write(self, rows: Sequence[StepRow]) -> None:
        last = {(row.run, row.step, row.element): row.text for row in rows}
        columns = (*map(list, zip(*last, strict=True)), list(last.values()))

        def write(connection: Connection) -> None:
            passing("before commit")
            connection.execute(
                # binary: the text of a list is made letter by letter, which costs more than all else here
                "INSERT INTO odibi_steps SELECT * FROM unnest(%b::bigint[], %b::text[], %b::integer[], %b::text[]) "
                "ON CONFLICT (run, step, element) DO UPDATE SET text = excluded.text",
                columns,
            )
            passing("after commit")

        self._do(write)

    def run(self, run_id: str) -> RunRow | None:
        found = self._all("SELECT number, run_id, pipeline, text FROM odibi_runs WHERE run_id = %s", run_id)
        return _run_row(*found[0]) if found else None

    def runs(self, pipeline: str | None = None, *, before: int | None = None, most: int | None = None) -> list[RunRow]:
        asked = (("pipeline = %s", pipeline), ("number < %s", before))
        terms = [(term, member) for term, member in asked if member is not None]
        where = f" WHERE {' AND '.join(term for term, _ in terms)}" if terms else ""
        limit = "" if most is None else f" LIMIT {int(most)}"
        select = f"SELECT number, run_id, pipeline, text FROM odibi_runs{where} ORDER BY number DESC{limit}"
        return [_run_row(*found) for found in self._all(select, *(member for _, member in terms))]

    def steps(self, number: int) -> Iterator[StepRow]:
        for step, element, text in self._all("SELECT step, element, text FROM odibi_steps WHERE run = %s", number):
            yield StepRow(run=number, step=step, element=element, text=text)

    def forget(self, numbers: Sequence[int]) -> None:
        def forget(connection: Connection) -> None:
            with _transaction(connection):
                connection.execute("DELETE FROM odibi_steps WHERE run = ANY(%s)", (list(numbers),))
                connection.execute("DELETE FROM odibi_runs WHERE number = ANY(%s)", (list(numbers),))

        self._do(forget)

    def seconds(self, pipeline: str) -> dict[str, float]:
        return dict(self._all("SELECT step, seconds FROM odibi_durations WHERE pipeline = %s", pipeline))

    def learn(self, pipeline: str, seconds: Mapping[str, float]) -> None:
        def learn(connection: Connection) -> None:
            with _transaction(connection):
                connection.execute(
                    "INSERT INTO odibi_durations AS known "
                    "SELECT %s, * FROM unnest(%s::text[], %s::double precision[]) ON CONFLICT (pipeline, step) "
                    "DO UPDATE SET seconds = known.seconds * (1 - %s) + excluded.seconds * %s",
                    (pipeline, list(seconds), list(seconds.values()), LEARNS, LEARNS),
                )

        self._do(learn)

    def mark(self, name: str) -> str | None:
        found = self._all("SELECT text FROM odibi_marks WHERE name = %s", name)
        return str(found[0][0]) if found else None

    def marks(self, prefix: str) -> dict[str, str]:
        return dict(self._all("SELECT name, text FROM odibi_marks WHERE starts_with(name, %s)", prefix))

    def replace_mark(self, name: str, old: str | None, new: str | None) -> bool:
        return self.replace_marks([MarkChange(name, old, new)])[0]

    def replace_marks(self, changes: Sequence[MarkChange]) -> list[bool]:
        def replace(connection: Connection) -> list[bool]:
            with _transaction(connection):  # in the order of their names, so that no two wait for each other
                done = {change.name: _replaced(connection, *change) for change in sorted(changes, key=lambda c: c.name)}
            return [done[change.name] for change in changes]

        return self._do(replace)

    def check(self) -> None:
        """Does nothing: the server looks after its files."""

    def hold(self, name: str) -> Hold | None:
        key = int.from_bytes(blake3(f"odibi_async\0{name}".encode()).digest(8), "big", signed=True)

        def hold(connection: Connection) -> Hold | None:
            if key in self._held or not _locked(connection, key):
                return None
            self._held[key] = name
            return _AdvisoryHold(self, key)

        return self._do(hold)

    def let_go(self, key: int) -> None:
        """Gives the lock of a run back."""
        if self._held.pop(key, None) is None:  # first of all: a new connection does not take it again
            return
        with contextlib.suppress(JournalUnavailable):  # the lock is gone with its connection
            self._do(lambda connection: connection.execute("SELECT pg_advisory_unlock(%s)", (key,)))

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _all(self, select: str, *members: Any) -> list[Any]:
        return self._do(lambda connection: list(connection.execute(select, members).fetchall()))

    def _do(self, call: Callable[[Connection], T]) -> T:
        """What a call does with the connection; what fails for the moment is tried again, on a new connection."""
        try:
            import psycopg
        except ImportError as error:
            raise ExtraMissing("A journal in PostgreSQL", "postgres") from error
        with self._lock:
            pauses = iter(PAUSES)
            while True:
                try:
                    if self._opened is None:
                        self._opened = self._open()
                    return call(self._opened)
                except (psycopg.Error, OSError) as error:
                    if not self._is_usable():
                        self._close()
                    pause = next(pauses, None)
                    if pause is None or not isinstance(error, psycopg.OperationalError | OSError):
                        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
                        raise JournalUnavailable(self.name, f"{first.rstrip('.')}.") from error
                    time.sleep(pause)
                except UnicodeError as error:
                    raise JournalUnavailable(self.name, f"a name cannot be written: {error}.") from error

    def _is_usable(self) -> bool:
        """Whether an error leaves the connection as it was: closed without need, it would lose the locks of runs."""
        opened = self._opened
        return opened is not None and not opened.closed and opened.info.transaction_status == _IDLE

    def _open(self) -> Connection:
        import psycopg

        connection = psycopg.connect(self._url, autocommit=True, **_CONNECTION)
        try:
            connection.execute(_SETTINGS)
            if connection.info.server_version >= 140_000:  # a run may last for hours between two rows
                connection.execute("SET idle_session_timeout = 0")
            self._identity = self._set_up(connection)
            for key, name in list(self._held.items()):
                if not _locked_again(connection, key):
                    raise JournalUnavailable(self.name, f"another process has taken over {name!r} meanwhile.")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection) -> str:
        """Makes the tables where there are none; the journal's identity."""
        if connection.execute("SELECT to_regclass('odibi_journal')").fetchone() == (None,):
            with connection.transaction():
                connection.execute(_TABLES)
                for name, value in (("format", FORMAT), ("identity", secrets.token_hex(16))):
                    connection.execute(
                        "INSERT INTO odibi_journal VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value)
                    )
        about = dict(connection.execute("SELECT name, value FROM odibi_journal").fetchall())
        if about.get("format") != FORMAT:
            raise JournalUnavailable(self.name, foreign(about.get("format")))
        return str(about.get("identity"))


class _AdvisoryHold:
    """A lock that the server releases when its connection ends, however it ends."""

    def __init__(self, backend: PostgresBackend, key: int) -> None:
        self._backend = backend
        self._key = key

    def release(self) -> None:
        self._backend.let_go(self._key)


def _locked(connection: Connection, key: int) -> bool:
    return bool(connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()[0])


def _locked_again(connection: Connection, key: int) -> bool:
    """Whether a lock that was lost is held again."""
    for _ in range(GLANCES):  # who lists runs looks for a moment whether they are alive
        if _locked(connection, key):
            return True
        time.sleep(GLANCE)
    return _locked(connection, key)


def _replaced(connection: Connection, name: str, old: str | None, new: str | None) -> bool:
    """Whether a mark is now what it is to be, because it was what it had to be."""
    if old is None:
        insert = "INSERT INTO odibi_marks SELECT %s, %s WHERE %s::text IS NOT NULL ON CONFLICT DO NOTHING"
        done = connection.execute(insert, (name, new, new))
    elif new is None:
        done = connection.execute("DELETE FROM odibi_marks WHERE name = %s AND text = %s", (name, old))
    else:
        update = "UPDATE odibi_marks SET text = %s WHERE name = %s AND text = %s"
        done = connection.execute(update, (new, name, old))
    if done.rowcount:
        return True
    found = connection.execute("SELECT text FROM odibi_marks WHERE name = %s", (name,)).fetchone()
    return (None if found is None else str(found[0])) == new  # a second attempt finds its own text


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        yield
        passing("before commit")
    passing("after commit")


def _run_row(number: int, run_id: str, pipeline: str, text: str) -> RunRow:
    return RunRow(number=number, run_id=run_id, pipeline=pipeline, text=text)
