"""The face of the Spark engine: what `create_engine_context("spark")` gives."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from odibi_async.engines.options import MODES, Mode, Secrets, secret_of
from odibi_async.engines.spark import arrow, files, queries
from odibi_async.engines.spark.jobs import Jobs
from odibi_async.engines.spark.kept import different, restored, saved
from odibi_async.engines.spark.session import is_connect, started
from odibi_async.errors import CrossingError, OptionError, PathError, did_you_mean, in_a_line, keep_text
from odibi_async.files import location

if TYPE_CHECKING:
    from odibi_async.engines.duckdb import OnInterruptible  # loads DuckDB

LEVELS: Final = ("memory", "disk", "memory_and_disk")
"""Where `persist` keeps a frame; `True` is the last of them."""
MAX_ROWS: Final = 10_000_000
MAX_BYTES: Final = 2 * 1024**3


class SparkEngine:
    """
    Reads, writes and queries Spark DataFrames. Every method blocks: call it in a worker thread.

    Frames are lazy: reading and querying run no job but those that Spark needs to find out the columns (of CSV and
    JSON files without `schema=`). Work is done where rows are needed: by a step that writes, collects or counts,
    where a frame goes to pandas or into the cache, or by `persist`.

    Safe to share between threads. Use it as a context manager, or call `close`.

    Args:
        session: Your own session, classic or Spark Connect, which is never stopped here; `None` for the active one of
            the process, or one that is started.
        spark_config: Settings of the session that is started: `{"spark.master": "local[4]"}`, or
            `{"spark.remote": "sc://host"}` for Spark Connect.
        root: The folder that the paths of datasets are relative to and confined to; `None` for no limit.
        secrets: Name -> secret, or a function that gives the secret of a name.
        max_rows: How many rows a frame may have that goes to pandas; `None` for any number.
        max_bytes: How many bytes it may have there, as Arrow; `None` for any number.
        stop: Whether a session that was started here is stopped by `close`. Frames of it are of no use afterwards.

    Attributes:
        name: What steps call this kind of engine.
        session: The Spark session.

    Raises:
        EngineError: Spark does not start.
        ExtraMissing: pyspark is not installed.
    """

    name: Final = "spark"
    works_elsewhere: Final = True

    def __init__(
        self,
        session: Any = None,
        spark_config: Mapping[str, Any] | None = None,
        root: str | os.PathLike[str] | None = None,
        secrets: Secrets | None = None,
        max_rows: int | None = MAX_ROWS,
        max_bytes: int | None = MAX_BYTES,
        stop: bool = True,
    ) -> None:
        if session is not None and spark_config:
            raise OptionError("session= is yours and stays as it is: give spark_config= without it.")
        self._root = None if root is None else location(root, None)
        self._secrets = secrets
        self._limits = (max_rows, max_bytes)
        config = {name: str(value) for name, value in (spark_config or {}).items()}
        self.session, ours = (session, False) if session is not None else started(config)
        self._stops = stop and ours
        self._jobs = Jobs(self.session)
        self._databases: dict[str, Mapping[str, Any]] = {}
        self._temps: set[str] = set()
        self._unpersist: list[Any] = []
        self._writing: dict[Path, threading.Lock] = {}

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops temporary views, and stops the session if it was started here and `stop` is true."""
        with contextlib.suppress(Exception):  # a session that is gone has neither
            for name in list(self._temps):
                self.drop_temp(name)
            self._forget_persisted()
        if self._stops:
            self._stops = False
            self.session.stop()

    # -- steps -----------------------------------------------------------------------------------------

    def around(self, step: str) -> AbstractContextManager[None]:
        """A block in a worker thread whose jobs are those of a step: named for it, and cancelled with it."""
        self._forget_persisted()
        return self._jobs.around(step)

    def to_arrow(self, frame: Any, what: str) -> Any:
        """
        The rows of a frame as an Arrow table, brought here.

        Raises:
            CrossingError: It is larger than `max_rows` or `max_bytes`.
        """
        return arrow.collected(frame, what, *self._limits)

    def from_arrow(self, table: Any, what: str) -> Any:
        """
        A Spark frame of an Arrow table.

        Raises:
            CrossingError: Spark could not hold it as it is.
        """
        return arrow.to_spark(self.session, table, what)

    def persist(self, frame: Any, level: bool | str) -> Any:
        """
        Computes a frame now and keeps it in the cluster until nobody holds it any more.

        Args:
            frame: The frame.
            level: `"memory"`, `"disk"`, or `True` for memory and, what does not fit, disk.
        """
        if level is True:
            level = "memory_and_disk"
        if level not in LEVELS:
            raise OptionError(
                f"persist={level!r} is none of true, {', '.join(LEVELS)}.{did_you_mean(str(level), LEVELS)}"
            )
        from pyspark import StorageLevel

        names = {"memory": "MEMORY_ONLY", "disk": "DISK_ONLY", "memory_and_disk": "MEMORY_AND_DISK"}
        kept = frame.persist(getattr(StorageLevel, names[level]))
        kept.write.format("noop").mode("overwrite").save()
        if not is_connect(self.session):  # a Python frame that nobody holds takes its Java frame along
            weakref.finalize(kept, self._unpersist.append, kept._jdf)
        return kept

    def _forget_persisted(self) -> None:
        """Releases persisted frames that nobody holds: here, in a worker thread, since that talks to the JVM."""
        while self._unpersist:
            self._unpersist.pop().unpersist(False)

    # -- the methods that engines share ----------------------------------------------------------------

    def connect(self, value: str, **params: Any) -> Any:
        """
        Makes sure that a source of data is there.

        Args:
            value: The JDBC URL of a database, or the path of a file or folder.
            params: For a database the options of Spark's JDBC reader: user, password, driver, ... Secrets in them
                are resolved already.

        Returns:
            The URL, or the path in full. `read` and `write` find the database by the same URL.

        Raises:
            PathError: There is no such file or folder, or it leads out of the root.
        """
        if value.startswith("jdbc:"):
            self._databases[value] = dict(params)
            return value
        if params:
            raise OptionError(f"Connecting to {value!r}: a path takes no options, but {', '.join(params)} is given.")
        if self._is_remote(value):
            return value
        path = location(value, self._root)
        if not path.exists():
            raise PathError(value, "there is no such file or folder.")
        return path

    def read(self, path_or_query: str | os.PathLike[str], format: str | None = None, **options: Any) -> Any:
        """
        The lazy frame of files, of a table, or of a query to a database.

            engine.read("flights.csv.gz", schema="dest STRING, distance INT")
            engine.read("sales.orders", format="table")
            engine.read("jdbc:postgresql://host/sales", query="SELECT * FROM orders")

        Args:
            path_or_query: A path, a URI such as `s3a://...`, the name of a table, or, with `connection=`, a query.
            format: csv, parquet, jsonl, json, orc, delta, table or jdbc; `None` to go by the suffix.
            options: `schema=` (a DDL text) spares the pass over text files that finds out the columns; `persist=`
                computes the frame now. All others are those of Spark's reader of that format.

        Raises:
            PathError: The path leads out of the root.
            OptionError: The format is unknown.
        """
        persist = options.pop("persist", False)
        frame = self._read(os.fspath(path_or_query), format, options)
        return self.persist(frame, persist) if persist else frame

    def _read(self, place: str, format: str | None, options: dict[str, Any]) -> Any:
        if "connection" in options:
            place, options["query"] = os.fspath(options.pop("connection")), place
        reader = self.session.read
        schema = options.pop("schema", None)
        if format == "table":
            return self.session.table(place)
        if _is_database(place, format):
            wanted = _database_options(place, options)
            return self._refused(reader.format("jdbc").options(**self._databases.get(place, {}), **wanted).load, place)
        name, found = files.format_of(place, format)
        loads = [place] if self._is_remote(place) else files.places(place, None, self._root)
        chosen = {**files.reading_options(name, loads, schema is not None), **options}
        if schema is not None:
            reader = reader.schema(schema)
        return self._refused(functools.partial(reader.format(found.source).options(**chosen).load, loads), place)

    def reads_file(self, place: str, format: str | None = None, **options: Any) -> bool:
        """Whether `read` would read files of this machine, whose content can be told."""
        elsewhere = format == "table" or _is_database(place, format) or self._is_remote(place)
        return not ("connection" in options or elsewhere)

    def files(self, place: str, format: str | None = None) -> list[Path]:
        """The files that `read` would read; of a Delta table those of its log, which say all that it is."""
        if not self._is_remote(place) and files.format_of(place, format)[0] == "delta":
            return sorted((location(place, self._root) / "_delta_log").glob("*.*"))
        return files.local_files(place, None, self._root)

    def libraries(self) -> Mapping[str, str]:
        """The version of Spark, and how the session is set: results may depend on them."""
        settings = {f"the setting {name}": value for name, value in sorted(self._settings().items())}
        return {"the library pyspark": str(self.session.version), **settings}

    def _settings(self) -> Mapping[str, str]:
        found = {str(name): str(value) for name, value in dict(self.session.conf.getAll).items()}
        return {
            name: value for name, value in found.items() if name.startswith("spark.sql.") and "warehouse" not in name
        }

    def write(
        self,
        frame: Any,
        path: str | os.PathLike[str],
        format: str | None = None,
        mode: Mode = "overwrite",
        partition_by: str | Sequence[str] = (),
        **options: Any,
    ) -> None:
        """
        Writes a frame as a folder of files, to a table, or to a table of a database.

        On this machine a folder is whole or not there: it is written beside its place and renamed. Elsewhere the
        commit protocol of Spark applies.

        Args:
            frame: What to write; its jobs are run.
            path: A path, a URI, the name of a table, or a JDBC URL.
            format: See `read`.
            mode: What to do where there is something already: `"overwrite"` it, `"append"` to it, see it as an
                `"error"`, or leave it as it is: `"ignore"`.
            partition_by: Columns whose values name the folders.
            options: For databases `table=`. All others are those of Spark's writer.

        Raises:
            PathError: The path leads out of the root; it exists and the mode is `"error"`; or what is there has other
                columns than what is appended.
            OptionError: The format or the mode is unknown.
        """
        if mode not in MODES:
            raise OptionError(f"mode={mode!r} is none of {', '.join(MODES)}.{did_you_mean(mode, MODES)}")
        place = os.fspath(path)
        columns = [partition_by] if isinstance(partition_by, str) else list(partition_by)

        def writer(frame: Any) -> Any:
            return frame.write.mode(mode).partitionBy(columns) if columns else frame.write.mode(mode)

        if format == "table":
            writer(frame).options(**options).saveAsTable(place)
        elif _is_database(place, format):
            wanted = _database_options(place, options)
            writer(frame).format("jdbc").options(**self._databases.get(place, {}), **wanted).save()
        elif self._is_remote(place) or files.format_of(place, format)[0] == "delta":
            target = place if self._is_remote(place) else files.target(location(place, self._root))
            found = files.format_of(place, format)[1]
            writer(frame).format(found.source).options(**{**found.writing, **options}).save(target)
        else:
            self._write_here(frame, writer, place, files.format_of(place, format)[0], mode, columns, options)

    def _write_here(
        self,
        frame: Any,
        writer: Callable[[Any], Any],
        place: str,
        format: str,
        mode: Mode,
        columns: list[str],
        options: Mapping[str, Any],
    ) -> None:
        found = files.FORMATS[format]
        chosen = {**found.writing, **options}
        path = location(place, self._root)
        if path == self._root:
            raise PathError(place, "it is the folder that datasets are confined to.")
        with self._writing.setdefault(path, threading.Lock()):
            there = path.exists()
            if there and mode == "error":
                raise PathError(place, "it exists already, and mode='error' was asked for.")
            if there and mode == "ignore":
                return
            if there and mode == "append":
                if not path.is_dir():
                    raise PathError(place, "it is a file, and Spark appends to folders.")
                files.check_same_folders(place, path, columns)
                frame = files.ordered_like(self._read(place, format, dict(options)), frame, place, found)
                writer(frame).format(found.source).options(**chosen).save(files.target(path))
                return
            with files.replacing(path, self._root) as new:
                writer(frame).format(found.source).options(**chosen).mode("error").save(new)

    def execute_sql(
        self,
        sql: str,
        frames: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        temps: Collection[str] = (),
        on_interruptible: OnInterruptible | None = None,
    ) -> Any:
        """
        The lazy frame of one query over frames and the tables of the session.

        Args:
            sql: The query, in Spark's dialect.
            frames: What it may read, by the names it uses.
            params: The value of each `:name` in it.
            temps: The names of temporary views that it reads; they are checked to be there.
            on_interruptible: Not used: nothing runs here that could be stopped.

        Raises:
            SqlError: It is not one query, or does not fit the frames or the params.
        """
        for name in temps:
            if name not in self._temps:
                raise OptionError(f"There is no temporary frame {name!r}.{did_you_mean(name, self._temps)}")
        is_confined = self._root is not None and not is_connect(self.session)
        return queries.run(self.session, sql, frames or {}, params, is_confined=is_confined)

    @property
    def time_zone(self) -> str:
        """The name of the time zone that SQL uses."""
        return str(self.session.conf.get("spark.sql.session.timeZone"))

    def changes_by_itself(self, sql: str, frames: Collection[str] = ()) -> str:
        """What makes a query give something else another time, in words; empty when nothing does."""
        if is_connect(self.session):
            return "what Spark Connect does not tell"
        return queries.changes_by_itself(self.session, sql, frames, self._doubtful)

    @functools.cached_property
    def _doubtful(self) -> Mapping[str, str]:
        return queries.not_deterministic(self.session)

    def register_temp(self, name: str, frame: Any) -> None:
        """Makes a temporary view of a frame, for queries; see `NodeContext` for names that never clash."""
        frame.createOrReplaceTempView(name)
        self._temps.add(name)

    def drop_temp(self, name: str) -> None:
        """Drops the view of that name, if there is one. Materialise lazy frames that read it before."""
        self._temps.discard(name)
        self.session.catalog.dropTempView(name)

    def get_secret(self, name: str) -> Any:
        """
        The secret of that name.

        Raises:
            OptionError: There is none.
        """
        return secret_of(self._secrets, name)

    def collect_sample(self, frame: Any, n: int = 5) -> list[dict[Any, Any]]:
        """The first `n` rows, each as column -> value. Runs a job."""
        rows: list[dict[Any, Any]] = frame.limit(n).toArrow().to_pylist()
        return rows

    # -- the cache -------------------------------------------------------------------------------------

    def save(self, frame: Any, folder: Path) -> bytes:
        """
        Writes a frame as Parquet files into a new folder, for the cache; what `restore` needs besides.

        Raises:
            CrossingError: It would not come back as it is, or the session works on other machines.
        """
        if not self.is_local:
            raise CrossingError("it", "the cache", "the session works on machines that do not share its folder.")
        try:
            return saved(frame, folder)
        except Exception as error:
            keep_text(error)
            raise

    def restore(self, paths: Sequence[Path], about: bytes) -> Any:
        """The lazy frame of files that `save` wrote."""
        return restored(self.session, [files.uri(path) for path in paths], about)

    def save_is_exact(self, frame: Any, paths: Sequence[Path], about: bytes) -> str:
        """Why what `restore` gives is not the frame that was saved; empty when it is. Runs no job."""
        return different(frame.schema, self.session.read.parquet(*map(files.uri, paths)).schema if paths else None)

    @functools.cached_property
    def is_local(self) -> bool:
        """Whether Spark works on this machine, so that paths mean the same there."""
        if is_connect(self.session):
            return str(os.environ.get("SPARK_LOCAL_REMOTE", "")) == "1" or "localhost" in _host_of(self.session)
        return str(self.session.sparkContext.master).startswith("local")

    def _is_remote(self, place: str) -> bool:
        if not files.is_uri(place):
            return self._root is None and not self.is_local
        if self._root is not None:
            raise PathError(place, "it is not in the folder that datasets are confined to.")
        return True

    @staticmethod
    def _refused(load: Any, place: str) -> Any:
        """What a reader gives; what Spark refuses about the files in a sentence."""
        try:
            return load()
        except Exception as error:
            if queries.is_about_the_query(error):
                raise PathError(place, in_a_line(error)) from error
            raise


def _host_of(session: Any) -> str:
    return str(getattr(getattr(session, "client", None), "host", ""))


def _is_database(place: str, format: str | None) -> bool:
    return format == "jdbc" or place.startswith("jdbc:")


def _database_options(place: str, options: Mapping[str, Any]) -> dict[str, Any]:
    wanted = dict(options)
    if "table" in wanted:
        wanted["dbtable"] = wanted.pop("table")
    if ("dbtable" in wanted) == ("query" in wanted):
        raise OptionError(f"{place!r} is a database: name either table= or query=.")
    return {"url": place, **wanted}
