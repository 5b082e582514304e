"""What SQLite makes of values in columns that are declared as something else: it converts them without a word."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pandas as pd

from odibi_async.engines.integers import EXACT

AFFINITIES: Final = (
    ("INTEGER", ("INT",)),
    ("TEXT", ("CHAR", "CLOB", "TEXT")),
    ("BLOB", ("BLOB",)),
    ("REAL", ("REAL", "FLOA", "DOUB")),
)
"""What columns prefer to hold, by words in their declared types; the first that fits (sqlite.org/datatype3.html)."""
NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with plain values in place of categories and of NumPy's scalars, which SQLite stores as bytes."""
    frame = frame.copy(deep=False)
    for place, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, pd.CategoricalDtype) or dtype.kind == "O":
            cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in frame.iloc[:, place]]
            frame.isetitem(place, pd.Series(cells, dtype=object).array)
    return frame


def converted(column: pd.Series[Any], declared: str) -> Any:
    """The first value of a column that SQLite would store as another one; `None` when there is none."""
    affinity = _affinity(declared)
    kind = getattr(column.dtype, "kind", "O")
    known = column[column.notna()]
    if kind in "fb" and affinity != "TEXT":
        return None
    if isinstance(column.dtype, pd.StringDtype) and affinity in ("TEXT", "BLOB"):
        return None
    if kind == "M":
        known = known[known.dt.nanosecond != 0]
    return next((value for value in _python(known) if _is_converted(value, affinity)), None)


def _affinity(declared: str) -> str:
    found = (name for name, words in AFFINITIES if any(word in declared.upper() for word in words))
    return next(found, "NUMERIC" if declared.strip() else "BLOB")


def _python(column: pd.Series[Any]) -> Iterable[Any]:
    return column.tolist() if isinstance(column.dtype, np.dtype) else iter(column)


def _is_converted(value: Any, affinity: str) -> bool:
    if isinstance(value, str):
        return affinity in ("INTEGER", "REAL", "NUMERIC") and NUMBER.fullmatch(value) is not None
    if isinstance(value, bool | float):
        return affinity == "TEXT"
    if isinstance(value, int):
        return affinity == "TEXT" or not -(2**63) <= value < 2**63 or (affinity == "REAL" and abs(value) > EXACT)
    return isinstance(value, dt.timedelta) or (isinstance(value, pd.Timestamp) and value.nanosecond != 0)
