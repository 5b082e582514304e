"""
What configurations cost: seconds to load and check them.

    python benchmarks/config.py [--rounds 5] [--steps 1000 10000] [--formats .json .yaml ...]

Each step reads two others and has params, metadata, a retry policy and tags. `read` is the text with its places
alone, `load` is `load_steps` with it, and `check` the `Pipeline` of the steps, whose functions are put in by hand.
What counts is the median. The last column loads the same file with an unknown engine in every step.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gc
import json
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from odibi_async import Pipeline, Step
from odibi_async.config.loading import SUFFIXES, _read, load_steps
from odibi_async.errors import ConfigError

Entries = dict[str, Any]
COLUMNS = ["name", "layer", "type", "engine", "value", "params", "inputs", "metadata", "retry", "tags"]


def entries(steps: int, engine: str) -> list[Entries]:
    return [
        {
            "name": f"step_{i}",
            "layer": "transform",
            "type": "function",
            "engine": engine,
            "value": "joined",
            "params": {"columns": ["origin", "dest", "dep_delay"], "threshold": 0.5, "how": "left"},
            "inputs": {"left": f"step_{i - 1}" if i else "outside", "right": f"step_{i // 2}" if i else "outside"},
            "metadata": {"owner": "operations", "description": f"what step {i} is there for"},
            "retry": {"attempts": 3, "wait": 0.5},
            "tags": ["daily", "flights"],
        }
        for i in range(steps)
    ]


def joined(left: Any, right: Any, columns: list[str], threshold: float, how: str) -> Any:
    return left


def cells(entries: Entries) -> list[str]:
    return [each if isinstance(each, str) else json.dumps(each) for each in entries.values()]


def toml(steps: list[Entries]) -> str:
    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return f"{{ {', '.join(f'{key} = {inline(each)}' for key, each in value.items())} }}"
        return json.dumps(value)

    return "\n".join("[[steps]]\n" + "".join(f"{k} = {inline(v)}\n" for k, v in step.items()) for step in steps)


def write(path: Path, steps: list[Entries]) -> None:
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(steps, indent=2))
        case ".yaml" | ".yml":
            path.write_text(yaml.dump(steps, Dumper=yaml.CSafeDumper, sort_keys=False))
        case ".toml":
            path.write_text(toml(steps))
        case ".csv":
            with path.open("w", newline="") as out:
                csv.writer(out).writerows([COLUMNS, *map(cells, steps)])
        case _:
            with closing(sqlite3.connect(path)) as db, db:
                db.execute(f"CREATE TABLE transformation_config ({', '.join(COLUMNS)})")
                holes = ", ".join("?" * len(COLUMNS))
                db.executemany(f"INSERT INTO transformation_config VALUES ({holes})", map(cells, steps))


def checked(steps: list[Step[..., Any, Any]]) -> Pipeline:
    return Pipeline([dataclasses.replace(step, value=joined) for step in steps], inputs=["outside"])


def refused(path: Path) -> int:
    try:
        load_steps(path)
    except ConfigError as error:
        return len(str(error))
    raise AssertionError("an unknown engine went through")


def median(rounds: int, run: Callable[[], Any]) -> float:
    times = []
    for _ in range(rounds):
        gc.collect()
        began = perf_counter()
        made = run()
        times.append(perf_counter() - began)
        del made
    return statistics.median(times)


def measure(folder: Path, suffix: str, steps: int, rounds: int) -> None:
    path, bad = folder / f"good{steps}{suffix}", folder / f"bad{steps}{suffix}"
    write(path, entries(steps, "pandas"))
    write(bad, entries(steps, "padnas"))
    loaded = load_steps(path)
    read = median(rounds, lambda: _read(path))
    load = median(rounds, lambda: load_steps(path))
    check = median(rounds, lambda: checked(loaded))
    wrong = median(1, lambda: refused(bad))
    size = path.stat().st_size / 1e6
    print(f"{suffix:8s} {steps:7,} {size:6.1f} {read:8.3f} {load:8.3f} {check:8.3f} {load + check:8.3f} {wrong:8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--formats", nargs="+", choices=SUFFIXES, default=[".json", ".yaml", ".toml", ".csv", ".db"])
    options = parser.parse_args()
    print(
        f"{'format':8s} {'steps':>7s} {'MB':>6s} {'read':>8s} {'load':>8s} {'check':>8s} {'in all':>8s} {'wrong':>8s}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for suffix in options.formats:
            for steps in options.steps:
                measure(Path(folder), suffix, steps, options.rounds)


if __name__ == "__main__":
    main()
