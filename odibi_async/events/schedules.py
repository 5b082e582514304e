"""The events of schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from odibi_async.events.runs import Event
from odibi_async.result import Status


@dataclass(frozen=True, slots=True)
class ScheduleEvent(Event):
    """
    Something that happened to a schedule; observers of `Schedules` hear of it. `run_id` is empty where no run is meant.

    Attributes:
        schedule: The name of the schedule.
    """

    schedule: str


@dataclass(frozen=True, slots=True)
class ScheduleFired(ScheduleEvent):
    """
    A firing was claimed: its run begins now, or when those before it have ended.

    Attributes:
        scheduled_at: The time that it stands for (UTC).
        trigger: What fired, as text.
        late: Seconds from that time until it was claimed.
    """

    scheduled_at: datetime
    trigger: str
    late: float


@dataclass(frozen=True, slots=True)
class ScheduleSkipped(ScheduleEvent):
    """
    A firing does not lead to a run.

    Attributes:
        scheduled_at: The time that it stands for (UTC).
        trigger: What fired, as text.
        reason: Why not.
    """

    scheduled_at: datetime
    trigger: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleMissed(ScheduleEvent):
    """
    Times went by at which no server was there to fire, and they are not made up for.

    Attributes:
        first: The first of them (UTC).
        last: The last of those that were counted (UTC).
        count: How many were counted; there may be more when it is in the hundreds.
    """

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class ScheduleEnded(ScheduleEvent):
    """
    The run of a firing ended.

    Attributes:
        scheduled_at: The time that the firing stands for (UTC).
        status: How it ended.
        error: What went wrong; `None` where nothing did.
    """

    scheduled_at: datetime
    status: Status
    error: BaseException | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleTroubled(ScheduleEvent):
    """
    Something keeps a schedule from going on as it should; it is tried again.

    Attributes:
        error: What.
    """

    error: BaseException


class ScheduleStopped(ScheduleTroubled):
    """A schedule does not fire any more, until the server is started again; the others go on."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SchedulesLed(Event):
    """
    Of the servers that have the same schedules, it is another one now that fires.

    Attributes:
        is_leading: Whether it is this one.
    """

    is_leading: bool
