"""
What streams cost beside plain runs, and what they leave behind.

    python benchmarks/incremental.py [--batches 300] [--rounds 3] [--simulated 2000] [--files 500] [--rows 20000]

    overhead    batches of a queue through two steps, over the same runs in the same journal one after another; the
                rounds take turns
    files       the files of a directory, over plain runs in a journal that are given the same frames, reading
                included; and a start with nothing new
    rows        the rows of an SQLite table, likewise
    memory      a batch a minute on a simulated clock: objects and resident memory at the end, over what there was
                after the first fifth; the size of the journal likewise
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from odibi_async import Journal, Pipeline, Runner
from odibi_async.stream import Files, Polling, Queue, Rows, run_stream
from odibi_async.testing import virtual_clock


async def half(batch: list[int]) -> list[int]:
    return batch


async def whole(half: list[int]) -> int:
    return len(half)


async def kept(batch: pd.DataFrame) -> int:
    return len(batch)


PIPELINE = Pipeline([half, whole], ["batch"], name="benchmark")


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def plain(folder: str, batches: int) -> float:
    """The same runs, one after another, in a journal."""
    async with Runner(journal=Journal(folder)) as runner:
        await runner.run(PIPELINE, {"batch": [-1]})

        async def runs() -> None:
            for number in range(batches):
                await runner.run(PIPELINE, {"batch": [number]})

        return await seconds(runs)


async def streamed(folder: str, batches: int) -> float:
    queue = Queue(maxsize=batches, batch_size=1)
    async with Runner(journal=Journal(folder)) as runner:
        await runner.run(PIPELINE, {"batch": [-1]})
        for number in range(batches):
            queue.put_nowait(number)
        queue.finish()
        stream = run_stream(PIPELINE, queue, into="batch", runner=runner, keep_last=batches)
        return await seconds(lambda: _awaited(stream))


async def _awaited(stream: Any) -> None:
    await stream


async def overhead(folder: Path, batches: int, rounds: int) -> None:
    ratios, each = [], []
    for number in range(rounds):
        bare = await plain(str(folder / f"plain-{number}"), batches)
        ours = await streamed(str(folder / f"stream-{number}"), batches)
        ratios.append(ours / bare)
        each.append(ours / batches)
    ms = statistics.median(each) * 1000
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(
        f"overhead, {batches} batches: {statistics.median(ratios):.2f} x plain runs {spread}; {ms:.2f} ms a batch,"
        f" {1000 / ms:.0f} batches/s"
    )


async def by_hand(journal: Path, reads: Sequence[Callable[[], pd.DataFrame]]) -> float:
    """A plain run for each of the frames."""
    pipeline = Pipeline([kept], ["batch"], name="by hand")
    async with Runner(journal=Journal(journal)) as runner:

        async def runs() -> None:
            for read in reads:
                await runner.run(pipeline, {"batch": await asyncio.to_thread(read)})

        return await seconds(runs)


async def files(folder: Path, count: int) -> None:
    (folder / "in").mkdir()
    frame = pd.DataFrame({"a": range(100), "b": [f"text {number}" for number in range(100)]})
    for number in range(count):
        (folder / "in" / f"{number:05d}.csv").write_text(frame.assign(c=number).to_csv(index=False))

    def read(path: Path) -> pd.DataFrame:
        return pd.read_csv(path)

    paths = sorted((folder / "in").iterdir())
    bare = await by_hand(folder / "files", [functools.partial(read, path) for path in paths])
    source = Files(folder / "in", settle=0, watch=False)
    ours = await seconds(run_stream([kept], source, into="batch", journal=folder / "of-files", name="files").drain)
    print(f"files, {count}: {count / ours:.0f} files/s, {ours / bare:.2f} x plain runs")
    again = Files(folder / "in", settle=0, watch=False)
    look = await seconds(run_stream([kept], again, into="batch", journal=folder / "of-files", name="files").drain)
    print(f"files, {count}: a start with nothing new takes {look / ours:.3f} of that")


async def rows(folder: Path, count: int) -> None:
    path = folder / "source.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE things (at INTEGER, name TEXT)")
        connection.executemany("INSERT INTO things VALUES (?, ?)", ((n, f"n{n}") for n in range(count)))
        connection.execute("CREATE INDEX by_at ON things (at)")

    def page(start: int) -> pd.DataFrame:
        query = "SELECT * FROM things WHERE at >= ? ORDER BY at LIMIT 1000"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return pd.read_sql_query(query, connection, params=(start,))

    pages = [functools.partial(page, start) for start in range(0, count, 1000)]
    bare = await by_hand(folder / "rows", pages)
    source = Rows("things", column="at", connection=path, lateness=100)
    ours = await seconds(run_stream([kept], source, into="batch", journal=folder / "of-rows", name="rows").drain)
    print(f"rows, {count} in batches of 1000: {count / ours:.0f} rows/s, {ours / bare:.2f} x plain runs")


def memory(folder: Path, batches: int) -> None:
    """A batch a minute, on a simulated clock."""

    async def empty(batch: int) -> None: ...

    async def run() -> list[tuple[int, int, int]]:
        found, done = [], 0
        source = Polling(lambda: 1, 60)
        stream = run_stream(Pipeline([empty], ["batch"], name="empty"), source, into="batch", journal=folder / "long")
        async with stream:
            async for _ in stream:
                done += 1
                if done in (batches // 5, batches):
                    gc.collect()
                    size = sum(path.stat().st_size for path in (folder / "long").rglob("*") if path.is_file())
                    found.append((len(gc.get_objects()), psutil.Process().memory_info().rss, size))
                if done == batches:
                    break
        return found

    with virtual_clock() as clock:
        (objects, resident, size), (objects_2, resident_2, size_2) = clock.run(run())
        hours = clock.time / 3600
    print(
        f"memory, {batches} batches, {hours:.0f} simulated hours: {objects_2 - objects:+d} objects,"
        f" {(resident_2 - resident) / 2**20:+.1f} MB resident, journal {size_2 / size:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulated", type=int, default=2000)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        asyncio.run(overhead(folder, options.batches, options.rounds))
        asyncio.run(files(folder, options.files))
        asyncio.run(rows(folder, options.rows))
        memory(folder, options.simulated)


if __name__ == "__main__":
    main()
