"""Slots: who may start when not all may."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from odibi_async.limits import Limits

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Things that wait, of several owners: the owners take turns, each with its thing of the highest priority."""

    def __init__(self) -> None:
        self._heaps: dict[object, list[tuple[int, int, T]]] = {}
        self._turns: deque[object] = deque()
        self._count = itertools.count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, owner: object, priority: int, thing: T) -> None:
        self._length += 1
        heap = self._heaps.get(owner)
        if heap is None:
            heap = self._heaps[owner] = []
            self._turns.append(owner)
        heapq.heappush(heap, (-priority, next(self._count), thing))

    @property
    def priority(self) -> int:
        """That of the thing whose turn it is."""
        return -self._heaps[self._turns[0]][0][0]

    def take(self) -> T:
        """
        The thing whose turn it is.

        Raises:
            IndexError: There is none.
        """
        owner = self._turns.popleft()
        heap = self._heaps[owner]
        thing = heapq.heappop(heap)[2]
        self._length -= 1
        if heap:
            self._turns.append(owner)
        else:
            del self._heaps[owner]
        return thing

    def discard(self, owner: object) -> None:
        """Forgets all that this owner has here."""
        heap = self._heaps.pop(owner, None)
        if heap is not None:
            self._length -= len(heap)
            self._turns.remove(owner)

    def keep(self, is_wanted: Callable[[T], bool]) -> None:
        """Forgets all that is not wanted; turns and priorities of the others stay as they are."""
        for owner, heap in list(self._heaps.items()):
            wanted = [entry for entry in heap if is_wanted(entry[2])]
            if not wanted:
                self.discard(owner)
            elif len(wanted) < len(heap):
                heapq.heapify(wanted)
                self._length -= len(heap) - len(wanted)
                self._heaps[owner] = wanted


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
