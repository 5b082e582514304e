"""
What a configured pipeline costs over the same work by hand with pandas and DuckDB: reading CSV, SQL, writing.

    python benchmarks/pandas_pipeline.py [--gigabytes 0.1] [--repeat 3]

Two pipelines: one chain (read, two queries, write), and two independent branches of such. By hand they are straight
code on one thread, once with DuckDB's `df()` as most people write it, once through Arrow. All are timed in turn, in
one process, after a first round that does not count; each figure is the median. Aims: a ratio of at most 1.15, and
below 1 where branches are independent.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from odibi_async import Pipeline, Runner, create_engine_context, load_steps

Query = Callable[[str, pd.DataFrame], pd.DataFrame]
CLEAN = "SELECT *, price * amount AS total FROM data WHERE amount > 1"
SUMS = "SELECT customer, sum(total) AS total, count(*) AS n FROM data GROUP BY customer ORDER BY customer"


def make_data(folder: Path, gigabytes: float, parts: int) -> list[str]:
    """Writes that many bytes of CSV in equal parts; the files' names."""
    rng = np.random.default_rng(1)
    names = []
    for part in range(parts):
        frame = pd.DataFrame(
            {
                "id": np.arange(200_000),
                "customer": rng.integers(0, 5_000, 200_000),
                "amount": rng.integers(1, 9, 200_000),
                "price": rng.random(200_000).round(4),
                "note": rng.choice(["fragile", "express", "gift", "returned"], 200_000),
            }
        )
        path = folder / f"part{part}.csv"
        text = frame.to_csv(index=False)
        header, rows = text.split("\n", 1)
        with path.open("w") as file:
            file.write(header + "\n")
            for _ in range(max(1, round(gigabytes * 1e9 / parts / len(rows)))):
                file.write(rows)
        names.append(path.name)
    return names


def by_df(text: str, frame: pd.DataFrame) -> pd.DataFrame:
    """As most people write it."""
    made: pd.DataFrame = duckdb.query_df(frame, "data", text).df()
    return made


def by_arrow(text: str, frame: pd.DataFrame) -> pd.DataFrame:
    """As those write it who know that it is the faster way."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    rows: Any = duckdb.from_arrow(table).query("data", text)
    made: pd.DataFrame = rows.to_arrow_table().to_pandas()
    return made


def by_hand(query: Query, folder: Path, files: list[str]) -> None:
    for file in files:
        data = pd.read_csv(folder / file)
        query(SUMS, query(CLEAN, data)).to_csv(folder / f"{file}.sums", index=False)


def configured(files: list[str]) -> Pipeline:
    entries: list[dict[str, object]] = []
    for file in files:
        entries += [
            {"name": f"read {file}", "layer": "ingest", "value": file},
            {"name": f"clean {file}", "type": "sql", "value": CLEAN, "inputs": {"data": f"read {file}"}},
            {"name": f"sums {file}", "type": "sql", "value": SUMS, "inputs": {"data": f"clean {file}"}},
            {
                "name": f"save {file}",
                "layer": "store",
                "value": f"{file}.out",
                "inputs": {"data": f"sums {file}"},
                "params": {"format": "csv"},
            },
        ]
    return Pipeline(load_steps(entries))


def seconds(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def compare(folder: Path, files: list[str], repeat: int) -> tuple[float, float, float]:
    """Median seconds by hand, in both ways, and configured."""
    pipeline = configured(files)
    targets = [f"save {file}" for file in files]
    with asyncio.Runner() as loop, create_engine_context("pandas", root=folder) as engine:
        runner = Runner()
        calls = (
            lambda: by_hand(by_df, folder, files),
            lambda: by_hand(by_arrow, folder, files),
            lambda: loop.run(runner.run(pipeline, targets=targets, engine=engine)),
        )
        times = [[seconds(call) for call in calls] for _ in range(repeat + 1)]
    df, arrow, ours = map(statistics.median, zip(*times[1:], strict=True))
    return df, arrow, ours


def main() -> None:
    parser = argparse.ArgumentParser(description="A configured pipeline against pandas and DuckDB by hand.")
    parser.add_argument("--gigabytes", type=float, default=0.1)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(f"{'seconds':26}{'df()':>8}{'Arrow':>8}{'ours':>8}   ratio to df()   to Arrow")
    for parts, what in ((1, "one chain"), (2, "two independent branches")):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            files = make_data(folder, options.gigabytes, parts)
            df, arrow, ours = compare(folder, files, options.repeat)
            print(f"{what:26}{df:8.2f}{arrow:8.2f}{ours:8.2f}{ours / df:16.2f}{ours / arrow:11.2f}")


if __name__ == "__main__":
    main()
