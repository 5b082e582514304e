"""Frames on their way between Spark and Arrow, through which they reach pandas: as they are, or refused in words."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pyarrow as pa

from odibi_async.engines.spark.failures import first_lines, is_gone
from odibi_async.errors import CrossingError, in_a_line

WIDER: Final[dict[Any, Any]] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
}
"""Types that Spark lacks, and those that hold all of their values (of the largest integers half of them)."""


def to_spark(session: Any, table: pa.Table, what: str) -> Any:
    """
    A Spark frame of the rows of a table.

    Args:
        session: The Spark session.
        table: The rows.
        what: What they are, for messages.

    Raises:
        CrossingError: Spark could not hold it as it is.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    _check_names(table.column_names, what)
    columns = [_fitting(name, column, what) for name, column in zip(table.column_names, table.columns, strict=True)]
    table = pa.table(dict(zip(table.column_names, columns, strict=True)))
    try:
        schema = from_arrow_schema(table.schema, prefer_timestamp_ntz=True)
        return session.createDataFrame(table, schema=schema)
    except Exception as error:
        if type(error).__module__.startswith(("pyspark", "pyarrow")) and not is_gone(error):
            raise CrossingError(what, "Spark", first_lines(error)) from error
        raise


def _check_names(names: list[str], what: str) -> None:
    folded = Counter(name.casefold() for name in names)
    same = [name for name in names if folded[name.casefold()] > 1]
    if same:
        raise CrossingError(what, "Spark", f"its columns {same[0]!r} and {same[1]!r} have the same name there.")


def _fitting(name: str, column: pa.ChunkedArray[Any], what: str) -> Any:
    """The column in a type that Spark has, with the same values."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        raise CrossingError(what, "Spark", f"its column {name!r} is of type {kind}, which Spark does not have.")
    if pa.types.is_dictionary(kind):
        return _fitting(name, pa.chunked_array([_decoded(c) for c in column.chunks], kind.value_type), what)
    wanted = WIDER.get(kind)
    if pa.types.is_timestamp(kind) and kind.unit != "us":
        wanted = pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit != "us":
        wanted = pa.duration("us")
    if wanted is None:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise CrossingError(what, "Spark", f"its column {name!r} does not fit there: {in_a_line(error)}") from error


def _decoded(chunk: Any) -> Any:
    return chunk.dictionary_decode()


def collected(frame: Any, what: str, max_rows: int | None, max_bytes: int | None) -> pa.Table:
    """
    The rows of a Spark frame, brought here.

    Args:
        frame: The frame; its jobs are run.
        what: What it is, for messages.
        max_rows: How many rows it may have; `None` for any number.
        max_bytes: How many bytes of Arrow; `None` for any number. Spark itself stops while it collects more than
            `spark.driver.maxResultSize`.

    Raises:
        CrossingError: It is too large.
    """
    try:
        table: pa.Table = frame.toArrow()
    except Exception as error:
        if "maxResultSize" in str(error):
            raise CrossingError(what, "pandas", "it is larger than spark.driver.maxResultSize. " + SMALLER) from error
        raise
    if max_rows is not None and table.num_rows > max_rows:
        raise CrossingError(
            what, "pandas", f"its {table.num_rows:,} rows are more than max_rows={max_rows:,}. {SMALLER}"
        )
    if max_bytes is not None and table.nbytes > max_bytes:
        raise CrossingError(
            what, "pandas", f"its {table.nbytes:,} bytes are more than max_bytes={max_bytes:,}. {SMALLER}"
        )
    return table


SMALLER: Final = "Reduce it in Spark first, or raise the limit: create_engine_context('spark', max_rows=, max_bytes=)."
