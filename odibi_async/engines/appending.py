"""Rows added to files: what is there keeps its bytes, or its exact values and types; else nothing is touched."""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from typing import IO, Any, Final

import pandas as pd
import pyarrow as pa

from odibi_async.engines import excel, json
from odibi_async.errors import OptionError, PathError, in_a_line, shortened

BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
"""What files begin with that say their encoding; longer ones first, since one begins like another."""

KINDS: Final = {
    "truth": ("is_boolean",),
    "day": ("is_date",),
    "text": ("is_string", "is_large_string", "is_string_view"),
    "number": ("is_integer", "is_floating"),
}
"""Kinds of columns -> what Arrow calls the types that are of one."""


def ordered_like(columns: pd.Index[Any], frame: pd.DataFrame, path: str) -> pd.DataFrame:
    """
    The frame with its columns in the order of those of the file.

    Raises:
        PathError: They are not the same.
    """
    there, given = [str(name) for name in columns], [str(name) for name in frame.columns]
    if sorted(there) != sorted(given) or len(set(given)) < len(given):
        other = f"the file has the columns {shortened(there)}; the frame {shortened(given)}."
        raise PathError(path, f"what is appended does not fit: {other}")
    return frame.set_axis(given, axis=1)[there]


def encoding_after(beginning: bytes, asked: str | None) -> str | None:
    """The encoding for appending to a text that begins so: its own, without the byte order mark."""
    for mark, encoding in BOMS:
        if beginning.startswith(mark):
            return encoding
    return asked


def check_lines(beginning: bytes, encoding: str | None, path: str) -> None:
    """
    Raises:
        PathError: A file that begins so has no JSON objects as its lines, or not in UTF-8.
    """
    if encoding not in (None, "utf-8"):
        raise PathError(path, f"it is {encoding}, and lines of JSON are appended in UTF-8.")
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
    if text and not text.startswith(b"{"):
        raise PathError(path, "lines can only be appended to lines that are objects.")


def to_json(frame: pd.DataFrame, old: IO[bytes], new: IO[bytes], path: str) -> None:
    """Adds rows to a list of objects, whose bytes stay."""
    data = old.read()
    before = json.read(data)
    body = data.rstrip()
    if before is None or not body.endswith(b"]"):
        raise PathError(path, "rows can only be appended to a list of objects.")
    if len(before.columns):
        frame = ordered_like(before.columns, frame, path)
    added = io.BytesIO()
    json.write(frame, added, f"Appending to {path!r}")
    start, rows = body[:-1].rstrip(), added.getvalue()[1:]
    new.write(start + (b",\n" if not start.endswith(b"[") and len(frame) else b"") + rows)


def to_excel(frame: pd.DataFrame, old: IO[bytes], new: IO[bytes], path: str) -> None:
    """
    Adds rows below those of the only sheet, which stay as they are, formulas without results included.

    Raises:
        PathError: The rows do not fit, or there are formulas with results, which the rows that are there would lose.
        OptionError: There are several sheets, or a value that a spreadsheet cannot carry.
    """
    import openpyxl

    book = openpyxl.load_workbook(old, keep_vba=path.lower().endswith(".xlsm"))
    if len(book.sheetnames) > 1:
        raise OptionError(f"Appending to {path!r}: it has several sheets, and none of them is named.")
    old.seek(0)
    before = excel.read(old)
    frame = ordered_like(before.columns, frame, path)
    for place, row in enumerate(frame.itertuples(index=False, name=None), start=2 + len(before)):
        for column, value in enumerate(row, start=1):
            book.worksheets[0].cell(place, column, excel.cell_of(value))
    excel.spell_out(book.worksheets[0])
    made = io.BytesIO()
    book.save(made)
    after = excel.read(made)
    if not after.iloc[: len(before)].astype(object).equals(before.astype(object)):
        raise PathError(path, "it has formulas, whose results would be lost: only a spreadsheet program computes them.")
    excel.check(frame, after.iloc[len(before) :], f"Appending to {path!r}")
    new.write(made.getvalue())


def to_table(table: pa.Table, frame: pd.DataFrame, path: str) -> pa.Table:
    """
    The table of a Parquet or Feather file with more rows, of the same types.

    Raises:
        PathError: The rows do not fit these types.
    """
    described = table.schema.pandas_metadata or {}
    if any(isinstance(name, str) for name in described.get("index_columns", ())):
        raise PathError(path, "it was written with an index, to which rows cannot be appended.")
    frame = ordered_like(pd.Index(table.column_names), frame, path)
    try:
        given = pa.Table.from_pandas(frame, preserve_index=False)
        _check_kinds(table.schema, given.schema)
        added = pa.Table.from_pandas(frame, schema=table.schema.remove_metadata(), preserve_index=False)
        _check_digits(given, added)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise PathError(path, f"what is appended does not fit: {in_a_line(error)}") from error
    nullable = {each["name"] for each in described.get("columns", ()) if str(each["numpy_type"])[:1].isupper()}
    for name, before, after in zip(table.column_names, table.columns, added.columns, strict=True):
        whole = pa.types.is_integer(before.type) or pa.types.is_boolean(before.type)
        if whole and after.null_count and not before.null_count and name not in nullable:
            message = f"column {name!r} holds {before.type} and nothing is missing there, but is in what is appended."
            raise PathError(path, f"what is appended does not fit: {message}")
    return pa.concat_tables([table, added.cast(table.schema.remove_metadata())]).replace_schema_metadata(
        table.schema.metadata
    )


def _check_kinds(there: pa.Schema, given: pa.Schema) -> None:
    """
    Raises:
        TypeError: A column is of another kind: Arrow makes integers of moments, say, without a word.
    """
    for before, after in zip(there, given, strict=True):
        if not pa.types.is_null(after.type) and _kind(before.type) != _kind(after.type):
            raise TypeError(f"column {before.name!r} holds {before.type}, and what is appended {after.type}")


def _check_digits(given: pa.Table, added: pa.Table) -> None:
    """
    Raises:
        ValueError: A column has shorter floats than what is appended, which would lose digits.
    """
    for name, before, after in zip(given.column_names, given.columns, added.columns, strict=True):
        if pa.types.is_floating(before.type) and not after.cast(before.type).equals(before):
            raise ValueError(f"column {name!r} holds {after.type}, which has too few digits for what is appended")


def _kind(dtype: pa.DataType) -> str:
    if pa.types.is_dictionary(dtype):
        return _kind(dtype.value_type)
    if pa.types.is_timestamp(dtype):
        return "moment" if dtype.tz is None else "moment in a zone"  # Arrow takes the one for the other, in UTC
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return f"list of {_kind(dtype.value_type)}"  # whatever its values are called
    return next((kind for kind, names in KINDS.items() for name in names if getattr(pa.types, name)(dtype)), str(dtype))


def options_refused(options: Mapping[str, Any], path: str) -> None:
    """
    Raises:
        OptionError: There are options, which say another form than that of the file.
    """
    if options:
        raise OptionError(
            f"Appending to {path!r}: options ({', '.join(options)}) would give the rows a different shape."
        )
