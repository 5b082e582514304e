"""Frames in several files: those that a pattern matches, and partitioned Parquet folders."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import dataset

from odibi_async.engines.integers import GIVEN, exact
from odibi_async.errors import PathError, in_a_line
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
    The files in a folder and in those within it, through links too, as Arrow reads them.

    What begins with a dot or an underscore is left out.

    Raises:
        PathError: One of them leads out of the root.
    """
    found, seen = list[Path](), set[str]()
    for above, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [] if os.path.realpath(above) in seen else [each for each in folders if each[0] not in "._"]
        seen.add(os.path.realpath(above))
        found += [Path(above, name) for name in files if name[0] not in "._"]
    return [location(each, root) for each in sorted(found) if each.is_file()]


def is_parquet_folder(place: str, format: str | None, root: Path | None) -> bool:
    """Whether a path, which `format` or its suffix may say is Parquet, is a folder of such files."""
    named = format == "parquet" or (format is None and not Path(place).suffix) or place.endswith(".parquet")
    folder = location(place, root)
    if not named or not folder.is_dir():
        return False
    files = files_of_folder(folder, root)
    return any(format == "parquet" or each.suffix in (".parquet", ".pq") for each in files)


def read_folder(folder: Path, place: str, options: Mapping[str, Any]) -> pd.DataFrame:
    """
    The rows of a folder of Parquet files, with all columns that any of them has.

    Args:
        folder: The folder, whose files `files_of_folder` has looked at.
        place: What it was called, for messages.
        options: Those of `pandas.read_parquet`.

    Raises:
        PathError: A column is of kinds that do not go together.
    """
    given: dict[str, Any] = dict(options)
    if not options.keys() & {"engine", "schema", "partitioning"}:
        try:
            hive = dataset.HivePartitioning.discover(infer_dictionary=True)
            found: Any = dataset.dataset(folder, format="parquet", partitioning=hive)
            schemas = [each.physical_schema for each in found.get_fragments()]  # Arrow itself looks at the first only
            given["schema"] = pa.unify_schemas([*schemas, found.schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise PathError(place, f"its files do not go together: {in_a_line(error)}") from error
        given["partitioning"] = found.partitioning
    frame = pd.read_parquet(folder, **given)
    return frame if options.keys() & GIVEN else exact(frame, lambda **more: pd.read_parquet(folder, **given, **more))


def several(place: str, format: str | None, root: Path | None) -> list[Path]:
    """The files of a pattern or of a Parquet folder; empty where the path is neither."""
    if is_parquet_folder(place, format, root):
        return files_of_folder(location(place, root), root)
    return matched(place, root) if is_pattern(place, root) else []
