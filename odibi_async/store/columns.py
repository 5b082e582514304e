"""
Frames, series and indexes as Arrow bytes, exactly, by one rule a dtype.

Arrow's own conversion of frames guesses, and changes what it guesses wrong. Here a frame is taken apart into flat
arrays and a description of how to join them; what no rule takes apart is refused. The arrays travel as the one row of
one Arrow record batch, each a cell of type list, so that they may differ in length and come back contiguous; the
description is the schema's metadata. The memory that is read becomes the columns' own, without another copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from odibi_async.errors import Unstorable
from odibi_async.store import plain
from odibi_async.store.parts import Reader, Writer, stream_of

ROWS: Final = 16_384
"""Cells of an object column that are converted at a time: a longer call would keep other threads waiting."""

_KINDS: Final[dict[type, str]] = {pd.DataFrame: "frame", pd.Series: "series"}
_INDEXES: Final = (
    pd.Index,
    pd.DatetimeIndex,
    pd.TimedeltaIndex,
    pd.PeriodIndex,
    pd.IntervalIndex,
    pd.CategoricalIndex,
)
_MISSING: Final[tuple[Any, ...]] = (None, np.nan, pd.NA, pd.NaT)
"""The values that mean a missing text; a cell's code is its place here."""


def kind_of(value: object) -> str | None:
    """`frame`, `series` or `index`; `None` for all other values and for subclasses."""
    if type(value) in (*_INDEXES, pd.RangeIndex, pd.MultiIndex):
        return "index"
    return _KINDS.get(type(value))


def dump(value: Any) -> list[Any]:
    """
    The bytes of a frame, series or index, in pieces that share the value's memory where they can.

    Raises:
        Unstorable: A column, an index, a label or an attribute would not come back unchanged.
    """
    writer = Writer()
    try:
        if isinstance(value, pd.DataFrame):
            description: Any = _frame(writer, value)
        elif isinstance(value, pd.Series):
            description = _series(writer, value)
        else:
            description = _index(writer, value)
    except pa.ArrowException as error:  # such as texts of more bytes than their type can count
        raise Unstorable(f"Arrow does not accept it: {error}") from error
    try:
        return writer.pieces(description)
    except Unstorable as error:
        raise Unstorable(f"a label or an attribute: {error}") from None


def parse(data: Any, kind: str) -> Any:
    """The value whose bytes `data` holds; it uses this memory, and writing to the value writes to it."""
    reader = Reader(data)
    if kind == "frame":
        return _made_frame(reader, **reader.description)
    if kind == "series":
        return _made_series(reader, **reader.description)
    return _made_index(reader, reader.description)


def dump_table(table: pa.Table) -> list[Any]:
    """
    The bytes of an Arrow table, in pieces that share its memory.

    Raises:
        Unstorable: A type in it is known only to programs that registered it.
    """
    for field in table.schema:
        if _has_extension(field.type):
            raise Unstorable(f"column {field.name!r} has an extension type, {field.type}.")
    return stream_of(table.schema, table.to_batches())


def parse_table(data: Any) -> pa.Table:
    """The table whose bytes `data` holds."""
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


# Frames, series and indexes


def _frame(writer: Writer, frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "columns": [_named_array(writer, name, column) for name, column in frame.items()],
        "labels": _index(writer, frame.columns),
        "index": _index(writer, frame.index),
        "attrs": dict(frame.attrs),
        "unique": not frame.flags.allows_duplicate_labels,
    }


def _made_frame(reader: Reader, columns: Any, labels: Any, index: Any, attrs: Any, unique: bool) -> pd.DataFrame:
    rows = _made_index(reader, index)
    arrays = {number: _typed(_made_array(reader, spec), rows) for number, spec in enumerate(columns)}
    frame = pd.DataFrame(arrays, index=rows, copy=False)
    frame.columns = _made_index(reader, labels)
    _flag(frame, attrs, unique)
    return frame


def _typed(array: Any, rows: pd.Index[Any]) -> Any:
    """Objects that are all texts would become a column of type `str`, were they not said to be objects."""
    return pd.Series(array, rows, dtype=object, copy=False) if array.dtype == object else array


def _series(writer: Writer, series: pd.Series[Any]) -> dict[str, Any]:
    return {
        "column": _named_array(writer, series.name, series),
        "name": series.name,
        "index": _index(writer, series.index),
        "attrs": dict(series.attrs),
        "unique": not series.flags.allows_duplicate_labels,
    }


def _made_series(reader: Reader, column: Any, name: Hashable, index: Any, attrs: Any, unique: bool) -> Any:
    array = _made_array(reader, column)
    series: Any = pd.Series(array, index=_made_index(reader, index), dtype=array.dtype, name=name, copy=False)
    _flag(series, attrs, unique)
    return series


def _flag(value: Any, attrs: dict[Hashable, Any], unique: bool) -> None:
    value.attrs = attrs
    value.flags.allows_duplicate_labels = not unique


def _named_array(writer: Writer, name: Hashable, column: pd.Series[Any]) -> Any:
    try:
        return _array(writer, column.array)
    except Unstorable as error:
        raise Unstorable(f"column {name!r}: {error}") from None


def _index(writer: Writer, index: Any) -> tuple[Any, ...]:
    if type(index) is pd.RangeIndex:
        return "range", index.start, index.stop, index.step, index.name
    if type(index) is pd.MultiIndex:
        levels = [_index(writer, level) for level in index.levels]
        codes = [_memory(writer, np.asarray(each)) for each in index.codes]
        return "multi", levels, codes, list(index.names)
    if type(index) not in _INDEXES:
        raise Unstorable(f"an index of class {type(index).__name__} would not come back unchanged.")
    return "flat", _array(writer, index.array), index.name, _frequency(index)


def _made_index(reader: Reader, spec: Any) -> Any:
    kind, *rest = spec
    if kind == "range":
        start, stop, step, name = rest
        return pd.RangeIndex(start, stop, step, name=name)
    if kind == "multi":
        levels, codes, names = rest
        made_levels = [_made_index(reader, level) for level in levels]
        made_codes: Any = [_made_memory(reader, *each[1:]) for each in codes]
        return pd.MultiIndex(levels=made_levels, codes=made_codes, names=names, verify_integrity=False)
    array, name, frequency = rest
    values = _made_array(reader, array)
    index: Any = pd.Index(values, dtype=values.dtype, name=name, copy=False)
    if frequency is not None:
        index.freq = frequency
    return index


def _frequency(index: Any) -> str | None:
    """The text that makes the frequency of a regular index again."""
    offset = getattr(index, "freq", None)
    if offset is None or type(index) is pd.PeriodIndex:
        return None
    text: str = offset.freqstr
    _same_again(lambda: pd.tseries.frequencies.to_offset(text), offset, f"the frequency {text!r}")
    return text


def _same_again(make: Callable[[], Any], original: Any, what: str) -> None:
    """Refuses what its text does not make again, which for some texts no rule tells beforehand."""
    try:
        again = make()
    except (ValueError, TypeError, KeyError):
        again = None
    if type(again) is not type(original) or again != original:
        raise Unstorable(f"{what} would not come back unchanged.")


# Arrays: each rule gives a tuple that begins with its name, and `_MADE` holds what undoes it


def _array(writer: Writer, array: Any) -> tuple[Any, ...]:
    if type(array) is pd.arrays.NumpyExtensionArray:
        array = array.to_numpy()
    dtype = array.dtype
    if isinstance(dtype, np.dtype):
        values = np.asarray(array)
        return _objects(writer, values) if dtype.kind == "O" else _memory(writer, values)
    if type(dtype) in _MASKED:
        return _masked(writer, array)
    rule = _RULES.get(type(dtype))
    if rule is None:
        raise Unstorable(f"its type {dtype} would not come back unchanged.")
    return rule(writer, array)


def _made_array(reader: Reader, spec: Any) -> Any:
    rule, *rest = spec
    return _MADE[rule](reader, *rest)


def _memory(writer: Writer, values: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    dtype = values.dtype
    if dtype.kind not in "biufmM" or dtype.itemsize > 8 or not dtype.isnative or dtype.metadata:
        raise Unstorable(f"its type {dtype} would not come back unchanged.")
    return "memory", writer.add_memory(values), dtype.str


def _made_memory(reader: Reader, part: int, dtype: str) -> Any:
    return reader.memory(part, dtype)


def _chunks(length: int) -> Iterator[slice]:
    """
    The rows by chunks, with a chance for other threads after each.

    Arrow releases the interpreter's lock so briefly that nobody else acquires it, and so often that Python never
    forces it to: without the pause another thread waited up to 600 ms in a frame of 100 MB.
    """
    for start in range(0, length, ROWS):
        yield slice(start, start + ROWS)
        time.sleep(0)


def _objects(writer: Writer, values: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """An object column: texts as Arrow's when it holds nothing else, plain values as their lines otherwise."""
    texts: list[Any] = []
    codes: list[bytes | None] = []
    for chunk in _chunks(len(values)):
        cells = values[chunk]
        coded = _codes(cells)
        text = None if coded is None else _texts(cells, coded)
        if text is None:
            return "cells", writer.add(pa.array(plain.dump(values.tolist()), pa.large_binary()))
        texts.append(text)
        codes.append(coded)
    missing = None
    if any(codes):
        joined = b"".join(coded or bytes(len(text)) for coded, text in zip(codes, texts, strict=True))
        missing = writer.add_memory(np.frombuffer(joined, "u1"))
    return "texts", writer.add(_joined(texts, pa.large_string())), missing


def _codes(cells: np.ndarray[Any, Any]) -> bytes | None:
    """Empty when all cells are texts, else a byte a cell that says what is missing; `None`: there is more in them."""
    classes = set(map(type, cells))
    if classes <= {str}:
        return b""
    if not classes <= {str, type(None), float, type(pd.NA), type(pd.NaT)}:
        return None
    places = {id(each): place for place, each in enumerate(_MISSING)}
    try:
        return bytes([0 if type(cell) is str else places[id(cell)] for cell in cells])
    except KeyError:
        return None


def _texts(cells: np.ndarray[Any, Any], coded: bytes) -> Any:
    texts = [cell if type(cell) is str else None for cell in cells] if coded else cells
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # a lone surrogate
        return None


def _joined(chunks: list[Any], dtype: pa.DataType) -> Any:
    return pa.concat_arrays(chunks) if chunks else pa.array([], dtype)


def _made_texts(reader: Reader, part: int, missing: int | None) -> np.ndarray[Any, Any]:
    texts = reader.part(part)
    codes = None if missing is None else reader.memory(missing, "u1")
    values = np.empty(0, object)
    for chunk in _chunks(len(texts)):
        cells = texts[chunk].to_numpy(zero_copy_only=False)
        if codes is not None:
            for code, each in enumerate(_MISSING[1:], start=1):
                cells[codes[chunk] == code] = each
        values.resize(chunk.start + len(cells), refcheck=False)  # making it whole at once is a long call, too
        values[chunk] = cells
    return values


def _made_cells(reader: Reader, part: int) -> np.ndarray[Any, Any]:
    cells = plain.parse(reader.part(part).to_pylist())
    values = np.empty(len(cells), object)
    for number, cell in enumerate(cells):
        values[number] = cell
    return values


def _masked(writer: Writer, array: Any) -> tuple[Any, ...]:
    numpy_dtype = array.dtype.numpy_dtype
    values = array.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0))
    return "masked", _memory(writer, values), _memory(writer, array.isna())


def _made_masked(reader: Reader, values: Any, mask: Any) -> Any:
    data = _made_memory(reader, *values[1:])
    classes = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
    return classes.get(data.dtype.kind, pd.arrays.IntegerArray)(data, _made_memory(reader, *mask[1:]))


def _strings(writer: Writer, array: Any) -> tuple[Any, ...]:
    dtype = array.dtype
    if dtype.storage == "pyarrow":
        spec: tuple[Any, ...] = ("arrow", writer.add(_flat(pa.array(array))))
    elif dtype.storage == "python":
        spec = _objects(writer, np.asarray(array, object))
    else:  # early versions of `str`
        raise Unstorable(f"its type {dtype!r} would not come back unchanged.")
    return "strings", dtype.storage, dtype.na_value is pd.NA, spec


def _made_strings(reader: Reader, storage: Any, with_na: bool, spec: Any) -> Any:
    dtype: Any = pd.StringDtype(storage) if with_na else pd.StringDtype(storage, na_value=np.nan)
    if storage == "pyarrow":
        return dtype.__from_arrow__(reader.part(spec[1]))
    return pd.array(_made_array(reader, spec), dtype=dtype, copy=False)


def _arrow(writer: Writer, array: Any) -> tuple[Any, ...]:
    if _has_extension(array.dtype.pyarrow_dtype):
        raise Unstorable(f"its type {array.dtype} would not come back unchanged.")
    return "arrow", writer.add(_flat(pa.array(array)))


def _made_arrow(reader: Reader, part: int) -> Any:
    return pd.arrays.ArrowExtensionArray(reader.part(part))


def _flat(array: Any) -> Any:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        raise Unstorable("it holds more text than one array can.")
    return array


def _has_extension(dtype: pa.DataType) -> bool:
    if isinstance(dtype, pa.BaseExtensionType):
        return True
    if isinstance(dtype, pa.DictionaryType):
        return _has_extension(dtype.value_type)
    return any(_has_extension(dtype.field(number).type) for number in range(dtype.num_fields))


def _categorical(writer: Writer, array: Any) -> tuple[Any, ...]:
    return "categorical", _memory(writer, array.codes), _index(writer, array.categories), array.ordered


def _made_categorical(reader: Reader, codes: Any, categories: Any, ordered: bool) -> Any:
    dtype = pd.CategoricalDtype(_made_index(reader, categories), ordered)
    return pd.Categorical.from_codes(_made_memory(reader, *codes[1:]), dtype=dtype, validate=False)


def _zoned(writer: Writer, array: Any) -> tuple[Any, ...]:
    dtype = array.dtype
    zone = str(dtype.tz)
    _same_again(lambda: pd.DatetimeTZDtype(dtype.unit, zone).tz, dtype.tz, f"the time zone {zone}")
    return "zoned", _memory(writer, np.asarray(array.tz_convert(None))), zone


def _made_zoned(reader: Reader, moments: Any, zone: str) -> Any:
    moment: Any = pd.array(_made_memory(reader, *moments[1:]), copy=False)
    return moment.tz_localize("UTC").tz_convert(zone)


def _periods(writer: Writer, array: Any) -> tuple[Any, ...]:
    text: str = array.freqstr
    _same_again(lambda: pd.PeriodDtype(text), array.dtype, f"the frequency {text!r}")
    return "periods", _memory(writer, array.asi8), text


def _made_periods(reader: Reader, ordinals: Any, text: str) -> Any:
    return pd.arrays.PeriodArray(_made_memory(reader, *ordinals[1:]), dtype=pd.PeriodDtype(text))


def _intervals(writer: Writer, array: Any) -> tuple[Any, ...]:
    return "intervals", _index(writer, array.left), _index(writer, array.right), array.closed


def _made_intervals(reader: Reader, left: Any, right: Any, closed: Any) -> Any:
    return pd.arrays.IntervalArray.from_arrays(_made_index(reader, left), _made_index(reader, right), closed=closed)


_MASKED: Final = tuple(
    getattr(pd, f"{name}Dtype")
    for name in (
        *(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
        "Float32",
        "Float64",
        "Boolean",
    )
)

_RULES: Final[dict[type, Callable[[Writer, Any], tuple[Any, ...]]]] = {
    pd.StringDtype: _strings,
    pd.ArrowDtype: _arrow,
    pd.CategoricalDtype: _categorical,
    pd.DatetimeTZDtype: _zoned,
    pd.PeriodDtype: _periods,
    pd.IntervalDtype: _intervals,
}

_MADE: Final[dict[str, Callable[..., Any]]] = {
    "memory": _made_memory,
    "texts": _made_texts,
    "cells": _made_cells,
    "masked": _made_masked,
    "strings": _made_strings,
    "arrow": _made_arrow,
    "categorical": _made_categorical,
    "zoned": _made_zoned,
    "periods": _made_periods,
    "intervals": _made_intervals,
}
