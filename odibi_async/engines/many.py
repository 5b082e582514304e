"""Frames in several files: those that a pattern matches, and partitioned Parquet folders."""

from __future__ import annotations

import errno
import glob
import os
from pathlib import Path

from odibi_async.files import location


def is_pattern(place: str, root: Path | None) -> bool:
    """Whether a path has `*`, `?` or `[` in it, and is not the name of something that is there."""
    return glob.has_magic(place) and "://" not in place and not location(place, root).exists()


def matched(place: str, root: Path | None) -> list[Path]:
    """
    The files that a pattern matches, in the order of their names; `**` goes through folders.

    Raises:
        PathError: One of them leads out of the root.
        FileNotFoundError: There is none.
    """
    base = os.fspath(root) if root is not None else None
    found = sorted(glob.glob(place, root_dir=base, recursive=True))
    files = [path for path in (location(each, root) for each in found) if path.is_file()]
    if not files:
        raise FileNotFoundError(errno.ENOENT, "no file matches", place)
    return files


def files_of_folder(folder: Path, root: Path | None) -> list[Path]:
    """
    The Parquet files in a folder and in those within it; what begins with a dot or an underscore is left out.

    Raises:
        PathError: One of them leads out of the root.
    """
    found = sorted(folder.rglob("*.parquet"))
    shown = [each for each in found if not any(part[0] in "._" for part in each.relative_to(folder).parts)]
    return [location(each, root) for each in shown if each.is_file()]


def is_parquet_folder(place: str, format: str | None, root: Path | None) -> bool:
    """Whether a path, which `format` or its suffix may say is Parquet, is a folder of such files."""
    named = format == "parquet" or (format is None and not Path(place).suffix) or place.endswith(".parquet")
    folder = location(place, root)
    return named and folder.is_dir() and bool(files_of_folder(folder, root))


def several(place: str, format: str | None, root: Path | None) -> list[Path]:
    """The files of a pattern or of a Parquet folder; empty where the path is neither."""
    if is_parquet_folder(place, format, root):
        return files_of_folder(location(place, root), root)
    return matched(place, root) if is_pattern(place, root) else []
