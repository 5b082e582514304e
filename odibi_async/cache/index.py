"""
The index of a cache: named texts in diskcache's SQLite file, none of which is trusted unless its checksum matches.

diskcache unpickles what a row says is a pickle, reads the file that a row names, and obeys the settings that it finds.
Here a row is a text, or damaged; settings are ours; and a file that SQLite cannot make sense of is left behind for an
empty one in the next numbered folder, which no process has open yet.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import diskcache
from blake3 import blake3

from odibi_async.errors import CacheUnavailable, Damaged
from odibi_async.store.locks import file_lock

FORMAT: Final = "odibi_async index 1"

PATIENCE: Final = 1.0
"""Seconds to wait for another process that writes."""

REST: Final = 2.0
"""Seconds for which an index that could not be used is not tried again, so that a run does not wait at every step."""


class Index(Protocol):
    """
    Named texts on disk. Every method raises `CacheUnavailable` when the disk is full, locked, not writable, ...

    Safe to use from several threads and processes at a time.
    """

    @property
    def trouble(self) -> str | None:
        """Why the last call failed, or what was lost; `None` when all is well."""

    def get(self, name: str) -> str | None:
        """
        The text of this name, `None` when there is none.

        Raises:
            Damaged: It is not what was put there.
        """

    def put(self, name: str, text: str) -> None:
        """Replaces the text of this name."""

    def remove(self, name: str) -> None:
        """Forgets the text of this name, if there is one."""

    def names(self, prefix: str) -> list[str]:
        """The names that begin so."""

    def clear(self) -> None:
        """Forgets everything."""

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """What happens within happens for others at once, or not at all."""

    def close(self) -> None:
        """Closes the file; the next call opens it again."""


_SETTINGS: Final[dict[str, Any]] = diskcache.DEFAULT_SETTINGS | {
    "eviction_policy": "none",
    "cull_limit": 0,
    "sqlite_mmap_size": 0,  # reading a mapped file that others cut short kills the process
}

_BUSY: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_INTERRUPT,
    )
)
"""Faults of the moment; all others are taken for damage."""


class _Disk(diskcache.Disk):  # type: ignore[misc]
    """Takes nothing but texts, believes nothing else, and touches no file."""

    def __init__(self, *_: object, **__: object) -> None:
        """Ignores what stored settings say it should be."""

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: Any, raw: Any) -> str | None:
        return key if raw == 1 and isinstance(key, str) else None  # where diskcache would unpickle

    def store(self, value: str, read: bool, key: object = None) -> tuple[int, int, None, str]:
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> str:
        sound = mode == diskcache.core.MODE_RAW and filename is None and isinstance(value, str)
        return value if sound else ""

    def remove(self, file_path: object) -> None:
        """Rows have no files; a file name in one was not put there by us."""


class _Rows(diskcache.Cache):  # type: ignore[misc]
    """diskcache with one connection for all threads, under the index's lock, and without belief in stored settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shared: sqlite3.Connection | None = None
        try:
            super().__init__(str(folder), timeout=PATIENCE, disk=_Disk, **_SETTINGS)
        except BaseException:
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        if self._shared is None:
            self._shared = sqlite3.connect(
                self.folder / "cache.db", timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._shared.text_factory = lambda data: data.decode("utf-8", "replace")
            for pragma in ("journal_mode=wal", "synchronous=normal", "mmap_size=0", "trusted_schema=off"):
                self._shared.execute(f"PRAGMA {pragma}").fetchall()
        return self._shared

    @property
    def _sql_retry(self) -> Any:
        return self._sql  # the connection's own patience is enough; diskcache's is a minute a statement

    def reset(self, key: str, value: object = None, update: bool = True) -> Any:
        if key in _SETTINGS:
            setattr(self, key, _SETTINGS[key])
        return _SETTINGS.get(key)

    def close(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()


class DiskIndex:
    """
    An `Index` in a directory of its own.

    Args:
        directory: Holds numbered folders; the highest one counts.
    """

    def __init__(self, directory: Path) -> None:
        self.trouble: str | None = None
        self._directory = directory
        self._lock = threading.RLock()
        self._rows: _Rows | None = None
        self._within = False
        self._resting_until = 0.0

    def get(self, name: str) -> str | None:
        with self._calling() as rows:
            found = rows.get(name)
        return None if found is None else _unsealed(name, found)

    def put(self, name: str, text: str) -> None:
        with self._calling() as rows:
            rows.set(name, _sealed(name, text))

    def remove(self, name: str) -> None:
        with self._calling() as rows:
            rows.delete(name)

    def names(self, prefix: str) -> list[str]:
        select = "SELECT key FROM Cache WHERE raw = 1 AND key >= ? AND key < ?"
        with (
            self._calling() as rows
        ):  # in one statement: where pages are damaged, asking for the next key may never end
            return [name for (name,) in rows._sql(select, (prefix, f"{prefix}\uffff")) if isinstance(name, str)]

    def clear(self) -> None:
        with self._calling() as rows:
            rows.clear()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._calling() as rows, rows.transact():
            self._within = True
            try:
                yield
            finally:
                self._within = False

    def close(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, None
            if rows is not None:
                with contextlib.suppress(sqlite3.Error):  # a damaged file; what was committed is committed
                    rows.close()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[_Rows]:
        """The open rows; what goes wrong with them becomes `CacheUnavailable`."""
        with self._lock:
            if self._within and self._rows is not None:
                yield self._rows
                return
            try:
                yield self._opened()
            except diskcache.Timeout:
                raise self._resting("the index is locked, or cannot be written to") from None
            except OSError as error:
                raise self._resting(
                    f"the index cannot be opened: {error.strerror or 'another process is opening it'}"
                ) from error
            except (sqlite3.Error, ValueError) as error:  # ValueError: diskcache unpacks rows that are too many
                if _is_passing(error):
                    raise self._resting(f"the index cannot be used: {error}") from error
                self._set_aside(error)
                raise CacheUnavailable(self.trouble) from error

    def _opened(self) -> _Rows:
        if self._rows is None:
            if time.monotonic() < self._resting_until:
                raise CacheUnavailable(self.trouble)
            self._directory.mkdir(0o700, parents=True, exist_ok=True)
            with file_lock(self._directory / "opening.lock").acquire(timeout=PATIENCE):
                self._rows = self._open_newest()
            if self._resting_until:
                self.trouble, self._resting_until = None, 0.0
        return self._rows

    def _open_newest(self) -> _Rows:
        """Opens the highest folder, or a new one above it when that is damaged; removes all below."""
        *older, newest = self._numbered() or [self._directory / "1"]
        newest.mkdir(0o700, exist_ok=True)
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            return _Rows(newest)
        except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:  # a foreign file can break diskcache
            if _is_passing(error):
                raise
            return _Rows(self._after(newest, error))

    def _numbered(self) -> list[Path]:
        folders = [path for path in self._directory.iterdir() if path.name.isdecimal()]
        return sorted(folders, key=lambda path: int(path.name))

    def _after(self, damaged: Path, error: Exception) -> Path:
        """The folder to use instead: the one that another process began already, or a new one."""
        self.trouble = f"the index was damaged ({error}), and an empty one was begun"
        newest = self._numbered()[-1]
        if newest == damaged:
            newest = self._directory / str(int(damaged.name) + 1)
            newest.mkdir(0o700, exist_ok=True)
        return newest

    def _set_aside(self, error: Exception) -> None:
        damaged = None if self._rows is None else self._rows.folder
        self.close()
        if damaged is not None:
            with contextlib.suppress(OSError):  # then the next call finds the same damage
                self._after(damaged, error)

    def _resting(self, trouble: str) -> CacheUnavailable:
        """Closes, which also ends a transaction that could not be."""
        self.close()
        self.trouble = trouble
        self._resting_until = time.monotonic() + REST
        return CacheUnavailable(trouble)


def _is_passing(error: Exception) -> bool:
    """Whether it is a fault of the moment, which says nothing against what is in the file."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return False
    return code & 0xFF in _BUSY or "transaction" in str(error)


def _seal(name: str, text: str) -> str:
    return blake3("\0".join((FORMAT, name, text)).encode()).hexdigest()


def _sealed(name: str, text: str) -> str:
    return _seal(name, text) + text


def _unsealed(name: str, row: str) -> str:
    seal, text = row[:64], row[64:]
    if seal != _seal(name, text):
        raise Damaged("its row in the index is not what was written.")
    return text
