"""What is wrong with a trigger, or with a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from odibi_async.errors.base import OdibiError
from odibi_async.errors.wording import did_you_mean, shortened


class TriggerError(OdibiError, ValueError):
    """A trigger says what cannot be."""


class CronError(TriggerError):
    """
    A cron expression is wrong.

    Attributes:
        expression: The expression.
        reason: What is wrong, and what would be right.
    """

    code = "OA351"

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(expression, reason)
        self.expression = expression
        self.reason = reason

    def __str__(self) -> str:
        return f"The cron expression {self.expression!r} is wrong: {self.reason}"


class ZoneUnknown(TriggerError):
    """
    There is no such time zone.

    Attributes:
        zone: The name that was given.
        known: The names that there are.
    """

    code = "OA352"

    def __init__(self, zone: str, known: Sequence[str]) -> None:
        super().__init__(zone, known)
        self.zone = zone
        self.known = known

    def __str__(self) -> str:
        none = "" if self.known else " This system has no time zones: pip install tzdata."
        hint = did_you_mean(self.zone, self.known) or none or " They are called like 'Europe/Berlin'."
        return f"There is no time zone {self.zone!r}.{hint}"


class ScheduleError(OdibiError):
    """A schedule cannot go on, or there is none."""

    code = "OA353"


class ScheduleUnknown(ScheduleError):
    """
    There is no schedule of this name.

    Attributes:
        name: The name.
        known: The names of those that there are.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        there = f" Schedules: {shortened(self.known)}." if self.known else ""
        return f"There is no schedule {self.name!r}.{did_you_mean(self.name, self.known)}{there}"


class NotScheduled(ScheduleError):
    """
    A configuration is to be served that does not say when it is to run.

    Attributes:
        path: The configuration.
    """

    code = "OA354"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path!r} does not say when it is to run: add schedule: '30 2 * * *', for example."


class TriggerFailed(ScheduleError):
    """
    A trigger raised, or gave what is no time to come; its schedule is stopped.

    Attributes:
        name: The schedule.
        reason: What happened.
    """

    code = "OA356"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"Schedule {self.name!r} is stopped, because its trigger failed: {self.reason}"


class ClockSetBack(ScheduleError):
    """
    A schedule waits, since the time for which it has fired last lies in the future: no time fires twice.

    Attributes:
        name: The schedule.
        at: That time.
    """

    def __init__(self, name: str, at: datetime) -> None:
        super().__init__(name, at)
        self.name = name
        self.at = at

    def __str__(self) -> str:
        return (
            f"Schedule {self.name!r} has fired for {self.at:%Y-%m-%d %H:%M:%S} UTC already, which lies in the future: "
            "the clock was set back. It waits until then, or fires again from now on when it is resumed."
        )


class RecordDamaged(ScheduleError):
    """
    What the journal has of a schedule is not what was written; the schedule is stopped.

    Attributes:
        name: The schedule.
    """

    code = "OA357"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"Schedule {self.name!r} is stopped: what the journal has of it is not what was written."


class FiringAbandoned(ScheduleError):
    """
    A firing is given up: each process that began its run died before the run ended.

    Attributes:
        run_id: The run.
        attempts: How many did.
    """

    code = "OA358"

    def __init__(self, run_id: str, attempts: int) -> None:
        super().__init__(run_id, attempts)
        self.run_id = run_id
        self.attempts = attempts

    def __str__(self) -> str:
        return f"Run {self.run_id!r} is given up: {self.attempts} processes died while they ran it."
