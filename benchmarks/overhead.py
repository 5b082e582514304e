"""
What the engine costs: microseconds of CPU time a node, beside schedulers written by hand.

    python benchmarks/overhead.py [--nodes 1000 10000] [--rounds 7] [--kind async sync] [--shape ...] [--functions ...]

Each node is a function that does nothing. The shapes: a chain; a fan (one source, many nodes, one sink); layers
of 100 nodes that each read three of the layer above. The functions: one that many nodes share, one a node, or one a
node that takes `**others` as well. In each round a contestant runs just after its rival, in one process and one loop,
and what counts is the median of the ratios.

    counter        starts an asyncio task when the number of a node's unmet inputs hits zero (sync: the call goes
                   through `run_in_executor` with 8 threads)
    counter+edges  also has to find out who is to be told of whose end
    tasks          one asyncio task a node, made at once, each awaiting the tasks of its inputs
    levels         `asyncio.gather` over one level after the other
    bare           a run of a prebuilt `Pipeline`, with its records (sync: 8 threads); and with an observer, with
                   `targets=` the last node, with `Limits(concurrency=)` of all nodes and of 64
    declare        the steps from functions
    build          `Pipeline(steps)` from steps that are there
    build+run      both `build` and `bare`
    all            `declare`, `build` and `bare`
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from time import process_time
from typing import Any

from odibi_async import Limits, Pipeline, Step, run_pipeline, step

Parents = list[tuple[int, ...]]
Function = Callable[..., Any]
Contestant = Callable[[], Any]


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


SOURCES = {
    "async": "async def f({}): return {}",
    "sync": "def f({}): return {}",
}


def made(source: str, count: int) -> Function:
    """A new function of so many parameters that returns the first of them."""
    names = "abc"[:count]
    parameters = "".join(f"{name}, " for name in names)
    scope: dict[str, Any] = {}
    exec(source.format(parameters, names[:1] or 1), scope)
    function: Function = scope["f"]
    return function


def shared(kind: str, parents: Parents) -> list[Function]:
    """One function for each number of inputs."""
    known = {count: made(SOURCES[kind], count) for count in {len(reads) for reads in parents}}
    return [known[len(reads)] for reads in parents]


def own(kind: str, parents: Parents) -> list[Function]:
    """A function a node."""
    return [made(SOURCES[kind], len(reads)) for reads in parents]


def collecting(kind: str, parents: Parents) -> list[Function]:
    """A function a node, with `**others` behind its parameters."""
    source = SOURCES[kind].replace("({})", "({}**others)")
    return [made(source, len(reads)) for reads in parents]


FUNCTIONS = {"shared": shared, "own": own, "collecting": collecting}


def declared(parents: Parents, functions: Sequence[Function]) -> list[Step[..., Any, Any]]:
    return [
        step(functions[i], name=f"n{i}", inputs={p: f"n{r}" for p, r in zip("abc", reads, strict=False)})
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


class Listener:
    """An observer that does as little as one can."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, event: object) -> None:
        self.heard += 1


async def timed(run: Contestant, clock: Callable[[], float] = process_time) -> float:
    """Seconds that it takes, by default of this process's CPU: what others do on the machine counts less so."""
    gc.collect()
    began = clock()
    made = run()
    if isinstance(made, Awaitable):
        made = await made
    took = clock() - began
    del made
    return took


async def compare(title: str, pairs: Mapping[str, tuple[str, Contestant, Contestant]], rounds: int, each: int) -> None:
    """Prints the ratio of each contestant to its rival, which runs just before it in every round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
    for _ in range(rounds):
        for name, (_, contestant, rival) in pairs.items():
            before = await timed(rival)
            times[name].append((await timed(contestant), before))
    print(f"\n{title}: median of {rounds} rounds")
    for name, both in times.items():
        ratios = sorted(took / before for took, before in both)
        spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        micros = statistics.median(took for took, _ in both) / each * 1e6
        print(f"  {name:14s} {micros:8.2f} us each   {statistics.median(ratios):6.2f} x {pairs[name][0]} ({spread})")


async def graphs(kind: str, shape: str, nodes: int, functions: str, rounds: int, alone: bool) -> None:
    parents = SHAPES[shape](nodes)
    called = FUNCTIONS[functions](kind, parents)
    children, counts = children_of(parents)
    steps = declared(parents, called)
    pipeline = Pipeline(steps)
    last = f"n{nodes - 1}"
    bare: dict[str, Any] = {"limits": Limits(threads=8)} if kind == "sync" else {}
    by_hand = counter if kind == "async" else counter_sync

    def counter_alone() -> Any:
        return by_hand(parents, called, children, counts)

    def counter_with_edges() -> Any:
        return by_hand(parents, called, *children_of(parents))

    def all_of_it() -> Any:
        return Pipeline(declared(parents, called)).run(**bare)

    runs: dict[str, Contestant] = {
        "bare": lambda: pipeline.run(**bare),
        "observer": lambda: pipeline.run(**bare, observers=[Listener()]),
        "targets": lambda: pipeline.run(**bare, targets=[last]),
        "declare": lambda: declared(parents, called),
        "build": lambda: Pipeline(steps),
    }
    if kind == "async":
        runs["limited"] = lambda: pipeline.run(limits=Limits(concurrency=nodes))
        runs["limited to 64"] = lambda: pipeline.run(limits=Limits(concurrency=64))
    if kind == "async" and not alone:
        runs["tasks"] = lambda: tasks(parents, called)
        runs["levels"] = lambda: levels(parents, called)
    pairs = {name: ("counter", run, counter_alone) for name, run in runs.items()}
    pairs["build+run"] = ("counter+edges", lambda: Pipeline(steps).run(**bare), counter_with_edges)
    pairs["all"] = ("counter+edges", all_of_it, counter_with_edges)
    await compare(f"{kind}, {shape}, {nodes:,} nodes, {functions} functions", pairs, rounds, nodes)


async def small(rounds: int, times: int = 1_000) -> None:
    """Five steps that do nothing, again and again."""
    functions = [made(SOURCES["async"], 0)] * 5
    steps = [step(function, name=f"n{i}") for i, function in enumerate(functions)]
    pipeline = Pipeline(steps)

    async def gathered() -> None:
        for _ in range(times):
            await asyncio.gather(*[function() for function in functions])

    async def run() -> None:
        for _ in range(times):
            await pipeline.run()

    async def build_and_run() -> None:
        for _ in range(times):
            await run_pipeline(steps)

    pairs: dict[str, tuple[str, Contestant, Contestant]] = {
        "Pipeline.run": ("gather", run, gathered),
        "run_pipeline": ("gather", build_and_run, gathered),
    }
    await compare("five steps", pairs, rounds, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kind", nargs="+", choices=["async", "sync"], default=["async", "sync"])
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--functions", nargs="+", choices=list(FUNCTIONS), default=list(FUNCTIONS))
    parser.add_argument("--alone", action="store_true", help="leave out `tasks` and `levels`")
    options = parser.parse_args()
    asyncio.run(small(options.rounds))
    for kind, nodes, shape, functions in product(options.kind, options.nodes, options.shape, options.functions):
        asyncio.run(graphs(kind, shape, nodes, functions, options.rounds, options.alone))


if __name__ == "__main__":
    main()
