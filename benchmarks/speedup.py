"""
What running side by side gains: four equal branches that wait for something, beside one step at a time.

    python benchmarks/speedup.py [--branches 4] [--length 3] [--seconds 0.1] [--rounds 5]

A branch is a chain of steps that each sleep. Both contestants run in turns in one process and one loop; what counts
is the median of the ratios of the same round.

    async       the steps are coroutines
    blocking    they are plain functions that block, so they run in threads
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from overhead import timed

from odibi_async import Limits, Pipeline, Step, step


async def async_wait(seconds: float, before: int = 0) -> int:
    await asyncio.sleep(seconds)
    return before + 1


def blocking_wait(seconds: float, before: int = 0) -> int:
    time.sleep(seconds)
    return before + 1


FUNCTIONS: dict[str, Callable[..., Any]] = {"async": async_wait, "blocking": blocking_wait}


def branches(function: Callable[..., Any], count: int, length: int, seconds: float) -> Pipeline:
    steps: list[Step[..., Any, Any]] = [
        step(
            function,
            name=f"branch{branch}_{place}",
            params={"seconds": seconds},
            inputs={"before": f"branch{branch}_{place - 1}"} if place else {},
        )
        for branch in range(count)
        for place in range(length)
    ]
    return Pipeline(steps)


async def compare(kind: str, options: argparse.Namespace) -> None:
    pipeline = branches(FUNCTIONS[kind], options.branches, options.length, options.seconds)
    alone, together = [], []
    for _ in range(options.rounds):
        alone.append(await timed(lambda: pipeline.run(limits=Limits(concurrency=1)), perf_counter))
        together.append(await timed(lambda: pipeline.run(limits=Limits()), perf_counter))
    ratios = sorted(a / b for a, b in zip(alone, together, strict=True))
    print(
        f"{kind:10s} {statistics.median(alone):.3f} s one at a time, {statistics.median(together):.3f} s together: "
        f"{statistics.median(ratios):.2f} times faster ({ratios[len(ratios) // 4]:.2f} to "
        f"{ratios[-1 - len(ratios) // 4]:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--length", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    target = "; the target is 3.8" if options.branches == 4 else ""
    print(f"{options.branches} branches of {options.length} steps that wait {options.seconds} s each{target}:")
    for kind in FUNCTIONS:
        asyncio.run(compare(kind, options))


if __name__ == "__main__":
    main()
