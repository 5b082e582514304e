"""
What a pipeline on Spark costs over the same work by hand in pyspark, in one local session.

    python benchmarks/spark_pipeline.py [--rows 2000000] [--repeat 5]

- chain: read Parquet, two queries, write Parquet. By hand the same queries over temporary views. At most 1.10 times.
- branches: four steps that know nothing of each other, each a job of one task, beside the four jobs by hand, one
  after another. At least 1.5 times faster on two cores.
- loop: how late a 1 ms sleep on the loop ends meanwhile, and while the rows go to pandas. p99 under 20 ms.
- cancel: seconds from the cancellation of a step until its cores are free. Under 1.

All are run in turn in one process, after a first round that does not count; ratios are of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from odibi_async import Pipeline, Runner, Step, create_engine_context, step

CONFIG = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
}
CLEAN = "SELECT *, price * amount AS total FROM data WHERE amount > 1"
SUMS = "SELECT customer, sum(total) AS total, count(*) AS n FROM data GROUP BY customer ORDER BY customer"


def chain() -> Pipeline:
    return Pipeline(
        [
            Step("ingest", "orders", "config_op", None, "in.parquet"),
            Step("transform", "clean", "sql", None, CLEAN, {}, {"data": "orders"}),
            Step("transform", "sums", "sql", None, SUMS, {}, {"data": "clean"}),
            Step("store", "save", "config_op", None, "out.parquet", {}, {"data": "sums"}),
        ]
    )


def chain_by_hand(session: Any, folder: Path) -> None:
    session.read.parquet(str(folder / "in.parquet")).createOrReplaceTempView("data")
    session.sql(CLEAN).createOrReplaceTempView("data")
    session.sql(SUMS).write.mode("overwrite").parquet(str(folder / "by_hand.parquet"))


def one_task(session: Any, rows: int) -> Any:
    return session.range(0, rows, 1, 1).selectExpr("sum(hash(id, id % 7)) AS s").collect()


def branches(session: Any, rows: int) -> Pipeline:
    return Pipeline([step(lambda: one_task(session, rows), name=f"branch{i}", engine="spark") for i in range(4)])


async def lags(over: asyncio.Event) -> list[float]:
    found = []
    while not over.is_set():
        began = perf_counter()
        await asyncio.sleep(0.001)
        found.append(perf_counter() - began - 0.001)
    return found


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = perf_counter()
    await work()
    return perf_counter() - began


async def compare(name: str, ours: Callable[[], Awaitable[object]], hand: Callable[[], object], repeat: int) -> None:
    mine, theirs = [], []
    for _ in range(repeat + 1):
        mine.append(await timed(ours))
        theirs.append(await timed(lambda: asyncio.to_thread(hand)))
    ratios = [a / b for a, b in zip(mine[1:], theirs[1:], strict=True)]
    ratio = statistics.median(mine[1:]) / statistics.median(theirs[1:])
    print(f"{name}: {ratio:.2f} times by hand ({min(ratios):.2f} to {max(ratios):.2f})")


async def cancelled(runner: Runner, engine: Any) -> float:
    """Seconds from the cancellation of a step of many tasks until none of them runs."""
    tracker = engine.session.sparkContext.statusTracker()

    def busy() -> Any:
        return engine.session.range(0, 10_000_000_000, 1, 2_000).selectExpr("sum(hash(id))").collect()

    run = asyncio.create_task(runner.run([step(busy, engine="spark")], engine=engine))
    while not await asyncio.to_thread(tracker.getActiveJobsIds):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    run.cancel()
    began = perf_counter()
    await asyncio.wait([run])
    while await asyncio.to_thread(tracker.getActiveJobsIds):
        await asyncio.sleep(0.01)
    return perf_counter() - began


async def main(rows: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine = await asyncio.to_thread(create_engine_context, "spark", spark_config=CONFIG, root=folder)
        session, over = engine.session, asyncio.Event()
        source = "id, id % 5000 AS customer, id % 8 AS amount, rand(1) AS price, 'fragile' AS note"
        await asyncio.to_thread(lambda: engine.write(session.range(rows).selectExpr(*source.split(", ")), "in.parquet"))
        async with Runner() as runner:
            listening = asyncio.create_task(lags(over))
            pipeline, four = chain(), branches(session, rows * 10)
            await compare(
                "chain",
                lambda: runner.run(pipeline, engine=engine),
                lambda: chain_by_hand(session, folder),
                repeat,
            )
            await compare(
                "branches",
                lambda: runner.run(four, engine=engine),
                lambda: [one_task(session, rows * 10) for _ in range(4)],
                repeat,
            )
            read: Step[..., Any, Any] = Step("ingest", "orders", "config_op", "spark", "in.parquet")
            await runner.run([read, step(len, name="count", engine="pandas", inputs={"obj": "orders"})], engine=engine)
            over.set()
            late = sorted(await listening)
            print(f"loop: lag {1e3 * statistics.median(late):.1f} ms, p99 {1e3 * late[len(late) * 99 // 100]:.1f} ms")
            seconds = [await cancelled(runner, engine) for _ in range(min(repeat, 3))]
            print(f"cancel: cores are free after {statistics.median(seconds):.2f} s (at most {max(seconds):.2f})")
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.repeat))
