"""Pipelines that run when it is time: by cron expressions, at intervals, on files and events."""

from odibi_async.schedule.files import OnFiles
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.records import LastRun
from odibi_async.schedule.schedule import Schedule
from odibi_async.schedule.server import Schedules
from odibi_async.schedule.serving import serve
from odibi_async.schedule.standing import ScheduleState
from odibi_async.schedule.triggers import Cron, Every, OnEvent, Trigger

__all__ = [
    "Cron",
    "Every",
    "Firing",
    "LastRun",
    "OnEvent",
    "OnFiles",
    "Schedule",
    "ScheduleState",
    "Schedules",
    "Trigger",
    "serve",
]
