"""Datasets in files of their own, through which processes of one machine hand them to each other."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from odibi_async.dataset import Handle
from odibi_async.errors import Damaged, Unstorable
from odibi_async.store.blobs import digest_of_bytes, private, slices
from odibi_async.store.kinds import dumped, parsed

CELLS: Final = 8192
"""Cells of a frame from which on it travels as a file; a smaller one is pickled with the rest."""


@dataclass(frozen=True, slots=True)
class Filed:
    """
    A value in a file.

    Attributes:
        path: The file.
        kind: How its bytes are read.
        size: Its bytes.
        digest: BLAKE3 of its bytes.
        rows: Rows of a frame, a series or a table; `None` for all else.
    """

    path: str
    kind: str
    size: int
    digest: str
    rows: int | None

    def remove(self) -> None:
        """Removes the file. Those who have read it keep its memory."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def is_large(value: Any) -> bool:
    """Whether a value is a frame, a series, a table or an array that is worth a file."""
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    if library == "pandas" and cls.__name__ in ("DataFrame", "Series"):
        return bool(value.size >= CELLS)
    if library == "pyarrow" and cls.__name__ == "Table":
        return bool(value.num_rows * value.num_columns >= CELLS)
    return cls.__module__ == "numpy" and cls.__name__ == "ndarray" and bool(value.size >= CELLS)


def filed(value: Any, folder: str) -> Filed:
    """
    Writes a value to a new file.

    Raises:
        Unstorable: It would not come back unchanged.
        OSError: The disk is full, ...
    """
    kind, parts = dumped(value)
    if kind in ("json", "bundle"):
        raise Unstorable("it has no bytes of its own.")
    pieces = [memoryview(part).cast("B") for part in parts if len(part)]
    path = os.path.join(folder, secrets.token_hex(12))
    rows = None if "npy" in kind else len(value)
    made = Filed(path, kind, sum(map(len, pieces)), digest_of_bytes(pieces), rows)
    try:
        with open(path, "xb", opener=private) as file:
            for part in slices(pieces):
                file.write(part)
    except BaseException:
        made.remove()
        raise
    return made


def read(file: Filed) -> Any:
    """
    The value in a file, over the file's own memory: pages are shared between processes until somebody writes to them,
    and what is written stays in this process.

    Raises:
        Damaged: The bytes are not there, or not those that were written.
    """
    try:
        with open(file.path, "rb") as opened:
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise Damaged(f"the file that held it cannot be read: {error}.") from error
    if len(data) != file.size or digest_of_bytes([memoryview(data)]) != file.digest:
        raise Damaged("the bytes of the file that held it are not those that were written.")
    import numpy as np

    return parsed(file.kind, np.frombuffer(data, "u1"))


class FileHandle(Handle):
    """
    Stands for a dataset in a file.

    Args:
        file: Where it is.
        in_thread: Calls a function in a worker thread.
        discard: Takes the file when nobody has the handle any more. Must not block.

    Attributes:
        file: Where it is.
    """

    __slots__ = ("__weakref__", "_in_thread", "file")

    def __init__(self, file: Filed, in_thread: Callable[..., Awaitable[Any]], discard: Callable[[Filed], None]) -> None:
        self.file = file
        self._in_thread = in_thread
        weakref.finalize(self, discard, file).atexit = False

    @property
    def rows(self) -> int | None:
        return self.file.rows

    async def load(self) -> Any:
        """The value, read in a worker thread."""
        return await self._in_thread(read, self.file)
