"""Integers beside missing values: pandas makes floats of them, which is kept only where a float says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

EXACT: Final = 2**53
"""Up to it, each integer is a float64 of its own."""
GIVEN: Final = frozenset(("dtype", "dtype_backend", "converters", "coerce_float", "chunksize"))
"""Options of readers that say what becomes of numbers."""


def exact(frame: pd.DataFrame, again: Callable[..., Any]) -> pd.DataFrame:
    """
    The frame that a reader gave, with `Int64` for the integers that floats do not tell apart.

    Args:
        frame: What was read.
        again: Reads the same once more, with the `dtype_backend` that it is given.
    """
    places = doubtful(frame)
    if not places:
        return frame
    nullable = again(dtype_backend="numpy_nullable")
    for place in places:
        column = nullable.iloc[:, place]
        if isinstance(column.dtype, pd.Int64Dtype | pd.UInt64Dtype):
            frame.isetitem(place, column.array)
    return frame


def doubtful(frame: pd.DataFrame) -> list[int]:
    """The places of the columns that may have been other integers."""
    return [place for place in range(frame.shape[1]) if _is_doubtful(frame.iloc[:, place])]


def _is_doubtful(column: pd.Series[Any]) -> bool:
    if column.dtype != np.float64:
        return False
    known = column[column.notna()].to_numpy()
    return len(known) < len(column) and bool((np.abs(known) >= EXACT).any() and (known == np.floor(known)).all())


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all frames, in order. A frame without rows has no say in the types."""
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    whole = pd.concat(filled, ignore_index=True)
    if len(filled) < len(frames):
        names = pd.concat([frame.iloc[:0] for frame in frames]).columns
        whole = whole.reindex(columns=names) if names.is_unique else whole
    for place, name in enumerate(whole.columns):
        if whole.dtypes.iloc[place] == np.float64 and whole.columns.is_unique:
            parts = [frame[name] if name in frame else pd.Series([None] * len(frame)) for frame in filled]
            if any(part.dtype.kind in "iu" and (part.abs() > EXACT).any() for part in parts):
                whole.isetitem(place, _column([cell for part in parts for cell in part.tolist()]))
    return whole


def _column(cells: Sequence[Any]) -> Any:
    """Cells of which some are integers that no float says."""
    known = [cell for cell in cells if not pd.isna(cell)]
    if not all(float(cell).is_integer() for cell in known):
        return pd.array(cells, dtype=object)
    whole = [None if pd.isna(cell) else int(cell) for cell in cells]
    try:
        return pd.array(whole, dtype="Int64")
    except (OverflowError, TypeError, ValueError):  # beyond 64 bits
        return pd.array(whole, dtype=object)
