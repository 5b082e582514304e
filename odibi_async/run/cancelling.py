"""Cancelling tasks so that each hears of it once, and again when it does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

SOON = 0.05
"""Seconds after which a task that somebody else is cancelling as well is looked at again."""
AT_LEAST = 0.1
"""Seconds between two cancellations of a task, however small the grace is."""


def again_after(grace: float) -> float:
    """Seconds after which a task that was cancelled and has not ended is cancelled again."""
    return max(grace, AT_LEAST)


class Cancelling:
    """
    The cancellation of one task: it gets one `cancel()`, so that its clean-up may await, and after each grace another.

    A task that somebody else is cancelling at the moment, as `asyncio.run` does with all tasks at its end, has its
    cancellation already: another one would cut its clean-up. It is looked at again soon, since the other may
    take it back, as `asyncio.timeout` does.

    Args:
        grace: Seconds that the task has for its clean-up.
        at_once: Whether it is cancelled now; else first after a grace.
    """

    def __init__(self, task: asyncio.Task[object], grace: float, *, at_once: bool = True) -> None:
        self._task = task
        self._grace = again_after(grace)
        self._timer: asyncio.TimerHandle | None = None
        if at_once:
            self._begin(task.get_loop().time() + self._grace)
        else:
            self._later(self._grace, self._again)

    def _begin(self, until: float) -> None:
        if self._task.cancelling() and self._task.get_loop().time() < until:
            self._later(min(SOON, self._grace), self._begin, until)
        else:
            self._again()

    def _again(self) -> None:
        if not self._task.done():
            self._task.cancel()
            self._later(self._grace, self._again)

    def _later(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        self._timer = self._task.get_loop().call_later(seconds, call, *args)

    def over(self) -> None:
        """The task has ended, or is left alone from now on."""
        if self._timer is not None:
            self._timer.cancel()


async def end_all(tasks: Collection[asyncio.Task[None]], grace: float) -> None:
    """
    Cancels tasks and waits until all have ended, whoever cancels the waiting task meanwhile.

    Raises:
        asyncio.CancelledError: Somebody did.
    """
    cancelled: asyncio.CancelledError | None = None
    cancelling = [Cancelling(task, grace) for task in tasks if not task.done()]
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for each in cancelling:
        each.over()
    if cancelled is not None:
        raise cancelled
