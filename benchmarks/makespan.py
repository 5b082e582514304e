"""
How long a workflow takes, beside the shortest time that it could take.

    python benchmarks/makespan.py TRACE [TRACE ...] [--slots 0 8 64] [--seconds 1.0] [--rounds 5] [--epoll]

Replays traces of real workflows: files that tell who waits for whom and how long each task took, as
`{"nodes": {id: [[parents], seconds]}}` or as WfFormat 1.5, the form of the WfCommons collection. Each task is an
async step that sleeps for its seconds, scaled so that the critical path takes `--seconds`. All contestants run in
turns in one process and one loop; what counts is the median over the rounds. 0 slots means no limit.

    bound       what nobody can undercut: the critical path, or all work divided by the slots, whichever is longer
    run         a prebuilt `Pipeline`, with `Limits(concurrency=slots)`
    counter     a task is started when the last of its inputs is there, by hand; with slots, behind a semaphore

and four that are only computed, as if starting a task cost nothing:

    fifo        a free slot goes to the task that has waited longest
    priority    a free slot goes to the task with most levels below it
    informed    a free slot goes to the task with the longest way of seconds below it
    levels      each level waits for the one before, tasks of one level take the slots in turn

The loop waits by `select`, since `epoll` wakes up at whole milliseconds only: a millisecond a task, for every
contestant alike, that says nothing about who schedules better. `--epoll` is the loop as people have it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import graphlib
import heapq
import json
import selectors
import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from overhead import children_of, counter, timed

from odibi_async import Limits, Pipeline, Step, step

TARGET = "(target: at most 1.01)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """
    A workflow that somebody ran.

    Attributes:
        name: That of its file.
        parents: For each task those it waits for, as places in this list; each stands behind them.
        seconds: How long each task takes.
    """

    name: str
    parents: list[tuple[int, ...]]
    seconds: list[float]

    @classmethod
    def read(cls, path: Path) -> Trace:
        data = json.loads(path.read_text())
        if "nodes" in data:
            nodes = {name: (parents, seconds) for name, (parents, seconds) in data["nodes"].items()}
        else:
            workflow = data["workflow"]
            took = {task["id"]: task["runtimeInSeconds"] for task in workflow["execution"]["tasks"]}
            nodes = {t["id"]: (t["parents"], took[t["id"]]) for t in workflow["specification"]["tasks"]}
        order = list(graphlib.TopologicalSorter({name: parents for name, (parents, _) in nodes.items()}).static_order())
        place = {name: index for index, name in enumerate(order)}
        parents = [tuple(place[parent] for parent in nodes[name][0]) for name in order]
        return cls(name=path.stem, parents=parents, seconds=[nodes[name][1] for name in order])

    def scaled(self, seconds: float) -> Trace:
        """The same with another length of the critical path."""
        factor = seconds / self.critical_path
        return replace(self, seconds=[each * factor for each in self.seconds])

    @property
    def critical_path(self) -> float:
        ends: list[float] = []
        for parents, seconds in zip(self.parents, self.seconds, strict=True):
            ends.append(seconds + max((ends[parent] for parent in parents), default=0.0))
        return max(ends)

    def bound(self, slots: int) -> float:
        return max(self.critical_path, sum(self.seconds) / slots if slots else 0.0)

    def levels(self) -> list[list[int]]:
        depth: list[int] = []
        for parents in self.parents:
            depth.append(1 + max((depth[parent] for parent in parents), default=-1))
        return [[task for task, at in enumerate(depth) if at == level] for level in range(1 + max(depth))]

    def below(self, lengths: Sequence[float]) -> list[float]:
        """The longest way down from each task, itself included, when each task is so long."""
        below = list(lengths)
        for task in reversed(range(len(self.parents))):
            for parent in self.parents[task]:
                below[parent] = max(below[parent], lengths[parent] + below[task])
        return below


# -- computed --------------------------------------------------------------------------------------------


def list_schedule(trace: Trace, slots: int, priorities: Sequence[float]) -> float:
    """The makespan when a free slot goes to the ready task of the highest priority, of equals to the first ready."""
    children, unmet = children_of(trace.parents)
    ready = [(-priorities[task], task, task) for task, count in enumerate(unmet) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, seen = 0.0, len(trace.parents)
    while ready or running:
        while ready and (not slots or len(running) < slots):
            task = heapq.heappop(ready)[-1]
            heapq.heappush(running, (now + trace.seconds[task], task))
        now, task = heapq.heappop(running)
        for child in children[task]:
            unmet[child] -= 1
            if not unmet[child]:
                heapq.heappush(ready, (-priorities[child], seen, child))
                seen += 1
    return now


def fifo(trace: Trace, slots: int) -> float:
    return list_schedule(trace, slots, [0] * len(trace.parents))


def priority(trace: Trace, slots: int) -> float:
    return list_schedule(trace, slots, trace.below([1] * len(trace.parents)))


def informed(trace: Trace, slots: int) -> float:
    return list_schedule(trace, slots, trace.below(trace.seconds))


def levels(trace: Trace, slots: int) -> float:
    together = [[trace.seconds[task] for task in level] for level in trace.levels()]
    return sum(fifo(Trace(name="", parents=[()] * len(each), seconds=each), slots) for each in together)


# -- replayed --------------------------------------------------------------------------------------------


async def task(seconds: float, *inputs: float, **reads: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def pipeline_of(trace: Trace) -> Pipeline:
    steps: list[Step[..., Any, Any]] = [
        step(task, name=f"n{i}", params={"seconds": seconds}, inputs={f"read{n}": f"n{n}" for n in parents})
        for i, (parents, seconds) in enumerate(zip(trace.parents, trace.seconds, strict=True))
    ]
    return Pipeline(steps)


def behind(semaphore: asyncio.Semaphore, function: Callable[..., Awaitable[float]]) -> Callable[..., Awaitable[float]]:
    async def limited(*args: float) -> float:
        async with semaphore:
            return await function(*args)

    return limited


async def replay(trace: Trace, slots: int, rounds: int) -> None:
    pipeline, limits = pipeline_of(trace), Limits(concurrency=slots) if slots else None
    functions: list[Callable[..., Awaitable[float]]] = [functools.partial(task, each) for each in trace.seconds]
    if slots:
        semaphore = asyncio.Semaphore(slots)
        functions = [behind(semaphore, function) for function in functions]
    children, counts = children_of(trace.parents)
    contestants: dict[str, Callable[[], Any]] = {
        "run": lambda: pipeline.run(limits=limits),
        "counter": lambda: counter(trace.parents, functions, children, counts),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(await timed(contestant, perf_counter))
    bound = trace.bound(slots)
    rules = (fifo, priority, informed, levels) if slots else (levels,)
    computed = {rule.__name__: rule(trace, slots) for rule in rules}
    print(f"\n{trace.name}, {f'{slots} slots' if slots else 'no limit'}: bound {bound:.3f} s")
    for name, seconds in times.items():
        print(f"  {name:24s} {over(seconds, [bound])} the bound")
    for name, makespan in computed.items():
        print(f"  {name + ', computed':24s} {makespan / bound:.4f} x the bound")
    print(f"  {'run beside counter':24s} {over(times['run'], times['counter'])} {'the makespan' if slots else TARGET}")
    if slots:
        print(f"  {'run beside fifo':24s} {over(times['run'], [computed['fifo']])} {TARGET}")


def over(seconds: Sequence[float], rival: Iterable[float]) -> str:
    """The median of the ratios, and between which lies half of them."""
    rivals = list(rival)
    rivals *= len(seconds) // len(rivals)
    ratios = sorted(a / b for a, b in zip(seconds, rivals, strict=True))
    quarter = len(ratios) // 4
    return f"{statistics.median(ratios):.4f} ({ratios[quarter]:.4f} to {ratios[-1 - quarter]:.4f}) x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, nargs="+", metavar="TRACE")
    parser.add_argument("--slots", type=int, nargs="+", default=[0, 8, 64])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the critical path is to take")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoll", action="store_true", help="the loop's own way to wait, in whole milliseconds")
    options = parser.parse_args()
    waits_by = selectors.DefaultSelector if options.epoll else selectors.SelectSelector
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(waits_by())) as runner:
        for path in options.traces:
            trace = Trace.read(path).scaled(options.seconds)
            work = sum(trace.seconds)
            print(
                f"\n{trace.name}: {len(trace.parents):,} tasks, {work:.2f} s of work, critical path {options.seconds} s"
            )
            for slots in options.slots:
                runner.run(replay(trace, slots, options.rounds))


if __name__ == "__main__":
    main()
