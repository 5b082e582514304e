"""
The tables that hold configurations, in SQLite and CSV: one step a row, with the row and column of every cell.

An empty cell counts as left out. A column that is not known is nobody's business, unless its name is so near
a known one that it must be meant.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odibi_async.config.formats import json
from odibi_async.config.formats.source import Keys, Packing, Source, check_file
from odibi_async.errors import ConfigError, Fault, did_you_mean, shortened

Entry = dict[str, Any]

_POLICIES = {
    name: name
    for name in (
        "retry",
        "timeout",
        "when",
        "tags",
        "pool",
        "after",
        "map_over",
        "buffer",
        "run_on",
        "cache",
        "project",
        "enabled",
    )
}
_LOWER = ("layer", "type", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    What a table of one kind holds.

    Attributes:
        columns: The name of each column, in all its spellings -> the entry of a step. Case does not matter.
        required: The entries that need a column, and a cell that is not empty.
        defaults: What a step gets where its cell is empty.
        json: The entries whose cells are JSON; those of policies may be.
        shaped: Makes a step's entries of those of a row.
    """

    columns: Mapping[str, str]
    required: Sequence[str]
    defaults: Mapping[str, Any]
    json: Sequence[str] = ()
    shaped: Callable[[Entry], Entry] = lambda row: row

    def column(self, entry: str) -> str:
        """What the column of an entry is called first."""
        return next(column for column, known in self.columns.items() if known == entry)


def _ingestion(row: Entry) -> Entry:
    row["metadata"] = {"project": row.get("project"), "source_type": row.get("metadata")}
    row["outputs"] = {"data": row.get("outputs")}
    return row


TABLES = {
    "ingestion_source_config": Table(
        columns={
            "source_id": "name",
            "SourceID": "name",
            "engine": "engine",
            "source_path_or_query": "value",
            "SourcePath": "value",
            "target_id": "outputs",
            "TargetID": "outputs",
            "source_type": "metadata",
            "params": "params",
            **_POLICIES,
        },
        required=("name", "value", "outputs"),
        defaults={"layer": "ingest", "type": "config_op"},
        json=("params",),
        shaped=_ingestion,
    ),
    "transformation_config": Table(
        columns={
            "StepName": "name",
            "Name": "name",
            "Layer": "layer",
            "StepType": "type",
            "Type": "type",
            "Engine": "engine",
            "Value": "value",
            "Params": "params",
            "Inputs": "inputs",
            "Outputs": "outputs",
            "Metadata": "metadata",
            "execution_order": "execution_order",
            **_POLICIES,
        },
        required=("name",),
        defaults={"layer": "transform", "type": "sql"},
        json=("params", "inputs", "outputs", "metadata"),
    ),
}
CSV = dataclasses.replace(TABLES["transformation_config"], defaults={"layer": "transform", "type": "config_op"})


@dataclass(frozen=True, slots=True)
class _Row:
    """
    One row that holds something.

    Attributes:
        table: What its table holds.
        place: The table and the row.
        columns: Entry -> the column that it stands in.
        cells: Entry -> what stands there; the empty ones are left out.
    """

    table: Table
    place: str
    columns: Mapping[str, str]
    cells: Entry

    def column(self, entry: str) -> str:
        return self.columns.get(entry, entry)

    def is_json(self, entry: str, cell: Any) -> bool:
        """Whether a cell is to be read as JSON."""
        if not isinstance(cell, str):
            return False
        return entry in self.table.json or (entry in _POLICIES and cell.lstrip().startswith(("[", "{")))

    @property
    def order(self) -> tuple[float, str]:
        """Rows without an order come first, as they do in SQLite."""
        return _number(self.cells.get("execution_order", -math.inf)), str(self.cells.get("name", ""))


class TableSource(Source):
    """A source that knows the row and the column of everything."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [])
        self._rows: list[_Row] = []

    def add(self, kind: Table, label: str, header: Sequence[str], rows: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """
        Adds the steps of one table, ordered by `execution_order` and name.

        Args:
            kind: What its columns mean.
            label: What the place of a row begins with.
            header: The names of its columns.
            rows: The number and the cells of each row.
        """
        entries = self._entries(kind, label, header)
        if entries is None:
            return
        columns = {entry: column for entry, column in zip(entries, header, strict=True) if entry}
        added = []
        for number, row in rows:
            cells = {
                entry: cell.strip().lower() if entry in _LOWER and isinstance(cell, str) else cell
                for entry, cell in zip(entries, row, strict=False)
                if entry and not _is_empty(cell)
            }
            added.append(_Row(kind, f"{label}row {number}", columns, cells))
        added.sort(key=lambda row: row.order)
        self._rows += added
        self.value += [{**kind.defaults, **row.cells} for row in added]

    def _entries(self, kind: Table, label: str, header: Sequence[str]) -> list[str | None] | None:
        """The entry that each column holds; `None` instead of all when the header is at fault."""
        known = {column.lower(): entry for column, entry in kind.columns.items()}
        entries = [known.get(column.strip().lower()) for column in header]
        place = f"{label}header"
        faults = []
        for column, entry in zip(header, entries, strict=True):
            if entry is None:
                hint = did_you_mean(column.strip().lower(), known, cutoff=0.88)
                if hint:
                    faults.append(Fault(self.name, place, f"column {column!r} is unknown.{hint}", "OA103"))
            elif entries.count(entry) > 1:
                message = f"column {column!r} has the same meaning as another column."
                faults.append(Fault(self.name, place, message, "OA106"))
        for entry in kind.required:
            if entry not in entries and not faults:
                message = f"there is no column {kind.column(entry)!r}.{_other_separator(header, known)}"
                faults.append(Fault(self.name, place, message, "OA104"))
        self.faults += faults
        return None if faults else entries

    def unpacked(self, index: int, entries: Entry) -> tuple[Entry, list[Packing]]:
        row = self._rows[index]
        faults: list[Packing] = []
        found: Entry = {}
        for entry, cell in entries.items():
            try:
                found[entry] = _from_json(cell) if row.is_json(entry, cell) else _checked(cell)
            except ValueError as error:
                faults.append(Packing("OA101", (entry,), str(error)))
        order = found.pop("execution_order", 0)
        if math.isinf(_number(order)):
            faults.append(Packing("OA105", ("execution_order",), f"a number is needed, not {order!r}."))
        faults += [
            Packing("OA104", (entry,), "the cell is empty, and every row needs it.")
            for entry in row.table.required
            if entry not in row.cells
        ]
        return row.table.shaped(found), faults

    def place(self, keys: Keys, of_key: bool = False) -> str:
        if not keys:
            return ""
        row = self._rows[keys[0]]
        return f"{row.place}, column {row.column(keys[1])}" if len(keys) > 1 else row.place


def _other_separator(header: Sequence[str], known: Collection[str]) -> str:
    """What to say where all names are in one cell, since something other than a comma separates them."""
    for separator in (";", "\t", "|"):
        names = header[0].split(separator) if len(header) == 1 else []
        if len(names) > 1 and any(name.strip().lower() in known for name in names):
            return f" The header is parted by {separator!r}: commas are needed."
    return ""


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(cell: Any) -> float:
    """A cell as a number to sort by; infinity when it is none."""
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return math.inf
    return math.inf if math.isnan(number) else number


def _checked(cell: Any) -> Any:
    """
    Raises:
        ValueError: The cell is no text and no number.
    """
    if isinstance(cell, bytes):
        raise ValueError("the cell holds bytes; a text is needed.")
    if isinstance(cell, str) and _undecoded(cell):
        raise ValueError("the cell holds bytes that are not UTF-8.")
    return cell


def _from_json(cell: str) -> Any:
    """
    Raises:
        ValueError: The cell is no JSON.
    """
    try:
        source = json.read(_checked(cell), "")
    except ConfigError as error:
        faults = error.faults
    else:
        if not source.faults:
            return source.value
        faults = tuple(source.faults)
    raise ValueError(
        "; ".join(f"the cell is not valid JSON, at its {fault.place}: {fault.message}" for fault in faults)
    )


_undecoded = re.compile("[\udc80-\udcff]").search


def read_csv(text: str, name: str) -> TableSource:
    """
    The steps of a CSV file; rows are counted as a spreadsheet does, the header being row 1.

    Raises:
        ConfigError: The text is no table.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(number, row) for number, row in enumerate(reader, 1) if not all(map(_is_empty, row))]
    except csv.Error as error:
        raise ConfigError([Fault(name, str(reader.line_num), f"{error}.", "OA101")]) from None
    if not rows:
        empty = "the file is empty; a header with at least StepName is expected."
        raise ConfigError([Fault(name, "", empty, "OA101")])
    source = TableSource(name)
    (_, header), *body = rows
    while header and _is_empty(header[-1]):
        header.pop()
    unequal = "the row has another number of cells than the header; quote texts that hold commas."
    source.faults += [
        Fault(name, f"row {number}", unequal, "OA110")
        for number, row in body
        if len(row) < len(header) or not all(map(_is_empty, row[len(header) :]))
    ]
    source.add(CSV, "", header, body)
    return source


def read_sqlite(path: Path, name: str) -> TableSource:
    """
    The steps of both tables, those of `ingestion_source_config` first; rows are known by their rowid.

    Raises:
        ConfigError: The file is no database, or has neither table.
    """
    check_file(path)
    source = TableSource(name)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            there = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
            found = [table for table in TABLES if table in map(str.lower, there)]
            for table in found:
                source.add(TABLES[table], f"{table}, ", *_rows(db, table))
    except (sqlite3.Error, UnicodeError) as error:
        raise ConfigError([Fault(name, "", f"SQLite cannot read the file: {error}.", "OA101")]) from error
    if not found:
        others = f"It has: {shortened(there)}." if there else "It has none."
        wrong = f"there is no table {' and no '.join(map(repr, TABLES))}. {others}"
        raise ConfigError([Fault(name, "", wrong, "OA110")])
    return source


def _rows(db: sqlite3.Connection, table: str) -> tuple[list[str], list[tuple[int, Sequence[Any]]]]:
    try:
        cursor = db.execute(f"SELECT rowid, * FROM {table}")
    except sqlite3.OperationalError:  # a view, or a table without rowids
        cursor = db.execute(f"SELECT NULL, * FROM {table}")
    header = [column[0] for column in cursor.description[1:]]
    rows = [(rowid if isinstance(rowid, int) else count, row) for count, (rowid, *row) in enumerate(cursor, 1)]
    return header, rows
