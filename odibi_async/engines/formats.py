"""File formats: which one a path means, and how frames are read from and written to open files of each."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import inspect
import io
import itertools
import lzma
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, Any, Final

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import feather

from odibi_async.engines import excel, integers, json
from odibi_async.engines.appending import (
    check_lines,
    encoding_after,
    options_refused,
    ordered_like,
    to_excel,
    to_json,
    to_table,
)
from odibi_async.errors import ExtraMissing, OptionError, PathError, did_you_mean

COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip", ".zst": "zstd"}
OPENERS: Final[dict[str, Callable[..., Any]]] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
OURS: Final = frozenset(
    ("self", "filepath_or_buffer", "path", "path_or_buf", "io", "excel_writer", "mode", "storage_options")
    + ("filesystem", "partition_cols", "iterator", "kwargs")
)
"""Parameters of pandas' readers and writers that are no options here: what or where is said otherwise."""
SHAPE: Final = frozenset(
    ("sep", "delimiter", "header", "names", "skiprows", "skip_blank_lines", "comment", "quoting", "quotechar", "engine")
    + ("doublequote", "escapechar", "dialect", "lineterminator", "skipinitialspace", "encoding", "encoding_errors")
    + ("on_bad_lines", "compression")
)
"""Options of `read_csv` that say where rows and fields end, not what is in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """
    A kind of file.

    Attributes:
        name: What `format=` calls it.
        suffixes: How paths end that mean it.
        read: Gives the frame of an open file.
        write: Writes a frame, its first argument, to an open file, its second.
        reading: Options of `read`, where the user gives none.
        writing: Options of `write`, where the user gives none.
        is_text: Whether the suffix of a compression may follow, and lines can be added at the end.
        extra: The extra of this package that it needs.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., Any]
    write: Callable[..., Any]
    reading: Mapping[str, Any] = field(default_factory=dict)
    writing: Mapping[str, Any] = field(default_factory=dict)
    is_text: bool = False
    extra: str = ""


RECORDS: Final = {"orient": "records", "date_format": "iso", "date_unit": "ns", "double_precision": 15}
AS_IT_IS: Final = {"dtype": False, "convert_dates": False, "convert_axes": False, "precise_float": True}
"""What keeps pandas from guessing, where options leave the reading of JSON to it."""
FORMATS: Final = {
    each.name: each
    for each in (
        Format(
            name="csv",
            suffixes=(".csv",),
            read=pd.read_csv,
            write=pd.DataFrame.to_csv,
            writing={"index": False},
            is_text=True,
        ),
        Format(
            name="parquet",
            suffixes=(".parquet", ".pq"),
            read=pd.read_parquet,
            write=pd.DataFrame.to_parquet,
            writing={"index": False},
        ),
        Format(
            name="jsonl",
            suffixes=(".jsonl", ".ndjson"),
            read=pd.read_json,
            write=pd.DataFrame.to_json,
            reading={**AS_IT_IS, "lines": True},
            writing={**RECORDS, "lines": True},
            is_text=True,
        ),
        Format(
            name="json",
            suffixes=(".json",),
            read=pd.read_json,
            write=pd.DataFrame.to_json,
            reading=AS_IT_IS,
            writing=RECORDS,
            is_text=True,
        ),
        Format(
            name="excel",
            suffixes=(".xlsx", ".xlsm"),
            read=pd.read_excel,
            write=pd.DataFrame.to_excel,
            reading={"engine": "openpyxl"},
            writing={"index": False, "engine": "openpyxl"},
            extra="excel",
        ),
        Format(name="feather", suffixes=(".feather",), read=pd.read_feather, write=pd.DataFrame.to_feather),
    )
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    A format as one path has it.

    Attributes:
        format: What kind of file it is.
        path: The path, as it was given.
        compression: What the last suffix says; `None` for nothing.
    """

    format: Format
    path: str
    compression: str | None = None


def dialect(path: str, name: str | None) -> Dialect:
    """
    How the file at `path` is to be read and written: as `name` says, else as its suffix says.

    Raises:
        OptionError: There is no such format, or the suffix is that of none.
    """
    *_, before, last = ["", "", *PurePath(path).suffixes]
    compression = COMPRESSIONS.get(last.lower())
    suffix = (before if compression else last).lower()
    if name is not None and name not in FORMATS:
        raise OptionError(f"There is no format {name!r}.{did_you_mean(name, FORMATS)} Formats: {', '.join(FORMATS)}.")
    found = FORMATS[name] if name else next((each for each in FORMATS.values() if suffix in each.suffixes), None)
    if found is None or (compression and not found.is_text):
        raise OptionError(f"{path!r} has no suffix of a known format: say format=, one of {', '.join(FORMATS)}.")
    return Dialect(found, path, compression)


def read_frame(file: Any, how: Dialect, options: Mapping[str, Any]) -> pd.DataFrame:
    """
    The frame of an open file.

    Raises:
        OptionError: The reader has no such option, or several frames were asked for.
        ExtraMissing: The format needs a library that is not installed.
    """
    doing = f"Reading {how.path!r} as {how.format.name}"
    frame = _read_by_us(file, how, options)
    if frame is not None:
        return frame
    given = {**how.format.reading, **({"compression": how.compression} if how.format.is_text else {}), **options}
    has_header = how.format.name == "csv" and given.get("index_col") is None and given.get("engine") != "pyarrow"
    if has_header:
        if not isinstance(file, str) and "usecols" not in given:
            _check_lengths(file, how, given)
            file.seek(0)
        given["index_col"] = False  # else pandas takes the first fields of rows that are longer for an index
    frame = _called(doing, how, how.format.read, (file,), given)
    if not isinstance(frame, pd.DataFrame):
        raise OptionError(f"{doing} with {dict(options)} does not give a single frame.")
    if options.keys() & integers.GIVEN:
        return frame

    def again(**more: Any) -> Any:
        if not isinstance(file, str):
            file.seek(0)
        return _called(doing, how, how.format.read, (file,), {**given, **more})

    return integers.exact(frame, again)


def _check_lengths(file: IO[bytes], how: Dialect, options: Mapping[str, Any]) -> None:
    """
    Raises:
        PathError: Rows of a CSV file are longer than its header, and there is something in the fields without names.
    """
    shape = {name: value for name, value in options.items() if name in SHAPE}
    file.seek(0)
    if isinstance(pd.read_csv(file, **shape, dtype=str, nrows=1).index, pd.RangeIndex):
        return  # texts would be another index, and later rows that are longer pandas itself refuses
    file.seek(0)
    shifted = pd.read_csv(file, **shape, dtype=str)
    more, named = shifted.index.nlevels, shifted.shape[1]
    extra = shifted.iloc[:, -more:].notna().any(axis=1).to_numpy()
    if extra.any():
        where = _whereabouts(int(extra.argmax()) + 1, file, how, shape)
        raise PathError(
            how.path,
            f"{where} has {named + more} fields, but the header only {named}. If the first of them are an index, say"
            f" index_col={0 if more == 1 else list(range(more))}.",
        )


def _whereabouts(row: int, file: IO[bytes], how: Dialect, shape: Mapping[str, Any]) -> str:
    """Where a row of a CSV file is, counted from 1: its line, where lines can be counted."""
    plain_rows = shape.keys() <= {"sep", "delimiter", "quotechar", "encoding", "engine", "compression"}
    sep = shape.get("sep", shape.get("delimiter", ","))
    if not plain_rows or len(str(sep)) != 1 or how.compression not in (None, *OPENERS):
        return f"row {row}"
    with contextlib.closing(_rows(file, how, shape)) as reading:
        line, _ = next(itertools.islice(reading, row, None), (row + 1, []))
    return f"line {line}"


def _rows(file: IO[bytes], how: Dialect, options: Mapping[str, Any]) -> Generator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with the number of its first line; an odd one is the last."""
    sep, quote = options.get("sep", options.get("delimiter", ",")), options.get("quotechar", '"')
    file.seek(0)
    with _plain(file, how, "rb") as plain:
        text = io.TextIOWrapper(plain, options.get("encoding") or "utf-8", errors="replace", newline="")
        rows, line = csv.reader(text, delimiter=sep, quotechar=quote), 1
        try:
            for row in rows:
                if row:
                    yield line, row
                line = rows.line_num + 1
        except csv.Error:
            return
        finally:
            text.detach()
            file.seek(0)


def write_frame(frame: pd.DataFrame, file: IO[bytes], how: Dialect, options: Mapping[str, Any]) -> None:
    """
    Writes a frame to an open file. The index is written, as columns, where its levels have names.

    Raises:
        OptionError: The writer has no such option.
        ExtraMissing: The format needs a library that is not installed.
    """
    defaults = dict(how.format.writing)
    if how.compression == "zip":
        defaults["compression"] = {"method": "zip", "archive_name": PurePath(how.path).stem}
    elif how.compression:
        defaults["compression"] = how.compression
    if not options.get("index"):
        frame = without_index(frame)
    doing = f"Writing {how.path!r} as {how.format.name}"
    if _is_json_of_ours(how, options):
        with _plain(file, how, "wb") as plain:
            json.write(frame, plain, doing, lines=_has_lines(how, options))
        return
    if how.format.name == "excel" and options.keys() <= {"sheet_name", "freeze_panes"}:
        with _needing(how, doing):
            excel.write(frame, file, doing, **options)
        return
    if how.format.name == "csv" and _has_lone_returns(frame):
        defaults["quoting"] = csv.QUOTE_NONNUMERIC  # csv takes them for ends of lines when it reads, not when it writes
    _called(doing, how, how.format.write, (frame, file), {**defaults, **options})


def _has_lone_returns(frame: pd.DataFrame) -> bool:
    """Whether a carriage return stands in a text or in a name."""
    texts = frame.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz", "timedelta"])
    found = (texts.iloc[:, place].astype("str").str.contains("\r", regex=False) for place in range(texts.shape[1]))
    return any("\r" in str(name) for name in frame.columns) or any(bool(each.any()) for each in found)


def _read_by_us(file: Any, how: Dialect, options: Mapping[str, Any]) -> pd.DataFrame | None:
    """What no option asks pandas to read, and pandas would change on the way; `None` for all else."""
    if isinstance(file, str):  # a URL
        return None
    if how.format.name == "excel" and options.keys() <= {"sheet_name"}:
        sheet = options.get("sheet_name", 0)
        if isinstance(sheet, str) or type(sheet) is int:
            with _needing(how, f"Reading {how.path!r} as excel"):
                return excel.read(file, sheet)
    if _is_json_of_ours(how, options):
        with _plain(file, how, "rb") as plain:
            frame = json.read(plain.read(), lines=_has_lines(how, options))
        if frame is not None:
            return frame
        file.seek(0)
    return None


def _is_json_of_ours(how: Dialect, options: Mapping[str, Any]) -> bool:
    known = how.compression is None or how.compression in OPENERS
    return how.format.name in ("json", "jsonl") and known and options.keys() <= {"lines"}


def _has_lines(how: Dialect, options: Mapping[str, Any]) -> bool:
    return bool(options.get("lines", how.format.name == "jsonl"))


def without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as columns where the levels have names, else without it."""
    named = any(name is not None for name in frame.index.names)
    return frame.reset_index(drop=not named)


def append_frame(frame: pd.DataFrame, old: IO[bytes], new: IO[bytes], how: Dialect, options: Mapping[str, Any]) -> None:
    """
    Writes to `new` what `old` holds and then the frame.

    The lines of CSV and JSON lines are copied as they are. Other formats are read and written again.

    Raises:
        PathError: The frame has other columns than the file.
        OptionError: This cannot be done with this option or compression.
    """
    if options.get("index"):
        raise OptionError(
            f"Appending to {how.path!r}: index=True cannot be distinguished from a column: use reset_index()."
        )
    frame = without_index(frame)
    if how.format.name in ("csv", "jsonl") or options.get("lines"):
        append = _append_csv if how.format.name == "csv" else _append_lines
        try:
            append(frame, old, new, how, dict(options))
        except UnicodeDecodeError as error:
            encoding = options.get("encoding") or "UTF-8"
            raise PathError(how.path, f"what is in it is not {encoding}: say encoding=.") from error
    elif how.format.name == "json":
        options_refused(options, how.path)
        _check_openable(how, options)
        with _plain(old, how, "rb") as before, _plain(new, how, "wb") as after:
            to_json(frame, before, after, how.path)
    elif how.format.name == "excel":
        options_refused(options, how.path)
        with _needing(how, f"Appending to {how.path!r}"):
            to_excel(frame, old, new, how.path)
    elif how.format.name == "parquet":
        table = to_table(pq.read_table(old), frame, how.path)
        _called(f"Appending to {how.path!r}", how, pq.write_table, (table, new), options)
    else:
        table = to_table(feather.read_table(old, memory_map=False), frame, how.path)
        _called(f"Appending to {how.path!r}", how, feather.write_feather, (table, new), options)


def _append_csv(frame: pd.DataFrame, old: IO[bytes], new: IO[bytes], how: Dialect, options: dict[str, Any]) -> None:
    _check_openable(how, options)
    if "columns" in options:
        frame = frame[list(options.pop("columns"))]
    if options.get("header", True) is True:
        shared = {name: value for name, value in options.items() if name in ("sep", "encoding", "quotechar")}
        with _plain(old, how, "rb") as plain:
            encoding = encoding_after(plain.read(4), None)
        if encoding is not None:
            shared["encoding"] = encoding.removesuffix("-le").removesuffix("-be")  # pandas reads the mark itself
        old.seek(0)
        with contextlib.suppress(pd.errors.EmptyDataError):  # nothing in it yet: the header is still to be written
            header = read_frame(old, how, {**shared, "nrows": 0})
            frame = ordered_like(header.columns, frame, how.path)
            options["header"] = False
        old.seek(0)
    _append_lines(frame, old, new, how, options)


def _append_lines(
    frame: pd.DataFrame, old: IO[bytes], new: IO[bytes], how: Dialect, options: Mapping[str, Any]
) -> None:
    _check_openable(how, options)
    with _plain(old, how, "rb") as before, _plain(new, how, "wb") as after:
        block = last = before.read(2**20)
        encoding = encoding_after(block, options.get("encoding"))
        if how.format.name != "csv":
            check_lines(block, encoding, how.path)
            encoding = None
        decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
        while block:
            decoder.decode(block)
            after.write(block)
            last, block = block, before.read(2**20)
        newline = "\n".encode(encoding or "utf-8")
        if last and not last.endswith(newline):
            after.write(newline)
        options = {**options, "encoding": encoding} if encoding and last else options
        write_frame(frame, after, Dialect(how.format, how.path), options)


def _check_openable(how: Dialect, options: Mapping[str, Any]) -> None:
    if "compression" in options or (how.compression and how.compression not in OPENERS):
        raise OptionError(f"Appending to {how.path!r}: not to this compression.")


def _plain(file: IO[bytes], how: Dialect, mode: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """The file without its compression."""
    if how.compression is None:
        return contextlib.nullcontext(file)
    opened: contextlib.AbstractContextManager[IO[bytes]] = OPENERS[how.compression](file, mode)
    return opened


@contextlib.contextmanager
def _needing(how: Dialect, doing: str) -> Iterator[None]:
    """A block that may need a library that is not installed."""
    try:
        yield
    except ImportError as error:
        if not how.format.extra:
            raise
        raise ExtraMissing(doing, how.format.extra) from error


def _called(
    doing: str, how: Dialect, function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """Calls a reader or writer of pandas; options that it does not know are an error that names them."""
    known = inspect.signature(function).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for option in options:
        if option in OURS or not (takes_any or option in known):
            raise OptionError(f"{doing}: there is no option {option!r}.{did_you_mean(option, set(known) - OURS)}")
    try:
        with _needing(how, doing):
            return function(*args, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in options:
            raise
        raise OptionError(f"{doing}: there is no option {unknown[1]!r}.") from error
