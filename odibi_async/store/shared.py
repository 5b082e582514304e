"""
A directory that machines share, so that what a worker keeps there need not travel.

Nothing is locked there, for file systems over networks lock badly or not at all: a file is written under a name that
nobody else has, gets its own name when it is whole, and never changes afterwards. Nothing is removed there either,
except what is damaged.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from pathlib import Path
from typing import Any, Final

from odibi_async.store.blobs import private
from odibi_async.store.kept import Kept
from odibi_async.store.locks import files_in
from odibi_async.store.store import Store

ABANDONED: Final = 86_400.0
"""Seconds after which a half-written file has no writer any more."""


class SharedStore(Store):
    """
    Keeps values in a directory that machines share.

    Args:
        directory: Made with mode 0700 when it is needed first.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self._new = self.directory / "new"

    def probe(self) -> tuple[str, bool]:
        """
        Finds out whether files can be written there as they have to be: appended to, and renamed.

        Returns:
            What cannot be done, in a sentence, empty if all can; and whether what is there can be read.
        """
        token = secrets.token_hex(8)
        try:
            path = self._workplace() / token
            renamed = path.with_name(f"{token}-renamed")
            try:
                for part in (b"one", b"two"):
                    with open(path, "ab", opener=private) as file:
                        file.write(part)
                os.replace(path, renamed)
                if renamed.read_bytes() != b"onetwo":
                    return "what is appended to a file there gets lost.", True
            finally:
                for each in (path, renamed):
                    with contextlib.suppress(OSError):
                        os.unlink(each)
            self._tidy()
        except OSError as error:
            return f"files cannot be written there: {error}.", self._is_readable()
        return "", True

    def _is_readable(self) -> bool:
        try:
            return "blobs" in os.listdir(self.directory)
        except OSError:
            return False

    def put(self, path: Path, data: bytes) -> None:
        """
        Writes a small file whole, in the place of one that is there.

        Raises:
            OSError: It cannot be written.
        """
        self._write(path, [memoryview(data)], durable=False)

    def _tidy(self) -> None:
        """Removes half-written files of writers that have died."""
        before = time.time() - ABANDONED
        for each in files_in(self._new, "*"):
            with contextlib.suppress(OSError):
                if each.stat().st_mtime < before:
                    each.unlink()

    def _workplace(self) -> Path:
        for folder in (self.directory / "blobs", self.directory / "keys", self._new):
            os.makedirs(folder, 0o700, exist_ok=True)
        return self._new

    def _has(self, blob: str, size: int) -> bool:
        try:
            return os.stat(self._path(blob)).st_size == size
        except OSError:
            return False


@functools.cache
def store_in(directory: str) -> SharedStore:
    """The store in a directory, one a process."""
    return SharedStore(directory)


def load_from(directory: str, kept: Kept) -> Any:
    """
    A value that lies in a shared directory.

    Raises:
        Damaged: It is not there, or not what was kept.
    """
    return store_in(directory).load(kept)
