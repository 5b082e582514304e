"""Serving schedules from a shell, and listing when they fire."""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any, Final

from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.listeners import Scribe, Warnings
from odibi_async.cli.output import complain, harmless, table
from odibi_async.cli.plan import Plan
from odibi_async.cli.python import is_python, thing_of
from odibi_async.cli.signals import Signals
from odibi_async.cli.summary import last_steps
from odibi_async.config import Document
from odibi_async.errors import NotScheduled, OdibiError, OptionError
from odibi_async.events import (
    Event,
    ScheduleEnded,
    ScheduleEvent,
    ScheduleFired,
    ScheduleMissed,
    ScheduleSkipped,
    SchedulesLed,
    ScheduleStopped,
    ScheduleTroubled,
)
from odibi_async.limits import Limits
from odibi_async.runner import Runner, RunOptions
from odibi_async.schedule import Cron, Schedule, Schedules
from odibi_async.schedule.configured import schedule_of, trigger_of
from odibi_async.schedule.due import following
from odibi_async.schedule.telling import reason
from odibi_async.secret import masked


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToServe:
    """What the flags of `serve` say; see there."""

    journal: str | None
    drain: float
    takeover: float
    concurrency: int | None
    threads: int | None
    pools: Mapping[str, int]
    quiet: bool


def served(configs: Sequence[str], plan: Callable[[str | None], Plan], how: HowToServe, signals: Signals) -> Answer:
    """
    Serves configurations until a signal comes.

    Args:
        configs: Their names; without any, the one that is found.
        plan: Reads and checks one of them.
        how: What the flags say.
        signals: Those of the process.

    Raises:
        Refused: They cannot be served.
    """
    schedules, secrets = _schedules(configs, plan)
    tally, lines = Tally(schedules), Lines(secrets, how.quiet)
    if how.journal is None and not how.quiet:
        complain("no journal: what fires is not recorded, and nothing is made up for after a restart (--journal)")
    logging.getLogger("odibi_async.schedule").addHandler(logging.NullHandler())  # `Lines` tells of it
    noting = signals.cancelling(lambda: None)
    with noting, Scribe([tally, lines, Warnings(secrets, how.quiet)]) as scribe:
        try:
            asyncio.run(_serve(schedules, how, scribe, signals))
        except OdibiError as error:
            raise Refused(*problems_of(error)) from error
    return Answer(
        text=table([("SCHEDULE", *TOLD), *tally.rows()]),
        data={"schedules": tally.data()},
        secrets=secrets,
        must_end=scribe.has_abandoned,
    )


def _schedules(configs: Sequence[str], plan: Callable[[str | None], Plan]) -> tuple[dict[str, Any], Collection[str]]:
    """All schedules by name, and the texts that nobody may see."""
    found: dict[str, Any] = {}
    secrets: set[str] = set()
    for config in configs or (None,):
        added = thing_of(config) if config is not None and is_python(config) else None
        if not isinstance(added, Mapping):
            planned = plan(config)
            added = {planned.document.name or Path(planned.document.source.name).stem: _scheduled(planned)}
            secrets |= planned.document.secrets
        for name, schedule in added.items():
            if name in found:
                message = f"two schedules are called {name!r}: give the configurations a name: of their own."
                raise Refused(Problem(code="OA355", message=message))
            found[name] = schedule
    return found, secrets


def _scheduled(plan: Plan) -> Schedule:
    document = plan.document
    if document.schedule is None:
        raise Refused(*problems_of(NotScheduled(document.source.name)))
    options = RunOptions(targets=last_steps(plan.pipeline))
    if document.cache is not None:
        options["cache"] = document.cache
    return schedule_of(document.schedule, plan.pipeline, plan.given, options)


async def _serve(schedules: Mapping[str, Any], how: HowToServe, scribe: Scribe, signals: Signals) -> None:
    limits = Limits(concurrency=how.concurrency, threads=how.threads, pools=how.pools)
    loop, stop, hurry = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    told = f"nothing fires any more; what runs may end within {how.drain:g} s. Once more cancels it."
    options: dict[str, Any] = {"journal": how.journal, "drain": how.drain, "takeover": how.takeover}
    async with (
        Runner(limits=limits, observers=[scribe]) as runner,
        Schedules(schedules, runner, observers=[scribe], **options) as server,
    ):
        stopping = asyncio.create_task(_stop(server, stop, hurry))
        cancel, hasten = (functools.partial(loop.call_soon_threadsafe, each.set) for each in (stop, hurry))
        with signals.cancelling(cancel, hasten, told):
            await server.wait()
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


async def _stop(server: Schedules, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Stops a server when it is told to."""
    await stop.wait()
    hurrying = asyncio.create_task(_hurry(server, hurry))
    try:
        await server.stop()
    finally:
        hurrying.cancel()


async def _hurry(server: Schedules, hurry: asyncio.Event) -> None:
    await hurry.wait()
    await server.stop()


TOLD: Final = ("FIRED", "SUCCEEDED", "FAILED", "SKIPPED", "MISSED")


class Tally:
    """Counts what became of schedules."""

    def __init__(self, names: Collection[str]) -> None:
        self._counts = {name: collections.Counter[str]() for name in names}

    def __call__(self, event: Event) -> None:
        if not isinstance(event, ScheduleEvent) or event.schedule not in self._counts:
            return
        counts = self._counts[event.schedule]
        match event:
            case ScheduleFired():
                counts["FIRED"] += 1
            case ScheduleSkipped():
                counts["SKIPPED"] += 1
            case ScheduleMissed():
                counts["MISSED"] += event.count
            case ScheduleEnded():
                counts["SUCCEEDED" if event.error is None else "FAILED"] += 1

    def rows(self) -> list[tuple[str, ...]]:
        """A row a schedule, for a table."""
        return [(name, *(str(counts[told]) for told in TOLD)) for name, counts in self._counts.items()]

    def data(self) -> dict[str, dict[str, int]]:
        """The same for JSON."""
        return {name: {told.lower(): counts[told] for told in TOLD} for name, counts in self._counts.items()}


class Lines:
    """Tells of schedules on stderr, a line an event; where it is to be quiet, only of what goes wrong."""

    def __init__(self, secrets: Collection[str], is_quiet: bool) -> None:
        self._secrets = secrets
        self._is_quiet = is_quiet

    def __call__(self, event: Event) -> None:
        text, is_wrong = _line(event)
        if text and (is_wrong or not self._is_quiet):
            complain(f"{event.time.astimezone():%H:%M:%S} {harmless(masked(text, self._secrets))}")


def _line(event: Event) -> tuple[str, bool]:
    """What is said of an event, and whether something went wrong."""
    match event:
        case SchedulesLed():
            return ("this server fires" if event.is_leading else "this server does not fire any more"), False
        case ScheduleFired():
            return f"{event.schedule}: fired ({event.trigger}), run {event.run_id}", False
        case ScheduleSkipped():
            return f"{event.schedule}: skipped ({event.trigger}): {event.reason}", False
        case ScheduleMissed():
            return f"{event.schedule}: missed {event.count:,} times since {event.first.astimezone():%F %T}", True
        case ScheduleEnded() if event.error is not None:
            return f"{event.schedule}: run {event.run_id} {event.status}: {reason(event.error)}", True
        case ScheduleEnded():
            return f"{event.schedule}: run {event.run_id} {event.status}", False
        case ScheduleStopped():
            return str(event.error), True
        case ScheduleTroubled():
            return f"{event.schedule or 'all schedules'}: {event.error}", True
    return "", False


def coming(document: Document, count: int, after: str | None) -> Answer:
    """
    The next times of a configuration's schedule.

    Raises:
        Refused: It has none, or the time is none.
    """
    if document.schedule is None:
        raise Refused(*problems_of(NotScheduled(document.source.name)))
    trigger, at = trigger_of(document.schedule).named(document.name or Path(document.source.name).stem), _time(after)
    zones = {str(member.times.zone): member.times.zone for member in trigger.members if isinstance(member, Cron)}
    zone = next(iter(zones.values())) if len(zones) == 1 else timezone.utc
    found: list[datetime] = []
    while len(found) < count:
        try:
            at_next = following(trigger, found[-1] if found else at)
        except OptionError as error:
            raise Refused(*problems_of(error)) from error
        if at_next is None:
            break
        found.append(at_next)
    data = {"trigger": trigger.text, "times": [each.isoformat() for each in found]}
    text = "\n".join(_shown(each, zone) for each in found)
    return Answer(text=text or f"{trigger.text}: nobody can know when.", data=data)


def _shown(at: datetime, zone: tzinfo) -> str:
    fraction = f".{at.microsecond:06}".rstrip("0") if at.microsecond else ""
    return f"{at.astimezone(zone):%a %Y-%m-%d %H:%M:%S}{fraction} {at.astimezone(zone):%z}"


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(timezone.utc)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"--after {text!r}: a time is needed, such as 2024-03-30T12:00."
        raise Refused(Problem(code="OA502", message=message)) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
