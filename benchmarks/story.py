"""
What the tracker and the story of a run cost.

    python benchmarks/story.py [--steps 10000] [--rounds 7] [--large 1000]

- steps: a run of so many async steps that do nothing, with a `Tracker` and without, in microseconds of CPU time a step
  that it adds; at most 25 is meant. Beside it an observer that only counts.
- flights: the demo with a tracker and its story written, beside the demo without: ratio of medians; at most 1.10.
- large: seconds to write the story of a run of so many steps with frames, and its size; at most 3 s and 2 MB.
- browser: seconds until Chromium, if it is installed, has printed the page of that story; at most 2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import pandas as pd

from odibi_async import Pipeline, Tracker, run_pipeline, step
from odibi_async.events import Event

EXAMPLES = Path(__file__).parents[1] / "examples"


class Counter:
    """An observer that only counts."""

    count = 0

    def __call__(self, event: Event) -> None:
        self.count += 1


def small(count: int) -> Pipeline:
    async def nothing() -> int:
        return 1

    return Pipeline([step(nothing, name=f"step {i}") for i in range(count)])


async def steps(count: int, rounds: int) -> None:
    pipeline = small(count)
    added: dict[str, list[float]] = {"tracker": [], "counter": []}
    for number in range(rounds + 1):
        gc.collect()
        began = process_time()
        await pipeline.run()
        bare = process_time() - began
        for name, observer in (("tracker", Tracker(keep_last=1)), ("counter", Counter())):
            gc.collect()
            began = process_time()
            await pipeline.run(observers=[observer])
            if number:
                added[name].append((process_time() - began - bare) / count * 1e6)
    for name, found in added.items():
        print(f"steps: {name} {statistics.median(found):.1f} us a step ({min(found):.1f} to {max(found):.1f})")


async def flights(rounds: int) -> None:
    sys.path.insert(0, str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("flights", EXAMPLES / "flights.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    bare, told = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds + 1):
            began = perf_counter()
            await run_pipeline(demo.pipeline, demo.given())
            bare.append(perf_counter() - began)
            tracker, began = Tracker(), perf_counter()
            await run_pipeline(demo.pipeline, demo.given(), observers=[tracker])
            await asyncio.to_thread(tracker.tell, Path(scratch) / "story.html")
            told.append(perf_counter() - began)
    ratios = [a / b for a, b in zip(told[1:], bare[1:], strict=True)]
    print(f"flights: {statistics.median(ratios):.3f} times the run alone ({min(ratios):.3f} to {max(ratios):.3f})")


async def large(count: int) -> None:
    frame = pd.DataFrame({"a": range(1_000), "b": "text", "c": 1.5})
    readers = [step(lambda first: first.head(10), name=f"step {i}", layer="store") for i in range(count - 1)]
    tracker = Tracker()
    await run_pipeline([step(lambda: frame, name="first"), *readers], observers=[tracker])
    with tempfile.TemporaryDirectory() as scratch:
        began = perf_counter()
        page = Path(tracker.tell(Path(scratch) / "story.html"))
        print(f"large: {count:,} steps told in {perf_counter() - began:.2f} s, {page.stat().st_size / 1e6:.2f} MB")
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is not None:
            flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
            empty = Path(scratch) / "empty.html"
            empty.write_text("<!doctype html><title>nothing</title>")
            took = []
            for file in (empty, page, empty, page):
                began = perf_counter()
                command = [chromium, *flags, f"--user-data-dir={scratch}/profile", "--dump-dom", file.as_uri()]
                subprocess.run(command, capture_output=True, check=True, timeout=60)
                took.append(perf_counter() - began)
            print(f"browser: the page takes {took[3] - took[2]:.2f} s more than an empty one, {took[3]:.2f} s in all")


async def main(given: argparse.Namespace) -> None:
    await steps(given.steps, given.rounds)
    await flights(given.rounds)
    await large(given.large)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large", type=int, default=1_000)
    asyncio.run(main(parser.parse_args()))
