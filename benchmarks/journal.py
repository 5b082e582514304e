"""
What a journal costs, how soon a resumed run begins, and what known durations are good for.

    python benchmarks/journal.py [--steps 10000] [--rounds 5] [--width 1000] [--postgres URL] [--dbos] [TRACE ...]

- steps: so many small async steps with small values, with a journal and without, in microseconds a step; at most 100
  more are meant. Wall time, and what the processor had to do; and the longest gap in the loop meanwhile, in wall time
  and in processor time of the loop's thread; at most 20 ms are meant.
- dbos: as many steps in one workflow of DBOS, on SQLite and on PostgreSQL (`pip install dbos`), in turns of `--width`.
- resume: a run of so many committed steps and one that is open, until that one begins; at most 2 s are meant.
- makespan: the traces of `makespan.py` at 8 slots, in a run that knows from an earlier one how long each step takes,
  beside `fifo` as `makespan.py` computes it; at most 1.00 on all and at most 0.92 on one of three are meant.

Commits wait for the disk: figures depend on it as much as on the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from makespan import Trace, fifo, pipeline_of

from odibi_async import Journal, Limits, Pipeline, RunError, Runner, Step, step
from odibi_async.events import StepStarted


async def first() -> int:
    return 1


async def following(before: int) -> int:
    return before + 1


def pipeline(steps: int, width: int, *more: Any) -> Pipeline:
    """Chains side by side, as many as the width."""
    made: list[Any] = [
        step(first, name=f"s{i}") if i < width else step(following, name=f"s{i}", inputs={"before": f"s{i - width}"})
        for i in range(steps)
    ]
    return Pipeline([*made, *more], name="benchmark")


async def watched(call: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """The longest turn of the loop while something runs: in wall time, and in time of the processor."""
    over, gaps, busy = asyncio.Event(), [0.0], [0.0]

    async def watch() -> None:
        at, worked = perf_counter(), time.thread_time()
        while not over.is_set():
            await asyncio.sleep(0)
            now, works = perf_counter(), time.thread_time()
            gaps.append(now - at)
            busy.append(works - worked)
            at, worked = now, works

    watching = asyncio.create_task(watch())
    await call()
    over.set()
    await watching
    return max(gaps), max(busy)


async def timed(call: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Seconds, and those of the processor."""
    began, worked = perf_counter(), time.process_time()
    await call()
    return perf_counter() - began, time.process_time() - worked


async def overhead(where: str, store: str, steps: int, width: int, rounds: int) -> None:
    planned, journal = pipeline(steps, width), Journal(where, store=store)
    off, on, gaps = [], [], []
    async with Runner(freeze=True) as runner:
        await runner.run(planned)
        await runner.run(planned, journal=journal)
        for _ in range(rounds):
            off.append(await timed(lambda: runner.run(planned)))
            on.append(await timed(lambda: runner.run(planned, journal=journal)))
            gaps.append(await watched(lambda: runner.run(planned, journal=journal)))
    await asyncio.to_thread(journal.close)
    kind = where.split("://")[0] if "://" in where else "sqlite"
    for place, name in enumerate(("wall", "processor")):
        without, with_it = (statistics.median(each[place] for each in times) / steps * 1e6 for times in (off, on))
        print(
            f"steps, {kind}, {name}: {without:.1f} us without, {with_it:.1f} us with: {with_it - without:.1f} more"
            " (target: at most 100)"
        )
        gap = statistics.median(each[place] for each in gaps) * 1e3
        print(f"steps, {kind}, {name}: longest gap {gap:.1f} ms (target: at most 20)")


async def resumed(where: str, store: str, steps: int, width: int) -> None:
    began: list[float] = []

    @step(after=[f"s{i}" for i in range(steps - width, steps)], params={"works": False})
    async def last(works: bool) -> int:
        if not works:
            raise ValueError
        return 1

    def hear(event: Any) -> None:
        if isinstance(event, StepStarted):
            began.append(perf_counter())

    def planned(*, works: bool) -> Pipeline:
        again: Step[..., Any, Any] = step(last.value, name="last", after=last.after, params={"works": works})
        return pipeline(steps, width, again)

    journal = Journal(where, store=store)
    async with Runner() as runner:
        try:
            await runner.run(planned(works=False), run_id="resumed", journal=journal)
        except RunError:
            at = perf_counter()
            again = planned(works=True)
            await runner.run(again, run_id="resumed", resume=True, journal=journal, observers=[hear])
    await asyncio.to_thread(journal.close)
    print(
        f"resume: {steps:,} committed steps, then the open one begins after {began[0] - at:.2f} s (target: at most 2)"
    )


async def dbos(url: str, steps: int, width: int) -> None:
    from dbos import DBOS  # type: ignore[import-not-found]

    DBOS(config={"name": "benchmark", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})

    @DBOS.step()  # type: ignore[untyped-decorator]
    async def small(before: int) -> int:
        return before + 1

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    async def workflow() -> None:
        values = [0] * width
        for _ in range(steps // width):
            values = await asyncio.gather(*map(small, values))

    DBOS.launch()
    try:
        wall, worked = await timed(workflow)
    finally:
        DBOS.destroy()
    kind = url.split(":")[0]
    print(f"dbos, {kind}: {wall / steps * 1e6:.1f} us a step, processor {worked / steps * 1e6:.1f} us")


async def makespan(directory: str, path: Path, slots: int, seconds: float, rounds: int) -> None:
    trace = Trace.read(path).scaled(seconds)
    planned, bare = pipeline_of(trace), fifo(trace, slots)
    planned.name = path.stem
    journal, times = Journal(directory), []
    async with Runner(limits=Limits(concurrency=slots), journal=journal) as runner:
        unknown = (await timed(lambda: runner.run(planned)))[0]
        times += [(await timed(lambda: runner.run(planned)))[0] for _ in range(rounds)]
    await asyncio.to_thread(journal.close)
    known = statistics.median(times)
    print(
        f"makespan, {path.stem}, {slots} slots: {known / bare:.3f} of fifo with durations, {unknown / bare:.3f} without"
        " (target: at most 1.00)"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, nargs="*", metavar="TRACE")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the critical path of a trace is to take")
    parser.add_argument("--postgres", metavar="URL", help="a database for a journal, and for DBOS")
    parser.add_argument("--dbos", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        places = [f"{directory}/journal", *([options.postgres] if options.postgres else [])]
        for where in places:
            await overhead(where, f"{directory}/store", options.steps, options.width, options.rounds)
        await resumed(places[0], f"{directory}/store", options.steps, options.width)
        if options.dbos:
            for url in (f"sqlite:///{directory}/dbos.db", *places[1:]):
                await dbos(url, options.steps, options.width)
        for trace in options.traces:
            await makespan(f"{directory}/makespan", trace, 8, options.seconds, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
