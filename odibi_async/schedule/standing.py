"""How a schedule stands: what a server knows of it while it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from odibi_async.errors import ScheduleError
from odibi_async.pipeline import Pipeline
from odibi_async.runner.options import RunOptions
from odibi_async.schedule.records import LastRun, Opened, Record
from odibi_async.schedule.schedule import Schedule
from odibi_async.schedule.triggers import AnyOf, OnEvent, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleState:
    """
    How a schedule stands.

    Attributes:
        name: Its name.
        pipeline: The name of what it runs.
        trigger: When it runs, as text.
        state: `waiting`, `running`, `paused`, or `stopped` when its trigger failed.
        next: When it fires next (UTC); `None` where nobody can know, and while it is paused.
        running: The ids of its runs that are not over, those that wait for others included.
        last: How its last run ended; `None` before that.
        error: Why it is stopped; empty where it is not.
    """

    name: str
    pipeline: str
    trigger: str
    state: str
    next: datetime | None
    running: tuple[str, ...]
    last: LastRun | None
    error: str

    @property
    def paused(self) -> bool:
        """Whether it does not fire until it is resumed."""
        return self.state == "paused"


class Standing:
    """
    What a server knows of a schedule.

    Attributes:
        name: Its name.
        schedule: What was declared.
        trigger: When it runs, all together.
        text: The same, for people.
        timed: The part of it that says its times; `None` where there is none.
        watched: The parts of it that fire for other reasons, but for events.
        events: The names of the events that it fires for.
        pipeline: What runs.
        options: How it runs.
        record: What is kept of it.
        after: Its times to come are later.
        next: The first of them; `None` while it does not wait for any.
        error: Why it is stopped; `None` where it is not.
        payloads: Run -> payload, of its firings that are not over.
        turns: What runs them: the run -> its task; the empty text -> the task that runs them one by one.
    """

    def __init__(self, name: str, schedule: Schedule, pipeline: Pipeline, options: RunOptions, now: datetime) -> None:
        self.name = name
        self.schedule = schedule
        self.trigger = schedule.trigger.named(name)
        self.text = str(self.trigger.text)
        members = self.trigger.members
        self.timed = _together([member for member in members if member.is_timed])
        self.watched = [each for each in members if not each.is_timed and not isinstance(each, OnEvent)]
        self.events = {member.name for member in members if isinstance(member, OnEvent)}
        self.pipeline = pipeline
        self.options = options
        self.record = Record()
        self.after = now
        self.next: datetime | None = None
        self.error: ScheduleError | None = None
        self.payloads: dict[str, Any] = {}
        self.turns: dict[str, asyncio.Task[None]] = {}

    def state(self) -> ScheduleState:
        """What people are told."""
        running = tuple(opened.run_id for opened in self.record.opened)
        state = "running" if running else "waiting"
        if self.record.is_paused:
            state = "paused"
        if self.error is not None:
            state = "stopped"
        return ScheduleState(
            name=self.name,
            pipeline=self.pipeline.name,
            trigger=self.text,
            state=state,
            next=self.next,
            running=running,
            last=self.record.last,
            error="" if self.error is None else str(self.error),
        )

    def run_id(self, at: datetime, more: str = "") -> str:
        """The name of the run of a firing: the same in every server, and after every crash."""
        at = at.astimezone(timezone.utc)
        moment = f"{at:%Y%m%dT%H%M%S}" + (f".{at.microsecond:06}" if at.microsecond else "")
        return f"{self.name}@{moment}Z{more and '-'}{more}"

    def timed_run_id(self, at: datetime) -> str:
        """The name of the run for one of its times; these come again where a clock was set back."""
        return self.run_id(at, str(self.record.rewound or ""))

    def opened(self, run_id: str) -> Opened | None:
        """The firing of a run that is not over."""
        return next((opened for opened in self.record.opened if opened.run_id == run_id), None)


def _together(members: Sequence[Trigger]) -> Trigger | None:
    if len(members) < 2:
        return members[0] if members else None
    return AnyOf(members)
