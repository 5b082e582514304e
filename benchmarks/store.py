"""
What it costs to keep a frame on disk and to load it again, beside what cannot be undercut.

    python benchmarks/store.py [--megabytes 100] [--rounds 5]

    keep   `Store.keep` beside writing the frame as plain Arrow IPC and hashing the bytes with BLAKE3; at most 1.3
           times that is meant, of a frame whose digest is known
    load   `Store.load`, every byte verified, beside one copy of the bytes in memory; at most 6 times that is meant,
           for numbers and Arrow texts
    gaps   how late a loop in another thread is meanwhile: median below 10 ms, 99th percentile below 20 ms

diskcache (pickles) and joblib stand beside, where they are installed. Rounds take turns; the best of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from blake3 import blake3

from odibi_async.store import Kept, Store

DIGEST = "0" * 64


def frames(megabytes: int) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(1)
    rows = megabytes * 2**20 // 40
    numbers = {f"n{i}": generator.integers(0, 10**9, rows) for i in range(3)}
    numeric = pd.DataFrame({**numbers, **{f"f{i}": generator.random(rows) for i in range(2)}})
    texts = [f"customer {number}" for number in generator.integers(0, 10**9, megabytes * 2**20 // 26)]
    return {
        "numbers": numeric,
        "arrow texts": pd.DataFrame({"text": pd.array(texts, dtype=pd.StringDtype("pyarrow"))}),
        "object texts": pd.DataFrame({"text": pd.Series(texts, dtype=object)}),
    }


def plain_arrow(frame: pd.DataFrame, directory: Path) -> None:
    path = directory / "plain.arrow"
    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    hasher = blake3()
    with open(path, "rb", buffering=0) as written:
        while data := written.read(2**20):
            hasher.update(data)
    path.unlink()


def keep_anew(store: Store, frame: pd.DataFrame) -> Kept:
    kept = store.keep(frame, DIGEST)
    store.discard(kept.blob)
    return kept


def rivals(directory: Path, frame: pd.DataFrame) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name -> what keeps the frame, and what loads it."""
    found: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    import diskcache

    cache = diskcache.Cache(str(directory / "diskcache"))
    found["diskcache"] = (lambda: cache.set("key", frame)), (lambda: cache.get("key"))
    if importlib.util.find_spec("joblib"):
        import joblib

        path = str(directory / "joblib")
        found["joblib"] = (lambda: joblib.dump(frame, path)), (lambda: joblib.load(path))
    return found


def best(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest call of each, taking turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            os.sync()  # what others wrote must not be written out meanwhile
            began = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - began)
    return {name: min(times) for name, times in took.items()}


async def gaps_during(call: Callable[[], Any]) -> tuple[float, float]:
    """Median and 99th percentile of how late a loop is while the call runs in a thread, in seconds."""
    working = asyncio.create_task(asyncio.to_thread(call))
    gaps = []
    while not working.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - began - 0.001)
    await working
    gaps.sort()
    return gaps[len(gaps) // 2], gaps[int(len(gaps) * 0.99)]


def report(name: str, frame: pd.DataFrame, directory: Path, rounds: int) -> None:
    store = Store(directory / "store")
    kept = store.keep(frame, DIGEST)
    other = Store(directory / "again")
    beside = rivals(directory, frame)
    keeps = {"store": lambda: keep_anew(other, frame), "arrow + blake3": lambda: plain_arrow(frame, directory)}
    took = best(keeps, rounds) | best({rival: keep for rival, (keep, _) in beside.items()}, rounds)
    print(f"\n{name}, {kept.size / 2**20:.0f} MB")
    for contestant, seconds in took.items():
        print(f"  keep  {contestant:15s} {seconds / took['arrow + blake3']:6.2f} x arrow + blake3")
    data = np.frombuffer(os.urandom(kept.size), "u1")
    loads: dict[str, Callable[[], Any]] = {"store": lambda: store.load(kept), "copy": data.copy}
    took = best(loads, rounds) | best({rival: load for rival, (_, load) in beside.items()}, rounds)
    for contestant, seconds in took.items():
        print(f"  load  {contestant:15s} {seconds / took['copy']:6.2f} x a copy in memory")
    for what, call in (("keep", keeps["store"]), ("load", loads["store"])):
        median, late = asyncio.run(gaps_during(call))
        print(f"  gaps  {what:15s} {median * 1000:6.2f} ms, 99 %: {late * 1000:.2f} ms")
    store.close()
    other.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name, frame in frames(options.megabytes).items():
        with tempfile.TemporaryDirectory() as directory:
            report(name, frame, Path(directory), options.rounds)


if __name__ == "__main__":
    main()
