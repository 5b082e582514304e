"""The files that a pattern matches, and what can be seen of each from outside."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from odibi_async.files import unless_gone


class Seen(NamedTuple):
    """What can be seen of a file without reading it. While it is the same, so is the file."""

    size: int
    modified: int
    changed: int
    inode: int

    @staticmethod
    def of(stat: os.stat_result) -> Seen:
        return Seen(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class Pattern:
    """
    A directory, and what the names of files in it look like.

    Args:
        where: A directory, or a path with `*`, `?` or `[`; `**` stands for any number of directories.
        names: In a directory, what names look like.

    Attributes:
        base: The directory that all of it lies in.
        is_deep: Whether files in directories below it belong to it.
    """

    def __init__(self, where: str | os.PathLike[str], names: str) -> None:
        path = Path(os.path.abspath(where))
        magic = [place for place, part in enumerate(path.parts) if glob.has_magic(part)]
        if magic and not path.is_dir():
            self.base, self._parts = Path(*path.parts[: magic[0]]), path.parts[magic[0] :]
        else:
            self.base, self._parts = path, Path(names).parts
        self.is_deep = len(self._parts) > 1

    def __str__(self) -> str:
        return str(self.base.joinpath(*self._parts))

    def files(self) -> dict[str, Seen]:
        """
        Path -> what can be seen, of the files that there are. Blocks.

        Raises:
            OSError: The directory is missing, or one cannot be read.
        """
        found: dict[str, Seen] = {}
        with os.scandir(self.base):  # a missing directory is an error; those below may vanish
            pass
        for entry in _matched(str(self.base), self._parts):
            with unless_gone():
                if entry.is_file():
                    found[entry.path] = Seen.of(entry.stat())
        return found


def _matched(folder: str, parts: tuple[str, ...]) -> Iterator[os.DirEntry[str]]:
    """The entries in a folder, and below it, that match."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _matched(folder, rest)
        deeper, rest = parts, rest or ("*",)
        if parts == ("**",):
            yield from _matched(folder, ("*",))
        for entry in _entries(folder):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _matched(entry.path, deeper)
        return
    for entry in _entries(folder):
        is_hidden = entry.name.startswith(".") and not part.startswith(".")
        if is_hidden or not fnmatch.fnmatchcase(entry.name, part):
            continue
        if not rest:
            yield entry
        elif _is_folder(entry):
            yield from _matched(entry.path, rest)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with unless_gone():
        return entry.is_dir()
    return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing when it has vanished meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
