"""pandas frames on their way from and to Arrow, through which they cross between engines."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pyarrow as pa

from odibi_async.engines.formats import without_index
from odibi_async.engines.frames import NULLABLE
from odibi_async.errors import CrossingError, in_a_line


def to_arrow(frame: pd.DataFrame | pd.Series[Any], what: str, where: str) -> pa.Table:
    """
    The rows of a frame; an index becomes columns where its levels have names.

    Args:
        frame: The frame, or a series, which becomes a column.
        what: What it is, for messages.
        where: Where it goes, for messages.

    Raises:
        CrossingError: Arrow could not carry it as it is.
    """
    if isinstance(frame, pd.Series):
        frame = frame.to_frame()
    frame = without_index(frame)
    odd = next((label for label in frame.columns if not isinstance(label, str)), None)
    if odd is not None:
        raise CrossingError(what, where, f"the label of its column {odd!r} is not a text.")
    twice = [label for label, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise CrossingError(what, where, f"two of its columns are called {twice[0]!r}.")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CrossingError(what, where, in_a_line(error)) from error


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The frame of a table: integers and truth values beside NULL are nullable, so that none becomes a float."""
    nullable = {i: NULLABLE[c.type] for i, c in enumerate(table.columns) if c.null_count and c.type in NULLABLE}
    names = [str(i) for i in range(table.num_columns)]  # two may be the same
    frame: pd.DataFrame = table.rename_columns(names).to_pandas()
    for i, dtype in nullable.items():
        column: Any = table.column(i).to_pandas(types_mapper={table.column(i).type: dtype}.get)
        frame.isetitem(i, column)
    frame.columns = pd.Index(table.column_names, dtype=frame.columns.dtype)
    return frame
