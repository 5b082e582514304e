"""
Runs that are killed, in children of a zygote.

    {"folder": ..., "resume": false, "kill": ["before commit", 3], "journal": "journal", "outcome": "outcome.json"}

All but the folder may be left out. A child writes what became of its run to `outcome`, and each step that is called
adds its name to `calls.log`.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 (loaded before the fork)
import numpy as np
import pandas as pd

import odibi_async.cache.layer
import odibi_async.config.compiler
import odibi_async.engines.pandas
import odibi_async.journal.journals  # noqa: F401
from odibi_async import Limits, Pipeline, Step, current_step, run_pipeline, step
from odibi_async.fingerprint import digest_of
from tests.zygote import killed_at, serve


def called() -> None:
    about = current_step()
    with open("calls.log", "a", encoding="utf-8") as log:
        log.write(f"{about.name} {about.element}\n")


def source(seed: int) -> pd.DataFrame:
    called()
    time.sleep(0.005)
    random = np.random.default_rng(seed)
    return pd.DataFrame({"key": random.integers(0, 50, 5000), "amount": random.uniform(size=5000)})


async def numbers() -> list[int]:
    called()
    return list(range(8))


@step(map_over="numbers")
def square(numbers: int) -> int:
    called()
    time.sleep(0.002)
    return numbers * numbers


@step(map_over="square")
async def labelled(square: int) -> str:
    called()
    await asyncio.sleep(0.002)
    return f"number {square}" * 1000


@step(inputs={"left": "source_1", "right": "source_2"})
def joined(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    called()
    return left.merge(right.groupby("key").sum().reset_index(), on="key", suffixes=("", "_right"))


async def report(totals: pd.DataFrame, labelled: list[str]) -> dict[str, Any]:
    called()
    await asyncio.sleep(0.005)
    return {"rows": len(totals), "labels": len(labelled)}


def sent(report: dict[str, Any]) -> None:
    called()


def pipeline() -> Pipeline:
    query = "SELECT key, sum(amount) AS amount, sum(amount_right) AS other FROM joined GROUP BY key ORDER BY key"
    return Pipeline(
        [
            *(step(source, name=f"source_{seed}", params={"seed": seed}) for seed in (1, 2, 3)),
            numbers,
            square,
            labelled,
            joined,
            Step("transform", "totals", "sql", "pandas", query, inputs={"joined": "joined"}),
            Step("store", "saved", "config_op", "pandas", "totals.csv", inputs={"totals": "totals"}),
            Step("store", "saved_3", "config_op", "pandas", "third.csv", inputs={"source_3": "source_3"}),
            report,
            sent,
        ],
        name="crashing",
    )


async def run(run_id: str, resume: bool, journal: str) -> dict[str, Any]:
    limits = Limits(concurrency=3, threads=2)
    result = await run_pipeline(pipeline(), run_id=run_id, resume=resume, journal=journal, limits=limits)
    return {
        "steps": {name: str(record.status) for name, record in result.steps.items()},
        "outputs": {name: digest_of(value, ordered=True) for name, value in result.outputs.items()},
        "files": {name: digest_of(Path(name).read_bytes()) for name in ("totals.csv", "third.csv")},
    }


def child(command: dict[str, Any]) -> None:
    try:
        with killed_at(command.get("kill")):
            outcome = asyncio.run(run("r", command.get("resume", False), command.get("journal", "journal")))
    except Exception as error:
        outcome = {"error": type(error).__name__, "text": "".join(traceback.format_exception(error))}
    Path(command.get("outcome", "outcome.json")).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    serve(child)
