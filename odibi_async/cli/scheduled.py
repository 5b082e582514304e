"""What a journal knows of schedules, and pausing them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from datetime import datetime, timezone

from odibi_async.cli.answer import Answer, Problem
from odibi_async.cli.output import table
from odibi_async.cli.runs import opened
from odibi_async.errors import RecordDamaged, ScheduleUnknown
from odibi_async.journal import Journal
from odibi_async.schedule.ledger import Ledger
from odibi_async.schedule.records import LastRun, Record, paused, resumed


def listed(journal: str | None) -> Answer:
    """The schedules that a journal knows."""
    with opened(journal) as found:
        records = asyncio.run(_records(found))
    rows: list[tuple[str, ...]] = [("SCHEDULE", "STATE", "RUNS", "LAST RUN", "ENDED", "STATUS", "ERROR")]
    rows += [_row(name, record) for name, record in records.items() if isinstance(record, Record)]
    damaged = [
        Problem(code=each.code, message=str(each)) for each in records.values() if isinstance(each, RecordDamaged)
    ]
    data = [_data(name, record) for name, record in records.items() if isinstance(record, Record)]
    return Answer(text=table(rows), data={"schedules": data}, problems=damaged)


def set_paused(journal: str | None, name: str, is_paused: bool) -> Answer:
    """
    Pauses or resumes a schedule.

    Raises:
        ScheduleUnknown: The journal has none of this name.
    """
    edit = paused if is_paused else functools.partial(resumed, datetime.now(timezone.utc))
    with opened(journal) as found:
        ledger = Ledger(found.backend)

        async def amended() -> None:
            known = await ledger.names()
            if name not in known:
                raise ScheduleUnknown(name, known)
            await ledger.amend(name, edit)

        asyncio.run(amended())
    state = "paused" if is_paused else "resumed"
    return Answer(text=f"{name}: {state}", data={"schedule": name, "state": state})


async def _records(journal: Journal) -> dict[str, Record | RecordDamaged]:
    ledger, found = Ledger(journal.backend), dict[str, Record | RecordDamaged]()
    names = await ledger.names()
    await ledger.load(names)
    for name in names:
        try:
            found[name] = ledger.known(name)
        except RecordDamaged as error:
            found[name] = error
    return found


def _state(record: Record) -> str:
    if record.is_paused:
        return "paused"
    return "running" if record.opened else "waiting"


def _row(name: str, record: Record) -> tuple[str, ...]:
    last = record.last
    ended = ("", "", "", "") if last is None else (last.run_id, _time(last.ended_at), last.status, last.error)
    return (name, _state(record), str(len(record.opened)), *ended)


def _data(name: str, record: Record) -> dict[str, object]:
    return {
        "name": name,
        "state": _state(record),
        "running": [opened.run_id for opened in record.opened],
        "last": None if record.last is None else _last(record.last),
    }


def _last(last: LastRun) -> dict[str, object]:
    found = dataclasses.asdict(last)
    return found | {"at": last.at.isoformat(), "ended_at": last.ended_at.isoformat()}


def _time(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
