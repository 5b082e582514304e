"""Schedules by name, served by this process or by another one that shares the journal."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import functools
import secrets
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from odibi_async.abc import Observer
from odibi_async.durations import seconds_of
from odibi_async.errors import JournalUnavailable, OptionError, ScheduleError, ScheduleUnknown, did_you_mean
from odibi_async.events import ScheduleSkipped
from odibi_async.journal.backend import Hold
from odibi_async.runner import Runner
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.options import Journaling
from odibi_async.runner.options import checked as checked_observers
from odibi_async.schedule.claims import Claims
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.leading import Leader, in_turns
from odibi_async.schedule.ledger import Ledger
from odibi_async.schedule.planning import is_read, planned
from odibi_async.schedule.records import paused, resumed
from odibi_async.schedule.schedule import checked
from odibi_async.schedule.standing import ScheduleState, Standing
from odibi_async.schedule.telling import Teller
from odibi_async.schedule.triggers import Clock, moment
from odibi_async.schedule.turns import Turns

LONGEST_KEY: Final = 200
"""Characters that the key of an event may have."""


class Schedules:
    """
    Runs pipelines when their triggers fire: `async with Schedules({"nightly": (pipeline, Cron("30 2 * * *"))}):`.

    With a journal, what has fired is kept there: times that were missed can be made up for, a run whose process died
    goes on, and of several servers with the same schedules one fires, and another one takes over when it is gone.
    Events and `trigger` are served by the server that gets them.

    Args:
        schedules: Name -> (pipeline, trigger), or `Schedule`, or the path of a configuration that has a schedule.
        runner: Runs them; `None` for one of its own.
        journal: A directory, a URL or a `Journal`; `None` for that of the runner, if it has one.
        observers: They hear what happens to the schedules (`ScheduleEvent`, `SchedulesLed`). Those of the runner hear
            of the runs.
        drain: Seconds that runs have to end by themselves when the block is left, before they are cancelled.
        takeover: Seconds after which a server that does not fire looks whether the one that does is gone.
        clock: Tells the time, in seconds since the epoch.
    """

    def __init__(
        self,
        schedules: Mapping[str, Any],
        runner: Runner | None = None,
        *,
        journal: Journaling = None,
        observers: Sequence[Observer] = (),
        drain: float = 30.0,
        takeover: float = 5.0,
        clock: Clock = time.time,
    ) -> None:
        self._given = checked(schedules)
        self._runner = runner or Runner()
        self._owns_runner = runner is None
        self._asked_journal = journal
        self._observers = checked_observers(observers)
        self.drain: float = seconds_of("drain", drain)
        self.takeover: float = seconds_of("takeover", takeover, above_zero=True)
        self._clock = clock
        self._owner = f"server {secrets.token_hex(8)}"
        self._alive: Hold | None = None
        self._standings: dict[str, Standing] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    # -- its life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Raises:
            ScheduleError: They are served already, or were.
            ConfigError: A configuration cannot be read, or says what cannot be.
            NotScheduled: It does not say when it is to run.
            GraphError: Steps do not make a pipeline.
            JournalUnavailable: The journal cannot be used.
        """
        if self._standings or self._stopping is not None:
            raise ScheduleError("These schedules are served already, or were stopped: make others.")
        try:
            await self._open()
        except BaseException:
            if self._owns_runner:
                await self._runner.close()
            raise
        self._leading = asyncio.create_task(self._leader.lead(), name="odibi_async schedules")
        self._leading.add_done_callback(self._led)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop(self.drain if error is None else 0.0)

    async def stop(self, drain: float | None = None) -> None:
        """
        Fires no more, waits for the runs that are going, and cancels those that do not end in time.

        What was claimed and has not ended is left to another server, or to the next start. Who calls it again, or
        cancels who waits, leaves the runs no more time.

        Args:
            drain: Seconds to wait; `None` for those that the server was made with.
        """
        cancelled: asyncio.CancelledError | None = None
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._wind_up(self.drain if drain is None else drain))
        else:
            self._turns.hurry()
        while not self._stopping.done():
            try:
                await asyncio.wait([self._stopping])
            except asyncio.CancelledError as error:
                cancelled = error
                self._turns.hurry()
        if cancelled is not None:
            raise cancelled
        self._stopping.result()

    async def wait(self) -> None:
        """Returns when the server was stopped."""
        await self._over.wait()

    async def _open(self) -> None:
        now = moment(self._clock())
        async for name, given in in_turns(self._given.items()):
            plan = await in_a_thread(planned, name, given) if is_read(given) else planned(name, given)
            self._standings[name] = Standing(name, *plan, now)
        journal = await self._runner.journal(self._asked_journal)
        clock, ledger = self._clock, Ledger(None if journal is None else journal.backend)
        self._ledger, self._teller = ledger, Teller(self._observers, clock)
        self._turns = Turns(self._runner, journal, ledger, self._owner, self._teller, clock)
        self._claims = Claims(ledger, self._turns, self._owner, self._teller, clock)
        self._leader = Leader(self._standings, ledger, self._claims, self._turns, self._teller, self.takeover, clock)
        await self._leader.load()
        self._alive = await ledger.hold(self._owner)

    def _led(self, leading: asyncio.Task[None]) -> None:
        """Nobody leads any more: the server is being stopped, or something that must not happen has."""
        if self._stopping is None and not leading.cancelled():
            self._stopping = asyncio.create_task(self._wind_up(self.drain))

    async def _wind_up(self, drain: float) -> None:
        self._leader.halt()
        self._turns.halt()
        await asyncio.wait([self._leading])
        await self._turns.stop(drain)
        await self._ledger.settled()
        async for standing in in_turns(self._standings.values()):
            await self._turns.give_back(standing)
        await self._ledger.settled()
        if self._alive is not None:
            with contextlib.suppress(JournalUnavailable):  # its lock ends with its connection
                await self._ledger.release(self._alive)
        if self._owns_runner:
            await self._runner.close()
        self._over.set()
        if not self._leading.cancelled():  # with its loop
            self._leading.result()

    # -- what people ask of it -------------------------------------------------------------------------

    @property
    def is_leading(self) -> bool:
        """Whether this server fires, of those with the same schedules."""
        return self._leader.is_leading

    def list(self) -> builtins.list[ScheduleState]:
        """How each schedule stands, as far as this server knows."""
        return [standing.state() for standing in self._standings.values()]

    @property
    def events(self) -> Sequence[str]:
        """The names of the events that schedules wait for."""
        return sorted({name for standing in self._standings.values() for name in standing.events})

    async def pause(self, name: str) -> None:
        """
        Has a schedule fire no more, in no server, until it is resumed; also after a restart. Runs that are going go on.

        Raises:
            ScheduleUnknown: There is none of this name.
            JournalUnavailable: The journal cannot be written.
        """
        standing = self._standing(name)
        standing.record, _ = await self._ledger.amend(name, paused)
        self._leader.arm(standing)

    async def resume(self, name: str) -> None:
        """
        Has a schedule fire again that was paused, or that was stopped since its trigger failed. Times in between are
        not made up for.

        Raises:
            ScheduleUnknown: There is none of this name.
            JournalUnavailable: The journal cannot be written.
        """
        standing, now = self._standing(name), moment(self._clock())
        standing.record, _ = await self._ledger.amend(name, functools.partial(resumed, now))
        standing.after = now
        self._leader.revive(standing)

    async def trigger(self, name: str, payload: Any = None) -> str | None:
        """
        Fires a schedule now.

        Args:
            name: Its name.
            payload: What its run is given if it reads `payload`.

        Returns:
            The id of its run; `None` where it is skipped, since another run is going or it is paused.

        Raises:
            ScheduleUnknown: There is none of this name.
            JournalUnavailable: The firing cannot be claimed.
        """
        return await self._come(self._standing(name), "by hand", payload, None)

    async def fire(self, event: str, payload: Any = None, *, key: str | None = None) -> builtins.list[str]:
        """
        Fires all schedules with an `OnEvent` of this name.

        Args:
            event: The name of the event.
            payload: What their runs are given if they read `payload`. It survives a crash if it is JSON.
            key: What tells this event from all others: one that comes twice runs once, if there is a journal.

        Returns:
            The ids of their runs.

        Raises:
            ScheduleError: No schedule waits for such an event.
            JournalUnavailable: The firing cannot be claimed.
        """
        if key is not None and not (isinstance(key, str) and key.isprintable() and 0 < len(key) <= LONGEST_KEY):
            raise OptionError(f"key={key!r}: a text of 1 to {LONGEST_KEY} characters is needed that can be printed.")
        waiting = [standing for standing in self._standings.values() if event in standing.events]
        if not waiting:
            raise ScheduleError(f"No schedule waits for an event {event!r}.{did_you_mean(event, self.events)}")
        fired = [await self._come(standing, f"event {event}", payload, key) for standing in waiting]
        return [run_id for run_id in fired if run_id is not None]

    async def _come(self, standing: Standing, trigger: str, payload: Any, key: str | None) -> str | None:
        """Claims a firing that came from outside."""
        if self._stopping is not None:
            raise ScheduleError("These schedules were stopped, and fire no more.")
        at = moment(self._clock())
        run_id = standing.run_id(at, secrets.token_hex(3)) if key is None else f"{standing.name}@{key}"
        if key is not None and await self._ledger.has_run(run_id):
            self._teller.tell(ScheduleSkipped, standing.name, at, trigger, "it came before")
            return None
        firing = Firing(at=at, trigger=trigger, payload=payload)
        opened = await self._claims.claim(standing, firing, run_id)
        return None if opened is None else opened.run_id

    def _standing(self, name: str) -> Standing:
        if name not in self._standings:
            raise ScheduleUnknown(name, [*self._standings])
        return self._standings[name]
