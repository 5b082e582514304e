"""Frames on their way into DuckDB and back: what SQL sees of a pandas frame, and the frame that a result becomes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

NUMBERS: Final = (int, float, np.integer, np.floating)
BY_ARROW: Final = frozenset(
    ("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "hugeint")
    + ("float", "double", "decimal", "varchar", "enum", "null", "date", "timestamp with time zone")
    + ("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns")
)
"""The DuckDB types whose columns come back through Arrow; the values of all others are Python objects either way."""
NULLABLE: Final[dict[pa.DataType, Any]] = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """
    The frame as DuckDB reads it right.

    DuckDB guesses the kind of an object column from its first values, and would then read a later 2.5 as
    2: Arrow looks at all of them. A column that mixes kinds comes in as text, numbers of all kinds as
    numbers. Categories that are not text come in as what they are.
    """
    columns = {i: frame.iloc[:, i] for i, dtype in enumerate(frame.dtypes) if _is_guessed(dtype)}
    if not columns:
        return frame
    frame = frame.copy(deep=False)
    for i, column in columns.items():
        frame.isetitem(i, _by_arrow(column) if isinstance(column.dtype, np.dtype) else _without_categories(column))
    return frame


def _is_guessed(dtype: Any) -> bool:
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.api.types.infer_dtype(dtype.categories) != "string"
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _without_categories(column: pd.Series[Any]) -> Any:
    encoded = pa.array(column, from_pandas=True)
    return pd.arrays.ArrowExtensionArray(encoded.dictionary_decode())


def _by_arrow(column: pd.Series[Any]) -> Any:
    known = column.notna()
    if _is_of_one_kind(column[known]):
        inferred = column.infer_objects()
        if inferred.dtype.kind in "mM":  # Arrow would cut nanoseconds
            return inferred
        for kind in (None, pa.decimal128(38, 0)):  # integers beyond 64 bits fit the second
            try:
                return pd.arrays.ArrowExtensionArray(pa.array(column, kind, from_pandas=True))
            except (TypeError, ValueError, OverflowError):
                pass
    texts = [str(value) if there else None for value, there in zip(column, known, strict=True)]
    return pd.arrays.ArrowExtensionArray(pa.array(texts, pa.string()))


def _is_of_one_kind(values: pd.Series[Any]) -> bool:
    kinds = set(map(type, values))
    if len(kinds) == 1 and issubclass(next(iter(kinds)), dt.datetime):
        return len({value.tzinfo is None for value in values}) == 1  # a zone, or none, for all of them
    return len(kinds) < 2 or all(issubclass(kind, NUMBERS) for kind in kinds)


def result_frame(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """
    Runs the query and gives its rows, with the types that DuckDB's own `df()` gives.

    They come through Arrow, in less time than `df()` and without holding up other threads. Columns of
    Python objects (lists, structs, blobs, times, UUIDs, intervals) cannot, so a result with one of them
    comes through `df()`. Unlike there, HUGEINT, which sums of integers are, becomes int64, or Int64 beside NULL, where
    nothing is too large for that; and texts are `str` also where there are no rows.
    """
    kinds = [kind.id for kind in relation.types]
    huge = [i for i, kind in enumerate(kinds) if kind == "hugeint"]
    table = relation.to_arrow_table() if BY_ARROW.issuperset(kinds) else None
    if table is not None and len(table):
        frame = _from_arrow(table, huge)
        frame.columns = pd.Index(_unique_names(relation))
        return frame
    names = list(_empty(relation).columns) if huge else []
    frame = _empty(relation) if table is not None else _with_texts(relation, huge).df() if huge else relation.df()
    if huge:
        frame.columns = pd.Index(names)
    for i in huge:
        frame.isetitem(i, _whole(frame.iloc[:, i]))
    if not len(frame):
        for i, kind in enumerate(kinds):
            if kind == "varchar":
                frame.isetitem(i, frame.iloc[:, i].astype("str").array)
    return frame


def _with_texts(relation: duckdb.DuckDBPyRelation, places: Sequence[int]) -> duckdb.DuckDBPyRelation:
    """The same rows with the integers of some columns as texts, which say all of their digits."""
    columns = [f"CAST(#{i + 1} AS VARCHAR)" if i in places else f"#{i + 1}" for i in range(len(relation.columns))]
    return relation.project(", ".join(f"{column} AS c{i}" for i, column in enumerate(columns)))


def _whole(texts: pd.Series[Any]) -> Any:
    """Integers given as texts: int64, Int64 where some are missing, floats where some are too large."""
    values = [None if pd.isna(text) else int(text) for text in texts]
    if values and all(value is None for value in values):
        return np.full(len(values), np.nan)
    try:
        return pd.array(values, dtype="Int64" if None in values else "int64")
    except (OverflowError, TypeError, ValueError):
        return np.array([np.nan if value is None else float(value) for value in values])


def _empty(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """The frame of no rows. It knows the categories of enums, which an empty Arrow table does not."""
    frame: pd.DataFrame = relation.limit(0).df()
    return frame


def _unique_names(relation: duckdb.DuckDBPyRelation) -> Sequence[str]:
    """The names of the columns; where two are the same to SQL, as `df()` tells them apart."""
    names = relation.columns
    return names if len({name.casefold() for name in names}) == len(names) else list(_empty(relation).columns)


def _from_arrow(table: pa.Table, huge: Sequence[int]) -> pd.DataFrame:
    """The frame of a table, its columns named by their numbers: names need not be unique in Arrow."""
    columns = [_plain(column, i in huge) for i, column in enumerate(table.columns)]
    special = {i: column for i, column in enumerate(columns) if _needs_care(column)}
    rest: Any = {str(i): column for i, column in enumerate(columns) if i not in special}
    frame: pd.DataFrame = pa.table(rest).to_pandas() if rest else pd.DataFrame(index=range(len(table)))
    for i, column in special.items():
        frame.insert(i, str(i), _with_care(column))
    return frame


def _plain(column: pa.ChunkedArray[Any], huge: bool) -> pa.ChunkedArray[Any]:
    """The column without what pandas would make Python objects of."""
    kind = column.type
    if pa.types.is_date32(kind):
        return column.cast(pa.timestamp("us"))
    if not pa.types.is_decimal(kind):
        return column
    if huge and column.null_count < len(column):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:  # too large
            pass
    return pa.chunked_array([_floats(chunk) for chunk in column.chunks], pa.float64())


def _floats(decimals: Any) -> Any:
    """
    The nearest floats of decimals, where their digits alone are a number below 2**53.

    Arrow's own cast multiplies by a power of ten that is not exact: of 1.1 it makes 1.1000000000000001.
    """
    if not pa.types.is_decimal128(decimals.type) or not len(decimals):
        return decimals.cast(pa.float64())
    words = np.frombuffer(decimals.buffers()[1], dtype="<i8").reshape(-1, 2)  # 128 bits each
    low, high = words[decimals.offset : decimals.offset + len(decimals)].T
    null = np.asarray(decimals.is_null())
    if not ((low >> 63 == high) | null).all():  # the high halves say more than the sign
        return decimals.cast(pa.float64())
    return pa.array(low / 10.0**decimals.type.scale, mask=null)


def _needs_care(column: pa.ChunkedArray[Any]) -> bool:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return True
    if pa.types.is_string(kind):
        return column.null_count == len(column)
    return kind in NULLABLE and column.null_count > 0


def _with_care(column: pa.ChunkedArray[Any]) -> Any:
    """The columns that `df()` makes differently from Arrow."""
    if pa.types.is_dictionary(column.type):
        return column.to_pandas().cat.as_ordered()
    if pa.types.is_string(column.type):  # no text in it to tell the kind by
        return np.full(len(column), None, dtype=object)
    return column.to_pandas(types_mapper=NULLABLE.get)
