"""What a server tells its observers, and the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from odibi_async.abc import Observer
from odibi_async.errors import RunError, in_a_line
from odibi_async.events import (
    ScheduleEnded,
    ScheduleEvent,
    ScheduleMissed,
    ScheduleSkipped,
    SchedulesLed,
    ScheduleStopped,
    ScheduleTroubled,
)
from odibi_async.run.telling import Telling
from odibi_async.schedule.triggers import Clock

_log = logging.getLogger("odibi_async.schedule")


def reason(error: BaseException) -> str:
    """What went wrong, in a line; of a failed run, what its first step did."""
    if isinstance(error, RunError) and error.failures:
        return str(next(iter(error.failures.values()))).splitlines()[0]
    return in_a_line(error)


class Teller:
    """
    Tells of schedules. One that raises is not asked again.

    Args:
        observers: Who hears of it. What goes wrong is logged as well.
        clock: What time it is.
    """

    def __init__(self, observers: Sequence[Observer], clock: Clock) -> None:
        self._telling = Telling("of schedules", observers, asyncio.get_running_loop())
        self._clock = clock
        self._troubles: dict[str, str] = {}

    def tell(self, kind: type[ScheduleEvent], schedule: str, *about: Any, run_id: str = "") -> None:
        """Tells of something that happened to a schedule now; of the same trouble, once until it goes on."""
        event = kind(run_id, self._telling.seq, self._clock(), schedule, *about)
        if type(event) is ScheduleTroubled:
            trouble = in_a_line(event.error)
            if self._troubles.get(schedule) == trouble:
                return
            self._troubles[schedule] = trouble
        else:
            self._troubles.pop(schedule, None)
        self._note(event)
        self._telling.hear(event)

    def lead(self, is_leading: bool) -> None:
        """Tells whether this server fires."""
        self._telling.hear(SchedulesLed("", self._telling.seq, self._clock(), is_leading))

    @staticmethod
    def _note(event: ScheduleEvent) -> None:
        match event:
            case ScheduleStopped():
                _log.error("%s", event.error, exc_info=event.error)
            case ScheduleTroubled():
                _log.warning("Schedule %s: %s", event.schedule, in_a_line(event.error))
            case ScheduleEnded() if event.error is not None:
                _log.error("Schedule %s: run %s failed: %s", event.schedule, event.run_id, reason(event.error))
            case ScheduleMissed():
                _log.warning("Schedule %s missed %s times since %s.", event.schedule, event.count, event.first)
            case ScheduleSkipped():
                _log.info("Schedule %s skips %s: %s", event.schedule, event.scheduled_at, event.reason)
