"""Flat arrays and a description of how to join them, as the one row of one Arrow record batch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from odibi_async.store import plain

_DESCRIPTION: Final = b"odibi_async"


class _Pieces:
    """A file that keeps what is written to it, uncopied."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def write(self, data: Any) -> int:
        self.pieces.append(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def stream_of(schema: Any, batches: list[Any]) -> list[Any]:
    """The bytes of an Arrow stream, in pieces that share the batches' memory."""
    pieces = _Pieces()
    sink: Any = pieces
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return pieces.pieces


class Writer:
    """Gathers the flat arrays that a value is taken apart into."""

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def add(self, part: Any) -> int:
        """Takes an array; the number under which the description names it."""
        self._parts.append(part)
        return len(self._parts) - 1

    def add_memory(self, values: np.ndarray[Any, Any]) -> int:
        """Takes the bytes of a NumPy array."""
        flat: Any = np.ascontiguousarray(values).view("u1")
        return self.add(pa.Array.from_buffers(pa.uint8(), len(flat), [None, pa.py_buffer(flat)]))

    def pieces(self, description: Any) -> list[Any]:
        cells = [pa.LargeListArray.from_arrays(pa.array([0, len(part)], pa.int64()), part) for part in self._parts]
        fields = [pa.field(str(number), cell.type) for number, cell in enumerate(cells)]
        metadata: Any = {_DESCRIPTION: b"\n".join(plain.dump(description))}
        schema = pa.schema(fields, metadata=metadata)
        return stream_of(schema, [pa.RecordBatch.from_arrays(cells, schema=schema)] if cells else [])


class Reader:
    """Finds the flat arrays and their description in the bytes again."""

    def __init__(self, data: Any) -> None:
        self._data = data
        stream = pa.ipc.open_stream(pa.py_buffer(data))
        self.description: Any = plain.parse(stream.schema.metadata[_DESCRIPTION].split(b"\n"))
        batches = list(stream)
        self._cells: list[Any] = batches[0].columns if batches else []

    def part(self, number: int) -> Any:
        return self._cells[number].values

    def memory(self, number: int, dtype: str) -> Any:
        """A part as a writable NumPy array over the memory that was read."""
        part = self.part(number)
        if not len(part):
            return np.empty(0, dtype)
        start = part.buffers()[1].address - self._data.ctypes.data
        return self._data[start : start + len(part)].view(dtype)
