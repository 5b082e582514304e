"""
What streaming steps cost, and what they hold in memory.

    python benchmarks/stream.py [--rows 1000000] [--batch 1000] [--rounds 5] [--hours 1]

Three steps: one makes batches of rows, one changes each row, one adds them up. In each round a pipeline of streaming
steps runs just after its rival, in one process and one loop; what counts is the median of the ratios.

    by hand     three coroutines with an `asyncio.Queue` of four batches between each two
    async       three async steps
    plain       three blocking steps in worker threads, beside three threads by hand with `queue.Queue`
    mapped      the second step maps over batches: a task, a slot and retries for each; beside the coroutines by hand
    memory      batches alive at a time, and what the process has grown by over as many batches as come in an hour at
                one every 10 ms

A target that is missed by seconds is told; one that is missed by what grew or piled up makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import queue
import statistics
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import psutil

from odibi_async import Pipeline, step

LIMIT = 1.3
"""How much longer than by hand three streaming steps may take."""
ALIVE = 8
"""How many batches there may be at a time, of two streams of four."""
A_SECOND = 100
"""Batches a second of the hour that the memory is watched for."""


class Batch:
    """Rows that can be counted while they are alive."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows


def made(start: int, size: int) -> list[int]:
    return list(range(start, start + size))


def changed(rows: list[int]) -> list[int]:
    return [row * 2 + 1 for row in rows]


def pipeline_of(rows: int, size: int) -> Pipeline:
    async def source() -> AsyncIterator[list[int]]:
        for start in range(0, rows, size):
            yield made(start, size)

    async def clean(source: AsyncIterator[list[int]]) -> AsyncIterator[list[int]]:
        async for batch in source:
            yield changed(batch)

    async def total(clean: AsyncIterator[list[int]]) -> int:
        count = 0
        async for batch in clean:
            count += sum(batch)
        return count

    return Pipeline([source, clean, total])


def plain_pipeline_of(rows: int, size: int) -> Pipeline:
    def source() -> Iterator[list[int]]:
        for start in range(0, rows, size):
            yield made(start, size)

    def clean(source: Iterator[list[int]]) -> Iterator[list[int]]:
        for batch in source:
            yield changed(batch)

    def total(clean: Iterator[list[int]]) -> int:
        return sum(map(sum, clean))

    return Pipeline([source, clean, total])


def mapped_pipeline_of(rows: int, size: int) -> Pipeline:
    async def source() -> AsyncIterator[list[int]]:
        for start in range(0, rows, size):
            yield made(start, size)

    async def clean(batch: list[int]) -> list[int]:
        return changed(batch)

    async def total(clean: AsyncIterator[list[int]]) -> int:
        count = 0
        async for batch in clean:
            count += sum(batch)
        return count

    return Pipeline([source, step(clean, map_over="batch", inputs={"batch": "source"}), total])


async def by_hand(rows: int, size: int) -> int:
    first: asyncio.Queue[list[int] | None] = asyncio.Queue(4)
    second: asyncio.Queue[list[int] | None] = asyncio.Queue(4)

    async def source() -> None:
        for start in range(0, rows, size):
            await first.put(made(start, size))
        await first.put(None)

    async def clean() -> None:
        while (batch := await first.get()) is not None:
            await second.put(changed(batch))
        await second.put(None)

    async def total() -> int:
        count = 0
        while (batch := await second.get()) is not None:
            count += sum(batch)
        return count

    async with asyncio.TaskGroup() as group:
        group.create_task(source())
        group.create_task(clean())
        counting = group.create_task(total())
    return counting.result()


def by_hand_in_threads(rows: int, size: int) -> int:
    first: queue.Queue[list[int] | None] = queue.Queue(4)
    second: queue.Queue[list[int] | None] = queue.Queue(4)
    counts: list[int] = []

    def source() -> None:
        for start in range(0, rows, size):
            first.put(made(start, size))
        first.put(None)

    def clean() -> None:
        while (batch := first.get()) is not None:
            second.put(changed(batch))
        second.put(None)

    def total() -> None:
        count = 0
        while (batch := second.get()) is not None:
            count += sum(batch)
        counts.append(count)

    threads = [threading.Thread(target=target) for target in (source, clean, total)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts[0]


async def seconds_of(call: Callable[[], Awaitable[Any]], expected: int) -> float:
    gc.collect()
    began = perf_counter()
    result = await call()
    took = perf_counter() - began
    found = result if isinstance(result, int) else result["total"]
    assert found == expected, (found, expected)
    return took


async def compare(name: str, ours: Pipeline, rival: Callable[[], Awaitable[int]], rounds: int, rows: int) -> float:
    """The median of the ratios, which is printed."""
    expected = sum(range(rows)) * 2 + rows
    ratios, took = [], []
    for number in range(rounds + 1):
        theirs = await seconds_of(rival, expected)
        mine = await seconds_of(ours.run, expected)
        if number:  # the first round only warms up
            ratios.append(mine / theirs)
            took.append(mine)
    ratio = statistics.median(ratios)
    print(
        f"  {name:10} {statistics.median(took) * 1e3:8.1f} ms   {ratio:5.2f} x by hand "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return ratio


async def memory(batches: int) -> bool:
    """Whether memory is flat while so many batches pass."""
    alive: weakref.WeakSet[Batch] = weakref.WeakSet()
    process = psutil.Process()
    most = 0
    seen: list[int] = []

    async def source() -> AsyncIterator[Batch]:
        for _ in range(batches):
            batch = Batch(made(0, 100))
            alive.add(batch)
            yield batch
            del batch

    async def clean(source: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        async for batch in source:
            cleaned = Batch(changed(batch.rows))
            alive.add(cleaned)
            del batch
            yield cleaned
            del cleaned

    async def load(clean: AsyncIterator[Batch]) -> int:
        nonlocal most
        count = 0
        async for batch in clean:
            most = max(most, len(alive))
            count += 1
            del batch
            if count % (batches // 10) == 0:
                seen.append(process.memory_info().rss)
        return count

    result = await Pipeline([source, clean, load]).run(observers=[lambda event: None])
    assert result["load"] == batches
    grown = (seen[-1] - seen[0]) / 2**20
    print(f"  memory     {batches:,} batches: at most {most} alive, {grown:+.1f} MB from the first tenth to the end")
    return most <= ALIVE and grown < 5


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=1.0)
    options = parser.parse_args()
    rows, size = options.rows, options.batch
    print(f"{rows:,} rows in batches of {size:,}, three steps: median of {options.rounds} rounds")

    async def hand() -> int:
        return await by_hand(rows, size)

    async def threads() -> int:
        return await asyncio.to_thread(by_hand_in_threads, rows, size)

    ratio = await compare("async", pipeline_of(rows, size), hand, options.rounds, rows)
    await compare("plain", plain_pipeline_of(rows, size), threads, options.rounds, rows)
    await compare("mapped", mapped_pipeline_of(rows, size), hand, options.rounds, rows)
    is_flat = await memory(max(10, int(options.hours * 3600 * A_SECOND)))
    if ratio > LIMIT:
        print(f"Three streaming steps take more than {LIMIT} times as long as by hand.")
    if not is_flat:
        print(f"More than {ALIVE} batches were alive at a time, or memory has grown.")
    return int(not is_flat)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
