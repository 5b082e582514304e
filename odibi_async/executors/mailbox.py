"""What worker threads tell the loop."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

FLUSH_SECONDS = 0.002
"""How long what a worker tells may wait, so that a burst of short jobs wakes the loop once."""
MAILS_AT_ONCE = 256
"""How many messages the loop takes before it turns to others: about a millisecond's worth."""


class Mailbox:
    """Calls that threads leave for the loop, made there in the order in which they were left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # a loop that keeps its threads must not be kept by them
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._flush_is_due = False

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop whose mailbox it is, while there is one."""
        return self._loop()

    def post(self, call: Callable[..., None], *args: Any, urgent: bool = False) -> None:
        """Leaves a call, to be made within 2 ms, or at once if it is urgent. From any thread."""
        self._calls.append((call, args))
        if urgent:
            self._wake(self.empty)
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._wake(self._flush_later)

    def _wake(self, call: Callable[[], Any]) -> None:
        loop = self._loop()
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:  # an abandoned thread outlived its loop: nobody is left to be told
            if not loop.is_closed():
                raise

    def _flush_later(self) -> None:
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.empty)

    def empty(self) -> None:
        """Makes the calls. On the loop's thread."""
        self._flush_is_due = False
        try:
            for _ in range(min(len(self._calls), MAILS_AT_ONCE)):
                call, args = self._calls.popleft()
                call(*args)
        finally:
            if self._calls:
                asyncio.get_running_loop().call_soon(self.empty)
