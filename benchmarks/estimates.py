"""
How close estimates come to real runs, and a plan for many steps.

    python benchmarks/estimates.py [--steps 200] [--rounds 3] [--plan 1000000]

A pipeline of steps that wait is run with one number of workers; what it took then predicts the runs with others.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from odibi_async import Limits, Pipeline, RunResult, run_pipeline, step

WORKERS = (1, 2, 4, 8, 16, 32)


def waiting(seconds: float) -> Callable[..., None]:
    def wait(**_: object) -> None:
        time.sleep(seconds)

    return wait


def made(count: int) -> Pipeline:
    """Steps that wait 10 to 80 ms, each for up to two of the twenty before it."""
    chance = random.Random(count)
    steps = []
    for index in range(count):
        near = range(max(0, index - 20), index)
        reads = chance.sample(near, min(len(near), chance.randrange(3)))
        inputs = {f"i{read}": f"s{read}" for read in reads}
        steps.append(step(waiting(chance.uniform(0.01, 0.08)), name=f"s{index}", inputs=inputs))
    return Pipeline(steps)


async def run(pipeline: Pipeline, workers: int) -> RunResult:
    return await run_pipeline(pipeline, limits=Limits(threads=workers))


async def check(count: int, rounds: int) -> None:
    pipeline = made(count)
    runs = [await run(pipeline, 4) for _ in range(rounds)]
    history = {name: statistics.median(run.steps[name].run_seconds for run in runs) for name in runs[0].steps}
    worst = 0.0
    for workers in WORKERS:
        took = statistics.median([(await run(pipeline, workers)).seconds for _ in range(rounds)])
        estimate = pipeline.estimate(history, workers=workers)
        ratio = took / estimate.seconds
        worst = max(worst, abs(ratio - 1))
        print(f"{workers:3d} workers: {took:7.3f} s, estimated {estimate.seconds:7.3f} s: {ratio:.3f} x")
    print(f"{'worst deviation':40s} {worst:8.3f}     (target: at most 0.1, {'met' if worst <= 0.1 else 'missed'})")


def nothing(**_: object) -> None: ...


def plan(count: int) -> None:
    """
    A plan for many steps: parts of 50 MB are read, cleaned, and joined in a tree with 100 branches a node.
    """
    chance = random.Random(1)
    parts = int(count / 2.0102)
    began = perf_counter()
    steps: list[Any] = []
    history: dict[str, float] = {}
    sizes: dict[str, int] = {}

    def add(name: str, reads: list[str], seconds: float, size: int) -> str:
        steps.append(step(nothing, name=name, inputs={f"i{n}": read for n, read in enumerate(reads)}))
        history[name], sizes[name] = seconds, size
        return name

    level = []
    for n in range(parts):
        read = add(f"read{n}", [], chance.uniform(1, 3), 50_000_000)
        level.append(add(f"clean{n}", [read], chance.uniform(2, 10), 20_000_000))
    depth = 0
    while len(level) > 1:
        depth += 1
        level = [
            add(f"join{depth}_{n}", level[n : n + 100], chance.uniform(5, 20), 20_000_000)
            for n in range(0, len(level), 100)
        ]
    pipeline = Pipeline(steps)
    print(f"a plan for {len(steps):,} steps (made in {perf_counter() - began:.0f} s)")
    print(f"{'workers':>8s} {'takes':>10s} {'busy':>6s} {'peak':>10s} {'moved':>10s}  limited by (simulated in)")
    for workers in (1, 10, 100, 1000, 2000, 5000, 10_000):
        began = perf_counter()
        each = pipeline.estimate(history, workers=workers, sizes=sizes)
        print(
            f"{workers:8,d} {each.seconds / 3600:8.2f} h {each.utilisation:6.1%} {each.peak_bytes / 1e9:7,.0f} GB"
            f" {each.moved_bytes / 1e9:7,.0f} GB  {each.limited_by} ({perf_counter() - began:.0f} s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plan", type=int, default=1_000_000)
    options = parser.parse_args()
    asyncio.run(check(options.steps, options.rounds))
    plan(options.plan)


if __name__ == "__main__":
    main()
