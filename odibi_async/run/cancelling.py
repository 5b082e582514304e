"""Cancelling tasks so that each hears of it once, and again when it does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from odibi_async.executors.threads import Job

Ticket = asyncio.Task[None] | Job
"""What a step holds while it runs."""
STARTING: Final[Any] = object()
"""Stands for the ticket of a step that is taking its first turn."""
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


class Watch:
    """
    Cancels the steps of a run, and finds those that ended without a word.

    Args:
        running: The tickets of the steps that run, by their places.
        grace: Seconds that a cancelled step has before it is cancelled again.
        on_silence: Called with the place of a step whose task has ended and its ticket is still there, and with
            what ended it.
    """

    def __init__(
        self, running: Mapping[int, Ticket], grace: float, on_silence: Callable[[int, BaseException], None]
    ) -> None:
        self._running = running
        self._grace = grace
        self._on_silence = on_silence
        self._cancelling: dict[int, Cancelling] = {}
        self._spared: dict[int, bool] = {}
        self._is_stopping = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Looks now and then for tasks that somebody else has cancelled before their first turn."""
        self._timer = asyncio.get_running_loop().call_later(max(self._grace, 1.0), self._look)

    def end(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def let_go(self) -> None:
        """Tells nobody of anything from now on."""
        self._on_silence = _unheard

    def cancel_all(self) -> None:
        """Cancels what runs; those that take their first turn are to be cancelled after it."""
        self._is_stopping = True
        for index, ticket in list(self._running.items()):
            winds_up = self._spared.get(index)
            if ticket is not STARTING and winds_up is not False:
                self.cancel(index, ticket, at_once=winds_up is None)

    def spare(self, index: int) -> None:
        """A step is not cancelled with the others, since it ends when its readers have."""
        self._spared[index] = False

    def give_grace(self, index: int) -> None:
        """A step that was spared winds up from now on: when all are to stop, it has a whole grace."""
        self.over(index)
        self._spared[index] = True
        ticket = self._running.get(index)
        if self._is_stopping and isinstance(ticket, asyncio.Task):
            self.cancel(index, ticket, at_once=False)

    def cancel(self, index: int, ticket: Ticket, *, at_once: bool = True) -> None:
        """Cancels a step, now or after a grace."""
        if isinstance(ticket, Job):
            ticket.cancel()
            return
        ticket.add_done_callback(lambda task: self._ended(index, task))
        self._cancelling[index] = Cancelling(ticket, self._grace, at_once=at_once)

    def over(self, index: int) -> None:
        """A step has ended, or is left alone from now on."""
        self._spared.pop(index, None)
        if index in self._cancelling:
            self._cancelling.pop(index).over()

    def _look(self) -> None:
        for index, ticket in list(self._running.items()):
            if isinstance(ticket, asyncio.Task) and ticket.done():
                self._ended(index, ticket)
        if self._running:
            self.begin()

    def _ended(self, index: int, task: asyncio.Task[None]) -> None:
        if self._running.get(index) is task:
            error = None if task.cancelled() else task.exception()
            self._on_silence(index, error or asyncio.CancelledError())


def _unheard(index: int, error: BaseException) -> None:
    """A run that is over has no step whose end could have been missed."""
