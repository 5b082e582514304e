"""Claiming a firing, so that of all servers one runs it, once."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from odibi_async.events import ScheduleFired, ScheduleMissed, ScheduleSkipped
from odibi_async.schedule.due import due
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.ledger import Ledger
from odibi_async.schedule.records import Opened, Record
from odibi_async.schedule.standing import Standing
from odibi_async.schedule.telling import Teller
from odibi_async.schedule.triggers import Clock, moment
from odibi_async.schedule.turns import Turns

QUEUED: Final = 100
"""How many firings of one schedule may wait for their runs; not fewer than are made up for."""


class Claims:
    """
    Claims firings in the ledger, and has them run.

    Args:
        ledger: The records of schedules.
        turns: Runs what was claimed.
        owner: What this server is called in the ledger.
        teller: Who is told.
        clock: What time it is.
    """

    def __init__(self, ledger: Ledger, turns: Turns, owner: str, teller: Teller, clock: Clock) -> None:
        self._ledger = ledger
        self._turns = turns
        self._owner = owner
        self._teller = teller
        self._clock = clock

    async def come(self, standing: Standing) -> None:
        """
        Fires for the times of a schedule that have come, and settles which of those that were missed do.

        Raises:
            TriggerError: Its trigger gave what is no time to come; whatever else a trigger raises.
            JournalUnavailable: Nothing can be claimed now.
            RecordDamaged: What the journal has of it is not what was written.
        """
        assert standing.timed is not None
        now = moment(self._clock())
        if standing.record.is_paused:  # somebody may have resumed it elsewhere
            standing.record, _ = await self._ledger.amend(standing.name, lambda record: None)
            standing.after = max(standing.after, standing.record.at or now)
            if standing.record.is_paused:
                standing.after = now
                return
        schedule = standing.schedule
        within, grace = schedule.limits
        found = due(standing.timed, standing.after, now, missed=schedule.missed, within=within, grace=grace)
        if found.upto is None:
            return
        for at in found.fire:
            firing, run_id = Firing(at=at, trigger=standing.text), standing.timed_run_id(at)
            is_made_up = schedule.missed == "all" and at < now - grace
            await self.claim(standing, firing, run_id, is_timed=True, queues=is_made_up)
        if not found.fire:
            standing.record, _ = await self._ledger.amend(standing.name, functools.partial(_passed, found.upto))
        if found.missed:
            about = (found.missed[0], found.missed[-1], len(found.missed))
            self._teller.tell(ScheduleMissed, standing.name, *about)
        standing.after = max(found.upto, standing.record.at or found.upto)

    async def claim(
        self,
        standing: Standing,
        firing: Firing,
        run_id: str,
        *,
        is_timed: bool = False,
        waits: bool = False,
        queues: bool = False,
    ) -> Opened | None:
        """
        Claims a firing; `None` where it leads to no run.

        Args:
            standing: The schedule.
            firing: The firing.
            run_id: What its run is called.
            is_timed: Whether it is one of the times of the schedule, which fire once and in order.
            waits: Whether it is not skipped while a run is going: whoever claims it comes again.
            queues: Whether it waits for a run that is going, also where others are skipped then.
        """
        payload, is_whole = _written(firing.payload)
        opened = Opened(
            run_id=run_id,
            at=firing.at,
            trigger=firing.trigger,
            payload=payload,
            is_whole=is_whole,
            owner=self._owner,
            attempts=1,
        )
        reason = ""

        def claimed(record: Record) -> Record | None:
            nonlocal reason
            reason = _against(record, opened, is_timed, standing.schedule.overlap == "skip" and not queues)
            if reason and (waits or not is_timed or not record.opened or record.is_paused):
                return None
            at = firing.at if is_timed else record.at
            seen = record.seen if firing.seen is None else {**record.seen, firing.trigger: firing.seen}
            return replace(record, at=at, seen=seen, opened=record.opened if reason else (*record.opened, opened))

        is_first = run_id not in standing.payloads  # what comes again does not replace what was claimed
        standing.payloads.setdefault(run_id, firing.payload)
        standing.record, _ = await self._ledger.amend(standing.name, claimed)
        if reason:
            if is_first:
                standing.payloads.pop(run_id, None)
            if not waits and reason != ELSEWHERE:
                self._teller.tell(ScheduleSkipped, standing.name, firing.at, firing.trigger, reason)
        else:
            late = self._clock() - firing.at.timestamp()
            self._teller.tell(ScheduleFired, standing.name, firing.at, firing.trigger, late, run_id=run_id)
        self._turns.start(standing)
        return None if reason else opened


ELSEWHERE: Final = "it has fired already"


def _against(record: Record, opened: Opened, is_timed: bool, skips: bool) -> str:
    """Why a firing leads to no run; empty where it does."""
    if is_timed and record.at is not None and opened.at <= record.at:
        return ELSEWHERE
    if any(each.run_id == opened.run_id for each in record.opened) or _is_last(record, opened):
        return ELSEWHERE
    if record.is_paused:
        return "the schedule is paused"
    if record.opened and skips:
        return f"run {record.opened[0].run_id} is still going"
    if len(record.opened) >= QUEUED:
        return f"{QUEUED} others wait already"
    return ""


def _is_last(record: Record, opened: Opened) -> bool:
    return record.last is not None and record.last.run_id == opened.run_id


def _passed(upto: datetime, record: Record) -> Record | None:
    """The record when times have gone by without firing."""
    return replace(record, at=upto) if record.at is None or record.at < upto else None


def _written(payload: Any) -> tuple[Any, bool]:
    """A payload as the journal keeps it, and whether it does: JSON does not change it."""
    try:
        kept = json.loads(json.dumps(payload, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None, False
    return (kept, True) if kept == payload else (None, False)
