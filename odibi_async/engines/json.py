"""JSON whose values come back as they were: numbers to the last digit, texts as texts, nothing guessed from names."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np
import pandas as pd

from odibi_async.engines.integers import EXACT
from odibi_async.errors import OptionError


def records_of(frame: pd.DataFrame, doing: str) -> list[dict[str, Any]]:
    """
    The rows of a frame as JSON has them: moments as ISO texts, what is missing as null.

    Raises:
        OptionError: A value would not come back unchanged: it is infinite, or of a kind that JSON does not have.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise OptionError(f"{doing}: two of its columns have the same name, which JSON does not allow.")
    columns = [_cells(frame.iloc[:, place], f"{doing}: column {name!r}") for place, name in enumerate(names)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _cells(column: pd.Series[Any], where: str) -> list[Any]:
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else ""
    if kind in ("b", "i", "u"):
        return list(column.tolist())
    return [_cell(value, where) for value in column]


def _cell(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.datetime64 | np.timedelta64) else pd.Series([value]).iloc[0]
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise OptionError(f"{where} holds {value}, which JSON cannot carry.")
        return None if math.isnan(value) else value
    if isinstance(value, pd.Timedelta | dt.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal) and value.is_finite() and decimal.Decimal(repr(float(value))) == value:
        return float(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _cell(each, where) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_cell(each, where) for each in value]
    raise OptionError(f"{where} holds a {type(value).__name__} ({value!r:.60}), which JSON cannot carry as it is.")


def write(frame: pd.DataFrame, file: IO[bytes], doing: str, *, lines: bool = False) -> None:
    """Writes the rows as a list of objects, or one object a line."""
    records = records_of(frame, doing)
    if lines:
        file.writelines(json.dumps(record).encode() + b"\n" for record in records)
    else:
        file.write(b"[" + b",\n".join(json.dumps(record).encode() for record in records) + b"]")


def read(data: bytes, *, lines: bool = False) -> pd.DataFrame | None:
    """
    The frame of a list of objects, or of an object a line; `None` when it is something else.

    Columns are of the types that their values have. Integers beside missing values are floats where these say the
    same, else `Int64`.
    """
    text = data.decode("utf-8-sig")
    records = [json.loads(line) for line in text.split("\n") if line.strip()] if lines else json.loads(text)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return None
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {place: _column([record.get(name) for record in records]) for place, name in enumerate(names)}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(records)))
    frame.columns = pd.Index(names, dtype=object if not names else None)
    return frame


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int} and None in values and any(abs(value) > EXACT for value in values if value is not None):
        return _nullable(values)
    if kinds == {int, float} and any(abs(value) > EXACT for value in values if type(value) is int):
        return pd.Series(values, dtype=object)  # a float would say something else
    return pd.Series(values, dtype=object if kinds and not kinds <= {int, float, bool, str} else None)


def _nullable(values: Iterable[Any]) -> pd.Series[Any]:
    values = list(values)
    try:
        return pd.Series(values, dtype="Int64")
    except (OverflowError, TypeError, ValueError):  # beyond 64 bits
        return pd.Series(values, dtype=object)
