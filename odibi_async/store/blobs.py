"""Bytes in files: hashed, written, read again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

SLICE: Final = 2**20
"""Bytes that are written, read and hashed at a time: what was just read is still in the processor's cache."""

AHEAD: Final = 4
"""Slices of a file below which starting a thread that reads ahead costs more than it saves."""


Bytes = bytes | bytearray | memoryview


def slices(pieces: Iterable[Bytes]) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), SLICE):
            yield view[start : start + SLICE]


def digest_of_bytes(pieces: Iterable[Bytes]) -> str:
    from blake3 import blake3

    hasher = blake3()
    for part in slices(pieces):
        hasher.update(part)
    return hasher.hexdigest()


def fill(path: Path, data: Any) -> str:
    """
    Reads a file into memory of its length; the BLAKE3 of what was read, which for a shorter file is no good.

    A second thread reads ahead of the hashing of a long file: together they take as long as the slower of the two.
    """
    from blake3 import blake3

    parts = list(slices([data]))
    hasher = blake3()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb", buffering=0))
        reading = stack.enter_context(ThreadPoolExecutor(1)).map if len(parts) > AHEAD else map
        for part, length in zip(parts, reading(file.readinto, parts), strict=True):
            hasher.update(part[:length])
    return hasher.hexdigest()


def digest_of_file(path: Path) -> tuple[str, int]:
    """The BLAKE3 of a file, and its length."""
    from blake3 import blake3

    hasher, size, part = blake3(), 0, memoryview(bytearray(SLICE))
    with open(path, "rb", buffering=0) as file:
        while length := file.readinto(part):
            hasher.update(part[:length])
            size += length
    return hasher.hexdigest(), size


def synced(path: Path) -> None:
    """Returns when a file, or the names in a folder, have reached the disk."""
    if os.name != "posix" and path.is_dir():  # there a folder cannot be opened, and keeps its names by itself
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def is_name(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
