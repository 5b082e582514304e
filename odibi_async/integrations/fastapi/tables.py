"""Frames as Arrow tables, and these as rows of JSON, CSV, Parquet or Arrow, piece by piece. Everything here blocks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticSerializationError, to_json

from odibi_async.integrations.fastapi.problems import ServiceProblem
from odibi_async.secret import Secret

if TYPE_CHECKING:
    import pyarrow as pa

ROWS: Final = 2_000
"""Rows of a piece of JSON or CSV."""
MANY_ROWS: Final = 65_536
"""Rows of a piece of Parquet or Arrow."""
BYTES: Final = 65_536
"""Bytes of a piece of what is no frame."""
FINE: Final = ("ns", "ps", "fs", "as")
"""Units of NumPy's times that are finer than those of Python."""


def plain(value: Any) -> Any:
    """What JSON can say of a value that pydantic does not know: a secret is masked, NumPy's numbers are numbers."""
    if isinstance(value, Secret):
        return str(value)
    if str(type(value).__module__).partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _of_numpy(value)
    table = table_of(value)
    if table is None:
        raise TypeError(f"A {type(value).__name__} cannot be JSON.")
    return rows_of(table)


def _of_numpy(value: Any) -> Any:
    """A number or an array, with times as times: NumPy gives those with nanoseconds as numbers."""
    import numpy as np

    if value.dtype.kind not in "mM" or np.datetime_data(value.dtype)[0] not in FINE:
        return value.tolist()
    exact = value.astype(f"{value.dtype.kind}8[us]")
    if ((exact == value) | (exact != exact)).all():  # what is not a time is not itself
        return exact.tolist()
    if value.dtype.kind == "M":
        return value.astype(str).tolist()
    raise TypeError("Python has no nanoseconds.")


def table_of(value: Any) -> pa.Table | None:
    """
    A frame or a series as an Arrow table; `None` for what is neither.

    Raises:
        ServiceProblem: Its columns hold what Arrow cannot say.
    """
    kind = type(value)
    library = str(kind.__module__).partition(".")[0]
    if library not in ("pandas", "polars", "pyarrow"):
        return None
    import pyarrow as pa

    try:
        if library == "pandas" and kind.__name__ in ("DataFrame", "Series"):
            return _of_pandas(value.to_frame() if kind.__name__ == "Series" else value)
        if isinstance(value, pa.Table):
            return value
        if library == "polars" and kind.__name__ == "DataFrame":
            table: pa.Table = value.to_arrow()
            return table
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ServiceProblem(406, "OA336", f"The frame cannot be a table: {str(error)[:200]}") from error
    return None


def _of_pandas(frame: Any) -> pa.Table:
    import pandas as pd
    import pyarrow as pa

    has_index = not isinstance(frame.index, pd.RangeIndex)
    return pa.Table.from_pandas(frame, preserve_index=has_index)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table."""
    rows: list[dict[str, Any]] = _exact(table).to_pylist()
    return rows


def _exact(table: pa.Table) -> pa.Table:
    """
    A table whose times Python can say: those with nanoseconds become texts.

    Raises:
        ServiceProblem: Columns share a name, which an object of JSON has once.
    """
    import pyarrow as pa

    names = table.column_names
    if len({*names}) < len(names):
        shared = next(name for name in names if names.count(name) > 1)
        raise ServiceProblem(406, "OA336", f"Columns of the frame share the name {shared!r}: JSON has a name once.")
    for place, field in enumerate(table.schema):
        if (kind := _with_microseconds(field.type)) is not None:
            column: Any = table.column(place)
            try:
                column = column.cast(kind)
            except pa.ArrowInvalid:
                column = _durations(column) if pa.types.is_duration(kind) else column.cast(pa.string())
            table = table.set_column(place, field.name, column)
    return table


def _with_microseconds(kind: pa.DataType) -> pa.DataType | None:
    """A kind of times with nanoseconds as Python has it; `None` for all others."""
    import pyarrow as pa

    if getattr(kind, "unit", "") != "ns":
        return None
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


def _durations(column: Any) -> Any:
    """Durations with nanoseconds as texts (ISO 8601)."""
    import pyarrow as pa

    found = []
    for each in column.cast(pa.int64()).to_pylist():
        seconds, rest = divmod(abs(each or 0), 10**9)
        found.append(None if each is None else f"{'-' if each < 0 else ''}PT{seconds}.{rest:09}S")
    return pa.array(found, pa.string())


# -- pieces --------------------------------------------------------------------------------------------


def json_of_table(table: pa.Table) -> Iterator[bytes]:
    table, lead = _exact(table), b"["
    for start in range(0, table.num_rows, ROWS):
        rows = to_json(table.slice(start, ROWS).to_pylist(), inf_nan_mode="null", bytes_mode="base64")
        yield lead + rows[1:-1]
        lead = b","
    yield b"[]" if lead == b"[" else b"]"


def csv_of_table(table: pa.Table) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.csv as csv

    sink = _Sink()
    for start in range(0, max(1, table.num_rows), ROWS):
        options = csv.WriteOptions(include_header=not start)
        csv.write_csv(table.slice(start, ROWS), pa.PythonFile(sink, "w"), options)
        yield sink.taken()


def arrow_of_table(table: pa.Table) -> Iterator[bytes]:
    import pyarrow as pa

    sink = _Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as writer:
        for start in range(0, table.num_rows, MANY_ROWS):
            writer.write_table(table.slice(start, MANY_ROWS))
            yield sink.taken()
    yield sink.taken()


def parquet_of_table(table: pa.Table) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    sink = _Sink()
    with parquet.ParquetWriter(pa.PythonFile(sink, "w"), table.schema) as writer:
        for start in range(0, max(1, table.num_rows), MANY_ROWS):
            writer.write_table(table.slice(start, MANY_ROWS))
            yield sink.taken()
    yield sink.taken()


def json_of_value(value: Any) -> Iterator[bytes]:
    """
    What is no frame, as JSON.

    Raises:
        ServiceProblem: JSON cannot say it.
    """
    try:
        text = to_json(value, inf_nan_mode="null", bytes_mode="base64", fallback=plain)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise ServiceProblem(406, "OA336", f"A {type(value).__name__} cannot be JSON.") from error
    for start in range(0, len(text), BYTES):
        yield text[start : start + BYTES]


class _Sink(io.RawIOBase):
    """A file that others take the bytes from."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        self._size += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Does nothing: what is written is there."""

    def close(self) -> None:
        """Does nothing: the bytes are still to be taken."""

    def writable(self) -> bool:
        return True

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


MEDIA: Final[Mapping[str, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""The forms of a dataset, and what HTTP calls them."""
PIECES: Final[Mapping[str, Callable[[Any], Iterator[bytes]]]] = {
    "json": json_of_table,
    "csv": csv_of_table,
    "parquet": parquet_of_table,
    "arrow": arrow_of_table,
}
