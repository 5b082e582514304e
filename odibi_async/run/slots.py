"""Slots: who may start when not all may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from odibi_async.executors.fair_queue import FairQueue
from odibi_async.limits import Limits


class Gate:
    """
    Lets in as many steps at a time as `Limits.concurrency` and `Limits.pools` allow. On the loop's thread only.

    Of the steps that may start, the one with the longest way still below it goes first.
    """

    def __init__(self, limits: Limits) -> None:
        self._free = limits.concurrency
        self._pools = dict(limits.pools)
        self._lanes: dict[str | None, FairQueue[Callable[[], None]]] = {}
        self._is_admitting = False

    @property
    def pools(self) -> frozenset[str]:
        """The names of the pools that there are."""
        return frozenset(self._pools)

    def limits(self, pool: str | None) -> bool:
        """Whether a step of this pool has to come by here at all."""
        return self._free is not None or pool is not None

    def enter(self, owner: object, priority: int, pool: str | None, start: Callable[[], None]) -> None:
        """Has `start` called once there is a slot; call `admit` when all who are ready have entered."""
        lane = self._lanes.get(pool)
        if lane is None:
            lane = self._lanes[pool] = FairQueue()
        lane.put(owner, priority, start)

    def leave(self, pool: str | None) -> None:
        """Gives a slot back, once for each call of `start`."""
        if self._free is not None:
            self._free += 1
        if pool is not None:
            self._pools[pool] += 1
        self.admit()

    @contextlib.asynccontextmanager
    async def slot(self, owner: object, priority: int, pool: str | None) -> AsyncIterator[None]:
        """A slot to hold while it is entered; waits until there is one."""
        if not self.limits(pool):
            yield
            return
        given, is_wanted = asyncio.Event(), True
        self.enter(owner, priority, pool, lambda: given.set() if is_wanted else self.leave(pool))
        self.admit()
        try:
            await given.wait()
            yield
        finally:
            is_wanted = False
            if given.is_set():
                self.leave(pool)

    def forget(self, owner: object) -> None:
        """Drops all that an owner has waiting here."""
        for lane in self._lanes.values():
            lane.discard(owner)

    def admit(self) -> None:
        """Lets in whom there are slots for."""
        if self._is_admitting:  # what is started may end at once and come back here: no recursion
            return
        self._is_admitting = True
        try:
            while self._free is None or self._free > 0:
                open_lanes = [pool for pool, lane in self._lanes.items() if len(lane) and self._has_room(pool)]
                if not open_lanes:
                    return
                pool = max(open_lanes, key=lambda pool: self._lanes[pool].priority)
                if self._free is not None:
                    self._free -= 1
                if pool is not None:
                    self._pools[pool] -= 1
                self._lanes[pool].take()()
        finally:
            self._is_admitting = False

    def _has_room(self, pool: str | None) -> bool:
        return pool is None or self._pools[pool] > 0
