"""The content of NumPy arrays and scalars: type, shape, elements, whether it is read-only; not the layout in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from blake3 import blake3

from odibi_async.fingerprint.encoding import (
    LEAVES,
    ROWS,
    SLICE,
    Digesting,
    Undigestible,
    feed,
    header,
    leaf,
    sealed,
    text,
)


def digesting(value: Any) -> Digesting | None:
    """What encodes a value of NumPy's, or nothing for those that have no content."""
    cls = type(value)
    if cls is np.ndarray:
        return _array(value)
    if isinstance(value, np.generic):
        return _scalar(value)
    if isinstance(value, np.dtype):
        return _dtype(value)
    if cls is np.busdaycalendar:
        return _calendar(value)
    return None


def feed_array(hasher: blake3, array: np.ndarray[Any, Any]) -> None:
    """Hashes the elements of an array without objects in it, row by row, and copies little at a time."""
    for piece in _contiguous(array) if array.nbytes else ():
        feed(hasher, piece.reshape(-1).view(np.uint8))


def feed_cells(hasher: blake3, cells: np.ndarray[Any, Any], place: str) -> Generator[tuple[Any, str, Any], bytes, None]:
    """
    Hashes the objects of a flat array, a chunk at a time (a `Digesting` that returns nothing).

    A chunk of nothing but texts, none with a NUL in it, goes as one text; any other goes cell by cell. Which it
    is depends on these cells alone, so equal columns take equal ways.
    """
    for start in range(0, len(cells), ROWS):
        chunk = cells[start : start + ROWS].tolist()
        joined = _joined(chunk)
        if joined is not None:
            hasher.update(b"texts" + len(joined).to_bytes(8, "little"))
            feed(hasher, joined)
            continue
        parts = [b"cells"]
        for row, cell in enumerate(chunk, start):
            encode = LEAVES.get(type(cell))
            parts.append((yield cell, place, row) if encode is None else encode(cell))
        hasher.update(b"".join(parts))


def _joined(chunk: list[Any]) -> bytes | None:
    """The texts of a chunk with a NUL between each two; `None` when they are not such texts."""
    if list(map(type, chunk)).count(str) < len(chunk):
        return None
    joined = "\0".join(chunk).encode("utf-8", "surrogatepass")
    return joined if joined.count(b"\0") == len(chunk) - 1 else None


def _array(array: np.ndarray[Any, Any]) -> Digesting:
    dtype = yield array.dtype, "'s dtype", None
    hasher = blake3(dtype + text(str(array.shape)) + (b"" if array.flags.writeable else b"read-only"))
    if array.dtype.names is not None:
        for name in array.dtype.names:  # the bytes between the fields are noise
            hasher.update((yield array[name], "'s field {}", name))
    elif array.dtype.kind == "O":
        yield from feed_cells(hasher, array.reshape(-1), "'s element {}")
    else:
        feed_array(hasher, array)
    return sealed(header(np.ndarray), hasher.digest())


def _contiguous(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Contiguous pieces of an array in reading order; those that are not contiguous, as small copies."""
    if array.flags.c_contiguous:
        yield array
    elif array.nbytes // len(array) > SLICE:
        for row in array:
            yield from _contiguous(row)
    else:
        rows = max(1, SLICE // max(1, array.nbytes // len(array)))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows])


def _scalar(value: np.generic) -> Digesting:
    if value.dtype.kind in "VO":
        content = yield np.asarray(value), "", None
    else:
        dtype = yield value.dtype, "", None
        content = dtype + value.tobytes()
    return leaf(header(type(value)), content)


def _dtype(dtype: np.dtype[Any]) -> Digesting:
    metadata = yield dict(dtype.metadata or {}), "'s metadata", None
    content = [text(dtype.str), text(str(dtype.itemsize)), metadata]
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        content += [b"array", (yield base, "", None), text(str(shape))]
    elif dtype.names is not None:
        fields = [(name, dtype.fields[name]) for name in dtype.names]  # type: ignore[index]  # it has names
        content += [b"fields", (yield fields, "", None)]
    elif dtype.kind not in "biufcmMSUVO":
        raise Undigestible("", f"has the dtype {dtype}, whose values are not in the array itself")
    return leaf(header(np.dtype), b"".join(content))


def _calendar(calendar: np.busdaycalendar) -> Digesting:
    content = yield (calendar.weekmask, calendar.holidays), "", None
    return leaf(header(np.busdaycalendar), content)
