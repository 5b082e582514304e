"""
What the cache costs and saves in a run.

    python benchmarks/cache.py [--megabytes 100] [--steps 1000] [--rounds 5] [--runs 50] [--processes 8]

- hits: a run whose steps are all cached, over a frame of so many megabytes, in milliseconds a step; what is loaded is
  one number. Beside it the same run without a cache.
- hit: a run whose one step is cached and whose result, a frame of so many megabytes, is loaded and verified, beside
  diskcache, which has it as a pickle of protocol 5 and verifies nothing: ratio of medians, for numbers and Arrow
  texts; at most 1.0 is meant.
- loop: how late a 1 ms sleep on the loop ends while a frame is digested and stored, and while it is loaded, for
  frames of numbers and of objects; median and 99th percentile over all rounds.
- flights: the demo's first run against its cached rerun, as a ratio of medians: for its report, and for every dataset.
- once: how often a step is called that so many equal runs, or so many processes, want at the same time.

What digests, writing and loading cost by themselves, beside a plain copy and other libraries, is measured by
`fingerprint.py` and `store.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import diskcache
import numpy as np
import pandas as pd

from odibi_async import CachePolicy, Runner, run_pipeline, step
from odibi_async.steps import Step

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


def numbers(megabytes: int) -> pd.DataFrame:
    columns = 10
    rows = megabytes * 1_000_000 // (8 * columns)
    random = np.random.default_rng(0)
    return pd.DataFrame({f"c{i}": random.uniform(size=rows) for i in range(columns)})


def objects(megabytes: int) -> pd.DataFrame:
    rows = megabytes * 1_000_000 // 80  # about: the texts and what Python adds to each
    texts = np.array([f"customer number {i}" for i in range(rows)], dtype=object)
    return pd.DataFrame({"text": pd.Series(texts, dtype=object)})


def constant(frame: pd.DataFrame, number: int) -> int:
    return len(frame) + number


def fan(steps: int) -> list[Step[..., Any, Any]]:
    """One step that makes the frame, many that read it, and one that reads them all."""
    source = step(numbers, name="frame", cache=True)
    readers = [step(constant, name=f"s{i}", params={"number": i}) for i in range(steps - 2)]
    names = {f"p{i}": f"s{i}" for i in range(steps - 2)}
    return [source, *readers, step(lambda **parts: sum(parts.values()), name="total", inputs=names)]


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    began = perf_counter()
    await call()
    return perf_counter() - began


async def hits(directory: str, megabytes: int, steps: int, rounds: int) -> None:
    pipeline, given = fan(steps), {"megabytes": megabytes}
    async with Runner(cache=directory) as runner:
        await runner.run(pipeline, given, targets=["total"])
        cached, uncached = [], []
        for _ in range(rounds):
            cached.append(await timed(lambda: runner.run(pipeline, given, targets=["total"])))
            uncached.append(await timed(lambda: runner.run(pipeline, given, targets=["total"], cache=False)))
    print(f"hits: {steps:,} steps over a frame of {megabytes} MB:")
    for name, seconds in (("cached", cached), ("uncached", uncached)):
        print(f"  {name:9s} {statistics.median(seconds) * 1e3 / steps:7.3f} ms a step")


def texts(megabytes: int) -> pd.DataFrame:
    rows = megabytes * 1_000_000 // 26
    return pd.DataFrame({"text": pd.array([f"customer number {i:10d}" for i in range(rows)], "str")})


async def hit(directory: str, megabytes: int, rounds: int) -> None:
    for make in (numbers, texts):
        beside = diskcache.Cache(f"{directory}/diskcache {make.__name__}", disk_pickle_protocol=5)
        beside.set("key", await asyncio.to_thread(make, megabytes))
        ours, theirs = list[float](), list[float]()
        async with Runner(cache=f"{directory}/{make.__name__}") as runner:
            run = functools.partial(runner.run, [step(make, cache=True)], {"megabytes": megabytes})
            await run()
            for _ in range(rounds):
                ours.append(await timed(run))
                theirs.append(await timed(functools.partial(asyncio.to_thread, beside.get, "key")))
        beside.close()
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(f"hit: {megabytes} MB of {make.__name__}: {ratio:.2f} times diskcache with pickles")


async def late_while(call: Callable[[], Awaitable[Any]], lags: list[float]) -> None:
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            began = perf_counter()
            await asyncio.sleep(0.001)
            lags.append((perf_counter() - began - 0.001) * 1e3)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.005)
    await call()
    over.set()
    await watcher


async def loop(directory: str, megabytes: int, rounds: int) -> None:
    print(f"loop: lag while {megabytes} MB are stored, and while they are loaded:")
    for make in (numbers, objects):
        frame, storing, loading = make(megabytes), list[float](), list[float]()
        for turn in range(rounds):
            frame.iloc[0, 0] = turn if make is numbers else str(turn)
            pipeline = [step(lambda given: given, name="kept", cache=CachePolicy(version=1))]
            async with Runner(cache=f"{directory}/{make.__name__}") as runner:
                run = functools.partial(runner.run, pipeline, {"given": frame})
                await late_while(run, storing)
                await late_while(run, loading)
        for what, lags in (("stored", storing), ("loaded", loading)):
            p99 = statistics.quantiles(lags, n=100)[-1]
            print(f"  {make.__name__:8s} {what}: {statistics.median(lags):6.1f} ms, p99 {p99:6.1f} ms")


async def flights(directory: str, rounds: int) -> None:
    try:
        import flights as demo

        demo.given()
    except SystemExit:
        print("flights: the demo's data is not installed")
        return
    for what, targets in (("for its report", ["report"]), ("for every dataset", None)):
        first, rerun = list[float](), list[float]()
        for turn in range(rounds):
            place = f"{directory}/flights {what} {turn}"
            for seconds in (first, rerun):
                run = functools.partial(run_pipeline, demo.pipeline, demo.given(), targets=targets, cache=place)
                seconds.append(await timed(run))
        ratio = statistics.median(first) / statistics.median(rerun)
        print(f"flights: the cached rerun {what} is {ratio:.1f} times faster")


def counted(folder: Path) -> int:
    with open(folder / "calls", "a", encoding="ascii") as file:
        file.write("x")
    return 1


def one_process(directory: str, folder: Path) -> None:
    asyncio.run(run_pipeline(wanted(), {"folder": str(folder)}, cache=directory))


def wanted() -> list[Step[..., Any, Any]]:
    return [step(lambda folder: counted(Path(folder)), name="wanted", cache=CachePolicy(version=1))]


async def once(directory: str, runs: int, processes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder}
        await asyncio.gather(*[run_pipeline(wanted(), given, cache=directory) for _ in range(runs)])
        calls = len(await asyncio.to_thread((Path(folder) / "calls").read_text))
    print(f"once: {runs} equal runs call the step {calls} times", end="; ")
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        others = [context.Process(target=one_process, args=(directory, Path(folder))) for _ in range(processes)]
        for other in others:
            other.start()
        for other in others:
            await asyncio.to_thread(other.join)
        calls = len(await asyncio.to_thread((Path(folder) / "calls").read_text))
    print(f"{processes} processes call it {calls} times")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        await hit(f"{directory}/hit", options.megabytes, 3 * options.rounds)
        await hits(f"{directory}/hits", options.megabytes, options.steps, options.rounds)
        await loop(f"{directory}/loop", options.megabytes, options.rounds)
        await flights(directory, min(options.rounds, 3))
        await once(f"{directory}/once", options.runs, options.processes)


if __name__ == "__main__":
    asyncio.run(main())
