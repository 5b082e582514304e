"""Streams that are killed at any moment: every row is there, once where the sink can tell."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.zygote import Zygote

MOMENTS = ("before commit", "after commit", "after rename", "before sync")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote("tests.streaming")
    yield process
    process.close()


def execute(path: Path, statement: str, rows: list[tuple[Any, ...]] | None = None) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        if rows is not None:
            connection.executemany(statement, rows)
            return []
        return connection.execute(statement).fetchall()


def survive(zygote: Zygote, folder: Path, source: str, kills: int, seed: int, longest: float = 0.4) -> int:
    """Kills a stream so many times; how often it really was alive when it was killed."""
    numbers, killed = random.Random(seed), 0
    for number in range(kills):
        if number % 3 == 2:
            kill = (numbers.choice(MOMENTS), numbers.randrange(1, 30))
            ended = zygote.run(folder, source=source, kill=kill)
        else:
            ended = zygote.run(folder, source=source, kill_after=numbers.uniform(0.02, longest))
        assert ended in (0, signal.SIGKILL), (folder / "error.txt").read_text()
        killed += ended != 0
    return killed


def check(folder: Path, expected: set[str], killed: int, batch: int) -> None:
    saved = [name for (name,) in execute(folder / "sink.db", "SELECT name FROM saved")]
    logged = Counter(name for (name,) in execute(folder / "sink.db", "SELECT name FROM logged"))
    assert len(saved) == len(expected)
    assert set(saved) == expected
    assert set(logged) == expected
    assert sum(logged.values()) - len(expected) <= killed * batch  # only what was under way was done again


def make(folder: Path) -> None:
    for statement in (
        "CREATE TABLE done (key TEXT PRIMARY KEY)",
        "CREATE TABLE saved (name TEXT)",
        "CREATE TABLE logged (name TEXT)",
    ):
        execute(folder / "sink.db", statement)


def files_survive(zygote: Zygote, folder: Path, files: int, kills: int, seed: int) -> None:
    make(folder)
    (folder / "in").mkdir()
    expected = set()
    for number in range(files):
        rows = [f"{number}-{row}" for row in range(5)]
        (folder / "in" / f"{number:04d}.csv").write_text("\n".join(["name", *rows, ""]))
        expected.update(rows)
    killed = survive(zygote, folder, "files", kills, seed)
    assert killed >= kills / 2
    assert zygote.run(folder, source="files") == 0, (folder / "error.txt").read_text()
    check(folder, expected, killed, 5)
    assert zygote.run(folder, source="files") == 0
    check(folder, expected, killed, 5)


class Writer(threading.Thread):
    """Writes rows into a table, some late within the bound, some of equal values, until it is told to stop."""

    def __init__(self, path: Path, seed: int, most: int) -> None:
        super().__init__()
        self.path = path
        self.names: set[str] = set()
        self.enough = threading.Event()
        self._most = most
        self._numbers = random.Random(seed)

    def run(self) -> None:
        high = 100
        while not self.enough.is_set() and len(self.names) < self._most:
            rows = [(high - self._numbers.randrange(45), f"n{len(self.names) + each}") for each in range(8)]
            execute(self.path, "INSERT INTO things VALUES (?, ?)", rows)
            high = max(high, *(at for at, _ in rows)) + self._numbers.randrange(4)
            self.names.update(name for _, name in rows)
            self.enough.wait(0.004)


def rows_survive(zygote: Zygote, folder: Path, rows: int, kills: int, seed: int) -> None:
    make(folder)
    execute(folder / "source.db", "CREATE TABLE things (at INTEGER, name TEXT)")
    writer = Writer(folder / "source.db", seed, rows)
    writer.start()
    try:
        killed = survive(zygote, folder, "rows", kills, seed)
    finally:
        writer.enough.set()
        writer.join()
    assert killed >= kills / 4
    assert zygote.run(folder, source="rows") == 0, (folder / "error.txt").read_text()
    check(folder, writer.names, killed, 40)


def test_a_stream_of_files_that_is_killed_again_and_again_loses_nothing(zygote: Zygote, tmp_path: Path):
    files_survive(zygote, tmp_path, files=60, kills=8, seed=1)


def test_a_stream_of_rows_that_are_written_meanwhile_loses_nothing(zygote: Zygote, tmp_path: Path):
    rows_survive(zygote, tmp_path, rows=3000, kills=8, seed=2)


@pytest.mark.slow
def test_a_stream_of_500_files_that_is_killed_60_times_loses_nothing(zygote: Zygote, tmp_path: Path):
    files_survive(zygote, tmp_path, files=500, kills=60, seed=3)


@pytest.mark.slow
def test_a_stream_of_rows_that_is_killed_60_times_loses_nothing(zygote: Zygote, tmp_path: Path):
    rows_survive(zygote, tmp_path, rows=20_000, kills=60, seed=4)
