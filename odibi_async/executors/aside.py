"""A call that gives something back, which no cancellation keeps from being made."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any


async def surely(call: Callable[..., object], *args: Any) -> None:
    """
    Calls what gives something back, whatever becomes of the waiting task and of its loop, and raises what it raises.

    In a thread of its own: one that the loop provides would wait for ever when it begins while the loop ends.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call(*args)
        except BaseException as error:
            raised.append(error)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(over.set)

    threading.Thread(target=work, name="odibi_async giving back").start()
    cancelled: asyncio.CancelledError | None = None
    while not over.is_set():
        try:
            await over.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if raised:
        raise raised[0]
    if cancelled is not None:
        raise cancelled
