"""
What is left behind by many runs: tasks, threads, file descriptors, memory.

    python benchmarks/soak.py [--runs 10000] [--at-once 1000] [--blocking 200] [--only PART]

Each part runs in a process of its own. A target that is missed by seconds is told; one that is missed by what grew
or piled up makes the exit code 1.

    at once     many runs in one loop at the same time: the seconds they take all together, and the resident memory
                at the moment when all of them are under way, or when all results are there
    blocking    many runs of blocking steps at the same time: the most threads that were alive together
    one by one  one run after another, of all kinds in turn (see `KINDS`): what there is at the end, over what
                there was after the first tenth; objects are those that the garbage collector knows
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psutil

from odibi_async import Retry, RunError, Runner, Status, check_cancelled, resource, run_pipeline, step
from odibi_async.errors import DeadlineError
from odibi_async.limits import default_threads

MEGABYTE = 2**20


class Report:
    """Prints a line for each measure; notes whether something grew that should not have."""

    def __init__(self) -> None:
        self.grew = False

    def tell(self, measure: str, value: float, target: float, unit: str = "", *, is_growth: bool = True) -> None:
        met = value <= target
        self.grew = self.grew or (is_growth and not met)
        print(f"  {measure:36s} {value:10.2f} {unit:8s} {target:10.2f}  {'met' if met else 'MISSED'}")


# -- at once ---------------------------------------------------------------------------------------------


async def at_once(options: argparse.Namespace, report: Report) -> None:
    under_way, all_there, resident = 0, asyncio.Event(), 0

    async def source(start: int) -> int:
        return start

    async def meet(source: int) -> int:
        nonlocal under_way, resident
        under_way += 1
        if under_way == options.at_once:
            resident = memory()
            all_there.set()
        await all_there.wait()
        return source + 1

    async def sink(meet: int) -> int:
        return meet + 1

    steps = [source, meet, sink]
    under_way = options.at_once - 1
    await run_pipeline(steps, {"start": 0})  # loads whatever is loaded late
    under_way, all_there = 0, asyncio.Event()
    gc.collect()
    before, began = memory(), time.perf_counter()
    results = await asyncio.gather(*[run_pipeline(steps, {"start": start}) for start in range(options.at_once)])
    took = time.perf_counter() - began
    resident = max(resident, memory())
    assert [result["sink"] for result in results] == list(range(2, options.at_once + 2))
    report.tell(f"{options.at_once:,} runs at once take", took, 2, "s", is_growth=False)
    report.tell("more resident memory", (resident - before) / MEGABYTE, 50, "MB")


# -- blocking --------------------------------------------------------------------------------------------


async def blocking(options: argparse.Namespace, report: Report) -> None:
    peak, before = 0, len(threading.enumerate())

    def wait(start: int) -> int:
        nonlocal peak
        peak = max(peak, len(threading.enumerate()))
        time.sleep(0.01)
        return start

    def count(wait: int) -> int:
        return wait + 1

    results = await asyncio.gather(*[run_pipeline([wait, count], {"start": n}) for n in range(options.blocking)])
    assert [result["count"] for result in results] == list(range(1, options.blocking + 1))
    report.tell(f"{options.blocking:,} blocking runs at once, threads", peak - before, default_threads())


# -- one by one ------------------------------------------------------------------------------------------


async def one() -> int:
    return 1


async def two(one: int) -> int:
    return one + 1


def three(one: int) -> int:
    return one + 2


def ten(one: int) -> list[int]:
    return list(range(one, 11))


@step(map_over="each", inputs={"each": "ten"})
async def doubled(each: int) -> int:
    return 2 * each


@step(map_over="each", inputs={"each": "doubled"})
def tripled(each: int) -> int:
    return 3 * each


async def broken(one: int) -> int:
    raise ValueError(f"{one} is not to my taste")


def broken_in_thread(one: int) -> int:
    raise ValueError(f"{one} is not to my taste")


async def after_broken(broken: int) -> int:
    return broken


async def forever(one: int) -> None:
    await asyncio.Event().wait()


def forever_in_thread(one: int) -> None:
    while True:
        check_cancelled()
        time.sleep(0.0002)


@resource
@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[list[int]]:
    yield [1, 2, 3]


@resource
@contextlib.contextmanager
def file() -> Iterator[Any]:
    with open(__file__) as opened:
        yield opened


async def total(connection: list[int]) -> int:
    return sum(connection)


def first_line(file: Any) -> str:
    return str(next(file))


async def asynchronous() -> None:
    assert (await run_pipeline([one, two]))["two"] == 2


async def in_threads() -> None:
    assert (await run_pipeline([one, three]))["three"] == 3


async def mapped() -> None:
    assert (await run_pipeline([one, ten, doubled, tripled]))["tripled"][-1] == 60


async def with_resources() -> None:
    result = await run_pipeline([connection, file, total, first_line])
    assert (result["total"], result["first_line"]) == (6, '"""\n')


async def failing() -> None:
    with contextlib.suppress(RunError):
        await run_pipeline([one, broken, after_broken, forever])
        raise AssertionError


async def failing_in_thread() -> None:
    retry = Retry(attempts=2, wait=0, on=ValueError)
    result = await run_pipeline([one, two, broken_in_thread], on_error="continue", retry=retry)
    assert result.steps["broken_in_thread"].attempts == 2


async def _cancelled(*steps: Any) -> None:
    """Cancels the caller of a run when both its steps have started."""
    started = threading.Semaphore(0)
    task = asyncio.create_task(run_pipeline(steps, observers=[lambda event: started.release()]))
    for _ in range(4):  # the run, the first step and its end, the second step
        while not started.acquire(blocking=False):
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def cancelled() -> None:
    await _cancelled(one, forever)


async def cancelled_in_thread() -> None:
    await _cancelled(one, forever_in_thread)


async def too_late() -> None:
    with contextlib.suppress(DeadlineError):
        await run_pipeline([one, forever, forever_in_thread], timeout=0.002)
        raise AssertionError


async def in_background() -> None:
    async with Runner() as runner:
        run, left = await runner.start([one, three]), await runner.start([one, forever])
        assert [event async for event in run.events()]
        assert (await run.result())["three"] == 3
    assert left.status is Status.CANCELLED


KINDS: tuple[Callable[[], Awaitable[None]], ...] = (
    asynchronous,
    in_threads,
    mapped,
    with_resources,
    failing,
    failing_in_thread,
    cancelled,
    cancelled_in_thread,
    too_late,
    in_background,
)


async def one_by_one(options: argparse.Namespace, report: Report) -> None:
    kinds, warm_up = itertools.cycle(KINDS), max(options.runs // 10, 5 * len(KINDS))
    for kind in itertools.islice(kinds, warm_up):
        await kind()
    before, began = await census(), time.perf_counter()
    for kind in itertools.islice(kinds, options.runs):
        await kind()
    took = time.perf_counter() - began
    after = await census()
    print(f"  {options.runs:,} runs one by one after {warm_up:,}, {took / options.runs * 1e3:.2f} ms each, of")
    print(f"  {len(KINDS)} kinds: {', '.join(kind.__name__ for kind in KINDS)}")
    report.tell("threads at the end", after["threads"], 1 + default_threads())
    for name, target, unit in (
        ("tasks", 0.0, ""),
        ("file descriptors", 0.0, ""),
        ("objects a run", 0.1, ""),
        ("resident memory", 5.0, "MB"),
    ):
        growth = after[name] - before[name]
        report.tell(f"growth of {name}", growth / options.runs if name == "objects a run" else growth, target, unit)


async def census() -> dict[str, float]:
    """How much there is of what a run could leave behind."""
    await asyncio.sleep(0.05)  # a thread that returned is a task that has yet to end
    for _ in range(1_000):  # asyncio forgets cancelled timers when most of its timers are cancelled
        asyncio.get_running_loop().call_later(60, print).cancel()
    await asyncio.sleep(0)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "file descriptors": psutil.Process().num_fds(),
        "objects a run": len(gc.get_objects()),
        "resident memory": memory() / MEGABYTE,
    }


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


PARTS = {"at once": at_once, "blocking": blocking, "one by one": one_by_one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="one after another")
    parser.add_argument("--at-once", type=int, default=1_000)
    parser.add_argument("--blocking", type=int, default=200)
    parser.add_argument("--only", choices=list(PARTS))
    options = parser.parse_args()
    if options.only:
        report = Report()
        asyncio.run(PARTS[options.only](options, report))
        sys.exit(report.grew)
    print(f"  {'':36s} {'measured':>10s} {'':8s} {'at most':>10s}", flush=True)
    codes = [subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", part]).returncode for part in PARTS]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
