"""
What the engine costs: microseconds a node, beside schedulers written by hand.

    python benchmarks/overhead.py [--nodes 1000 10000 100000] [--rounds 7] [--kind async sync] [--shape ...]

Each node is a function that does nothing. The shapes: a chain; a fan (one source, many nodes, one sink); layers
of 100 nodes that each read three of the layer above. All contestants run in turns in one process and one loop,
and what counts is the median of the ratios to "counter" of the same round.

    counter     starts an asyncio task when the number of a node's unmet inputs hits zero (sync: the call goes
                through `run_in_executor` with 8 threads)
    tasks       one asyncio task a node, made at once, each awaiting the tasks of its inputs
    levels      `asyncio.gather` over one level after the other
    run         a prebuilt `Pipeline`, with its records and one observer (sync: 8 threads)
    build       `Pipeline(steps)` from steps that are there
    declare     the steps from functions
    build+run   both together; its rival also has to find out who waits for whom
    all         declare, build and run
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from odibi_async import Limits, Pipeline, Step, step

Parents = list[tuple[int, ...]]
Function = Callable[..., Any]


def chain(nodes: int) -> Parents:
    return [(i - 1,) if i else () for i in range(nodes)]


def fan(nodes: int) -> Parents:
    """One source, many that read it, and a sink that reads three of them (a sink of all has no signature)."""
    return [(), *[(0,)] * (nodes - 2), (1, 2, 3)]


def layers(nodes: int, width: int = 100) -> Parents:
    def above(i: int) -> tuple[int, ...]:
        first = (i // width - 1) * width
        return tuple(first + (i + step) % width for step in (0, 7, 31)) if i >= width else ()

    return [above(i) for i in range(nodes)]


SHAPES = {"chain": chain, "fan": fan, "layers": layers}


async def async_0() -> int:
    return 1


async def async_1(a: int) -> int:
    return a


async def async_3(a: int, b: int, c: int) -> int:
    return a


def sync_0() -> int:
    return 1


def sync_1(a: int) -> int:
    return a


def sync_3(a: int, b: int, c: int) -> int:
    return a


FUNCTIONS: dict[str, dict[int, Function]] = {
    "async": {0: async_0, 1: async_1, 3: async_3},
    "sync": {0: sync_0, 1: sync_1, 3: sync_3},
}


def declared(parents: Parents, functions: dict[int, Function]) -> list[Step[..., Any, Any]]:
    return [
        step(functions[len(reads)], name=f"n{i}", inputs={p: f"n{r}" for p, r in zip("abc", reads, strict=False)})
        for i, reads in enumerate(parents)
    ]


def children_of(parents: Parents) -> tuple[list[list[int]], list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    for i, reads in enumerate(parents):
        for parent in reads:
            children[parent].append(i)
    return children, [len(reads) for reads in parents]


async def counter(
    parents: Parents, functions: Sequence[Function], children: list[list[int]], counts: list[int]
) -> dict[int, Any]:
    """A task a node, made when its last input is there: the straightforward thing to write by hand."""
    results: dict[int, Any] = {}
    unmet = list(counts)
    tasks = []
    done = asyncio.Event()

    async def run(node: int) -> None:
        results[node] = await functions[node](*[results[parent] for parent in parents[node]])
        for child in children[node]:
            unmet[child] -= 1
            if not unmet[child]:
                tasks.append(asyncio.create_task(run(child)))
        if len(results) == len(parents):
            done.set()

    for node, count in enumerate(counts):
        if not count:
            tasks.append(asyncio.create_task(run(node)))
    await done.wait()
    return results


async def counter_sync(
    parents: Parents, functions: Sequence[Function], children: list[list[int]], counts: list[int]
) -> dict[int, Any]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as pool:

        def in_thread(function: Function) -> Callable[..., Awaitable[Any]]:
            return lambda *args: loop.run_in_executor(pool, function, *args)

        return await counter(parents, [in_thread(function) for function in functions], children, counts)


async def tasks(parents: Parents, functions: Sequence[Function]) -> list[Any]:
    made: list[asyncio.Task[Any]] = []

    async def run(node: int) -> Any:
        return await functions[node](*[await made[parent] for parent in parents[node]])

    made.extend(asyncio.create_task(run(node)) for node in range(len(parents)))
    return [await task for task in made]


async def levels(parents: Parents, functions: Sequence[Function]) -> dict[int, Any]:
    level: list[int] = []
    for reads in parents:
        level.append(1 + max((level[parent] for parent in reads), default=-1))
    by_level: list[list[int]] = [[] for _ in range(1 + max(level))]
    for node, depth in enumerate(level):
        by_level[depth].append(node)
    results: dict[int, Any] = {}
    for together in by_level:
        values = await asyncio.gather(*[functions[n](*[results[p] for p in parents[n]]) for n in together])
        results.update(zip(together, values, strict=True))
    return results


async def timed(run: Callable[[], Awaitable[Any] | Any]) -> float:
    gc.collect()
    began = perf_counter()
    made = run()
    if isinstance(made, Awaitable):
        made = await made
    took = perf_counter() - began
    del made
    return took


class Listener:
    """An observer that does as little as one can."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, event: object) -> None:
        self.heard += 1


async def compare(kind: str, shape: str, nodes: int, rounds: int, alone: bool) -> None:
    parents = SHAPES[shape](nodes)
    table = FUNCTIONS[kind]
    functions = [table[len(reads)] for reads in parents]
    children, counts = children_of(parents)
    steps = declared(parents, table)
    pipeline = Pipeline(steps)
    listener = Listener()
    options: dict[str, Any] = {"observers": [listener]}
    if kind == "sync":
        options["limits"] = Limits(threads=8)
    by_hand = counter if kind == "async" else counter_sync
    contestants: dict[str, Callable[[], Any]] = {
        "counter": lambda: by_hand(parents, functions, children, counts),
        "run": lambda: pipeline.run(**options),
        "build": lambda: Pipeline(steps),
        "declare": lambda: declared(parents, table),
        "counter+edges": lambda: by_hand(parents, functions, *children_of(parents)),
        "build+run": lambda: Pipeline(steps).run(**options),
        "all": lambda: Pipeline(declared(parents, table)).run(**options),
    }
    if kind == "async" and not alone:
        contestants["tasks"] = lambda: tasks(parents, functions)
        contestants["levels"] = lambda: levels(parents, functions)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(await timed(run))
    assert listener.heard % (2 * nodes + 2) == 0
    print(f"\n{kind}, {shape}, {nodes:,} nodes: median of {rounds} rounds")
    for name, seconds in times.items():
        rival = "counter+edges" if name in ("build+run", "all") else "counter"
        ratios = sorted(a / b for a, b in zip(seconds, times[rival], strict=True))
        spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        micros = statistics.median(seconds) / nodes * 1e6
        print(f"  {name:14s} {micros:8.2f} us a node   {statistics.median(ratios):6.2f} x {rival} ({spread})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kind", nargs="+", choices=list(FUNCTIONS), default=list(FUNCTIONS))
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--alone", action="store_true", help="leave out `tasks` and `levels`")
    options = parser.parse_args()
    for kind in options.kind:
        for nodes in options.nodes:
            for shape in options.shape:
                asyncio.run(compare(kind, shape, nodes, options.rounds, options.alone))


if __name__ == "__main__":
    main()
