"""Rows as a source of streams: each once, whatever their order, their ties and their lateness."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as some

from odibi_async.errors import OptionError, SourceFailed
from odibi_async.events import BatchFinished, RowsLate
from odibi_async.stream import Late, Rows, Stream, run_stream
from odibi_async.stream.values import before, from_json, moment_of, to_json
from odibi_async.stream.window import Window, text_of
from odibi_async.testing import Recorder

pytestmark = pytest.mark.foreign_loop  # the tests write tables where they stand


class Table:
    """A table that grows, and streams over it."""

    def __init__(self, folder: Path, columns: str = "at, name") -> None:
        self.path = folder / "source.db"
        self.journal = folder / "journal"
        self.connection: Any = self.path
        self.heard = Recorder()
        self.taken: list[pd.DataFrame] = []
        self.execute(f"CREATE TABLE things ({columns})")

    def execute(self, statement: str, rows: list[tuple[Any, ...]] | None = None) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(statement, [()] if rows is None else rows)

    def add(self, *rows: tuple[Any, ...]) -> None:
        self.execute(f"INSERT INTO things VALUES ({', '.join('?' * len(rows[0]))})", list(rows))

    def stream(self, what: str = "things", **options: Any) -> Stream:
        def keep(batch: pd.DataFrame) -> None:
            self.taken.append(batch)

        about = {"column": "at", "connection": self.connection, "interval": 0.01, **options}
        name = about.pop("name", "rows")
        source = Rows(what, **about)
        return run_stream(
            [keep], source, into="batch", journal=self.journal, name=name, wait=0.001, observers=[self.heard]
        )

    def drained(self, what: str = "things", **options: Any) -> list[Any]:
        """The names of the rows that a stream takes that is started, drained and over."""
        self.taken.clear()
        asyncio.run(_drained(self.stream(what, **options)))
        return [name for frame in self.taken for name in frame["name"]]


async def _drained(stream: Stream) -> None:
    await stream.drain()


@pytest.fixture(params=["sqlite", "sqlalchemy"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    made = Table(tmp_path)
    if request.param == "sqlalchemy":
        made.connection = f"sqlite:///{made.path}"
    return made


# -- what is taken -----------------------------------------------------------------------------------------


def test_rows_are_taken_once_in_batches_in_the_order_of_the_column(table: Table):
    table.add(*((number, f"n{number}") for number in (5, 3, 1, 4, 2)))
    assert table.drained(batch_size=2) == ["n1", "n2", "n3", "n4", "n5"]
    assert [len(frame) for frame in table.taken] == [2, 2, 1]
    assert [event.watermark for event in table.heard.of(BatchFinished)] == [2, 4, 5]
    assert table.drained() == []
    table.add((6, "n6"))
    assert table.drained() == ["n6"]


def test_ties_are_all_taken_whenever_they_come(table: Table):
    table.add(*((1, f"a{number}") for number in range(7)))
    assert sorted(table.drained(batch_size=3)) == [f"a{number}" for number in range(7)]
    table.add((1, "b"), (1, "a0"), (2, "c"))
    assert sorted(table.drained(batch_size=1)) == ["a0", "b", "c"]  # of two equal rows, both
    assert table.drained(batch_size=1) == []
    table.add((2, "d"))
    assert table.drained() == ["d"]


def test_rows_late_within_the_bound_are_taken_once(table: Table):
    table.add((100, "a"), (110, "b"))
    assert table.drained(lateness=10) == ["a", "b"]
    table.add((100, "late, at the bound"), (105, "late"), (111, "c"))
    assert table.drained(lateness=10) == ["late, at the bound", "late", "c"]
    table.add((101, "late still"), (112, "d"))
    assert table.drained(lateness=10) == ["late still", "d"]
    assert table.drained(lateness=10) == []
    assert not table.heard.of(RowsLate)


def test_rows_late_beyond_the_bound_are_told_of_once_and_not_taken(table: Table):
    table.add((100, "a"), (120, "b"))
    assert table.drained(lateness=10) == ["a", "b"]
    table.add((99, "too late"), (50, "much too late"), (110, "in time"))
    assert table.drained(lateness=10) == ["in time"]
    [late] = table.heard.of(RowsLate)
    assert (late.rows, late.before) == (2, 110)
    assert table.drained(lateness=10) == []
    table.add((98, "too late as well"), (130, "c"))
    assert table.drained(lateness=10) == ["c"]
    assert [event.rows for event in table.heard.of(RowsLate)] == [2, 1]
    for _ in range(2):
        assert table.drained(lateness=10) == []
    assert len(table.heard.of(RowsLate)) == 2


def test_rows_that_leave_the_window_are_not_taken_for_late_ones(table: Table):
    for start in range(0, 25, 5):
        table.add(*((number, f"n{number}") for number in range(start, start + 5)))
        assert len(table.drained(lateness=7, batch_size=3)) == 5
    assert not table.heard.of(RowsLate)


def test_late_rows_need_not_be_counted(table: Table):
    table.add((100, "a"))
    assert table.drained(count_late=False) == ["a"]
    table.add((1, "late"))
    assert table.drained(count_late=False) == []
    assert not table.heard.of(RowsLate)


def test_a_stream_may_begin_at_a_value(table: Table):
    table.add((1, "old"), (5, "a"), (7, "b"))
    assert table.drained(start=5) == ["a", "b"]
    assert not table.heard.of(RowsLate)
    table.add((2, "late"))
    assert table.drained(start=5) == []
    assert [event.rows for event in table.heard.of(RowsLate)] == [1]


def test_a_lateness_does_not_reach_below_the_value_to_begin_at(table: Table):
    table.add(*((number, f"n{number}") for number in range(10)))
    assert table.drained(start=7, lateness=5) == ["n7", "n8", "n9"]
    table.add((7, "late"), (3, "before the start"))
    assert table.drained(start=7, lateness=5) == ["late"]
    assert table.drained(start=7, lateness=5) == []
    assert table.drained(start=7, lateness=5, batch_size=1, name="again") == ["n7", "late", "n8", "n9"]


def test_a_value_to_begin_at_that_does_not_fit_the_column_is_an_error(table: Table):
    table.add(("2024-01-31", "a"))
    with pytest.raises(SourceFailed, match="start=5 does not fit a column of str such as '2024-01-30'"):
        table.drained(start=5, lateness=timedelta(days=1))


def test_rows_that_are_deleted_are_no_trouble(table: Table):
    table.add(*((number, f"n{number}") for number in range(10)))
    assert len(table.drained(lateness=3)) == 10
    table.execute("DELETE FROM things WHERE at < 9")
    assert table.drained(lateness=3) == []
    table.add((10, "a"), (8, "late"), (2, "too late"))
    assert table.drained(lateness=3) == ["late", "a"]
    table.execute("DELETE FROM things")
    assert table.drained(lateness=3) == []


def test_rows_without_a_value_are_taken_when_they_have_one(table: Table):
    table.add((1, "a"), (None, "b"))
    assert table.drained() == ["a"]
    table.execute("UPDATE things SET at = 2 WHERE name = 'b'")
    assert table.drained() == ["b"]


def test_a_row_that_is_changed_is_taken_again_when_its_value_grows(table: Table):
    table.add((1, "a"), (2, "b"))
    assert table.drained(key="name", lateness=10) == ["a", "b"]
    table.execute("UPDATE things SET at = 3 WHERE name = 'a'")
    assert table.drained(key="name", lateness=10) == ["a"]


def test_a_column_that_is_added_makes_no_row_new(table: Table):
    table.add((1, "a"), (2, "b"))
    assert table.drained(lateness=5) == ["a", "b"]
    table.execute("ALTER TABLE things ADD COLUMN more")
    assert table.drained(lateness=5) == []


def test_a_query_may_be_read_as_well(table: Table):
    table.execute("CREATE TABLE names (name, long)")
    table.execute("INSERT INTO names VALUES ('a', 'Ada'), ('b', 'Bob')")
    table.add((1, "a"), (2, "b"), (3, "a"))
    query = "SELECT at, long AS name FROM things JOIN names USING (name) WHERE at <> 2"
    assert table.drained(query) == ["Ada", "Ada"]
    table.add((4, "b"))
    assert table.drained(query) == ["Bob"]


def test_an_empty_table_is_waited_for(table: Table):
    assert table.drained() == []
    table.add((1, "a"))
    assert table.drained() == ["a"]


def test_a_table_or_a_column_that_is_missing_is_an_error_and_never_no_data(table: Table):
    table.add((1, "a"))
    with pytest.raises(SourceFailed, match="nothing"):
        table.drained("nothing")
    with pytest.raises(SourceFailed, match="wrong"):
        table.drained(column="wrong")
    os.remove(table.path)
    with pytest.raises(SourceFailed):
        table.drained(name="other")


def test_a_query_can_only_read(table: Table):
    table.add((1, "a"))
    if isinstance(table.connection, Path):
        with pytest.raises(SourceFailed, match=r"syntax|not authorized"):
            table.drained("WITH x AS (SELECT 1) DELETE FROM things RETURNING *")
        assert table.drained() == ["a"]


def test_names_that_need_quotes(tmp_path: Path):
    table = Table(tmp_path)
    table.execute('CREATE TABLE "odd ""table""" ("order" INTEGER, name TEXT)')
    table.execute('INSERT INTO "odd ""table""" VALUES (1, "a")')
    assert table.drained('odd "table"', column="order") == ["a"]


# -- kinds of watermarks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "late", "too_late", "lateness"),
    [
        ("2024-01-31 12:00:00", "2024-01-31 11:59:30", "2024-01-31 11:00:00", timedelta(minutes=1)),
        ("2024-01-31T12:00:00.25", "2024-01-31T11:59:59.75", "2024-01-31T11:00:00.5", 1),
        ("2024-01-31 12:00", "2024-01-31 11:59", "2024-01-31 11:58", 60),
        ("2024-01-31T12Z", "2024-01-31T11Z", "2024-01-31T10Z", timedelta(hours=1)),
        ("2024-01-31", "2024-01-30", "2024-01-28", timedelta(days=2)),
        (12.5, 12.25, 11.0, 0.5),
    ],
)
def test_lateness_of_texts_dates_and_floats(tmp_path: Path, first: Any, late: Any, too_late: Any, lateness: Any):
    table = Table(tmp_path)
    table.add((first, "a"))
    assert table.drained(lateness=lateness) == ["a"]
    table.add((late, "late"), (too_late, "too late"))
    assert table.drained(lateness=lateness) == ["late"]
    assert [event.rows for event in table.heard.of(RowsLate)] == [1]


def test_times_of_a_database_that_has_them(tmp_path: Path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'source.db'}")
    rows = sqlalchemy.Table(
        "events",
        sqlalchemy.MetaData(),
        sqlalchemy.Column("at", sqlalchemy.DateTime),
        sqlalchemy.Column("name", sqlalchemy.String),
    )
    rows.metadata.create_all(engine)
    now = datetime(2024, 1, 31, 12)
    with engine.begin() as connection:
        connection.execute(rows.insert(), [{"at": now, "name": "a"}, {"at": now - timedelta(hours=1), "name": "b"}])
    table = Table(tmp_path)
    table.connection = engine
    assert table.drained("events", read_options={"parse_dates": ["at"]}) == ["b", "a"]
    assert table.taken[0]["at"].dtype.kind == "M"
    assert table.drained("events") == []
    engine.dispose()


def test_watermarks_survive_json():
    for value in (1, 1.5, "a", None, Decimal("1.10"), date(2024, 1, 31), datetime(2024, 1, 31, 12, 30, 1, 5)):
        assert from_json(to_json(value)) == value
        assert type(from_json(to_json(value))) is type(value)
    aware = datetime(2024, 1, 31, tzinfo=timezone(timedelta(hours=2)))
    assert from_json(to_json(aware)) == aware
    assert from_json(to_json(pd.Timestamp("2024-01-31 12:00:00.123456789"))) == datetime(2024, 1, 31, 12, 0, 0, 123456)
    assert from_json(to_json(np.int64(5))) == 5
    for value in (True, b"x", pd.NaT, float("nan"), float("inf"), object()):
        with pytest.raises(OptionError, match="cannot be a watermark"):
            to_json(value)


def test_lateness_is_taken_off():
    assert before(10, 0) == 10
    assert before(Decimal("10.5"), 0.5) == Decimal("10.0")
    assert before(date(2024, 1, 31), timedelta(hours=1)) == date(2024, 1, 30)
    assert before(datetime.min, timedelta(days=1)) == datetime.min
    assert before("2024-01-31T12:00:00+02:00", 60) == "2024-01-31T11:59:00"
    assert moment_of("2024-01-31T12:00:00+00:00") == moment_of(datetime(2024, 1, 31, 12, tzinfo=timezone.utc))
    assert moment_of("abc") is None
    for value, lateness in ((10, timedelta(1)), ("abc", 5), ("20240131", 5), ("20240131T120000", 5), ("2024-W05-3", 5)):
        with pytest.raises(OptionError, match="does not fit a column"):
            before(value, lateness)


def test_a_lateness_that_does_not_fit_is_an_error(tmp_path: Path):
    table = Table(tmp_path)
    table.add(("abc", "a"))
    with pytest.raises((OptionError, SourceFailed), match="does not fit a column of str"):
        table.drained(lateness=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"lateness": -1}, "lateness=-1"),
        ({"interval": 0}, "interval=0"),
        ({"start": b"x"}, "cannot be a watermark"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, message: str):
    with pytest.raises(OptionError, match=message):
        Rows("things", **{"column": "at", **options})


def test_options_that_do_not_fit_a_table_are_refused(tmp_path: Path):
    table = Table(tmp_path)
    with pytest.raises(OptionError, match=r"\.db"):
        asyncio.run(_drained(table.stream(connection=tmp_path / "source.csv")))
    with pytest.raises(OptionError, match="are for files"):
        asyncio.run(_drained(table.stream(format="csv")))


# -- files -------------------------------------------------------------------------------------------------


def test_rows_of_a_file_that_grows(tmp_path: Path):
    path, table = tmp_path / "log.csv", Table(tmp_path)
    path.write_text("at,name\n2,b\n1,a\n")
    options = {"connection": None, "lateness": 5}
    assert table.drained(str(path), **options) == ["a", "b"]
    assert table.drained(str(path), **options) == []
    with path.open("a") as file:
        file.write("2,c\n1,late\n9,d\n")
    assert table.drained(str(path), **options) == ["late", "c", "d"]
    with path.open("a") as file:
        file.write("3,too late\n")
    assert table.drained(str(path), **options) == []
    assert [event.rows for event in table.heard.of(RowsLate)] == [1]


def test_a_last_line_that_is_half_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, table = tmp_path / "log.csv", Table(tmp_path)
    path.write_text("at,name\n1,a\n2,hal")

    def writes_on(seconds: float) -> None:
        with path.open("a") as file:
            file.write("f written")

    with monkeypatch.context() as patched:
        patched.setattr("odibi_async.stream.tables.time", SimpleNamespace(sleep=writes_on))
        assert table.drained(str(path), connection=None) == ["a"]
    monkeypatch.setattr("odibi_async.stream.tables.SETTLE", 0)
    assert table.drained(str(path), connection=None) == ["half written"]


def test_a_file_with_times_and_empty_cells(tmp_path: Path):
    path, table = tmp_path / "log.csv", Table(tmp_path)
    path.write_text("at,name,count\n2024-01-31 12:00:00.123456789,a,1\n,b,2\n")
    options = {"connection": None, "lateness": 60, "read_options": {"parse_dates": ["at"], "date_format": "ISO8601"}}
    assert table.drained(str(path), **options) == ["a"]
    with path.open("a") as file:
        file.write("2024-01-31 11:59:30,late,\n")  # its column is one of floats now
    assert table.drained(str(path), **options) == ["late"]
    assert table.drained(str(path), **options) == []


def test_a_missing_file_or_column_is_an_error(tmp_path: Path):
    table = Table(tmp_path)
    with pytest.raises(SourceFailed, match="No such file"):
        table.drained(str(tmp_path / "log.csv"), connection=None)
    (tmp_path / "log.csv").write_text("when,name\n1,a\n")
    with pytest.raises(SourceFailed, match="There is no column 'at'"):
        table.drained(str(tmp_path / "log.csv"), connection=None)


# -- everything at once ------------------------------------------------------------------------------------


def test_a_window_knows_what_was_taken():
    window = Window({})
    window.add("1", [(1, "a"), (2, "b"), (2, "b")])
    assert window.new(["a", "b", "b", "b", "c"]) == [3, 4]
    assert (window.count_from(2), window.count_from(None), window.count_before(2)) == (2, 3, 1)
    window.add("2", [(5, "d")])
    assert window.outdated(3) == ("1",)
    assert window.drop_before(2) == 1
    assert window.new(["a"]) == [0]
    again = Window({"1": text_of([(2, "b"), (2, "b")])})
    assert again.new(["b", "b", "b"]) == [2]


class Reader:
    """Looks through rows as a stream does that succeeds with every batch; it is started anew before each look."""

    def __init__(self, table: Table, **options: Any) -> None:
        self._source = lambda: Rows("things", column="at", connection=table.path, **options)
        self._position: str | None = None
        self._memory: dict[str, str] = {}
        self.taken = Counter[tuple[int, str]]()
        self.late = 0

    async def get(self, key: str) -> str | None:
        return self._memory.get(key)

    async def items(self) -> dict[str, str]:
        return dict(self._memory)

    async def look(self, times: int) -> None:
        source = self._source()
        await source.open()
        for _ in range(times):
            async for found in source.batches(self._position, self):
                self._position = found.position
                if isinstance(found, Late):
                    self.late += found.rows
                    continue
                self.taken.update(zip(found.data["at"], found.data["name"], strict=True))
                self._memory.update(found.remember)
                for key in found.forget:
                    del self._memory[key]
                found.settled()
        await source.close()


@settings(deadline=None, max_examples=40)
@given(
    looks=some.lists(
        some.lists(some.tuples(some.integers(0, 12), some.integers(0, 3)), max_size=8), min_size=1, max_size=4
    ),
    lateness=some.integers(0, 4),
    batch_size=some.integers(1, 5),
    times=some.integers(1, 2),
)
def test_every_row_is_taken_once_or_told_of(
    looks: list[list[tuple[int, int]]], lateness: int, batch_size: int, times: int
):
    """Against a model that simply looks at all rows: what is not late is taken, what is too late is counted."""
    folder = Path(tempfile.mkdtemp())
    try:
        table, highest, expected, late = Table(folder), None, Counter[tuple[int, str]](), 0
        reader = Reader(table, lateness=lateness, batch_size=batch_size)
        for rows in looks:
            if rows:
                table.add(*((at, str(name)) for at, name in rows))
            for at, name in rows:
                if highest is not None and at < highest - lateness:
                    late += 1
                else:
                    expected[at, str(name)] += 1
            highest = max([at for at, _ in rows] + ([] if highest is None else [highest]), default=None)
            asyncio.run(reader.look(times))
            assert (reader.taken, reader.late) == (expected, late)
    finally:
        shutil.rmtree(folder)


async def test_rows_written_meanwhile_are_all_taken_once(tmp_path: Path):
    table, numbers = Table(tmp_path), random.Random(1)
    clock = iter(range(10**6))

    def write() -> None:
        for _ in range(60):
            table.add(*((next(clock) - numbers.randrange(20), f"n{next(clock)}") for _ in range(5)))

    async with table.stream(lateness=60, batch_size=7) as stream:
        await asyncio.to_thread(write)
        await stream.drain()
    names = Counter(name for frame in table.taken for name in frame["name"])
    assert len(names) == 300
    assert set(names.values()) == {1}
