"""Files on Spark: which format a path means, where it leads, and writing folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import unquote

from odibi_async.engines.many import several
from odibi_async.errors import OptionError, PathError, did_you_mean
from odibi_async.files import UNFINISHED, location

COMPRESSED: Final = (".gz", ".bz2", ".zst", ".snappy", ".lz4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """
    A kind of file that Spark reads and writes.

    Attributes:
        source: What Spark calls it.
        suffixes: How paths end that mean it.
        reading: Options of the reader, where the user gives none.
        writing: Options of the writer, where the user gives none.
        says_types: Whether its files say the types of their columns.
    """

    source: str
    suffixes: tuple[str, ...]
    reading: Mapping[str, Any] = field(default_factory=dict)
    writing: Mapping[str, Any] = field(default_factory=dict)
    says_types: bool = False


_CSV: Final = {"header": True, "escape": '"'}
_JSON: Final = {"mode": "FAILFAST"}
_NULLS: Final = {"ignoreNullFields": False}  # a column without values would be gone
FORMATS: Final = {
    "csv": Format(
        source="csv",
        suffixes=(".csv",),
        reading={**_CSV, "inferSchema": True, "multiLine": True, "mode": "FAILFAST"},
        writing={**_CSV, "ignoreLeadingWhiteSpace": False, "ignoreTrailingWhiteSpace": False},
    ),
    "parquet": Format(source="parquet", suffixes=(".parquet", ".pq"), says_types=True),
    "jsonl": Format(source="json", suffixes=(".jsonl", ".ndjson"), reading=_JSON, writing=_NULLS),
    "json": Format(source="json", suffixes=(".json",), reading=_JSON, writing=_NULLS),
    "orc": Format(source="orc", suffixes=(".orc",), says_types=True),
    "delta": Format(source="delta", suffixes=(".delta",), says_types=True),
}
"""The formats by name. Rows that do not fit their file's header or schema are errors, not NULLs."""
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def format_of(place: str, name: str | None) -> tuple[str, Format]:
    """
    The format of the files at a place: as `name` says, else as its suffix says.

    Raises:
        OptionError: There is no such format, or none can be told.
    """
    if name is not None:
        if name not in FORMATS:
            raise OptionError(f"Spark has no format {name!r} here.{did_you_mean(name, FORMATS)} {_known()}")
        return name, FORMATS[name]
    suffixes = [suffix.lower() for suffix in PurePath(place).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    for found, each in FORMATS.items():
        if last in each.suffixes:
            return found, each
    raise OptionError(f"{place!r} has no suffix of a format that Spark has here: say format=. {_known()}")


def _known() -> str:
    return f"Formats: {', '.join(FORMATS)}, table, jdbc. Read others in a step with engine: pandas."


def is_uri(place: str) -> bool:
    """Whether a place is not a path of this machine: `s3a://...`, `dbfs:/...`."""
    return _URI.match(place) is not None


def local_files(place: str, format: str | None, root: Path | None) -> list[Path]:
    """
    The files that would be read, in the order of their names: that at the path, those in a folder, or those that a
    pattern matches. What begins with a dot or an underscore is left out.

    Raises:
        PathError: One of them leads out of the root.
        FileNotFoundError: There is none.
    """
    path = location(place, root)
    if path.is_dir():
        found = [each for each in sorted(path.rglob("*")) if each.is_file() and not _is_hidden(each, path)]
        return [location(each, root) for each in found]
    return several(place, format, root) or [location(place, root)]


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether Spark leaves a file out; `_day=1` is a value of a column."""
    return any(part[0] == "." or (part[0] == "_" and "=" not in part) for part in path.relative_to(folder).parts)


def places(place: str, format: str | None, root: Path | None) -> list[str]:
    """
    What Spark is to load: the file or folder itself, or the files that a pattern matches.

    Raises:
        PathError: It leads out of the root.
        FileNotFoundError: There is nothing.
    """
    path = location(place, root)
    if path.is_dir():
        return [uri(path)]
    files = local_files(place, format, root)
    for file in files:
        file.stat()
    return [uri(file) for file in files]


def target(path: Path) -> str:
    """A path as Spark's writers take it."""
    return f"file://{path}"


def uri(path: Path) -> str:
    """A path as Spark's readers take it, for which a pattern's letters mean themselves."""
    return "file://" + re.sub(r"([\\*?\[\]{}])", r"\\\1", str(path))


def reading_options(name: str, loads: list[str], has_schema: bool) -> dict[str, Any]:
    """The options of a format's reader for these places, where the user gives none."""
    options = dict(FORMATS[name].reading)
    is_one_file = len(loads) == 1 and bool(PurePath(loads[0]).suffix) and not os.path.isdir(_path(loads[0]))
    if name == "json" and is_one_file:  # an array; a folder has a line for each row
        options["multiLine"] = True
    if name == "csv" and (has_schema or not is_one_file):  # else columns of other names are read by their places
        options["enforceSchema"] = False
    if has_schema:
        options.pop("inferSchema", None)
    return options


def _path(load: str) -> str:
    """The path in a place that `uri` gave."""
    return re.sub(r"\\(.)", r"\1", load.removeprefix("file://"))


@contextlib.contextmanager
def replacing(path: Path, root: Path | None) -> Iterator[str]:
    """
    A place beside `path` for a new folder, which takes its place at the end.

    If anything fails, what was there is as it was and the new folder is removed. What killed writers left behind is
    removed by the next write to the same path.

    Args:
        path: As `location` gave it.
        root: See `odibi_async.files.opened`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    new, old = (path.with_name(f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}") for _ in "no")
    try:
        yield target(new)
        if root is not None and location(path, root) != path:
            raise PathError(str(path), "a symbolic link took its place.")
        _swap(path, new, old)
    finally:
        _remove(new)
        _remove(old)


def _swap(path: Path, new: Path, old: Path) -> None:
    there = os.path.lexists(path)
    if there:
        os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        if there:
            os.rename(old, path)
        raise


def _sweep(path: Path) -> None:
    for each in path.parent.iterdir():
        if each.name.startswith(f".{path.name}.") and each.name.endswith(UNFINISHED) and _is_forgotten(each):
            _remove(each)


def _is_forgotten(path: Path) -> bool:
    """Whether nobody has written there for a day: Spark's writers hold no lock that could be asked."""
    import time

    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > 86_400
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_same_folders(place: str, path: Path, columns: list[str]) -> None:
    """
    Raises:
        PathError: What is there is partitioned by other columns than what is appended: Spark would read one of both.
    """
    files = local_files(str(path), None, None)
    if files:
        folders = files[0].relative_to(path).parts[:-1]
        there = [unquote(each.partition("=")[0]) for each in folders]
        if there != columns:
            raise PathError(
                place, f"what is appended does not fit: it has partition_by={columns}; what is there {there}."
            )


def ordered_like(there: Any, frame: Any, place: str, format: Format) -> Any:
    """
    The frame with its columns in the order of those that are there: rows of text go by their places.

    Raises:
        PathError: What is appended has other columns than what is there, or, where files say them, other types.
    """
    if sorted(frame.columns) != sorted(there.columns):
        if not there.columns:  # files of JSON without rows have none
            return frame
        given, old = ", ".join(frame.columns), ", ".join(there.columns)
        raise PathError(place, f"what is appended does not fit: it has the columns {given}; there are {old}.")
    kinds, mine = ({each.name: each.dataType.simpleString() for each in of.schema} for of in (there, frame))
    for name in kinds if format.says_types else ():
        if mine[name] != kinds[name]:
            raise PathError(
                place, f"what is appended does not fit: its column {name!r} is {mine[name]}, there it is {kinds[name]}."
            )
    return frame.select(*("`" + name.replace("`", "``") + "`" for name in there.columns))
