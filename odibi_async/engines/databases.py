"""Tables in databases: SQLite files with nothing but the standard library, all others through SQLAlchemy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from odibi_async.engines.affinity import converted, storable
from odibi_async.engines.formats import without_index
from odibi_async.engines.integers import GIVEN, doubtful, exact
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
        connection.set_authorizer(_reads_only)
        return _rows(query, connection, str(path), options, pd.read_sql_query)


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
            exists = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
            found = connection.execute(exists, (table,)).fetchone()
            table = found[0] if found else table
            frame = storable(without_index(frame))
            columns = _declared(connection, table)
            if found and mode == "overwrite" and not options and _fits(frame, columns, _has_keys(connection, table)):
                connection.execute(f"DELETE FROM {_quoted(table)}")  # the table keeps its keys and its indexes
                mode = "append"
            if _write(frame, connection, str(path), table, mode, columns if found else None, options):
                _check_stored(frame, _declared(connection, table), str(path), table)
        except BaseException as error:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            if isinstance(error, pd.errors.DatabaseError) and error.__cause__ is not None:
                raise error.__cause__ from None  # pandas says of it only that it failed
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
                return _rows(table, connection, shown(url), options, pd.read_sql_table)
            text = _sqlalchemy().text(query) if isinstance(options.get("params"), Mapping) else query
            return _rows(text, connection, shown(url), options, pd.read_sql_query)

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


def _rows(
    what: Any, connection: Any, place: str, options: Mapping[str, Any], read: Callable[..., pd.DataFrame]
) -> pd.DataFrame:
    known = ("params", "dtype") if read is pd.read_sql_query else ("schema", "columns")
    _check_options(f"Reading {place!r}", options, (*OF_ROWS, *known))
    frame = read(what, connection, **options)
    in_file = isinstance(connection, sqlite3.Connection) or connection.dialect.name == "sqlite"
    if not in_file or options.keys() & GIVEN or not doubtful(frame):
        return frame
    if isinstance(connection, sqlite3.Connection):
        connection.set_authorizer(None)
        connection.execute("BEGIN")  # so that both of the next two see the same rows
        connection.set_authorizer(_reads_only)
    return exact(read(what, connection, **options), lambda **more: read(what, connection, **options, **more))


def _reads_only(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY


def _quoted(table: str) -> str:
    return '"' + table.replace('"', '""') + '"'


def _declared(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns of a table, each with what it is declared as."""
    rows = connection.execute(
        "SELECT name, type || iif(pk AND upper(type) = 'INTEGER', ' PRIMARY KEY', '') FROM pragma_table_info(?)",
        (table,),
    )
    return dict(rows.fetchall())


def _has_keys(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table has a primary key or an index, which another one in its place would not have."""
    asked = "SELECT 1 FROM pragma_table_info(?1) WHERE pk UNION ALL SELECT 1 FROM pragma_index_list(?1)"
    return connection.execute(asked, (table,)).fetchone() is not None


def _fits(frame: pd.DataFrame, columns: Mapping[str, str], has_keys: bool) -> bool:
    """Whether a table can hold the rows of a frame, in place of its own, as they are."""
    declared = {name.casefold(): kind for name, kind in columns.items()}
    names = [str(name).casefold() for name in frame.columns]
    if (sorted(names) != sorted(declared)) if has_keys else (names != list(declared)):
        return False
    for place, name in enumerate(names):
        column = frame.iloc[:, place]
        if converted(column, declared[name]) is not None:
            return False
        if declared[name].endswith("PRIMARY KEY") and column.isna().any():  # SQLite would number them
            return False
    return True


def _check_stored(frame: pd.DataFrame, columns: Mapping[str, str], place: str, table: str) -> None:
    """
    Raises:
        PathError: SQLite has made other values of some.
    """
    declared = {name.casefold(): kind for name, kind in columns.items()}
    for at, name in enumerate(frame.columns):
        kind = declared.get(str(name).casefold(), "")
        value = converted(frame.iloc[:, at], kind)
        if value is not None:
            raise PathError(
                place,
                f"column {name!r} holds {value!r:.60}, which the table {table!r} would change: it is declared"
                f" {kind or 'as nothing'} there.",
            )


def _write(
    frame: pd.DataFrame,
    connection: Any,
    place: str,
    table: str,
    mode: str,
    columns: Collection[str] | None,
    options: Mapping[str, Any],
) -> bool:
    """Writes the rows; `False` where the mode says that what is there stays."""
    there = columns is not None
    _check_options(f"Writing to {place!r}", options, ("schema", "dtype", "chunksize", "method"))
    if there and mode == "error":
        raise PathError(place, f"the table {table!r} exists already, and mode='error' was asked for.")
    if there and mode == "ignore":
        return False
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
    return True


def _check_options(doing: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            raise OptionError(
                f"{doing}: there is no option {option!r}.{did_you_mean(option, (*known, 'table', 'query'))}"
            )
