"""Tables in databases: SQLite files with nothing but the standard library, all others through SQLAlchemy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from odibi_async.engines.formats import without_index
from odibi_async.errors import ExtraMissing, OptionError, PathError, did_you_mean, shortened
from odibi_async.files import location

if TYPE_CHECKING:
    import sqlalchemy

SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
IN_FILES: Final = frozenset({"sqlite", "duckdb", "access"})
"""The SQLAlchemy dialects whose URLs are paths in disguise."""
URL_PARTS: Final = frozenset({"username", "password", "host", "port", "database"})
IF_EXISTS: Final[dict[str, Literal["replace", "append"]]] = {"overwrite": "replace", "append": "append"}
BUSY: Final = 60.0
"""Seconds that a SQLite file is waited for while another writes it."""
OF_ROWS: Final = ("parse_dates", "coerce_float", "index_col", "dtype_backend")
READS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


class _OneTransaction(sqlite3.Connection):
    """A connection whose transaction does not end where pandas thinks it should: after each statement."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


def read_sqlite(
    path: Path, root: Path | None, *, table: str | None = None, query: str | None = None, **options: Any
) -> pd.DataFrame:
    """
    The rows of a table or of a query. The query can do nothing but read this one file.

    Raises:
        OptionError: Neither a table nor a query is named, or both are.
    """
    _one_of(str(path), table, query)
    if table is not None:
        query = f"SELECT * FROM {_quoted(table)}"
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=BUSY, uri=True)) as connection:
        # not mode=ro, which could not undo what a killed writer left half done
        _check_again(path, root)
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY)
        return _rows(query, connection, str(path), options)


def write_sqlite(
    frame: pd.DataFrame, path: Path, root: Path | None, mode: str, *, table: str | None = None, **options: Any
) -> None:
    """
    Writes a table in one transaction: all of it, or nothing.

    Raises:
        OptionError: No table is named.
        PathError: It exists, and `mode` is `"error"`.
    """
    table = _table(str(path), table)
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY, factory=_OneTransaction, isolation_level=None)
    with contextlib.closing(connection):
        _check_again(path, root)
        connection.execute("BEGIN IMMEDIATE")
        try:
            exists = "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
            there = connection.execute(exists, (table,)).fetchone() is not None
            columns = dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall())
            if there and mode == "overwrite" and not options and _fits(without_index(frame), columns):
                connection.execute(f"DELETE FROM {_quoted(table)}")  # the table keeps its keys and its indexes
                mode = "append"
            _write(frame, connection, str(path), table, mode, columns if there else None, options)
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


class Databases:
    """
    Databases behind SQLAlchemy URLs, each with a pool of connections that is kept until `close`.

    Args:
        root: Where files are confined to. Databases that are files are then refused here: a `.db` path is the way.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._engines: dict[str, sqlalchemy.Engine] = {}

    def connect(self, url: str, **params: Any) -> sqlalchemy.Engine:
        """
        Opens a database, and sees to it that it answers.

        Args:
            url: Such as `postgresql+psycopg://host/sales`. The same text finds this database later.
            params: Parts of the URL (username, password, host, port, database), and what
                `sqlalchemy.create_engine` takes.
        """
        engine = self._make(url, params)
        with engine.connect():
            pass
        with self._lock:
            replaced, self._engines[url] = self._engines.get(url), engine
        if replaced is not None:
            replaced.dispose()
        return engine

    def read(self, url: str, *, table: str | None = None, query: str | None = None, **options: Any) -> pd.DataFrame:
        """The rows of a table or of a query; `params=` fills each `:name` in the query."""
        _one_of(shown(url), table, query)
        with self._engine(url).connect() as connection:
            if table is not None:
                _check_options(f"Reading {shown(url)!r}", options, (*OF_ROWS, "schema", "columns"))
                frame: pd.DataFrame = pd.read_sql_table(table, connection, **options)
                return frame
            text = _sqlalchemy().text(query) if isinstance(options.get("params"), Mapping) else query
            return _rows(text, connection, shown(url), options)

    def write(self, frame: pd.DataFrame, url: str, mode: str, *, table: str | None = None, **options: Any) -> None:
        """Writes a table in one transaction, as far as the database has them for changes of tables."""
        table = _table(shown(url), table)
        with self._engine(url).begin() as connection:
            inspected, schema = _sqlalchemy().inspect(connection), options.get("schema")
            columns = None
            if inspected.has_table(table, schema=schema):
                columns = [column["name"] for column in inspected.get_columns(table, schema=schema)]
            _write(frame, connection, shown(url), table, mode, columns, options)

    def close(self) -> None:
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.dispose()

    def _engine(self, url: str) -> sqlalchemy.Engine:
        with self._lock:
            if url not in self._engines:
                self._engines[url] = self._make(url, {})
            return self._engines[url]

    def _make(self, text: str, params: Mapping[str, Any]) -> sqlalchemy.Engine:
        library = _sqlalchemy()
        url = library.make_url(text).set(**{name: value for name, value in params.items() if name in URL_PARTS})
        if self._root is not None and url.get_backend_name() in IN_FILES:
            raise PathError(shown(text), "it is a file, and files are confined here: name it by its path.")
        others = {name: value for name, value in params.items() if name not in URL_PARTS}
        engine: sqlalchemy.Engine = library.create_engine(url, **others)
        if url.get_backend_name() == "sqlite":
            _begin_ourselves(engine)
        return engine


def shown(url: str) -> str:
    """The URL as messages may show it: without its password."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", url)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise ExtraMissing("Reading and writing databases", "sql") from error
    return sqlalchemy


def _begin_ourselves(engine: sqlalchemy.Engine) -> None:
    """Puts changes of tables into the transaction too, which Python's driver does not (SQLAlchemy's own recipe)."""
    event = _sqlalchemy().event

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


def _check_again(path: Path, root: Path | None) -> None:
    """SQLite opens files itself, by their path: looks once more whether it still leads where it did."""
    if root is not None and location(path, root) != path:
        raise PathError(str(path), "a symbolic link took its place.")


def _one_of(place: str, table: str | None, query: str | None) -> None:
    if (table is None) == (query is None):
        raise OptionError(f"Reading {place!r}: name either table= or query=.")


def _table(place: str, table: str | None) -> str:
    if not table:
        raise OptionError(f"Writing to {place!r}: name the table with table=.")
    return table


def _rows(query: Any, connection: Any, place: str, options: Mapping[str, Any]) -> pd.DataFrame:
    _check_options(f"Reading {place!r}", options, (*OF_ROWS, "params", "dtype"))
    frame: pd.DataFrame = pd.read_sql_query(query, connection, **options)
    return frame


def _quoted(table: str) -> str:
    return '"' + table.replace('"', '""') + '"'


def _fits(frame: pd.DataFrame, columns: Mapping[str, str]) -> bool:
    """Whether a frame has the columns of a table, each of the kind that is declared there."""
    if [str(name) for name in frame.columns] != list(columns):
        return False
    kinds = {"i": "INT", "u": "INT", "b": "INT", "f": "REAL FLOA DOUB", "M": "TIMESTAMP", "O": "TEXT CHAR CLOB"}
    for place, declared in enumerate(columns.values()):
        dtype = frame.dtypes.iloc[place]
        kind = "O" if isinstance(dtype, pd.StringDtype) else getattr(dtype, "kind", "")
        if not any(word in declared.upper() for word in kinds.get(kind, "").split()):
            return False
    return True


def _write(
    frame: pd.DataFrame,
    connection: Any,
    place: str,
    table: str,
    mode: str,
    columns: Collection[str] | None,
    options: Mapping[str, Any],
) -> None:
    there = columns is not None
    _check_options(f"Writing to {place!r}", options, ("schema", "dtype", "chunksize", "method"))
    if there and mode == "error":
        raise PathError(place, f"the table {table!r} exists already, and mode='error' was asked for.")
    if there and mode == "ignore":
        return
    frame = without_index(frame)
    if columns is not None and mode == "append":
        known = {name.casefold() for name in columns}
        others = [str(name) for name in frame.columns if str(name).casefold() not in known]
        if others:
            raise PathError(
                place,
                f"what is appended does not fit: the table {table!r} has the columns {shortened(list(columns))}; the"
                f" frame has {shortened(others)} besides.",
            )
    frame.to_sql(table, connection, if_exists=IF_EXISTS.get(mode, "append"), index=False, **options)


def _check_options(doing: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            raise OptionError(
                f"{doing}: there is no option {option!r}.{did_you_mean(option, (*known, 'table', 'query'))}"
            )
