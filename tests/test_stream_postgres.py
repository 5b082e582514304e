"""Streams whose journal, or whose table, is in PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest

from odibi_async import Journal
from odibi_async.errors import JournalUnavailable, StreamAlive, StreamError, StreamOvertaken
from odibi_async.events import RowsLate
from odibi_async.stream import Queue, Rows, run_stream
from odibi_async.testing import Recorder
from tests.test_journal_backends import Server, server

__all__ = ["server"]  # a fixture
pytestmark = pytest.mark.foreign_loop  # the tests ask the server where they stand


@pytest.fixture
def url(server: Server) -> str:
    return server.url()


@pytest.fixture
def journals(url: str, tmp_path: Path) -> Iterator[Any]:
    """Makes journals of one database, as several processes have them."""
    made: list[Journal] = []

    def make() -> Journal:
        made.append(Journal(url, store=tmp_path / "store"))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


async def test_positions_and_what_is_set_aside_are_shared(journals: Any):
    calls: list[list[int]] = []

    async def keep(batch: list[int]) -> None:
        calls.append(batch)
        if batch == [13]:
            raise ValueError(batch)

    def stream(*numbers: int) -> Any:
        queue = Queue(batch_size=1)
        for number in numbers:
            queue.put_nowait(number)
        queue.finish()
        return run_stream([keep], queue, into="batch", journal=journals(), name="n", attempts=1)

    await stream(1, 13, 2)
    assert calls == [[1], [13], [2]]
    last = stream()
    [aside] = await last.set_aside()
    assert aside.error == "ValueError: [13]"
    with contextlib.suppress(Exception):
        await last.replay()
    assert calls[-1] == [13]
    await last.restart()
    await stream(3)
    assert calls[-1] == [3]


async def test_one_stream_of_a_name_runs_at_a_time(journals: Any):
    async def keep(batch: list[int]) -> None: ...

    async with run_stream([keep], Queue(), into="batch", journal=journals(), name="n") as first:
        while first.status != "idle":
            await asyncio.sleep(0.01)
        with pytest.raises(StreamAlive):
            await run_stream([keep], Queue(), into="batch", journal=journals(), name="n")
    async with run_stream([keep], Queue(), into="batch", journal=journals(), name="n") as second:
        while second.status != "idle":
            await asyncio.sleep(0.01)


async def test_a_stream_that_lost_its_connection_and_its_name_commits_nothing(journals: Any, url: str):
    queue, gate, calls = Queue(batch_size=1), asyncio.Event(), []

    async def keep(batch: list[int]) -> None:
        calls.append(batch)
        if len(calls) == 1:
            await gate.wait()

    first = run_stream([keep], queue, into="batch", journal=journals(), name="n")
    first.start()
    await queue.put(1)
    while not calls:
        await asyncio.sleep(0.01)
    with psycopg.connect(url, autocommit=True) as connection:  # the network fails, and the server notices
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    other = journals()
    assert other.backend.hold("stream/n/state") is not None  # another process takes over
    text = other.backend.mark("stream/n/state")
    assert other.backend.replace_mark("stream/n/state", text, text + " ")
    gate.set()
    with pytest.raises((JournalUnavailable, StreamOvertaken, StreamError)):
        await first
    assert other.backend.mark("stream/n/state") == text + " "


async def test_rows_of_a_table_with_times_are_taken_once(url: str, tmp_path: Path):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute('CREATE TABLE shop."Orders" ("At" timestamptz, name text, price numeric, more jsonb)')
    names: Counter[str] = Counter()
    heard = Recorder()

    def keep(batch: pd.DataFrame) -> None:
        names.update(batch["name"])

    def add(*rows: tuple[str, str]) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for at, name in rows:
                statement = """INSERT INTO shop."Orders" VALUES (%s, %s, 1.50, '{"a": [1]}')"""
                connection.execute(statement, (f"2024-01-31 {at}+00", name))

    async def look() -> None:
        source = Rows(
            "shop.Orders",
            column="At",
            connection=url.replace("postgresql://", "postgresql+psycopg://"),
            lateness=timedelta(minutes=5),
            batch_size=2,
        )
        stream = run_stream([keep], source, into="batch", journal=tmp_path, name="rows", observers=[heard])
        await stream.drain()
        assert (stream.progress.lag or 0) > 0

    add(("12:00", "a"), ("12:00", "b"), ("12:00:00.000001", "c"), ("12:10", "d"))
    await look()
    add(("12:05", "late"), ("12:04:59", "too late"), ("12:10", "tie"))
    await look()
    await look()
    assert names == dict.fromkeys(("a", "b", "c", "d", "late", "tie"), 1)
    assert [event.rows for event in heard.of(RowsLate)] == [1]
