"""The part of a cache that lies in a directory which the workers of a cluster see as well."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from odibi_async.cache.entries import Entry, Miss, entry_of, entry_text
from odibi_async.cache.rows import Rows
from odibi_async.errors import Damaged, OptionError
from odibi_async.store.shared import SharedStore, store_in


class Shared:
    """
    What steps gave, one file a key. Blocking.

    Args:
        directory: The same path on every machine.

    Raises:
        OptionError: It is a path that each process would take for another one.

    Attributes:
        store: Where the datasets lie.
        trouble: Why it can be read only, or not be used; empty when all is well, or before `open`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(directory)
        if not os.path.isabs(self.directory):
            raise OptionError(f"shared={self.directory!r}: a path from the root is needed, the same on all machines.")
        self.trouble = ""
        self._lock = threading.Lock()
        self._is_probed = self._reads = self._writes = False

    @property
    def store(self) -> SharedStore:
        return store_in(self.directory)

    @property
    def takes(self) -> bool:
        """Whether something can be kept there."""
        return self._writes

    @property
    def gives(self) -> bool:
        """Whether something can be found there."""
        return self._reads

    def open(self) -> None:
        """Finds out, once, what can be done there."""
        with self._lock:
            if not self._is_probed:
                fault, self._reads = self.store.probe()
                self._writes = not fault
                use = "it is only read from" if self._reads else "it is not used"
                self.trouble = f"{self.directory}: {fault} So {use}." if fault else ""
                self._is_probed = True

    def found(self, key: str, ttl: float | None) -> Entry | Miss:
        """The entry of a key, if it is sound and good for so many seconds."""
        if not self._reads:
            return Miss("new")
        try:
            entry = entry_of(key, self._path(key).read_text("utf-8"), is_shared=True)
        except FileNotFoundError:
            return Miss("new")
        except (OSError, ValueError, Damaged) as error:
            return Miss(f"damaged: {error}")
        if Rows.is_expired(entry, ttl):
            return Miss("expired")
        if not all(map(self.store.has, entry.kept)):
            return Miss("damaged: one of its files is missing, or has another length.")
        return entry

    def record(self, entry: Entry) -> None:
        """
        Keeps an entry whose datasets are there already.

        Raises:
            OSError: It cannot be written.
        """
        self.store.put(self._path(entry.key), entry_text(entry).encode())

    def forget(self, key: str) -> None:
        """Removes what is damaged, where that can be done."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(key))

    def _path(self, key: str) -> Path:
        return Path(self.directory, "keys", key[:2], f"{key}.json")
