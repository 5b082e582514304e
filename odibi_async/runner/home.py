"""What a runner has of one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import Final

from odibi_async.executors.threads import Threads
from odibi_async.limits import Limits, default_threads
from odibi_async.run.slots import Slots
from odibi_async.runner.aside import in_a_thread

AT_A_TURN: Final = 8
"""How many runs are taken up at a turn of the loop: each takes 0.1 to 0.3 ms to put together."""

ELSEWHERE: Final = 16
"""How many steps may wait for work outside of this process, a Spark cluster say, at a time."""


class Home:
    """
    What a runner has of one event loop.

    Attributes:
        loop: That loop, while there is one.
        slots: Who may start when not all may.
        threads: The worker threads; `None` before the first run.
        turns: Lets in some runs at a turn of the loop.
    """

    def __init__(self, limits: Limits) -> None:
        self.loop = weakref.ref(asyncio.get_running_loop())  # a loop may keep its runner, which must not keep it
        self.slots = Slots(limits)
        self.threads: Threads | None = None
        self.turns = Turns(AT_A_TURN)
        self._limits = limits
        self._counting: asyncio.Task[int] | None = None
        self._elsewhere: Threads | None = None

    def elsewhere(self) -> Threads:
        """The threads of steps that only wait for what is done outside of this process."""
        self._elsewhere = self._elsewhere or Threads(ELSEWHERE, self._limits.grace)
        return self._elsewhere

    async def workers(self) -> Threads:
        """The worker threads; the first time, files may be read to find out how many there are to be."""
        if self._counting is None:
            self._counting = asyncio.create_task(self._count())
        count = await asyncio.shield(self._counting)
        self.threads = self.threads or Threads(count, self._limits.grace)
        return self.threads

    async def _count(self) -> int:
        try:
            count = self._limits.threads
            return await in_a_thread(default_threads) if count is None else count
        finally:
            self._counting = None  # a task keeps its loop


class Turns:
    """Lets in a number of callers at a turn of the loop; the others wait for the next ones, in order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Returns when it is the caller's turn, mostly at once."""
        if self._left == self._count:
            asyncio.get_running_loop().call_soon(self._renew)
        if self._left:
            self._left -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _renew(self) -> None:
        self._left = self._count
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._renew)
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
