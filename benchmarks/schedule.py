"""
How punctual schedules are, and what many of them cost.

    python benchmarks/schedule.py [--seconds 20] [--schedules 10000] [--firing 20] [--rounds 3]

- late: so many schedules that fire every second, while the worker threads are busy with frames and other runs. From the
  time that a firing stands for until it is claimed, beside a task that sleeps until each second, and, with a journal on
  this disk, a commit in a bare database; at most 50 ms more are meant (p99), and none is early.
- core: so many schedules, each of which fires once an hour, at different moments: what they take of a core, beside a
  loop that does nothing; at most 2 % are meant. And as many of which none fires.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from odibi_async import Limits, Pipeline, Runner
from odibi_async.events import ScheduleFired
from odibi_async.schedule import Cron, Every, Schedules


def busy(scheduled_at: datetime) -> float:
    """Work that leaves the loop its turns, as pandas does: some milliseconds of a core."""
    frame = pd.DataFrame({"key": np.arange(50_000) % 97, "amount": np.arange(50_000.0)})
    return float(frame.groupby("key")["amount"].sum().max())


def percentile(values: Sequence[float]) -> float:
    """The 99th."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def spread(name: str, values: Sequence[float]) -> str:
    found = sorted(values)
    return (
        f"{name}: median {1000 * statistics.median(found):.2f} ms, p99 {1000 * percentile(found):.2f} ms, "
        f"longest {1000 * found[-1]:.2f} ms, earliest {1000 * found[0]:.2f} ms, of {len(found)}"
    )


async def bare(late: list[float]) -> None:
    """What the machine allows: a task that sleeps until each second."""
    while True:
        second = math.floor(time.time()) + 1
        await asyncio.sleep(second - time.time())
        late.append(time.time() - second)


def commits(folder: str, taken: list[float], over: threading.Event) -> None:
    """What the disk allows: one small commit in a database of its own, each second."""
    connection = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = full")
    connection.execute("CREATE TABLE rows (number)")
    while not over.wait(1 - time.time() % 1):
        began = time.perf_counter()
        connection.execute("INSERT INTO rows VALUES (1)")
        taken.append(time.perf_counter() - began)
    connection.close()


async def punctual(journal: str | None, schedules: int, seconds: float) -> dict[str, list[float]]:
    """Seconds from the time of each firing to its claim, and to its first step, and how late a bare timer is."""
    timed, claimed, begun = list[float](), list[float](), list[float]()

    async def begins(scheduled_at: datetime) -> datetime:
        begun.append(time.time() - scheduled_at.timestamp())
        return scheduled_at

    def hear(event: object) -> None:
        if isinstance(event, ScheduleFired):
            claimed.append(event.late)

    pipelines = [Pipeline([begins, busy], ("scheduled_at",), name=f"p{i}") for i in range(schedules)]
    given = {f"s{i}": (pipelines[i], Every(1)) for i in range(schedules)}
    async with (
        Runner(limits=Limits(threads=2)) as runner,
        Schedules(given, runner, journal=journal, observers=[hear]),
    ):
        await asyncio.sleep(2)
        claimed.clear()  # the first runs load what they need
        begun.clear()
        timing = asyncio.create_task(bare(timed))
        await asyncio.sleep(seconds)
        timing.cancel()
    return {"a bare timer": timed, "claimed": claimed, "begun": begun}


async def core(given: dict[str, Any], seconds: float) -> tuple[float, int]:
    """The part of a core that schedules take, and how often they fired."""
    fired = [0]

    def hear(event: object) -> None:
        fired[0] += isinstance(event, ScheduleFired)

    async with Schedules(given, observers=[hear]) as server:
        while server.list()[-1].next is None:  # the times of all of them are known then
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        fired[0], began, worked = 0, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - worked) / (time.perf_counter() - began), fired[0]


async def nothing() -> None: ...


def judged(figure: float, most: float) -> str:
    return f"(target: at most {most:g}, {'met' if figure <= most else 'missed'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--firing", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    for name in ("no journal", "sqlite"):
        with tempfile.TemporaryDirectory() as folder:
            where = None if name == "no journal" else folder
            over, taken = threading.Event(), list[float]()
            committing = threading.Thread(target=commits, args=(folder, taken, over))
            committing.start()
            late = asyncio.run(punctual(where, asked.firing, asked.seconds))
            over.set()
            committing.join()
        assert min(late["claimed"]) >= 0, "one was early"
        for what, values in late.items():
            print(f"late, {name}, {spread(what, values)}")
        bare_p99, p99 = percentile(late["a bare timer"]), percentile(late["claimed"])
        print(f"late, {name}, {spread('a bare commit takes', taken)}")
        if where is not None:
            bare_p99 += percentile(taken)
        more = 1000 * (p99 - bare_p99)
        print(f"late, {name}, claimed: {more:.2f} ms more than what machine and disk allow {judged(more, 50)}")

    pipeline = Pipeline([nothing])
    hourly = {f"s{i}": (pipeline, Every(3600, jitter=3600)) for i in range(asked.schedules)}
    yearly = {f"s{i}": (pipeline, Cron(f"{i % 60} {i // 60 % 24} 29 2 *")) for i in range(asked.schedules)}
    for name, given in (("hourly", hourly), ("idle", yearly)):
        parts, fired = [], []
        for _ in range(asked.rounds):
            part, count = asyncio.run(core(given, asked.seconds))
            parts.append(100 * part)
            fired.append(count)
        print(
            f"core, {asked.schedules:,} schedules, {name}: {statistics.median(parts):.2f} % "
            f"({min(parts):.2f} to {max(parts):.2f}), {sum(fired)} firings {judged(max(parts), 2)}"
        )


if __name__ == "__main__":
    main()
