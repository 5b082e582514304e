"""Slots: which steps may start when not all may."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import weakref
from collections.abc import AsyncIterator, Callable

from odibi_async.cancellation import CurrentCall
from odibi_async.executors.fair_queue import FairQueue
from odibi_async.executors.threads import Job
from odibi_async.limits import Limits, Units

Grant = Callable[["Held"], None]


class Slots:
    """
    Lets in as many steps at a time as `Limits.concurrency` and `Limits.pools` allow. On the loop's thread only.

    Runs take turns; of one run's steps, the one with the longest way still below it goes first, then the one that came
    first. A step whose pools have too little left keeps those who come after it from these pools, so that one that
    takes much is not passed by forever. Pools that the limits do not know are no concern of theirs.
    """

    def __init__(self, limits: Limits) -> None:
        self._free = limits.concurrency
        self._pools = dict(limits.pools)
        self._lanes: dict[Units, FairQueue[Grant]] = {}
        self._arrivals = itertools.count()
        self._waiting = 0
        self._served: dict[object, int] = {}
        self._count = 0
        self._admits_soon = False
        self._loop = weakref.ref(asyncio.get_running_loop())  # not kept: a loop may keep its slots

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop whose steps take slots here."""
        return self._loop()

    @property
    def pools(self) -> frozenset[str]:
        """The names of the pools that there are."""
        return frozenset(self._pools)

    @property
    def is_bounded(self) -> bool:
        """Whether every step needs a slot, not only those of pools."""
        return self._free is not None

    def limits(self, pool: Units) -> bool:
        """Whether a step that takes so much of pools needs a slot."""
        return self._free is not None or any(name in self._pools for name, _ in pool)

    def have_room_for(self, count: int) -> bool:
        """Whether so many steps of no pool may start at once, nobody being before them."""
        return not self._waiting and (self._free is None or self._free >= count)

    def take(self, pool: Units) -> Held:
        """A slot at once, also where there is none left: then nobody else gets one until that is made good."""
        if self._free is not None:
            self._free -= 1
        for name, units in pool:
            if name in self._pools:
                self._pools[name] -= units
        return Held(self, pool)

    def enter(self, owner: object, priority: float, pool: Units, grant: Grant) -> None:
        """Has `grant` called with a slot once there is one; call `admit` when all who are ready have entered."""
        lane = self._lanes.get(pool)
        if lane is None:
            lane = self._lanes[pool] = FairQueue(self._arrivals)
        lane.put(owner, priority, grant)
        self._waiting += 1
        self._served.setdefault(owner, self._count)

    def leave(self, pool: Units) -> None:
        """Gives a slot back."""
        if self._free is not None:
            self._free += 1
        for name, units in pool:
            if name in self._pools:
                self._pools[name] += units
        if self._waiting:
            self.admit()

    async def wait(self, owner: object, priority: float, pool: Units) -> Held:
        """A slot, as soon as there is one. It is the caller's to give back."""
        given: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

        def grant(held: Held) -> None:
            if given.done():  # nobody waits any more
                held.end()
            else:
                given.set_result(held)

        self.enter(owner, priority, pool, grant)
        if not self._admits_soon:  # when all that ask at this turn of the loop have asked, the most urgent goes first
            self._admits_soon = True
            asyncio.get_running_loop().call_soon(self._admit_all)
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                given.result().end()
            raise

    def _admit_all(self) -> None:
        self._admits_soon = False
        self.admit()

    def forget(self, owner: object) -> None:
        """Drops all that an owner has waiting here."""
        self._served.pop(owner, None)
        for lane in self._lanes.values():
            self._waiting -= lane.discard(owner)

    def admit(self) -> bool:
        """Lets in whom there are slots for; whether anybody was."""
        before = self._count
        while self._waiting and (self._free is None or self._free > 0):
            pool = self._next_lane()
            if pool is None:
                break
            lane = self._lanes[pool]
            self._count += 1
            self._served[lane.turn] = self._count
            self._waiting -= 1
            lane.take()(self.take(pool))  # which starts nothing by itself
        return self._count > before

    def _next_lane(self) -> Units | None:
        """The lane with room whose next owner was served the longest ago; for one owner, its most urgent step."""
        waited_for: set[str] = set()
        for pool in sorted([pool for pool, lane in self._lanes.items() if len(lane)], key=self._rank):
            known = [(name, units) for name, units in pool if name in self._pools]
            if all(name not in waited_for and self._pools[name] >= units for name, units in known):
                return pool
            waited_for.update(name for name, _ in known)
        return None

    def _rank(self, pool: Units) -> tuple[int, float, int]:
        """Where a lane stands among the others, the first the lowest."""
        lane = self._lanes[pool]
        return self._served[lane.turn], -lane.priority, lane.arrival


class Held(CurrentCall):
    """
    What a call of a step holds while it runs: a slot, and the worker thread that it runs in.

    While the step waits for another run it holds neither: whoever that run has to wait for can go on.

    Args:
        slots: Where the slot is from; `None` for a call that needs none.
        pool: How much of which pools it is.

    Attributes:
        job: The call in its worker thread; `None` for one on the loop.
    """

    __slots__ = ("_has_slot", "_is_over", "_pool", "_slots", "_waits", "job")

    def __init__(self, slots: Slots | None = None, pool: Units = ()) -> None:
        self.interrupts = ()
        self._slots = slots
        self._pool = pool
        self._has_slot = slots is not None
        self._waits = 0
        self._is_over = False
        self.job: Job | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.job is not None and self.job.stopped

    @contextlib.asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """A block in which the call only waits: its slot and its thread are free for others."""
        if not self._is_here():
            yield
            return
        self._waits += 1
        self._give()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._waits -= 1
            self._take_now()
            raise
        except BaseException:
            self._waits -= 1
            await self._take()
            raise
        self._waits -= 1
        await self._take()

    def end(self) -> None:
        """
        The call is over, and with it what it holds; once.

        A slot whose thread has not returned stays taken until it does.
        """
        if self.job is not None and self.job.is_away:
            self.job.on_return = self._end
            return
        self._is_over = True
        if self._has_slot and self._slots is not None:
            self._has_slot = False
            self._slots.leave(self._pool)

    def _end(self) -> None:
        self.job = None
        self.end()

    def _is_here(self) -> bool:
        """Whether the call is still running, and its limits are those of the running loop."""
        home = self._slots if self.job is None else self.job.threads.mailbox
        return home is not None and not self._is_over and home.loop is asyncio.get_running_loop()

    def _give(self) -> None:
        self._give_slot()
        if self.job is not None:
            self.job.threads.lend(self.job)

    def _give_slot(self) -> None:
        if self._has_slot and self._slots is not None:
            self._has_slot = False
            self._slots.leave(self._pool)

    async def _take(self) -> None:
        """Takes again what was given away, when the last of several waits is over."""
        try:
            if self._waits or self._is_over:
                return
            if self._slots is not None and not self._has_slot:
                held = await self._slots.wait(object(), sys.maxsize, self._pool)
                if self._waits or self._is_over or self._has_slot:
                    held.end()
                else:
                    held._has_slot, self._has_slot = False, True
            if self.job is not None:
                await self.job.threads.regain(self.job)
        except asyncio.CancelledError:
            self._take_now()
            raise

    def _take_now(self) -> None:
        """The same without waiting, for a call that is cancelled: what is taken beyond the limit is made good later."""
        if self._waits or self._is_over:
            return
        if self._slots is not None and not self._has_slot:
            self._slots.take(self._pool)._has_slot = False
            self._has_slot = True
        if self.job is not None:
            self.job.threads.regain_now(self.job)
