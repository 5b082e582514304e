"""
What digests cost, beside BLAKE3 over the same bytes, and what they do to an event loop in another thread.

    python benchmarks/fingerprint.py [--megabytes 100] [--rounds 7] [--steps 1000]

The contestants of a frame take turns in one process; what counts is the median of the ratios of the same round. The
bytes are those that the values lie in: numbers, and texts with the ends that tell them apart. `joblib.hash` and
`hash_pandas_object` are there for scale (what they give is no content digest).

The gap is the time between two turns of a loop that asks to be woken every millisecond, while a thread digests.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from blake3 import blake3

from odibi_async.fingerprint import code_of, digest_of

BOUNDS = {"numbers": 1.5, "Arrow texts": 2.5, "object texts": 15.0}


def numbers(size: int) -> tuple[pd.DataFrame, bytes]:
    random = np.random.default_rng(0)
    rows = size // 40
    columns: dict[str, Any] = {name: random.normal(size=rows) for name in "abc"}
    frame = pd.DataFrame(columns | {"d": np.arange(rows), "e": pd.to_datetime(np.arange(rows), unit="s")})
    return frame, b"".join(frame.iloc[:, place].to_numpy().tobytes() for place in range(5))


def words(size: int) -> list[str]:
    return [f"customer number {number:08d}" for number in range(size // 24)]


def arrow_texts(size: int) -> tuple[pd.DataFrame, bytes]:
    texts = words(size * 3 // 4)  # the other quarter are the offsets
    return pd.DataFrame({"a": pd.Series(texts, dtype="str")}), "".join(texts).encode() + bytes(8 * len(texts))


def object_texts(size: int) -> tuple[pd.DataFrame, bytes]:
    texts = words(size)
    return pd.DataFrame({"a": pd.Series(texts, dtype=object)}), "\0".join(texts).encode()


def mixed_cells(size: int) -> tuple[pd.DataFrame, bytes]:
    cells = [number if number % 3 else None for number in range(size // 8)]
    return pd.DataFrame({"a": pd.Series(cells, dtype=object)}), bytes(size)


def wide(size: int) -> tuple[pd.DataFrame, bytes]:
    array = np.random.default_rng(0).normal(size=(size // 8 // 100, 100))
    return pd.DataFrame(array), array.tobytes()


FRAMES: dict[str, Callable[[int], tuple[pd.DataFrame, bytes]]] = {
    "numbers": numbers,
    "numbers in rows": wide,
    "Arrow texts": arrow_texts,
    "object texts": object_texts,
    "object mix": mixed_cells,
}


def rivals() -> dict[str, Callable[[pd.DataFrame], Any]]:
    found: dict[str, Callable[[pd.DataFrame], Any]] = {"digest_of": digest_of}
    if importlib.util.find_spec("joblib"):
        found["joblib.hash"] = __import__("joblib").hash
    found["hash_pandas_object"] = lambda frame: pd.util.hash_pandas_object(frame).sum()
    return found


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(title: str, frame: pd.DataFrame, raw: bytes, rounds: int) -> None:
    ratios: dict[str, list[float]] = {name: [] for name in rivals()}
    for turn in range(rounds):
        base = seconds(lambda: blake3(raw).digest())
        for name, call in rivals().items():
            if name == "digest_of" or turn < 2:  # the others are slow
                ratios[name].append(seconds(functools.partial(call, frame)) / base)
    print(f"{title}, {len(raw) / 1e6:.0f} MB:")
    for name, found in ratios.items():
        found.sort()
        bound = f" (bound: {BOUNDS[title]})" if name == "digest_of" and title in BOUNDS else ""
        print(
            f"  {name:20s} {statistics.median(found):8.2f} x BLAKE3 "
            f"({found[len(found) // 4]:.2f} to {found[-1 - len(found) // 4]:.2f}){bound}"
        )


async def gaps_while(frame: pd.DataFrame) -> list[float]:
    """Milliseconds from one turn of the loop to the next while a thread digests the frame."""
    gaps, last = [], time.perf_counter()
    digest = asyncio.create_task(asyncio.to_thread(digest_of, frame))
    while not digest.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append((now - last) * 1e3)
        last = now
    return gaps


def loop_gap(title: str, frame: pd.DataFrame, rounds: int) -> None:
    gaps = [gap for _ in range(rounds) for gap in asyncio.run(gaps_while(frame))]
    p99 = statistics.quantiles(gaps, n=100, method="inclusive")[-1] if len(gaps) > 1 else gaps[0]
    print(
        f"  gap of the loop      {statistics.median(gaps):8.2f} ms, p99 {p99:.2f} ms, worst {max(gaps):.2f} ms "
        "(bounds: 10 and 20 ms)"
    )


LIMIT = 10
NAMES = {"a": 1, "b": [2, 3]}


def tidy(x: Any) -> Any:
    return [deeper(each) for each in x if each in NAMES]


def deeper(x: Any) -> Any:
    return np.minimum(x, LIMIT)


def clean(x: Any, limit: int) -> Any:
    return tidy(x)[:limit]


def code(steps: int) -> None:
    def made(factor: int) -> Callable[..., Any]:
        return lambda x: clean(x, factor)

    functions = [made(each) for each in range(steps)]
    code_of(functions[0])
    spent = seconds(lambda: [code_of(each) for each in functions])
    print(f"code_of              {spent / steps * 1e3:8.3f} ms a step (bound: 0.3)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    for title, make in FRAMES.items():
        frame, raw = make(int(options.megabytes * 1e6))
        compare(title, frame, raw, options.rounds)
        loop_gap(title, frame, min(3, options.rounds))
    code(options.steps)


if __name__ == "__main__":
    main()
