"""The runs of firings: one after another or side by side, resumed where they were when a process died."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from odibi_async.errors import (
    FiringAbandoned,
    JournalUnavailable,
    RunAlive,
    RunExists,
    ScheduleError,
    in_a_line,
)
from odibi_async.events import ScheduleEnded, ScheduleTroubled
from odibi_async.journal import Journal
from odibi_async.result import Status
from odibi_async.runner import Runner, RunOptions
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.ledger import Ledger
from odibi_async.schedule.records import LastRun, Opened, Record
from odibi_async.schedule.schedule import GIVEN
from odibi_async.schedule.standing import Standing
from odibi_async.schedule.telling import Teller, reason
from odibi_async.schedule.triggers import Clock, moment

AGAIN: Final = 1.0
"""Seconds after which one looks again whether a run that another server has is over, or the journal is back."""

ONE_BY_ONE: Final = ""
"""The key of the task that runs the firings of a schedule one by one."""


class Turns:
    """
    Runs the firings that were claimed.

    What was claimed stands in the record until its run is over. So whoever finds it there, and nobody alive who runs
    it, goes on with the run.

    Args:
        runner: Runs them.
        journal: Records them; `None` for nothing that does.
        ledger: The records of schedules.
        owner: What this server is called there.
        teller: Who is told.
        clock: What time it is.
    """

    def __init__(
        self, runner: Runner, journal: Journal | None, ledger: Ledger, owner: str, teller: Teller, clock: Clock
    ) -> None:
        self._runner = runner
        self._journal = journal
        self._ledger = ledger
        self._owner = owner
        self._teller = teller
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    def start(self, standing: Standing) -> None:
        """Has the open firings of a schedule run, those that run already left alone."""
        if self._stopping.is_set():
            return
        if standing.schedule.overlap == "allow":
            for opened in standing.record.opened:
                self._spawn(standing, opened.run_id)
        elif standing.record.opened:
            self._spawn(standing, ONE_BY_ONE)

    def _spawn(self, standing: Standing, key: str) -> None:
        if key in standing.turns and not standing.turns[key].done():
            return
        running = self._one(standing, key) if key else self._one_by_one(standing)
        task = asyncio.create_task(running, name=f"odibi_async schedule {standing.name}")
        standing.turns[key] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if key:
            task.add_done_callback(lambda _: standing.turns.pop(key, None))

    def halt(self) -> None:
        """Begins no more runs."""
        self._stopping.set()

    def hurry(self) -> None:
        """Gives the runs that are going no more time to end."""
        self._hurrying.set()

    async def stop(self, drain: float) -> None:
        """Waits for the runs that are going; after a time they are cancelled. Not to be cancelled itself."""
        self.halt()
        hurrying = asyncio.create_task(self._hurrying.wait())
        over = asyncio.get_running_loop().time() + drain
        while self._tasks and not hurrying.done() and (left := over - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({*self._tasks, hurrying}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def give_back(self, standing: Standing) -> None:
        """Leaves the open firings of a schedule to others. Nobody has died, so no attempt counts."""

        def left(record: Record) -> Record | None:
            opened = tuple(
                replace(each, owner="", attempts=each.attempts - 1) if each.owner == self._owner else each
                for each in record.opened
            )
            return None if opened == record.opened else replace(record, opened=opened)

        try:
            if self._ledger.known(standing.name).opened:
                standing.record, _ = await self._ledger.amend(standing.name, left)
        except (JournalUnavailable, ScheduleError) as error:  # others find out that this server is gone
            self._teller.tell(ScheduleTroubled, standing.name, error)

    async def _one_by_one(self, standing: Standing) -> None:
        while standing.record.opened and not self._stopping.is_set():
            await self._try(standing, standing.record.opened[0].run_id)

    async def _one(self, standing: Standing, run_id: str) -> None:
        while standing.opened(run_id) is not None and not self._stopping.is_set():
            await self._try(standing, run_id)

    async def _try(self, standing: Standing, run_id: str) -> None:
        """Gets on with a firing: runs it, or waits a moment for who does."""
        try:
            if not await self._turn(standing, run_id):
                await self._pause()
        except (JournalUnavailable, ScheduleError) as error:  # it stays open, and is tried again
            self._teller.tell(ScheduleTroubled, standing.name, error)
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                await self._stopping.wait()

    async def _turn(self, standing: Standing, run_id: str) -> bool:
        """Runs a firing to its end, if it is up to this server; whether it was."""
        opened = await self._mine(standing, run_id)
        if opened is None:
            return standing.opened(run_id) is None
        if opened.attempts > standing.schedule.attempts:
            error: BaseException | None = FiringAbandoned(run_id, opened.attempts - 1)
            status = Status.FAILED
        else:
            try:
                status, error = await self._run(standing, opened)
            except (RunAlive, RunExists):  # somebody else has begun it this moment, or is not gone yet
                return False
        await self._close(standing, opened, status, error)
        return True

    async def _mine(self, standing: Standing, run_id: str) -> Opened | None:
        """A firing, if nobody else alive has it; from now on it is this server's."""
        opened = standing.opened(run_id)
        if opened is not None and opened.owner not in (self._owner, "") and await self._is_alive(opened.owner):
            standing.record, _ = await self._ledger.amend(standing.name, lambda record: None)
            return None

        def taken(record: Record) -> Record | None:
            return _with(record, run_id, before=opened, owner=self._owner)

        if opened is not None and opened.owner != self._owner:
            standing.record, _ = await self._ledger.amend(standing.name, taken)
        opened = standing.opened(run_id)
        return opened if opened is not None and opened.owner == self._owner else None

    async def _is_alive(self, owner: str) -> bool:
        hold = await self._ledger.hold(owner)
        if hold is None:
            return True
        await self._ledger.release(hold)
        return False

    async def _run(self, standing: Standing, opened: Opened) -> tuple[Status, BaseException | None]:
        """How the run of a firing ended."""
        has_begun = await self._ledger.has_run(opened.run_id)
        options: RunOptions = {**standing.options, "run_id": opened.run_id}
        if self._journal is not None:
            options |= {"journal": self._journal, "resume": has_begun}
        try:
            inputs = self._inputs(standing, opened, has_begun)
            result = await self._runner.run(standing.pipeline, inputs, **options)
        except (RunAlive, RunExists, JournalUnavailable, asyncio.CancelledError):
            raise
        except Exception as error:  # whatever a run, or what makes its inputs, raises is how this firing ended
            return Status.FAILED, error
        return result.status, next((failure.error for failure in result.failures.values()), None)

    def _inputs(self, standing: Standing, opened: Opened, has_begun: bool) -> Mapping[str, Any] | None:
        """What a run is given; `None` for what the journal knows that it was given."""
        is_known = opened.is_whole or opened.run_id in standing.payloads
        if not is_known:
            if has_begun:
                return None
            raise ScheduleError(
                f"Run {opened.run_id!r} had not begun when its server died, and its payload is no JSON."
            )
        payload = standing.payloads.get(opened.run_id, opened.payload)
        firing = Firing(at=opened.at, trigger=opened.trigger, payload=payload)
        given = _asked(standing, firing)
        read = standing.pipeline.inputs
        ours = {"scheduled_at": opened.at, "payload": payload}
        return {**{name: ours[name] for name in GIVEN if name in read}, **given}

    async def _close(self, standing: Standing, opened: Opened, status: Status, error: BaseException | None) -> None:
        """Notes that the run of a firing is over."""
        at = moment(self._clock())
        line = "" if error is None else reason(error)
        last = LastRun(run_id=opened.run_id, at=opened.at, ended_at=at, status=str(status), error=line)

        def closed(record: Record) -> Record | None:
            left = tuple(each for each in record.opened if each.run_id != opened.run_id)
            return replace(record, opened=left, last=last) if len(left) < len(record.opened) else None

        while True:
            try:
                standing.record, _ = await self._ledger.amend(standing.name, closed)
                break
            except JournalUnavailable as trouble:  # the run itself is not run again for that
                self._teller.tell(ScheduleTroubled, standing.name, trouble)
                if self._stopping.is_set():
                    return
                await self._pause()
        standing.payloads.pop(opened.run_id, None)
        self._teller.tell(ScheduleEnded, standing.name, opened.at, status, error, run_id=opened.run_id)


def _asked(standing: Standing, firing: Firing) -> Mapping[str, Any]:
    """What the declaration gives a run."""
    asked = standing.schedule.inputs
    if isinstance(asked, Mapping):
        return asked
    try:
        given = asked(firing)
    except BaseException as error:  # the user's code: it fails this firing, and not what runs the others
        raise ScheduleError(f"The inputs of schedule {standing.name!r} raised {in_a_line(error)}") from error
    if not isinstance(given, Mapping):
        raise ScheduleError(f"The inputs of schedule {standing.name!r} are {type(given).__name__}, and no mapping.")
    return given


def _with(record: Record, run_id: str, *, before: Opened | None, owner: str) -> Record | None:
    """The record with a firing taken over from its owner; `None` where somebody else has done that."""
    if before is None or before not in record.opened:
        return None
    taken = replace(before, owner=owner, attempts=before.attempts + 1)
    return replace(record, opened=tuple(taken if each == before else each for each in record.opened))
