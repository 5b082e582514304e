"""
What a run keeps in memory: the peak over a chain of frames, in frames.

    python benchmarks/memory.py [--frames 50] [--megabytes 50]

Every step makes a new frame from the one before. Each contestant runs in a process of its own; what counts is the
peak of its resident memory over what it held before the run, divided by the size of a frame.

    targets     `run_pipeline(steps, targets=[last])`: each frame is dropped after its last reader
    everything  `run_pipeline(steps)`: every dataset is kept and returned
    by hand     a loop that rebinds one variable: what cannot be undercut
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import threading
from typing import Any

import pandas as pd
import psutil

from odibi_async import Step, run_pipeline, step

CONTESTANTS = ("targets", "everything", "by hand")


class Peak:
    """The highest resident memory of this process while it is entered, in bytes, looked at every millisecond."""

    def __enter__(self) -> Peak:
        self._process, self._over = psutil.Process(), threading.Event()
        self.before = self.bytes = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.001):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self.bytes = max(self.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def first(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(rows)}, dtype="int64")


def after(frame: pd.DataFrame) -> pd.DataFrame:
    return frame + 1


async def run(contestant: str, frames: int, rows: int) -> int:
    if contestant == "by hand":
        frame = first(rows)
        for _ in range(frames - 1):
            frame = after(frame)
        return int(frame["x"].iloc[0])
    steps: list[Step[..., Any, Any]] = [step(first, name="n0", params={"rows": rows})]
    steps += [step(after, name=f"n{i}", inputs={"frame": f"n{i - 1}"}) for i in range(1, frames)]
    last = f"n{frames - 1}"
    options: dict[str, Any] = {"targets": [last]} if contestant == "targets" else {}
    result = await run_pipeline(steps, **options)
    return int(result[last]["x"].iloc[0])


def measure(contestant: str, frames: int, megabytes: int) -> None:
    rows = megabytes * 2**20 // 8
    asyncio.run(run(contestant, 3, 10))  # loads whatever is loaded late
    with Peak() as peak:
        assert asyncio.run(run(contestant, frames, rows)) == frames - 1
    print(f"{contestant:12s} {(peak.bytes - peak.before) / (rows * 8):6.2f} frames at the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--only", choices=CONTESTANTS)
    options = parser.parse_args()
    if options.only:
        measure(options.only, options.frames, options.megabytes)
        return
    print(f"A chain of {options.frames} frames of {options.megabytes} MB:")
    for contestant in CONTESTANTS:
        subprocess.run([sys.executable, __file__, "--only", contestant, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
