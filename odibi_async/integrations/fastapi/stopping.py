"""Whether the server is being stopped: those who only listen are then to go."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Final

LOOKS: Final = 0.5
"""Seconds between two looks."""


class Stopping:
    """
    Tells those who wait that the server is being stopped.

    ASGI tells an app so only when the last request has been answered; a listener would hold it up until its run ends.
    Uvicorn is asked directly, by way of the handler that it has installed for SIGTERM. Other servers end
    their connections themselves.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: asyncio.Future[Any]) -> None:
        """Gives `None` as a result to whoever waits, when the server is being stopped."""
        self._waiting.add(waiting)
        if self._timer is None:
            self._look()

    def discard(self, waiting: asyncio.Future[Any]) -> None:
        """It waits no more."""
        self._waiting.discard(waiting)

    def close(self) -> None:
        """The app is over."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if is_stopping():
            self.close()
        elif self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOKS, self._look)


def is_stopping() -> bool:
    """Whether the server says that it is being stopped."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    server = getattr(handler, "__self__", None)
    return bool(getattr(server, "should_exit", False))
