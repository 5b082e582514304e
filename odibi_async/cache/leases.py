"""What protects entries while they are read, and keys while they are computed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from odibi_async.store.locks import Beacon, file_lock, try_lock

if TYPE_CHECKING:
    import filelock


SHARED: Final = 60.0
"""Seconds for which runs that begin join the lease of the first of them: each lease is an open file."""


class Flight:
    """
    A lock between processes that dies with its holder: whoever has it computes, the others look again when it is free.

    Both methods block for some 100 us. Where there can be no lock, everybody has it: computing twice is no error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: filelock.BaseFileLock | None = None

    def try_acquire(self) -> bool:
        """Whether it is held from now on; asked again only while it is not."""
        try:
            os.makedirs(self._path.parent, 0o700, exist_ok=True)
            self._lock = file_lock(self._path)
            return try_lock(self._lock)
        except OSError:
            self._lock = None
            return True

    def release(self) -> None:
        """Lets another have it. The file is removed while locked: who had opened it finds it gone, and asks again."""
        lock, self._lock = self._lock, None
        if lock is not None and lock.is_locked:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            lock.release()


@dataclass(slots=True, eq=False)
class Lease:
    """
    A lease that several runs may hold.

    Attributes:
        beacon: Tells other processes of it.
        lock: Held while the holders are counted.
        holders: How many there are; after the last one the beacon is out.
        joined_until: When the last may join, on the monotonic clock.
    """

    beacon: Beacon
    lock: threading.Lock
    holders: int = 0
    joined_until: float = field(default_factory=lambda: time.monotonic() + SHARED)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.holders -= 1
            if not self.holders:
                self.beacon.out()
