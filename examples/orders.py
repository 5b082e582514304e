"""
Orders arrive as CSV files, and a database always has the totals: each file once, also after `kill -9`.

    python examples/orders.py FOLDER              takes what is in FOLDER/incoming, and what comes; Ctrl-C ends it
    python examples/orders.py FOLDER --once       takes what is there, and ends

Put files with the columns customer and amount into FOLDER/incoming. Kill it, start it again: FOLDER/totals.db is right.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pandas as pd

from odibi_async import Pipeline, current_step, step
from odibi_async.events import BatchFinished, BatchSetAside, Event
from odibi_async.stream import Files, run_stream

TABLES = """
CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS totals (customer INTEGER PRIMARY KEY, amount REAL NOT NULL);
"""
ADD = "INSERT INTO totals VALUES (?, ?) ON CONFLICT (customer) DO UPDATE SET amount = amount + excluded.amount"


def totals(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.groupby("customer", as_index=False).agg({"amount": "sum"})


@step(layer="store")
def added(totals: pd.DataFrame, database: str) -> None:
    """Adds the totals of a file, if that has not been done: its key is committed together with them."""
    rows = [(int(customer), float(amount)) for customer, amount in totals.itertuples(index=False)]
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.executescript(TABLES)
        connection.execute("BEGIN IMMEDIATE")
        key = current_step().idempotency_key
        if connection.execute("INSERT OR IGNORE INTO done VALUES (?)", (key,)).rowcount:
            connection.executemany(ADD, rows)
        connection.execute("COMMIT")


def told(event: Event) -> None:
    match event:
        case BatchFinished():
            print(f"{Path(event.batch).name}: {event.rows} rows, {event.pending} files to go")
        case BatchSetAside():
            print(f"{Path(event.batch).name} is set aside")


async def main(folder: Path, once: bool) -> None:
    stream = run_stream(
        Pipeline([totals, added], ["orders", "database"], name="orders"),
        Files(folder / "incoming", "*.csv"),
        into="orders",
        inputs={"database": str(folder / "totals.db")},
        journal=folder / "journal",
        observers=[told],
    )
    await (stream.drain() if once else stream)
    print(f"{stream.progress.batches} files with {stream.progress.rows} rows in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    (options.folder / "incoming").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(options.folder, options.once))
