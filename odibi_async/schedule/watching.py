"""What fires for other reasons than the time: files, and triggers of the user's own."""

from __future__ import annotations

import asyncio
import contextlib

from odibi_async.errors import JournalUnavailable
from odibi_async.events import ScheduleTroubled
from odibi_async.schedule.claims import Claims
from odibi_async.schedule.files import OnFiles
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.standing import Standing
from odibi_async.schedule.telling import Teller
from odibi_async.schedule.triggers import Clock, Trigger
from odibi_async.schedule.turns import AGAIN


async def watch(standing: Standing, trigger: Trigger, claims: Claims, teller: Teller, clock: Clock) -> None:
    """
    Fires as often as a trigger does, until it does no more.

    Raises:
        RecordDamaged: What the journal has of the schedule is not what was written; else, whatever the trigger raises.
    """
    while True:
        try:
            if not isinstance(trigger, OnFiles):
                return await _follow(standing, trigger, claims, clock)
            await _follow(standing, trigger, claims, clock)
        except JournalUnavailable as error:
            teller.tell(ScheduleTroubled, standing.name, error)
        except OSError as error:
            if not isinstance(trigger, OnFiles):
                raise
            teller.tell(ScheduleTroubled, standing.name, error)  # what cannot be read is not taken for empty
        await asyncio.sleep(trigger.every if isinstance(trigger, OnFiles) else AGAIN)


async def _follow(standing: Standing, trigger: Trigger, claims: Claims, clock: Clock) -> None:
    if isinstance(trigger, OnFiles):
        stream = trigger.since(standing.record.seen.get(trigger.text, {}), clock)
    else:
        stream = trigger.firings(clock)
    async with contextlib.aclosing(stream):
        async for firing in stream:
            if isinstance(trigger, OnFiles):
                if not await _claimed(standing, firing, claims):
                    return  # from what is there now, once more
            else:
                await claims.claim(standing, firing, standing.run_id(firing.at))


async def _claimed(standing: Standing, firing: Firing, claims: Claims) -> bool:
    """Claims for files that have come; where that cannot be now, waits a moment, and they fire with all that follow."""
    if await claims.claim(standing, firing, standing.run_id(firing.at), waits=True) is not None:
        return True
    await asyncio.sleep(AGAIN)
    return False
