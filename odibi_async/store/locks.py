"""Locks between processes, and how a writer shows that it lives."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import filelock


class Beacon:
    """
    A lock file that tells others that its holder is alive, and owns the `folder` beside it if the holder makes one.

    The system releases the lock when the holder's process ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            path = folder / f"{secrets.token_hex(8)}.lock"
            self._lock = file_lock(path)
            if try_lock(self._lock):
                break  # else a sweep took it for dead between its making and its locking
        self._path = path
        self.folder = path.with_suffix("")

    def out(self) -> None:
        """Removes both."""
        remove(self._path)
        self._lock.release()

    def __enter__(self) -> Beacon:
        return self

    def __exit__(self, *_: object) -> None:
        self.out()


def sweep(folder: Path) -> float:
    """Removes the beacons that nobody holds; when the oldest held one was lit, infinity when there is none."""
    oldest = float("inf")
    for path in files_in(folder, "*.lock"):
        try:
            lit = path.stat().st_mtime
            lock = file_lock(path)
            if try_lock(lock):
                remove(path)
                lock.release()
            else:
                oldest = min(oldest, lit)
        except OSError:  # gone meanwhile; or not ours to remove
            continue
    return oldest


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder; none when somebody removes it meanwhile."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def remove(path: Path) -> None:
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    with contextlib.suppress(OSError):  # where open files cannot be removed, the next sweep does it
        os.unlink(path)


def file_lock(path: Path) -> filelock.BaseFileLock:
    """A lock between processes, and between its own objects, that any thread may release."""
    from filelock import FileLock

    return FileLock(path, thread_local=False, mode=0o600)


def try_lock(lock: filelock.BaseFileLock) -> bool:
    """
    Whether the lock is now held by this object.

    Raises:
        OSError: There can be no lock in that place.
    """
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
