"""Files that are whole or not there: where a path leads, how it is opened, and how what is new replaces what is old."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from odibi_async.errors import PathError

UNFINISHED: Final = ".odibi-unfinished"
"""How the names of files end that are being written; one that nobody writes any more is swept by the next write."""
CAN_CONFINE: Final = {os.open, os.mkdir}.issubset(os.supports_dir_fd) and hasattr(os, "O_NOFOLLOW")
CAN_LOCK: Final = os.name == "posix"


def location(path: str | os.PathLike[str], root: Path | None) -> Path:
    """
    Where a path leads, symbolic links followed.

    Args:
        path: Relative to `root`, or to the working directory without one.
        root: The folder, itself resolved, that nothing may lead out of; `None` for no such limit.

    Raises:
        PathError: It leads out of the root, or holds a NUL byte.
    """
    shown = os.fspath(path)
    if "\0" in shown:
        raise PathError(shown, "a path holds no NUL byte.")
    if root is None:
        return Path(shown).resolve()
    found = (root / shown).resolve()
    if not found.is_relative_to(root):
        raise PathError(shown, f"it leads outside {str(root)!r}, the folder that datasets are confined to.")
    return found


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """A block about something in a folder, which ends early where that has vanished, or is a link in a circle."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise


@contextlib.contextmanager
def opened(path: Path, root: Path | None) -> Iterator[IO[bytes]]:
    """
    A file, open for reading.

    Args:
        path: As `location` gave it.
        root: What `location` was given. Where the system can (Linux, macOS), each folder on the way from
            there is opened through the one above it and no symbolic link is followed: what was swapped
            since `location` looked cannot lead out. Elsewhere (Windows) nothing is checked again.
    """
    with _folder(path, root) as folder, _open(path, path.name, os.O_RDONLY, folder, "rb") as file:
        yield file


@contextlib.contextmanager
def replaced(path: Path, root: Path | None) -> Iterator[IO[bytes]]:
    """
    A new file, open for writing, that takes the place of the old one at the end, in one step.

    If anything fails, the old file is as it was and the new one is removed; after `kill -9` or a power
    cut, the next write to the same path removes it. Missing folders are made. The new file has the
    permissions of the old.

    Args:
        path: As `location` gave it.
        root: See `opened`.

    Raises:
        PathError: What is there is no file: a folder, a device, a pipe.
    """
    with _folder(path, root, make=True) as folder:
        old = _mode_of_old(path, folder)
        _sweep(path, folder)
        new, file = _created(path, folder)
        try:
            with file:
                if old is not None:
                    os.chmod(_at(path, new, folder), stat.S_IMODE(old), dir_fd=folder)
                yield file
                file.flush()
                os.fsync(file.fileno())
                if not CAN_LOCK:
                    file.close()  # Windows renames no open file
                os.replace(_at(path, new, folder), _at(path, path.name, folder), src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_at(path, new, folder), dir_fd=folder)
            raise


def _at(path: Path, name: str, folder: int | None) -> str:
    """How to say the name of a file beside `path`: relative to the open folder, or in full."""
    return name if folder is not None else str(path.with_name(name))


@contextlib.contextmanager
def _folder(path: Path, root: Path | None, make: bool = False) -> Iterator[int | None]:
    """The folder of a file, open; `None` where a path will do."""
    if root is None or not CAN_CONFINE:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield None
        return
    folder = _walked(path, root, make)
    try:
        yield folder
    finally:
        os.close(folder)


def _walked(path: Path, root: Path, make: bool) -> int:
    """The folder of a file, reached from the root without following a symbolic link."""
    if make:
        root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in path.parent.relative_to(root).parts:
        above = folder
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=above)
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            raise _about(path, error) from None
        finally:
            os.close(above)
    return folder


def _open(path: Path, name: str, flags: int, folder: int | None, mode: str) -> IO[bytes]:
    """The file `name` beside `path`."""
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if folder is not None:
        flags |= os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(_at(path, name, folder), flags, 0o666, dir_fd=folder), mode)
    except OSError as error:
        raise _about(path, error) from None


def _about(path: Path, error: OSError) -> Exception:
    """The error with the whole path in it."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return PathError(str(path), "a symbolic link or a file is in the way.")
    return OSError(error.errno, error.strerror, str(path))  # of the same subclass


def _created(path: Path, folder: int | None) -> tuple[str, IO[bytes]]:
    """A new file beside `path` and its name, locked for as long as it is written."""
    while True:
        name = f".{path.name}.{secrets.token_hex(8)}{UNFINISHED}"
        file = _open(path, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder, "wb")
        _lock(file.fileno(), wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return name, file
        file.close()  # another write swept it, in the moment before it was locked


def _mode_of_old(path: Path, folder: int | None) -> int | None:
    """The mode of the file that is to be replaced; `None` where there is none. Who may can replace /dev/null, too."""
    try:
        old = os.stat(_at(path, path.name, folder), dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(old) or stat.S_ISLNK(old)):  # a link that was swapped in is itself replaced
        what = "a folder" if stat.S_ISDIR(old) else "a device or a pipe"
        raise PathError(str(path), f"it is {what}, not a file.")
    return old


def _lock(file: int, wait: bool = False) -> bool:
    """Whether the file is ours now: no other, in this process or another one, is writing it."""
    if not CAN_LOCK:
        return True  # an open file cannot be removed there, which serves as well
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(path: Path, folder: int | None) -> None:
    """Removes what killed writers of `path` left behind."""
    for name in os.listdir(path.parent if folder is None else folder):
        if not (name.startswith(f".{path.name}.") and name.endswith(UNFINISHED)):
            continue
        with contextlib.suppress(OSError):
            file = os.open(_at(path, name, folder), os.O_RDWR, dir_fd=folder)
            try:
                if _lock(file):
                    os.unlink(_at(path, name, folder), dir_fd=folder)
            finally:
                os.close(file)
