"""One timer for any number of schedules."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final

from odibi_async.schedule.triggers import GLANCE, Clock

AT_A_TURN: Final = 256
"""How many ring at a turn of the loop: a thousand schedules may be due at midnight."""


class Timer:
    """
    Rings for names when their times have come, by the clock on the wall, and never before.

    The loop counts the time that passes, whatever is done to the clock. So it looks at the clock again when it wakes,
    and after a second at the latest.

    Args:
        clock: The clock.
        ring: Called with each name whose time has come. In the loop.
        on_set_back: Called when somebody has set the clock back.
    """

    def __init__(self, clock: Clock, ring: Callable[[str], None], on_set_back: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._on_set_back = on_set_back
        self._ahead = -math.inf  # of the loop's time
        self._heap: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._set: dict[str, int] = {}
        self._handle: asyncio.TimerHandle | asyncio.Handle | None = None
        self._wakes_at = 0.0

    def set(self, name: str, at: float) -> None:
        """Rings for a name at a time, in seconds since the epoch, instead of any other that was set for it."""
        self._set[name] = number = next(self._numbers)
        heapq.heappush(self._heap, (at, number, name))
        if len(self._heap) > 2 * len(self._set) + 64:  # times that were set anew stand there still
            self._heap = [entry for entry in self._heap if self._set.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
        if self._handle is not None and at < self._wakes_at:
            self._sleep()

    def clear(self, name: str) -> None:
        """Does not ring for a name."""
        self._set.pop(name, None)

    def start(self) -> None:
        """Rings from now on, in the running loop."""
        if self._handle is None:
            self._wake()

    def stop(self) -> None:
        """Rings no more, and forgets all times."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._ahead = None, -math.inf
        self._heap.clear()
        self._set.clear()

    def _wake(self) -> None:
        now, rung = self._clock(), 0
        before, self._ahead = self._ahead, now - asyncio.get_running_loop().time()
        if self._ahead < before - GLANCE:
            self._on_set_back()
        while self._heap and self._heap[0][0] <= now and rung < AT_A_TURN:
            _, number, name = heapq.heappop(self._heap)
            if self._set.get(name) == number:
                del self._set[name]
                self._ring(name)
                rung += 1
        self._sleep()

    def _sleep(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        now = self._clock()
        wait = min(self._heap[0][0] - now, GLANCE) if self._heap else GLANCE
        self._wakes_at = now + wait
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(wait, self._wake) if wait > 0 else loop.call_soon(self._wake)
