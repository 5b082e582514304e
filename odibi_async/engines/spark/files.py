"""Files on Spark: which format a path means, where it leads, and writing folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

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
FORMATS: Final = {
    "csv": Format(
        source="csv",
        suffixes=(".csv",),
        reading={**_CSV, "inferSchema": True, "multiLine": True, "mode": "FAILFAST"},
        writing={**_CSV, "ignoreLeadingWhiteSpace": False, "ignoreTrailingWhiteSpace": False},
    ),
    "parquet": Format(source="parquet", suffixes=(".parquet", ".pq"), says_types=True),
    "jsonl": Format(source="json", suffixes=(".jsonl", ".ndjson"), reading={"mode": "FAILFAST"}),
    "json": Format(source="json", suffixes=(".json",), reading={"mode": "FAILFAST"}),
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
    return any(part[0] in "._" for part in path.relative_to(folder).parts)


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


def is_one_document(name: str, paths: list[str]) -> bool:
    """Whether a JSON path is one file with an array, not a folder with a line for each row."""
    return name == "json" and all(PurePath(path).suffix for path in paths) and not os.path.isdir(paths[0][7:])


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


def check_same_columns(place: str, new: Any, old: Any, format: Format, simple: Callable[[Any], str]) -> None:
    """
    Raises:
        PathError: What is appended has other columns than what is there, or, where files say them, other types.
    """
    names = [each.name for each in new.schema], [each.name for each in old.schema]
    if names[0] != names[1]:
        raise PathError(
            place,
            f"what is appended does not fit: it has the columns {', '.join(names[0])}; there are"
            f" {', '.join(names[1])}.",
        )
    if format.says_types:
        for a, b in zip(new.schema, old.schema, strict=True):
            if simple(a.dataType) != simple(b.dataType):
                raise PathError(
                    place,
                    f"what is appended does not fit: its column {a.name!r} is {simple(a.dataType)}, there it is"
                    f" {simple(b.dataType)}.",
                )
