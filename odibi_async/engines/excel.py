"""Spreadsheets whose cells come back as they were: texts as texts, an empty text as an empty text."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pandas as pd

from odibi_async.engines.integers import EXACT
from odibi_async.errors import OptionError


def read(file: IO[bytes], sheet: str | int = 0) -> pd.DataFrame:
    """
    The frame of a sheet: the first row has the names, each cell is what it is, and empty cells are missing.

    Raises:
        OptionError: There is no such sheet.
    """
    import openpyxl

    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    try:
        names = [each.title for each in book.worksheets]
        if sheet not in names if isinstance(sheet, str) else not -len(names) <= sheet < len(names):
            raise OptionError(f"There is no sheet {sheet!r}. Sheets: {', '.join(names)}.")
        chosen = book[sheet] if isinstance(sheet, str) else book.worksheets[sheet]
        chosen.reset_dimensions()  # the size that a book says of a sheet may be wrong
        rows = [list(row) for row in chosen.iter_rows(values_only=True)]
    finally:
        book.close()
    while rows and all(cell is None for cell in rows[-1]):
        rows.pop()
    if not rows:
        return pd.DataFrame()
    header, *body = rows
    names = _names(header, max(map(len, rows)))
    columns = {
        place: _column([row[place] if place < len(row) else None for row in body]) for place in range(len(names))
    }
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(body)))
    frame.columns = pd.Index(names)
    return frame


def _names(header: Sequence[Any], width: int) -> list[Any]:
    """The names of the columns, as pandas gives them: each once, and one for those without."""
    seen: dict[Any, int] = {}
    names: list[Any] = []
    for place in range(width):
        name = header[place] if place < len(header) and header[place] is not None else f"Unnamed: {place}"
        count = seen[name] = seen.get(name, -1) + 1
        names.append(f"{name}.{count}" if count else name)
    return names


def _column(cells: Sequence[Any]) -> pd.Series[Any]:
    kinds = set(map(type, cells)) - {type(None)}
    if kinds and kinds <= {dt.datetime}:
        return pd.to_datetime(pd.Series(cells, dtype=object))
    return pd.Series(cells, dtype=None if not kinds or kinds <= {int, float} or kinds in ({bool}, {str}) else object)


def write(frame: pd.DataFrame, file: IO[bytes], doing: str, **options: Any) -> None:
    """
    Writes a sheet that is the frame.

    Args:
        frame: What to write, without its index.
        file: Where to.
        doing: What is done, for messages.
        options: `sheet_name` and others of `to_excel` that change nothing about the cells.

    Raises:
        OptionError: A name or a value would not come back as it was.
    """
    made = io.BytesIO()
    with pd.ExcelWriter(made, engine="openpyxl") as writer:
        frame.to_excel(writer, index=False, **options)
        spell_out(writer.book.worksheets[0])
    again = read(made)
    for before, after in zip(frame.columns, again.columns, strict=False):
        if not _is_same(before, after):
            raise OptionError(
                f"{doing}: a spreadsheet cannot carry the name of the column {before!r:.60}: it would be {after!r:.60}."
            )
    check(frame, again, doing)
    file.write(made.getvalue())


def spell_out(sheet: Any) -> None:
    """Gives all digits of the floats in a sheet: openpyxl writes 16, and some need 17."""
    for row in sheet.iter_rows():
        for cell in row:
            if isinstance(cell.value, float):
                cell.value = repr(float(cell.value))
                cell.data_type = "n"


def cell_of(value: Any) -> Any:
    """The value as a cell takes it."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if isinstance(value, np.generic) else value


def check(frame: pd.DataFrame, again: pd.DataFrame, doing: str) -> None:
    """
    Compares what was written with what is read.

    Raises:
        OptionError: A value did not come back as it was.
    """
    rows, again = len(again), again.reset_index(drop=True).reindex(range(len(frame)))
    if frame.shape[1] != again.shape[1]:
        raise OptionError(f"{doing}: a spreadsheet cannot carry its rows and columns as they are.")
    for place, name in enumerate(frame.columns):
        for before, after in zip(frame.iloc[:, place], again.iloc[:, place], strict=True):
            if not _is_same(before, after):
                raise OptionError(
                    f"{doing}: column {name!r} holds {before!r:.60}, which a spreadsheet cannot carry: it would be"
                    f" {after!r:.60}. Write it as text."
                )
    if rows < len(frame):
        raise OptionError(f"{doing}: the last row has nothing in it, which a spreadsheet cannot carry.")


def _is_same(before: Any, after: Any) -> bool:
    if pd.api.types.is_scalar(before) and pd.isna(before):
        return bool(pd.api.types.is_scalar(after) and pd.isna(after))
    if isinstance(before, np.generic):
        before = before.item()
    if isinstance(before, bool) or isinstance(after, bool | np.bool_):
        return isinstance(before, bool) and isinstance(after, bool | np.bool_) and before == after
    if isinstance(before, int) and abs(before) > EXACT:
        return False
    if isinstance(before, dt.date) and not isinstance(before, dt.datetime):
        return isinstance(after, dt.datetime) and pd.Timestamp(before) == pd.Timestamp(after)
    if isinstance(before, dt.datetime) or isinstance(after, dt.datetime):
        return isinstance(before, dt.datetime) and isinstance(after, dt.datetime) and before == after
    return isinstance(before, str) == isinstance(after, str) and bool(before == after)
