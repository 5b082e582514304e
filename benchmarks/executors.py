"""
What it costs, and what it gains, to run steps in processes and on a Dask cluster, beside the bare libraries.

    python benchmarks/executors.py [--rounds 3] [--steps 10000] [--mb 100]

A Dask scheduler and two workers are started on this machine. Contestants take turns; what counts is the median. Where
the machine is shared with others, the seconds of the processors that all processes take together say more than
those of the clock: they are printed beside.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import distributed
import numpy as np
import pandas as pd
import psutil

from odibi_async import Limits, Runner, step
from odibi_async.executors.cluster_data import ClusterData, DaskHandle
from odibi_async.executors.dask import DaskExecutor

TICK = 0.01
"""Seconds of a processor below which the system does not count."""
Timed = Callable[[], Awaitable[object]]


def burn(count: int) -> int:
    """Keeps one core busy with Python."""
    total = 0
    for number in range(count):
        total += number * number % 7
    return total


def one() -> int:
    return 1


def more(n: int) -> int:
    return n + 1


def add(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(n=frame["n"] + 1)


def processor_seconds() -> float:
    """What this process and all that it has started have taken of the processors."""
    me = psutil.Process()
    total = 0.0
    for each in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:2])
    return total


async def seconds(call: Timed) -> float:
    began = perf_counter()
    await call()
    return perf_counter() - began


async def medians(rounds: int, **contestants: Timed) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of each contestant, and those of processors, after a round that warms all of them up."""
    took: dict[str, list[float]] = {name: [] for name in contestants}
    worked: dict[str, list[float]] = {name: [] for name in contestants}
    for count in range(rounds + 1):
        for name, call in contestants.items():
            before = processor_seconds()
            each = await seconds(call)
            if count:
                took[name].append(each)
                worked[name].append(processor_seconds() - before)
    return (
        {name: statistics.median(each) for name, each in took.items()},
        {name: max(TICK, statistics.median(each)) for name, each in worked.items()},
    )


def told(what: str, value: float, unit: str, target: float, *, most: bool = True, processors: float = 0) -> None:
    met = value <= target if most else value >= target
    bound = "at most" if most else "at least"
    more = f"; of processors {processors:.3f} {unit}" if processors else ""
    print(f"{what:58s} {value:8.3f} {unit:3s} (target: {bound} {target:g}, {'met' if met else 'missed'}{more})")


async def processes(rounds: int, count: int) -> None:
    """Four steps that keep a core busy, on two cores."""

    def of(place: str) -> list[Any]:
        return [step(burn, name=f"s{i}", params={"count": count}, run_on=place) for i in range(4)]

    def pooled() -> None:
        list(pool.map(burn, [count] * 4))

    with ProcessPoolExecutor(2) as pool:
        async with Runner(limits=Limits(processes=2, threads=4)) as runner:
            took, worked = await medians(
                rounds,
                pool=lambda: asyncio.to_thread(pooled),
                process=lambda: runner.run(of("process")),
                thread=lambda: runner.run(of("thread")),
            )
    print(
        f"{'four busy steps: threads / ProcessPoolExecutor(2)':58s} {took['thread'] / took['pool']:8.3f} x   (possible)"
    )
    told(
        "four busy steps: processes / ProcessPoolExecutor(2)",
        took["process"] / took["pool"],
        "x",
        1.1,
        processors=worked["process"] / worked["pool"],
    )
    told("four busy steps: threads / processes", took["thread"] / took["process"], "x", 1.6, most=False)


def chain(place: str, length: int) -> list[Any]:
    first = step(one, name="s0", run_on=place)
    return [first, *[step(more, name=f"s{i}", inputs={"n": f"s{i - 1}"}, run_on=place) for i in range(1, length)]]


async def overhead(rounds: int, length: int) -> None:
    """A chain of steps that do nothing, in a process that is there already."""
    async with Runner(limits=Limits(processes=1)) as runner:
        steps = chain("process", length)
        took, worked = await medians(rounds, process=lambda: runner.run(steps, targets=[f"s{length - 1}"]))
    ours, processors = took["process"] / length * 1000, worked["process"] / length * 1000
    told("a process step that does nothing", ours, "ms", 0.5, processors=processors)


async def dask_steps(rounds: int, address: str, length: int, count: int) -> None:
    """Small steps on Dask, one after the other and many at once, beside futures."""
    async with (
        distributed.Client(address, asynchronous=True, set_as_default=False) as client,
        Runner(executors={"dask": DaskExecutor(client=client)}) as runner,
    ):

        async def bare() -> None:
            value = 0
            for _ in range(length):
                value = await client.submit(more, value, pure=False)

        async def futures() -> None:
            made = [client.submit(more, n, pure=False) for n in range(count)]
            await client.gather(made)

        steps = chain("dask", length)
        took, worked = await medians(rounds, bare=bare, dask=lambda: runner.run(steps, targets=[f"s{length - 1}"]))
        what = f"a Dask step / submit and await ({took['bare'] / length * 1000:.2f} ms)"
        told(what, took["dask"] / took["bare"], "x", 1.2, processors=worked["dask"] / worked["bare"])
        many = [step(more, name=f"s{n}", params={"n": n}, run_on="dask") for n in range(count)]
        took, worked = await medians(rounds, futures=futures, dask=lambda: runner.run(many))
        what = f"{count:,} small steps / futures ({took['futures']:.1f} s)"
        told(what, took["dask"] / took["futures"], "x", 1.1, processors=worked["dask"] / worked["futures"])


class Counting(ClusterData):
    """Counts how often data travel."""

    moved = 0

    async def fetch(self, handle: DaskHandle) -> Any:
        self.moved += 1
        return await super().fetch(handle)

    async def scatter(self, client: Any, value: Any) -> Any:
        self.moved += 1
        return await super().scatter(client, value)


async def large(address: str, megabytes: int) -> None:
    """A chain of 20 steps on a large frame: how often it travels, and how long the loop stands still meanwhile."""
    rows = megabytes * 2**20 // 16
    frame = await asyncio.to_thread(lambda: pd.DataFrame({"n": np.arange(rows), "x": np.random.rand(rows)}))
    gaps: list[float] = []

    async def watch() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(perf_counter() - began - 0.001)

    executor = DaskExecutor(address)
    executor.data = counting = Counting(executor.cluster)
    steps = [step(add, name=f"s{i}", inputs={"frame": f"s{i - 1}" if i else "frame"}, run_on="dask") for i in range(20)]
    async with Runner(executors={"dask": executor}) as runner:
        await runner.run([step(one, run_on="dask")])
        counting.moved = 0
        watching = asyncio.create_task(watch())
        took = await seconds(lambda: runner.run(steps, {"frame": frame}, targets=["s19"]))
        watching.cancel()
    told(f"20 steps on {megabytes} MB ({took:.1f} s): times it travels", counting.moved, "", 2)
    told("the loop's gap meanwhile, p99", statistics.quantiles(gaps, n=100)[98] * 1000, "ms", 20)


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a scheduler with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for name, options in (
            ("scheduler", ["--host", "127.0.0.1", "--port", str(port), "--dashboard-address", ":0"]),
            *[("worker", [address, "--nthreads", "1", "--no-nanny", "--no-dashboard"])] * 2,
        ):
            arguments = [*command[:-1], command[-1] + name, *options]
            started.append(subprocess.Popen(arguments, cwd=folder, env=environment, **quiet))
        try:
            yield address
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--burn", type=int, default=10_000_000)
    parser.add_argument("--mb", type=int, default=100)
    options = parser.parse_args()
    await processes(options.rounds, options.burn)
    await overhead(options.rounds, 300)
    with cluster() as address:
        await dask_steps(options.rounds, address, 200, options.steps)
        await large(address, options.mb)


if __name__ == "__main__":
    asyncio.run(main())
