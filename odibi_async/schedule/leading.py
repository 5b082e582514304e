"""The server that fires, of all that have the same schedules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from blake3 import blake3

from odibi_async.errors import ClockSetBack, JournalUnavailable, RecordDamaged, TriggerFailed, in_a_line
from odibi_async.events import ScheduleStopped, ScheduleTroubled
from odibi_async.journal.backend import Hold
from odibi_async.run.telling import pass_on
from odibi_async.schedule.claims import Claims
from odibi_async.schedule.due import following
from odibi_async.schedule.ledger import Ledger
from odibi_async.schedule.records import Record
from odibi_async.schedule.standing import Standing
from odibi_async.schedule.telling import Teller
from odibi_async.schedule.timer import Timer
from odibi_async.schedule.triggers import Clock, moment
from odibi_async.schedule.turns import Turns
from odibi_async.schedule.watching import watch

WHOLE: Final = ""
"""What observers hear as the schedule, when all of them are meant."""

SKEW: Final = timedelta(minutes=1)
"""By how much the clocks of servers may differ."""

AT_A_TURN: Final = 64
"""How many schedules are looked at in a turn of the loop."""
T = TypeVar("T")


class Leader:
    """
    Fires for schedules, as long as it holds their lease, and waits for the lease otherwise.

    The lease dies with its holder. A server that has lost it without knowing fires nothing twice: each firing is
    claimed in the ledger.

    Args:
        standings: The schedules.
        ledger: Their records.
        claims: Claims what fires.
        turns: Runs what is claimed.
        teller: Who is told.
        takeover: Seconds between looking for the lease.
        clock: What time it is.

    Attributes:
        is_leading: Whether it holds the lease.
    """

    def __init__(
        self,
        standings: Mapping[str, Standing],
        ledger: Ledger,
        claims: Claims,
        turns: Turns,
        teller: Teller,
        takeover: float,
        clock: Clock,
    ) -> None:
        self.is_leading = False
        self._standings = standings
        self._ledger = ledger
        self._claims = claims
        self._turns = turns
        self._teller = teller
        self._takeover = takeover
        self._clock = clock
        self._timer = Timer(clock, self._ring, self._set_back)
        self._halted = asyncio.Event()
        self._doubt = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()

    # -- its life --------------------------------------------------------------------------------------

    async def load(self) -> None:
        """
        Reads how the schedules stand.

        Raises:
            JournalUnavailable: They cannot be read.
        """
        await self._ledger.load(self._standings)
        async for name, standing in in_turns(self._standings.items()):
            try:
                standing.record = self._ledger.known(name)
            except RecordDamaged as error:
                self._stop(standing, error)
            else:
                standing.after = standing.record.at or standing.after

    async def lead(self) -> None:
        """Fires whenever no other server does, until it is halted."""
        names = "\0".join(sorted(self._standings))
        lease = f"lease {blake3(names.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
        while not self._halted.is_set():
            try:
                hold = await self._ledger.hold(lease)
                if hold is not None:
                    await self._while_held(hold)
            except JournalUnavailable as error:
                self._teller.tell(ScheduleTroubled, WHOLE, error)
            await _at_most(self._takeover, self._halted)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def halt(self) -> None:
        """Has `lead` return, when what is being claimed is claimed."""
        self._halted.set()
        self._doubt.set()

    async def _while_held(self, hold: Hold) -> None:
        """Fires, as long as the lease is held."""
        try:
            await self.load()
            self.is_leading = True
            self._doubt.clear()
            self._teller.lead(True)
            async for standing in in_turns(self._standings.values()):
                self._take_up(standing)
            self._timer.start()
            while not (self._doubt.is_set() or self._halted.is_set()):
                await _at_most(self._takeover, self._doubt)
                await self._ledger.has_run("")  # a lock that was lost with its connection shows here
        finally:
            await self._step_down(hold)

    async def _step_down(self, hold: Hold) -> None:
        if self.is_leading:
            self._teller.lead(False)
        self.is_leading = False
        self._timer.stop()
        for standing in self._standings.values():
            standing.next = None
        while self._watching:
            for task in self._watching:
                task.cancel()
            await asyncio.wait(set(self._watching))
        with contextlib.suppress(JournalUnavailable):  # its lock ends with its connection
            await self._ledger.release(hold)

    # -- schedules -------------------------------------------------------------------------------------

    def revive(self, standing: Standing) -> None:
        """Fires again for a schedule that was paused or stopped."""
        was_stopped, standing.error = standing.error is not None, None
        self.arm(standing)
        if was_stopped and self.is_leading:
            self._watch(standing)

    def arm(self, standing: Standing) -> None:
        """Sets the timer for the next time of a schedule."""
        standing.next = None
        if standing.timed is None or standing.error is not None or not self.is_leading:
            return
        try:
            at = following(standing.timed, standing.after)
        except BaseException as error:  # the user's trigger: it stops this schedule, and not the others
            self._stop(standing, error)
            return
        if at is not None:
            standing.next = None if standing.record.is_paused else at
            self._timer.set(standing.name, at.timestamp())

    def _take_up(self, standing: Standing) -> None:
        """Begins to fire for a schedule, from where it stands."""
        if standing.record.at is None and standing.timed is not None:
            self._spawn(self._begin(standing))  # what is missed from now on is missed
        if standing.error is None:
            self._look_ahead(standing)
            self.arm(standing)
            self._watch(standing)
        self._turns.start(standing)

    async def _begin(self, standing: Standing) -> None:
        at = standing.after
        with contextlib.suppress(JournalUnavailable, RecordDamaged):  # what claims next tells of it
            await self._ledger.amend(standing.name, lambda record: replace(record, at=at) if not record.at else None)

    def _set_back(self) -> None:
        """Somebody has set the clock back."""
        for standing in self._standings.values():
            self._look_ahead(standing)

    def _look_ahead(self, standing: Standing) -> None:
        """Looks whether the last time of a schedule lies in the future: none fires twice, but intervals go on."""
        if standing.timed is None or standing.after <= moment(self._clock()) + SKEW:
            return
        if standing.timed.is_interval:
            self._spawn(self._rewind(standing))
        else:
            self._teller.tell(ScheduleTroubled, standing.name, ClockSetBack(standing.name, standing.after))

    async def _rewind(self, standing: Standing) -> None:
        """Begins the times of an interval anew, under other names."""
        now = moment(self._clock())

        def rewound(record: Record) -> Record | None:
            if record.at is None or record.at <= now + SKEW:
                return None
            return replace(record, at=now, rewound=record.rewound + 1)

        try:
            standing.record, _ = await self._ledger.amend(standing.name, rewound)
        except (JournalUnavailable, RecordDamaged) as error:
            self._teller.tell(ScheduleTroubled, standing.name, error)
            self._doubt.set()
            return
        standing.after = now
        self.arm(standing)

    def _ring(self, name: str) -> None:
        self._spawn(self._due(self._standings[name]))

    async def _due(self, standing: Standing) -> None:
        """Fires for the times of a schedule that have come."""
        try:
            await self._claims.come(standing)
        except JournalUnavailable as error:
            self._teller.tell(ScheduleTroubled, standing.name, error)
            self._doubt.set()
        except BaseException as error:  # the user's trigger: it stops this schedule, and not the others
            if _is_cancelled(error):
                raise
            self._stop(standing, error)
        else:
            self.arm(standing)

    def _watch(self, standing: Standing) -> None:
        for trigger in standing.watched:
            watching = watch(standing, trigger, self._claims, self._teller, self._clock)
            self._spawn(self._guarded(standing, watching), self._watching)

    async def _guarded(self, standing: Standing, watching: Coroutine[Any, Any, None]) -> None:
        try:
            await watching
        except BaseException as error:  # likewise
            if _is_cancelled(error):
                raise
            self._stop(standing, error)

    def _stop(self, standing: Standing, error: BaseException) -> None:
        """A schedule fires no more."""
        if isinstance(error, RecordDamaged):
            standing.error = error
        else:
            standing.error = TriggerFailed(standing.name, in_a_line(error))
            standing.error.__cause__ = error
        standing.next = None
        self._timer.clear(standing.name)
        self._teller.tell(ScheduleStopped, standing.name, standing.error)
        pass_on(error, asyncio.get_running_loop())

    def _spawn(self, coroutine: Coroutine[Any, Any, None], among: set[asyncio.Task[None]] | None = None) -> None:
        among = self._tasks if among is None else among
        task = asyncio.create_task(coroutine)
        among.add(task)
        task.add_done_callback(among.discard)


async def in_turns(things: Iterable[T]) -> AsyncIterator[T]:
    """Many things, with turns of the loop in between for others."""
    for number, thing in enumerate(things, 1):
        yield thing
        if number % AT_A_TURN == 0:
            await asyncio.sleep(0)


def _is_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of this task, and not one that a trigger raised by itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    """Waits for an event, for so many seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
