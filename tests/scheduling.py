"""A server of schedules in a process of its own, which tests kill: `python -m tests.scheduling JOURNAL LOG SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime

from odibi_async import Limits, Runner, step
from odibi_async.events import SchedulesLed
from odibi_async.schedule import Every, Schedule, serve

LOG = sys.argv[2]


def note(*words: object) -> None:
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


@step(run_on="thread")
def first(scheduled_at: datetime) -> str:
    note("first", scheduled_at.isoformat())
    return scheduled_at.isoformat()


async def second(first: str) -> str:
    await asyncio.sleep(0.05)
    note("second", first)
    return first


async def main() -> None:
    schedule = Schedule(pipeline=[first, second], trigger=Every(0.25), overlap="queue", missed="all")

    def observer(event: object) -> None:
        if isinstance(event, SchedulesLed):
            note("leads" if event.is_leading else "follows")

    async with Runner(limits=Limits(threads=2)) as runner:
        note("serves")
        await serve({"quick": schedule}, runner, journal=sys.argv[1], observers=[observer], takeover=float(sys.argv[3]))


if __name__ == "__main__":
    asyncio.run(main())
