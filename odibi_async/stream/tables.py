"""Tables that have a column which grows: in SQLite, behind SQLAlchemy URLs, and in files."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import pandas as pd
from blake3 import blake3

from odibi_async.engines.databases import BUSY, READS, Databases
from odibi_async.engines.formats import Dialect, dialect, read_frame
from odibi_async.errors import OptionError, did_you_mean
from odibi_async.stream.listing import Seen
from odibi_async.stream.window import DIGITS

if TYPE_CHECKING:
    import sqlalchemy

ALIAS: Final = "odibi_rows"
SETTLE: Final = 1.0
"""Seconds that a file must not have changed for whose last line does not end."""


@dataclass(frozen=True, slots=True)
class Page:
    """
    Some rows, in the order of their watermarks.

    Attributes:
        values: The watermark of each.
        digests: What tells each from others; equal for equal rows.
        frame: Makes a frame of some of them, by their places.
    """

    values: Sequence[Any]
    digests: Sequence[str]
    frame: Callable[[Sequence[int]], pd.DataFrame]


class Table(Protocol):
    """A table with a watermark column. Rows that have none there are not seen. Blocking."""

    def highest(self) -> Any:
        """The highest watermark; `None` where there is no row."""

    def count_before(self, low: Any) -> int:
        """How many rows are before a watermark."""

    def page(self, low: Any, high: Any, limit: int) -> Page:
        """The first rows from one watermark (`None` for the first) to another, both included."""

    def look(self) -> None:
        """Another look begins."""

    def close(self) -> None:
        """Closes what is open."""


class Identity:
    """
    What tells rows apart: all that is in them, or their key and their watermark.

    Args:
        column: The watermark column.
        key: The columns of the key; none for all.
    """

    def __init__(self, column: str, key: Sequence[str]) -> None:
        self.column = column
        self.key = key

    def place(self, columns: Sequence[str]) -> int:
        """Where the watermark is."""
        for name in (self.column, *self.key):
            if name not in columns:
                raise OptionError(f"There is no column {name!r}.{did_you_mean(name, columns)} Columns: {columns}.")
        return list(columns).index(self.column)

    def digests(self, columns: Sequence[str], rows: Collection[Sequence[Any]]) -> list[str]:
        """The digest of each row. What is empty does not count: a column that is added changes no digest."""
        chosen = {self.column, *self.key} if self.key else set(columns)
        places = [(place, repr(name)) for place, name in enumerate(columns) if name in chosen]
        return [_digest(row, places) for row in rows]


def _digest(row: Sequence[Any], places: Sequence[tuple[int, str]]) -> str:
    parts = [f"{name}={_shown(row[place])}" for place, name in places if not _is_empty(row[place])]
    return blake3("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _shown(value: Any) -> str:
    """A value, so that equal ones look alike: a column of integers becomes one of floats when a cell is empty."""
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value)


def framed(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], dates: Collection[str]
) -> Callable[..., pd.DataFrame]:
    """What makes a frame of some rows, as pandas does when it reads a table."""

    def frame(places: Sequence[int]) -> pd.DataFrame:
        found = pd.DataFrame.from_records(
            [tuple(rows[each]) for each in places], columns=list(columns), coerce_float=True
        )
        for name in dates:
            found[name] = pd.to_datetime(found[name])
        return found

    return frame


class SqliteTable:
    """
    A table, or a query, in an SQLite file. It is only read.

    Args:
        path: The file.
        table_or_query: Its name, or a SELECT.
        identity: What tells rows apart.
        dates: Columns to be made times.
    """

    def __init__(self, path: Path, table_or_query: str, identity: Identity, dates: Collection[str]) -> None:
        self._path = path
        self._identity = identity
        self._dates = dates
        source = f"({table_or_query})" if is_query(table_or_query) else _quoted(table_or_query)
        self._column = f"{ALIAS}.{_quoted(identity.column)}"  # a bare name in quotes may be a text for SQLite
        self._from = f"FROM {source} AS {ALIAS}"

    def highest(self) -> Any:
        return self._read(f"SELECT max({self._column}) {self._from}")[1][0][0]

    def count_before(self, low: Any) -> int:
        return int(self._read(f"SELECT count(*) {self._from} WHERE {self._column} < ?", _bound(low))[1][0][0])

    def page(self, low: Any, high: Any, limit: int) -> Page:
        where, members = f"WHERE {self._column} <= ?", [_bound(high)]
        if low is not None:
            where, members = f"{where} AND {self._column} >= ?", [*members, _bound(low)]
        order = f"ORDER BY {self._column} LIMIT ?"
        columns, rows = self._read(f"SELECT * {self._from} {where} {order}", *members, limit)
        return _page(columns, rows, self._identity, self._dates)

    def look(self) -> None: ...

    def close(self) -> None: ...

    def _read(self, query: str, *members: Any) -> tuple[list[str], list[Any]]:
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # mode=ro could not undo what a killed writer left half done
        with contextlib.closing(sqlite3.connect(uri, timeout=BUSY, uri=True)) as connection:
            connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY)
            cursor = connection.execute(query, members)
            return [each[0] for each in cursor.description], cursor.fetchall()


class SqlTable:
    """
    A table, or a query, in a database behind SQLAlchemy.

    Args:
        connection: Its URL, or an engine of SQLAlchemy, which stays open.
        table_or_query: Its name, which may have that of a schema and a dot before it, or a SELECT.
        identity: What tells rows apart.
        dates: Columns to be made times.
    """

    def __init__(
        self, connection: str | sqlalchemy.Engine, table_or_query: str, identity: Identity, dates: Collection[str]
    ) -> None:
        self._connection = connection
        self._what = table_or_query
        self._identity = identity
        self._dates = dates
        self._databases = Databases(None)
        self._lock = threading.Lock()
        self._opened: tuple[sqlalchemy.Engine, Any] | None = None

    def highest(self) -> Any:
        engine, rows = self._open()
        library = _sqlalchemy()
        return self._read(engine, library.select(library.func.max(rows.c[self._identity.column])))[1][0][0]

    def count_before(self, low: Any) -> int:
        engine, rows = self._open()
        library = _sqlalchemy()
        count = library.select(library.func.count()).select_from(rows).where(rows.c[self._identity.column] < low)
        return int(self._read(engine, count)[1][0][0])

    def page(self, low: Any, high: Any, limit: int) -> Page:
        engine, rows = self._open()
        library, column = _sqlalchemy(), rows.c[self._identity.column]
        select = library.select(library.literal_column("*")).select_from(rows).where(column <= high)
        if low is not None:
            select = select.where(column >= low)
        columns, found = self._read(engine, select.order_by(column).limit(limit))
        return _page(columns, found, self._identity, self._dates)

    def look(self) -> None: ...

    def close(self) -> None:
        with self._lock:
            self._opened = None
        self._databases.close()

    def _open(self) -> tuple[sqlalchemy.Engine, Any]:
        """The engine, and what is selected from."""
        with self._lock:
            if self._opened is None:
                connection = self._connection
                engine = self._databases.connect(connection) if isinstance(connection, str) else connection
                library = _sqlalchemy()
                column = library.column(self._identity.column)
                if is_query(self._what):
                    rows = library.text(self._what).columns(column).subquery(ALIAS)
                else:
                    schema, _, name = self._what.rpartition(".")
                    rows = library.table(name, column, schema=schema or None).alias(ALIAS)
                self._opened = engine, rows
            return self._opened

    def _read(self, engine: sqlalchemy.Engine, select: Any) -> tuple[list[str], list[Any]]:
        with engine.connect() as connection:
            result = connection.execute(select)
            return list(result.keys()), [tuple(row) for row in result]


class FileTable:
    """
    A file of rows that others append to, or write anew.

    Args:
        path: The file.
        format: csv, parquet, jsonl, ...; `None` to go by the suffix.
        identity: What tells rows apart.
        options: Options of the reader of pandas.
    """

    def __init__(self, path: Path, format: str | None, identity: Identity, options: Mapping[str, Any]) -> None:  # noqa: A002
        self._path = path
        self._how = dialect(str(path), format)
        self._identity = identity
        self._options = options
        self._frame: pd.DataFrame | None = None

    def look(self) -> None:
        """The file is read again."""
        self._frame = None

    def close(self) -> None:
        self._frame = None

    def highest(self) -> Any:
        frame = self._read()
        return None if frame.empty else _plain(frame[self._identity.column].iloc[-1], up=True)

    def count_before(self, low: Any) -> int:
        frame = self._read()
        return 0 if frame.empty else int((frame[self._identity.column] < low).sum())

    def page(self, low: Any, high: Any, limit: int) -> Page:
        frame = self._read()
        column = frame[self._identity.column]
        chosen = frame[(column <= high) & (column >= low)] if low is not None else frame[column <= high]
        chosen = chosen.head(limit)
        columns = [str(name) for name in chosen.columns]
        digests = self._identity.digests(columns, [tuple(map(_python, row)) for row in chosen.itertuples(index=False)])
        values = [_plain(value) for value in chosen[self._identity.column]]
        return Page(values, digests, lambda places: chosen.iloc[list(places)].reset_index(drop=True))

    def _read(self) -> pd.DataFrame:
        """The rows, in the order of their watermarks."""
        if self._frame is None:
            frame = self._parsed(*self._content())
            if not frame.empty or self._identity.column in frame.columns:
                self._identity.place([str(name) for name in frame.columns])
                frame = frame.dropna(subset=[self._identity.column]).sort_values(self._identity.column, kind="stable")
            self._frame = frame
        return self._frame

    def _content(self) -> tuple[bytes, bool]:
        """What is in the file, and whether its last line is whole."""
        with open(self._path, "rb") as file:
            seen = Seen.of(os.fstat(file.fileno()))
            content = file.read()
            after = Seen.of(os.fstat(file.fileno()))
        is_text = self._how.format.is_text and self._how.compression is None and self._how.format.name != "json"
        if after != seen and not is_text:
            raise BlockingIOError(errno.EAGAIN, "it is being written", str(self._path))
        if not is_text or content.endswith(b"\n") or not content:
            return content, True
        time.sleep(SETTLE)  # in a thread of its own
        return content, Seen.of(os.stat(self._path)) == seen == after

    def _parsed(self, content: bytes, is_whole: bool) -> pd.DataFrame:
        if not is_whole:  # the last line may be half written
            content = content[: content.rfind(b"\n") + 1]
        if not content.strip():
            return pd.DataFrame()
        how = Dialect(self._how.format, self._how.path, self._how.compression)
        return read_frame(io.BytesIO(content), how, self._options)


def _page(columns: Sequence[str], rows: Sequence[Any], identity: Identity, dates: Collection[str]) -> Page:
    place = identity.place(columns)
    return Page([row[place] for row in rows], identity.digests(columns, rows), framed(columns, rows, dates))


def is_query(text: str) -> bool:
    """Whether it is a query, and not the name of a table."""
    return text.lstrip().lower().startswith(("select ", "select\n", "with ", "with\n", "values "))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bound(value: Any) -> Any:
    """A value as SQLite takes it."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value) if isinstance(value, Decimal) else value


def _python(value: Any) -> Any:
    """A cell as Python has it."""
    if value is pd.NaT or value is pd.NA:
        return None
    return value.item() if hasattr(value, "item") and not isinstance(value, pd.Timestamp) else value


def _plain(value: Any, *, up: bool = False) -> Any:
    """A watermark as Python has it; times have no nanoseconds there: those are cut off, or rounded up."""
    value = _python(value)
    if isinstance(value, pd.Timestamp):
        return (value.ceil("us") if up else value.floor("us")).to_pydatetime()
    return value


def _sqlalchemy() -> Any:
    import sqlalchemy

    return sqlalchemy
