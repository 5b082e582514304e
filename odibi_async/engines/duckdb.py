"""SQL over frames: one locked DuckDB database, and a cursor of its own for each query."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import duckdb
import pandas as pd

from odibi_async.engines.frames import readable, result_frame
from odibi_async.errors import OdibiError, OptionError, SqlError, did_you_mean, in_a_line, shortened

Interrupt = Callable[[], None]
OnInterruptible = Callable[[Interrupt], AbstractContextManager[object] | None]
"""
Takes what stops the query, once the query can be stopped. If it gives a context manager, the query runs within it.

The interrupt may be called from any thread and as often as one likes, also when there is nothing left to stop. It
stops what DuckDB is doing at that moment and is forgotten afterwards, so whoever wants the query to end calls it
again until it has.
"""

LOCKS: Final = (
    "enable_external_access = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "lock_configuration = true",
)
CHANGES: Final = (b"copy", b"insert", b"update", b"delete", b"merge")


class Database:
    """
    A DuckDB database in memory that sees nothing but the frames of each query.

    No files, no network, no extensions, no settings, no Python variables. The one folder that its SQL can
    reach is the one that DuckDB spills to: private, made for this database, and removed with it.

    Args:
        threads: Threads for all queries together; `None` for one a core.
        memory_limit: Such as `"4GB"`, for all queries together; `None` for 80 % of the machine's memory.
        temp_directory: Where the folder is made that DuckDB spills to; `None` for the system's place.
        time_zone: The session's time zone, such as `"Europe/Berlin"`; `None` for the process's.

    Attributes:
        time_zone: Its name, which stays.
    """

    def __init__(
        self,
        threads: int | None = None,
        memory_limit: str | None = None,
        temp_directory: str | None = None,
        time_zone: str | None = None,
    ) -> None:
        self.time_zone = _zone(time_zone)
        self._settings = {"threads": threads, "memory_limit": memory_limit}
        self._temp_directory = temp_directory
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._running = 0
        self._closed = False

    def run(
        self,
        sql: str,
        frames: Mapping[str, pd.DataFrame],
        params: Mapping[str, Any] | None = None,
        on_interruptible: OnInterruptible | None = None,
    ) -> pd.DataFrame:
        """
        The rows of a query over frames, known in it by their names here.

        Args:
            sql: One SELECT; also its relatives WITH, VALUES, FROM, PIVOT with its values given, DESCRIBE, SUMMARIZE.
            frames: What it may read. An index is not a column.
            params: The value of each `$name` in the query.
            on_interruptible: See `OnInterruptible`.

        Raises:
            SqlError: The query is something else, or does not fit the frames or the params.
            asyncio.CancelledError: It was interrupted.
        """
        _check_names(frames)
        with self._cursor() as cursor:
            stop = _Stop(cursor)
            try:
                statement = _the_select(cursor, sql)
                _check_params(statement, params or ())
                with contextlib.ExitStack() as stack:
                    for name, frame in frames.items():
                        _register(cursor, name, frame)
                        stack.callback(cursor.unregister, name)
                    stack.callback(stop.end)
                    stack.enter_context(_interruptible(on_interruptible, stop))
                    return result_frame(cursor.sql(statement, params=dict(params) if params else None))
            except duckdb.InterruptException:
                if stop.asked:
                    raise asyncio.CancelledError from None
                raise
            except duckdb.CatalogException as error:
                raise SqlError(_missing_table(error, frames) or str(error)) from error
            except (duckdb.ProgrammingError, duckdb.PermissionException) as error:
                raise SqlError(str(error)) from error

    def close(self) -> None:
        """Takes no further queries; what runs is still done."""
        with self._lock:
            self._closed = True
            self._end_if_idle()

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            if self._closed:
                raise OdibiError("The engine is closed: it runs no further SQL.")
            if self._connection is None:
                self._connection = self._connect()
            cursor = self._connection.cursor()
            self._running += 1
        try:
            yield cursor
        finally:
            cursor.close()
            with self._lock:
                self._running -= 1
                self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closed and not self._running and self._connection is not None:
            self._connection.close()
            self._connection = None
            self._remove_spill()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        spill = tempfile.mkdtemp(prefix="odibi-sql-", dir=self._temp_directory)
        self._remove_spill = weakref.finalize(self, shutil.rmtree, spill, ignore_errors=True)
        given = {name: value for name, value in self._settings.items() if value is not None}
        try:
            connection = duckdb.connect(
                ":memory:", config={**given, "temp_directory": spill, "python_enable_replacements": "false"}
            )
        except duckdb.ProgrammingError as error:
            self._remove_spill()
            raise OptionError(f"DuckDB does not accept these settings: {given}. {error}") from error
        for setting in (f"TimeZone = {_quoted(self.time_zone)}", *LOCKS):
            connection.execute(f"SET GLOBAL {setting}")
        return connection


def _zone(asked: str | None) -> str:
    """The name of a time zone as DuckDB knows it; by default the one that it takes the process to be in."""
    with duckdb.connect() as connection:
        if asked is not None:
            try:
                connection.execute(f"SET TimeZone = {_quoted(asked)}")
            except duckdb.Error as error:
                raise OptionError(f"time_zone={asked!r}: {in_a_line(error)}") from error
        [name] = connection.execute("SELECT current_setting('TimeZone')").fetchone() or ("UTC",)
    return str(name)


def _quoted(text: str) -> str:
    return "'" + str(text).replace("'", "''") + "'"


class _Stop:
    """Interrupts one cursor, as long as that cursor runs."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._lock = threading.Lock()
        self._over = False
        self.asked = False

    def __call__(self) -> None:
        with self._lock:
            if not self._over:
                self.asked = True
                self._cursor.interrupt()

    def end(self) -> None:
        with self._lock:
            self._over = True


def _interruptible(tell: OnInterruptible | None, stop: Interrupt) -> AbstractContextManager[object]:
    return (tell and tell(stop)) or contextlib.nullcontext()


def _check_names(frames: Mapping[str, pd.DataFrame]) -> None:
    seen: dict[str, str] = {}
    for name in frames:
        if not isinstance(name, str) or not name or "\0" in name:
            raise SqlError(f"A frame cannot be called {name!r} in SQL.")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise SqlError(
                f"The names {other!r} and {name!r} are the same in SQL: call one of the frames something else."
            )


def _the_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        found = f"{len(statements)} statements" if statements else "none"
        raise SqlError(f"One SELECT statement is needed, not {found}.")
    kind = statements[0].type.name
    if kind == "MULTI":  # what a PIVOT that looks for its values itself becomes
        raise SqlError("A PIVOT needs its values: PIVOT ... ON column IN ('a', 'b').")
    change = "" if kind != "SELECT" else _change_within(sql)
    if kind != "SELECT" or change:
        raise SqlError(f"One SELECT statement is needed, not {change or kind}.")
    return statements[0]


def _check_params(statement: duckdb.Statement, names: Iterable[str]) -> None:
    """DuckDB itself only says how many it expected."""
    known = {name.casefold() for name in statement.named_parameters}
    for name in names:
        if name.casefold() not in known:
            hint = did_you_mean(name, statement.named_parameters) or " An input that is no frame is one, by its name."
            raise SqlError(f"The query has no parameter ${name}, which is given.{hint}")


def _change_within(sql: str) -> str:
    """The statement in a WITH clause that changes something, such as `WITH a AS (COPY ...)`, if there is one."""
    text = sql.encode()
    tokens = duckdb.tokenize(sql)  # where each begins, in bytes
    ends = [start for start, _ in tokens[1:]] + [len(text)]
    words = [
        text[start:end].strip().lower()
        for (start, kind), end in zip(tokens, ends, strict=True)
        if kind != duckdb.token_type.comment
    ]
    for before, opening, word in zip(words, words[1:], words[2:], strict=False):
        if before in (b"as", b"materialized") and opening == b"(" and word in CHANGES:
            return f"{word.decode().upper()} within WITH"
    return ""


def _register(cursor: duckdb.DuckDBPyConnection, name: str, frame: pd.DataFrame) -> None:
    frame = readable(frame)
    try:
        try:
            cursor.register(name, frame)
        except duckdb.Error:  # such as a frame that runs backwards, `frame[::-1]`; its copy does not
            cursor.register(name, frame.copy())
    except duckdb.Error as error:
        raise SqlError(f"SQL cannot read the frame {name!r}: {in_a_line(error)}") from error


def _missing_table(error: duckdb.CatalogException, frames: Mapping[str, pd.DataFrame]) -> str:
    """What to say where a query reads a table that is not there."""
    found = re.match(r'Catalog Error: Table with name "?(.+?)"? does not exist', str(error))
    if not found:
        return ""
    known = f"Known names: {shortened(sorted(frames))}." if frames else "It has no inputs."
    return f"The query reads {found[1]!r}, which is none of its inputs.{did_you_mean(found[1], frames)}\n{known}"
