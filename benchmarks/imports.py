"""
What importing costs: milliseconds over a bare interpreter.

    python benchmarks/imports.py [--rounds 21] [--beside hamilton dask.distributed ...]

Each import happens in a fresh interpreter; the interpreters take turns. What counts is the median of the
differences to the bare one of the same round. Modules named with `--beside` that are not installed are told of.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
from time import perf_counter

HEAVY = ("pandas", "numpy", "pydantic", "rich", "tenacity", "duckdb", "fastapi")

# an installed package is compiled; so is this one, whatever the environment says about writing what is compiled
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds_of(code: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--beside", nargs="*", default=["asyncio", "anyio", "pandas"])
    options = parser.parse_args()
    modules = ["odibi_async"]
    for name in options.beside:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            print(f"{name}: not installed")
        else:
            modules.append(name)
    for name in modules:
        seconds_of(f"import {name}")  # compiles what is not compiled
    costs: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(options.rounds):
        bare = seconds_of("pass")
        for name in modules:
            costs[name].append((seconds_of(f"import {name}") - bare) * 1e3)
    for name, millis in costs.items():
        low, _, high = statistics.quantiles(millis, n=4)
        print(
            f"import {name:20s} {statistics.median(millis):7.1f} ms over a bare interpreter ({low:.1f} to {high:.1f})"
        )
    code = f"import sys, odibi_async; print(*[name for name in {HEAVY} if name in sys.modules] or ['none'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    print(f"heavy libraries that it loads: {loaded}")


if __name__ == "__main__":
    main()
