"""Whether the server is being stopped: those who only listen are then to go."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Final

LOOKS: Final = 0.5
"""Seconds between two looks."""


class Stopping:
    """
    Tells listeners that the server is being stopped.

    ASGI tells an app so only when the last request has been answered; a listener would hold it up until its run ends.
    Uvicorn is asked directly, by way of the handler that it has installed for SIGTERM. Other servers end
    their connections themselves.

    Attributes:
        event: Set when it is being stopped.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> asyncio.Event:
        self._users += 1
        if self._timer is None:
            self._look()
        return self.event

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._end()

    def close(self) -> None:
        """The app is over."""
        self.event.set()
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if is_stopping():
            self.event.set()
        else:
            self._timer = asyncio.get_running_loop().call_later(LOOKS, self._look)


def is_stopping() -> bool:
    """Whether the server says that it is being stopped."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    server = getattr(handler, "__self__", None)
    return bool(getattr(server, "should_exit", False))
