"""
Streams that are killed, in children of a zygote.

    {"folder": ..., "source": "files", "kill": ["before commit", 3]}     kill may be left out

A child drains the stream in its folder: what is in `in/`, or in the table `things` of `source.db`. It writes rows to
`sink.db`: to `saved` with the key of the step in the same transaction, to `logged` without.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import traceback
from pathlib import Path
from typing import Any

import pandas as pd

import odibi_async.journal.journals
import odibi_async.observers.redaction
import odibi_async.stream.tables  # noqa: F401 (loaded before the fork)
from odibi_async import Pipeline, current_step
from odibi_async.stream import Files, Rows, run_stream
from tests.zygote import killed_at, serve

TABLES = """
CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS saved (name TEXT);
CREATE TABLE IF NOT EXISTS logged (name TEXT);
"""


@contextlib.contextmanager
def sink() -> Any:
    with contextlib.closing(sqlite3.connect("sink.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = off")  # processes are killed here, not machines
        yield connection


def names(batch: pd.DataFrame) -> list[str]:
    return [str(name) for name in batch["name"]]


def logged(names: list[str]) -> None:
    """At least once."""
    with sink() as connection:
        connection.executemany("INSERT INTO logged VALUES (?)", [(name,) for name in names])


def saved(names: list[str]) -> None:
    """Exactly once: rows and key are there together, or not at all."""
    with sink() as connection:
        connection.execute("BEGIN IMMEDIATE")
        key = current_step().idempotency_key
        if connection.execute("INSERT OR IGNORE INTO done VALUES (?)", (key,)).rowcount:
            connection.executemany("INSERT INTO saved VALUES (?)", [(name,) for name in names])
        connection.execute("COMMIT")


async def drained(source: str) -> None:
    pipeline = Pipeline([names, logged, saved], ["batch"], name=source)
    where = (
        Files("in", settle=0, watch=False)
        if source == "files"
        else Rows("things", column="at", connection="source.db", lateness=50, batch_size=40, interval=0.01)
    )
    await run_stream(pipeline, where, into="batch", journal="journal", wait=0.01, keep_last=10).drain()


def child(command: dict[str, Any]) -> None:
    try:
        with killed_at(command.get("kill")):
            asyncio.run(drained(command["source"]))
        Path("error.txt").unlink(missing_ok=True)
    except BaseException as error:
        Path("error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        os._exit(1)


if __name__ == "__main__":
    serve(child)
