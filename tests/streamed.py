"""A streaming run that may be killed at any moment: `python -m tests.streamed FOLDER`, again until it ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from odibi_async import current_step, run_pipeline, step

BATCHES = 30


async def numbers() -> AsyncIterator[list[int]]:
    for start in range(0, 3 * BATCHES, 3):
        await asyncio.sleep(0.002)
        yield [start, start + 1, start + 2]


def note(folder: Path, line: str) -> None:
    with (folder / "calls.log").open("a") as log:
        log.write(line + "\n")


@step(map_over="batch", inputs={"batch": "numbers"})
def load(batch: list[int], folder: str) -> int:
    """Writes rows so that they are there once, however often that is done."""
    note(Path(folder), f"load {current_step().element}")
    time.sleep(0.002)
    for row in batch:
        (Path(folder) / "rows" / str(row)).write_text(str(row))
    return len(batch)


def count(load: Iterator[int], folder: str) -> int:
    note(Path(folder), "count")
    return sum(load)


def last(count: int, folder: str) -> int:
    time.sleep(0.2)
    return count


async def main(folder: Path) -> None:
    steps = [numbers, load, count, last]
    is_new = not (folder / "begun").exists()
    (folder / "begun").touch()
    (folder / "rows").mkdir(exist_ok=True)
    try:
        result = await run_pipeline(
            steps, {"folder": str(folder)}, run_id="r", resume=not is_new, journal=folder / "journal"
        )
    except Exception as error:  # killed before the run had its row
        if "no run" not in str(error):
            raise
        result = await run_pipeline(steps, {"folder": str(folder)}, run_id="r", journal=folder / "journal")
    note(folder, f"ended {result['last']} {result.steps['count'].status} {result.steps['load'].status}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
