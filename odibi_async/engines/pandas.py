"""The pandas engine: datasets are frames, files and tables are read and written by pandas, SQL runs in DuckDB."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pandas as pd

from odibi_async.dataset import reader_copy
from odibi_async.engines.arrow import to_arrow, to_pandas
from odibi_async.engines.databases import SUFFIXES, Databases, read_sqlite, shown, write_sqlite
from odibi_async.engines.duckdb import Database, OnInterruptible
from odibi_async.engines.formats import Dialect, append_frame, dialect, read_frame, write_frame
from odibi_async.engines.integers import joined
from odibi_async.engines.many import is_parquet_folder, read_folder, several
from odibi_async.engines.options import MODES, Mode, Secrets, secret_of
from odibi_async.engines.queries import changes_by_itself
from odibi_async.errors import OptionError, PathError, SqlError, did_you_mean
from odibi_async.files import location, opened, replaced


class PandasEngine:
    """
    Reads, writes and queries pandas frames. Every method blocks: call it in a worker thread.

    Safe to share between threads. Use it as a context manager, or call `close`.

    Args:
        root: The folder that the paths of datasets are relative to and confined to; `None` for the
            working directory and no limit. How well it holds while others swap files and links says
            `odibi_async.files.opened`.
        secrets: Name -> secret, or a function that gives the secret of a name.
        threads: Threads of DuckDB, for all queries together; `None` for one a core.
        memory_limit: Memory of DuckDB, such as `"4GB"`; `None` for 80 % of the machine's.
        temp_directory: Where DuckDB may spill what does not fit; `None` for the system's place.
        time_zone: The time zone of SQL, such as `"Europe/Berlin"`; `None` for the process's current one.

    Attributes:
        name: What steps call this kind of engine.
    """

    name: Final = "pandas"
    works_elsewhere: Final = False

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        secrets: Secrets | None = None,
        threads: int | None = None,
        memory_limit: str | None = None,
        temp_directory: str | os.PathLike[str] | None = None,
        time_zone: str | None = None,
    ) -> None:
        self._root = None if root is None else location(root, None)
        self._secrets = secrets
        spill = None if temp_directory is None else os.fspath(temp_directory)
        self._sql = Database(threads, memory_limit, spill, time_zone)
        self._databases = Databases(self._root)
        self._temps: dict[str, pd.DataFrame] = {}
        self._writing: dict[Path, threading.Lock] = {}

    def __enter__(self) -> PandasEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of databases and temporary frames; what runs is still done."""
        self._temps.clear()
        self._databases.close()
        self._sql.close()

    def connect(self, value: str, **params: Any) -> Any:
        """
        Makes sure that a source of data is there.

        Args:
            value: The SQLAlchemy URL of a database, or the path of a file or folder.
            params: For a database: username, password, host, port, database, and what
                `sqlalchemy.create_engine` takes. Secrets in them are resolved already.

        Returns:
            The SQLAlchemy engine, or the path in full. `read` and `write` find the database by the same URL.

        Raises:
            PathError: There is no such file or folder, or it leads outside the root.
        """
        if "://" in value:
            return self._databases.connect(value, **params)
        if params:
            raise OptionError(f"Connecting to {value!r}: a path takes no options, but {', '.join(params)} is given.")
        path = location(value, self._root)
        if not path.exists():
            raise PathError(value, "there is no such file or folder.")
        return path

    def read(self, path_or_query: str | os.PathLike[str], format: str | None = None, **options: Any) -> pd.DataFrame:
        """
        The frame of a file, of a table in a database, or of a query to one.

        A path with `*`, `?` or `[` is a pattern: the rows of all files that it matches, in the order of their names. A
        folder of Parquet files is one frame, with a column for each `key=value` in its folders' names.

            engine.read("flights.csv.gz", usecols=["dest"])
            engine.read("sales.db", table="orders")
            engine.read("postgresql+psycopg://host/sales", query="SELECT * FROM orders WHERE day = :day", params={...})
            engine.read("SELECT * FROM orders", connection="sales.db")

        Args:
            path_or_query: A path, a URL, or, with `connection=`, a query.
            format: csv, parquet, jsonl, json, excel, feather, sqlite or sql; `None` to go by the suffix.
            options: For databases `table=`, `query=` or `connection=`, a path or URL. All others are those of
                the reader of pandas.

        Raises:
            PathError: The path leads out of the root.
            OptionError: The format is unknown, or the reader has no such option.
        """
        place = os.fspath(path_or_query)
        if "connection" in options:
            place, options = options.pop("connection"), {**options, "query": place}
        if _is_url(place, format, options):
            return self._databases.read(place, **options)
        if _is_sqlite(place, format):
            return read_sqlite(self.file(place), self._root, **options)
        if "://" in place:
            if self._root is not None:
                raise PathError(shown(place), "it is not a file in the folder that datasets are confined to.")
            return read_frame(place, dialect(urlsplit(place).path, format), options)
        if is_parquet_folder(place, format, self._root):
            return read_folder(location(place, self._root), place, options)
        paths, frames = several(place, format, self._root), []
        for path in paths or [self.file(place)]:
            how = dialect(os.fspath(path) if paths else place, format)
            with opened(path, self._root) as file:
                frames.append(read_frame(file, how, options))
        return frames[0] if len(frames) == 1 else joined(frames)

    def reads_file(self, place: str, format: str | None = None, **options: Any) -> bool:
        """Whether `read` would read a file, whose content can be told, and neither a database nor a URL."""
        return not ("connection" in options or "://" in place or _is_sqlite(place, format))

    def libraries(self) -> Mapping[str, str]:
        """The versions of what reads and queries, and how it is set: results may depend on them."""
        return {**_libraries(), "what pandas makes of texts": str(pd.Series(["a"]).dtype)}

    def files(self, place: str, format: str | None = None) -> list[Path]:
        """
        The files that `read` would read: several of a pattern or of a Parquet folder.

        Raises:
            PathError: It is another folder, or leads out of the root.
        """
        return several(place, format, self._root) or [self.file(place)]

    def file(self, place: str) -> Path:
        """
        The file that `read` would read.

        Raises:
            PathError: It is a folder, or leads out of the root.
        """
        path = location(place, self._root)
        if path == self._root or path.is_dir():
            raise PathError(place, "it is a folder, not a file.")
        return path

    def write(
        self,
        frame: pd.DataFrame,
        path: str | os.PathLike[str],
        format: str | None = None,
        mode: Mode = "overwrite",
        **options: Any,
    ) -> None:
        """
        Writes a frame to a file or to a table of a database: all of it, or, if anything fails, nothing.

        The index is written, as columns, where its levels have names. Folders are made. Writes to one file
        wait for each other within this engine; between processes the last one wins.

        Args:
            frame: What to write.
            path: A path, or the URL of a database.
            format: See `read`.
            mode: What to do where there is something already: `"overwrite"` it, `"append"` to it, see it as
                an `"error"`, or leave it as it is: `"ignore"`.
            options: For databases `table=`. All others are those of the writer of pandas.

        Raises:
            PathError: The path leads out of the root; it exists and the mode is `"error"`; or what is there
                has other columns than what is appended.
            OptionError: The format or the mode is unknown, or the writer has no such option.
        """
        if mode not in MODES:
            raise OptionError(f"mode={mode!r} is none of {', '.join(MODES)}.{did_you_mean(mode, MODES)}")
        place = os.fspath(path)
        if _is_url(place, format, options):
            self._databases.write(frame, place, mode, **options)
        elif _is_sqlite(place, format):
            write_sqlite(frame, self.file(place), self._root, mode, **options)
        elif "://" in place:
            raise PathError(shown(place), "URLs of files can only be read.")
        else:
            how, file = dialect(place, format), self.file(place)
            with self._writing.setdefault(file, threading.Lock()):
                _write_file(frame, how, file, self._root, mode, options)

    def execute_sql(
        self,
        sql: str,
        frames: Mapping[str, pd.DataFrame] | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        temps: Collection[str] = (),
        on_interruptible: OnInterruptible | None = None,
    ) -> pd.DataFrame:
        """
        The rows of one SELECT over frames, and over nothing else.

        Args:
            sql: The query, in DuckDB's dialect.
            frames: What it may read, by the names it uses.
            params: The value of each `$name` in it.
            temps: The names of those temporary frames that it may read too.
            on_interruptible: Is given what stops the query; see `odibi_async.engines.duckdb.OnInterruptible`.

        Raises:
            SqlError: It is no SELECT, or does not fit the frames or the params.
            asyncio.CancelledError: It was interrupted.
        """
        return self._sql.run(sql, {**_chosen(self._temps, temps), **(frames or {})}, params, on_interruptible)

    @property
    def time_zone(self) -> str:
        """The name of the time zone that SQL uses."""
        return self._sql.time_zone

    def changes_by_itself(self, sql: str, frames: Collection[str] = ()) -> str:
        """What makes a query give something else another time, in words; empty when nothing does."""
        return changes_by_itself(sql)

    def register_temp(self, name: str, frame: pd.DataFrame) -> None:
        """Keeps a frame under a name, for queries that ask for it; see `NodeContext` for names that never clash."""
        self._temps[name] = reader_copy(frame)

    def drop_temp(self, name: str) -> None:
        """Forgets the frame of that name, if there is one."""
        self._temps.pop(name, None)

    def get_secret(self, name: str) -> Any:
        """
        The secret of that name.

        Raises:
            OptionError: There is none.
        """
        return secret_of(self._secrets, name)

    def to_arrow(self, frame: Any, what: str) -> Any:
        """
        The rows of a frame as an Arrow table, for another engine.

        Raises:
            CrossingError: Arrow could not carry it as it is.
        """
        return to_arrow(frame, what, "another engine")

    def from_arrow(self, table: Any, what: str) -> pd.DataFrame:
        """The frame of an Arrow table."""
        return to_pandas(table)

    def around(self, step: str) -> contextlib.AbstractContextManager[None]:
        """A block in a worker thread that belongs to a step."""
        return contextlib.nullcontext()

    def persist(self, frame: Any, level: bool | str) -> Any:
        """The frame itself, which is in memory."""
        return frame

    def collect_sample(self, frame: pd.DataFrame, n: int = 5) -> list[dict[Any, Any]]:
        """The first `n` rows, each as column -> value."""
        return frame.head(n).to_dict(orient="records")


def _write_file(
    frame: pd.DataFrame, how: Dialect, path: Path, root: Path | None, mode: Mode, options: Mapping[str, Any]
) -> None:
    there = path.exists()
    if there and mode == "error":
        raise PathError(how.path, "it exists already, and mode='error' was asked for.")
    if there and mode == "ignore":
        return
    if there and mode == "append":
        with opened(path, root) as old, replaced(path, root) as new:
            append_frame(frame, old, new, how, options)
        return
    with replaced(path, root) as file:
        write_frame(frame, file, how, options)


def _chosen(temps: Mapping[str, pd.DataFrame], names: Collection[str]) -> dict[str, pd.DataFrame]:
    """The temporary frames of these names."""
    for name in names:
        if name not in temps:
            raise SqlError(f"There is no temporary frame {name!r}.{did_you_mean(name, temps)}")
    return {name: temps[name] for name in names}


@functools.cache
def _libraries() -> Mapping[str, str]:
    return {
        f"the library {name}": _version(name) for name in ("duckdb", "odibi_async", "openpyxl", "pandas", "pyarrow")
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from its source


def _is_url(place: str, format: str | None, options: Mapping[str, Any]) -> bool:
    """Whether it is the URL of a database."""
    return "://" in place and (format == "sql" or "table" in options or "query" in options)


def _is_sqlite(place: str, format: str | None) -> bool:
    if format is None:
        return "://" not in place and place.lower().endswith(SUFFIXES)
    return format == "sqlite"
