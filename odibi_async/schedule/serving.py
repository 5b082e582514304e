"""Serving schedules until somebody says stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from odibi_async.runner import Runner
from odibi_async.schedule.server import Schedules

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def serve(
    schedules: Mapping[str, Any], runner: Runner | None = None, *, signals: bool = True, **options: Any
) -> None:
    """
    Serves schedules until it is cancelled, or the process gets SIGTERM or SIGINT.

    The first signal stops firing and gives the runs that are going `drain` seconds to end. The second one, and a
    cancellation, cancels them at once.

    Args:
        schedules: Name -> (pipeline, trigger), or `Schedule`.
        runner: Runs them; `None` for one of its own.
        signals: Whether signals stop it. Only in the main thread; where something else handles them, a web server
            say, use `Schedules` instead.
        **options: As for `Schedules`: `journal`, `observers`, `drain`, `takeover`.
    """
    stopped = asyncio.Event()
    async with Schedules(schedules, runner, **options) as server:
        loop, stopping = asyncio.get_running_loop(), list[asyncio.Task[None]]()

        def stop() -> None:
            stopping.append(loop.create_task(server.stop()))
            stopped.set()

        with _handled(loop, stop, signals):
            await stopped.wait()
            while stopping:
                await stopping.pop(0)


@contextmanager
def _handled(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], signals: bool) -> Iterator[None]:
    """A block in which a signal stops."""
    numbers = SIGNALS if signals and threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
