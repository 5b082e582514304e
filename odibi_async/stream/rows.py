"""Rows that are added to a table."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from blake3 import blake3

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError, PositionDamaged
from odibi_async.runner.aside import in_a_thread
from odibi_async.stream.source import Batch, Found, Late, Memory
from odibi_async.stream.values import before, from_json, from_start, to_json
from odibi_async.stream.window import Window, text_of

if TYPE_CHECKING:
    import sqlalchemy

    from odibi_async.stream.tables import Page, Table

SUFFIXES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    How far a table was read.

    Attributes:
        watermark: The highest value that was taken; `None` before the first row.
        batches: How many batches were taken.
        before: How many rows are known to be before all that is looked at again; `None` when nobody has counted.
    """

    watermark: Any = None
    batches: int = 0
    before: int | None = None

    def to_text(self) -> str:
        members = {"watermark": to_json(self.watermark), "batches": self.batches, "before": self.before}
        return json.dumps(members)

    @staticmethod
    def of(position: str | None) -> Place:
        if position is None:
            return Place()
        try:
            members = json.loads(position)
            return Place(**{**members, "watermark": from_json(members["watermark"])})
        except (ValueError, TypeError, KeyError) as error:
            raise PositionDamaged("", f"{position!r} is not that of Rows.") from error


class Rows:
    """
    A source of rows that are added to a table; a batch is a frame of those past the highest value of a column so far.

    Rows of equal values are all taken, whenever they come, and so are rows that come late, up to `lateness` below the
    highest value; none is taken twice. Rows later than that are counted and told of (`RowsLate`), not taken. Rows that
    have no value in the column are not taken until they have one.

    Args:
        table_or_query: The name of a table or a SELECT, with `connection`; else the path of a file.
        column: The column that grows: numbers, dates, times, or texts that sort as such.
        connection: The path of an SQLite file, a SQLAlchemy URL (extra `sql`), or an engine of SQLAlchemy.
        lateness: How far below the highest value rows may still come: a `timedelta`, seconds for times, or a number.
        key: The columns that identify a row, together with `column`; none for all columns. Without it, a row within the
            lateness that is changed is taken again, and of two equal rows both are taken.
        batch_size: How many rows a batch has at most.
        interval: Seconds between two looks.
        start: The value to begin with; `None` for the first there is.
        format: Of a file: csv, parquet, jsonl, ...; `None` to go by the suffix.
        read_options: Of a file, options of the reader of pandas; of a table, `parse_dates`.
        count_late: Whether rows that come too late are counted, which reads all rows below the highest at each look, or
            an index of the column.
    """

    def __init__(
        self,
        table_or_query: str | os.PathLike[str],
        *,
        column: str,
        connection: str | os.PathLike[str] | sqlalchemy.Engine | None = None,
        lateness: float | timedelta = 0,
        key: str | Sequence[str] = (),
        batch_size: int = 1000,
        interval: float = 60.0,
        start: Any = None,
        format: str | None = None,  # noqa: A002 (the word that people know)
        read_options: Mapping[str, Any] | None = None,
        count_late: bool = True,
    ) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise OptionError(f"batch_size={batch_size!r}: a number from 1 on is needed.")
        seconds_of("lateness", lateness)
        to_json(start)
        self._what = os.fspath(table_or_query)
        self._connection = connection
        self._column = column
        self._key = (key,) if isinstance(key, str) else tuple(key)
        self._lateness = lateness
        self._batch_size = batch_size
        self._interval: float = seconds_of("interval", interval, above_zero=True)
        self._start = start
        self._format = format
        self._options = dict(read_options or {})
        self._count_late = count_late
        self._table: Table | None = None
        self._window: Window | None = None
        self._at: str | None = None
        self._before: int | None = None
        self._is_unfinished = False

    def __repr__(self) -> str:
        return f"<Rows of {self._what!r} by {self._column!r}>"

    # -- its life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens nothing yet: the first look does."""
        self._table = await in_a_thread(self._made)
        self._window = None

    def _made(self) -> Table:
        from odibi_async.stream.tables import FileTable, Identity, SqliteTable, SqlTable  # loads pandas

        identity, place = Identity(self._column, self._key), self._connection
        if place is None:
            return FileTable(Path(self._what), self._format, identity, self._options)
        dates = self._options.get("parse_dates", ())
        if self._format is not None or self._options.keys() - {"parse_dates"}:
            raise OptionError("format= and read_options= other than parse_dates are for files.")
        if isinstance(place, str | os.PathLike) and "://" not in os.fspath(place):
            path = Path(place)
            if path.suffix.lower() not in SUFFIXES:
                raise OptionError(f"connection={os.fspath(place)!r}: a URL, or a file {', '.join(SUFFIXES)} is needed.")
            return SqliteTable(path, self._what, identity, dates)
        return SqlTable(os.fspath(place) if isinstance(place, os.PathLike) else place, self._what, identity, dates)

    async def close(self) -> None:
        """Closes the table."""
        table, self._table = self._table, None
        if table is not None:
            await in_a_thread(table.close)

    async def changed(self) -> bool:
        """Returns after the interval."""
        await asyncio.sleep(self._interval)
        return True

    # -- a look ----------------------------------------------------------------------------------------

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Found]:
        """The rows past a position that are there now, in the order of their values."""
        place, table = Place.of(position), self._table
        assert table is not None
        low = self._start if place.watermark is None else self._low(place.watermark)
        if self._window is None or self._at != position:
            self._window, self._at, self._before = Window(await memory.items()), position, place.before
            if low is not None:
                self._window.drop_before(low)  # those are counted in `place.before`
        table.look()
        if self._count_late and low is not None:
            late = await self._late(table, place, low)
            if late is not None:
                place = replace(place, before=self._before)
                yield late
        high = await _aside(table.highest)
        while high is not None:
            limit = self._batch_size + self._window.count_from(low)
            page = await _aside(table.page, low, high, limit)
            new = self._window.new(page.digests)[: self._batch_size]
            if new:
                batch, place = await self._batch(place, page, new)
                yield batch
            if len(page.values) < limit and (not new or len(new) < self._batch_size):
                return
            low = page.values[new[-1] if new else -1]

    def _low(self, watermark: Any) -> Any:
        """The lowest value that rows may still come with."""
        low = before(watermark, self._lateness)
        return from_start(low, self._start) if self._lateness else low

    async def _late(self, table: Table, place: Place, low: Any) -> Late | None:
        """What came too late since the last look, if anything."""
        count = await _aside(table.count_before, low)
        known, self._before = self._before, count
        if known is None or count <= known:  # nobody has counted yet, or rows were deleted
            return None
        position = replace(place, before=count).to_text()
        self._at = position
        return Late(rows=count - known, before=low, position=position)

    async def _batch(self, place: Place, page: Page, new: Sequence[int]) -> tuple[Batch, Place]:
        """The batch of some rows of a page, and the place behind it."""
        window = self._window
        assert window is not None
        entries = [(page.values[each], page.digests[each]) for each in new]
        highest = entries[-1][0]
        watermark = highest if place.watermark is None else max(place.watermark, highest)
        low, key = self._low(watermark), f"{place.batches + 1:012d}"
        kept = [entry for entry in entries if not entry[0] < low]
        passed = window.count_before(low) + len(entries) - len(kept)
        rows = None if self._before is None and self._start is not None else (self._before or 0) + passed
        behind = Place(watermark=watermark, batches=place.batches + 1, before=rows)

        def settled() -> None:
            window.drop_before(low)
            window.add(key, kept)
            self._before, self._at = rows, behind.to_text()

        batch = Batch(
            data=await in_a_thread(page.frame, new),
            position=behind.to_text(),
            content=blake3("".join(digest for _, digest in entries).encode()).hexdigest(),
            watermark=watermark,
            label=f"{len(new)} rows up to {watermark}",
            remember={key: text_of(kept)} if kept else {},
            forget=window.outdated(low),
            settled=settled,
        )
        return batch, behind


async def _aside(call: Any, *args: Any) -> Any:
    """Reads in a thread; nobody waits for that if the stream is told to end meanwhile."""
    return await anyio.to_thread.run_sync(call, *args, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=True)
