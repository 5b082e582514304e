"""
What SQL over frames costs: `execute_sql` against a DuckDB cursor and its `df()`, and what it does to the event loop.

    python benchmarks/sql.py [--rows 3000000] [--rounds 5]

The contestants take turns in one process, on the same frame and the same queries; what counts is the ratio of
their medians. The lag of the loop is how much later than asked a 1 ms sleep ends while the query runs in a worker
thread: the median and the 99th percentile over all rounds, and the worst.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import anyio.to_thread
import duckdb
import numpy as np
import pandas as pd

from odibi_async.engines import create_engine_context

QUERIES = {
    "rows with text": "SELECT * FROM data WHERE amount > 1",
    "totals": "SELECT city, sum(id) AS ids, avg(amount) AS mean, count(*) AS n FROM data GROUP BY city ORDER BY city",
}


def make(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    ids = np.arange(rows)
    cities = np.array([f"city number {i}" for i in range(1000)], dtype=object)
    return pd.DataFrame(
        {
            "id": ids,
            "amount": random.uniform(0, 100, rows),
            "city": pd.Series(cities[random.integers(0, 1000, rows)], dtype="str"),
            "note": pd.Series(ids.astype(str), dtype="str"),
        }
    )


async def lags_while(call: Callable[[], Any], lags: list[float]) -> float:
    """Seconds that the call takes in a worker thread; how late the loop was meanwhile goes to `lags`."""
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            began = perf_counter()
            await asyncio.sleep(0.001)
            lags.append(perf_counter() - began - 0.001)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    began = perf_counter()
    await anyio.to_thread.run_sync(call)
    seconds = perf_counter() - began
    over.set()
    await watcher
    return seconds


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frame = make(options.rows)
    with create_engine_context("pandas") as engine, duckdb.connect() as connection:

        def by_df(sql: str) -> pd.DataFrame:
            with connection.cursor() as cursor:
                cursor.register("data", frame)
                result: pd.DataFrame = cursor.sql(sql).df()
                return result

        contestants: dict[str, Callable[[str], pd.DataFrame]] = {
            "execute_sql": lambda sql: engine.execute_sql(sql, {"data": frame}),
            "cursor and df()": by_df,
        }
        for title, sql in QUERIES.items():
            seconds: dict[str, list[float]] = {name: [] for name in contestants}
            lags: dict[str, list[float]] = {name: [] for name in contestants}
            for _ in range(options.rounds):
                for name, run in contestants.items():
                    seconds[name].append(await lags_while(functools.partial(run, sql), lags[name]))
            print(f"{title}, from {options.rows:,} rows:")
            for name in contestants:
                millis = [lag * 1e3 for lag in lags[name]]
                p99 = statistics.quantiles(millis, n=100)[-1]
                print(
                    f"  {name:16s} {statistics.median(seconds[name]):7.3f} s; "
                    f"loop lag {statistics.median(millis):.1f} ms, p99 {p99:.1f} ms, worst {max(millis):.0f} ms"
                )
            ours, theirs = (statistics.median(seconds[name]) for name in contestants)
            print(f"  ratio            {ours / theirs:7.2f}")


if __name__ == "__main__":
    asyncio.run(main())
