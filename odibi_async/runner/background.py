"""Runs that go on while others do something else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from odibi_async.cancellation import waiting
from odibi_async.events import Event
from odibi_async.result import RunResult, Status
from odibi_async.run.execution import Execution

_log = logging.getLogger("odibi_async")


class Log(Protocol):
    """Keeps the events of a run for those who listen; an observer."""

    def __call__(self, event: Event, /) -> None: ...

    def close(self) -> None:
        """The run is over."""

    def stream(self) -> AsyncIterator[Event]:
        """The events that it has, and those that come later as they come."""


class Run:
    """
    A run in the background, made by `Runner.start`.

    One that fails is logged when nobody has asked for its result by the time it is let go of.

    Attributes:
        id: Its name.
    """

    def __init__(
        self,
        execution: Execution,
        log: Log,
        life: Coroutine[Any, Any, RunResult],
        on_over: Callable[[], None],
    ) -> None:
        self.id = execution.run_id
        self._execution = execution
        self._log = log
        self._asked = asked = Asked()

        def over(task: asyncio.Task[RunResult]) -> None:
            life.close()  # its task may have been cancelled before its first turn
            on_over()
            log.close()
            asked.complain(execution, task)

        self._task = asyncio.get_running_loop().create_task(life, name=f"odibi_async run {self.id}")
        self._task.add_done_callback(over)

    @property
    def status(self) -> Status:
        """`running`, or how it ended."""
        if not self._task.done():
            return Status.RUNNING
        if self._task.cancelled():
            return Status.CANCELLED
        return Status.FAILED if self._task.exception() is not None else self._task.result().status

    @property
    def deadline_passed(self) -> bool:
        """Whether its time was over before it ended."""
        return self._execution.deadline_passed

    def outcome(self) -> RunResult | BaseException | None:
        """What it came to, failures and cancellation included, or what went wrong with it; `None` while it runs."""
        if not self._task.done():
            return None
        self._asked.is_asked = True
        if self._task.cancelled():
            return asyncio.CancelledError(f"run {self.id} was cancelled from outside")
        return self._task.exception() or self._task.result()

    async def begun(self) -> None:
        """
        Returns when its first steps may start: with a journal, when the run is recorded there.

        Raises:
            OdibiError: It cannot begin, since it is running elsewhere, say; nothing has run.
        """
        async with waiting():
            beginning = asyncio.ensure_future(self._execution.begun.wait())
            try:
                await asyncio.wait([self._task, beginning], return_when=asyncio.FIRST_COMPLETED)
            finally:
                beginning.cancel()
        if self._task.done() and not self._task.cancelled() and (error := self._task.exception()) is not None:
            self._asked.is_asked = True
            raise error

    async def events(self) -> AsyncIterator[Event]:
        """Its events from the first one on, until it is over; any number may listen."""
        async for event in self._log.stream():
            yield event

    async def cancel(self) -> None:
        """Cancels it and waits until every step has ended; does nothing if it is over."""
        self._asked.is_asked = True
        self._execution.cancel()
        async with waiting():
            await asyncio.wait([self._task])

    async def result(self) -> RunResult:
        """
        Waits for its end. Cancelling the waiting task does not cancel the run.

        Raises:
            RunError: A step failed, and `on_error` is `"raise"`.
            DeadlineError: It did not end in its time.
            RunCancelled: It was cancelled.
        """
        self._asked.is_asked = True
        async with waiting():
            await asyncio.wait([self._task])
        if self._task.cancelled():
            raise asyncio.CancelledError(f"run {self.id} was cancelled from outside")
        return self._execution.judged(self._task.result())

    def __del__(self) -> None:
        self._asked.is_gone = True
        if self._task.done():
            self._asked.complain(self._execution, self._task)


async def ended(run: asyncio.Task[RunResult], execution: Execution) -> None:
    """
    Cancels a run, unless it is over, and waits for its end, whoever cancels the waiting task meanwhile.

    Raises:
        asyncio.CancelledError: Somebody did.
    """
    cancelled: asyncio.CancelledError | None = None
    execution.cancel()
    while not run.done():
        try:
            async with waiting():
                await asyncio.wait([run])
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    run.cancelled() or run.exception()  # heard, so that the loop does not complain
    if cancelled is not None:
        raise cancelled


class EventLog(list[Event]):
    """An observer that keeps the events of a run for those who listen, from the first one on."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()
        self.is_over = False

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._wake()

    def close(self) -> None:
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def stream(self) -> AsyncIterator[Event]:
        """Every event, those that come later as they come."""
        heard = 0
        while True:
            while heard < len(self):
                yield self[heard]
                heard += 1
            if self.is_over:
                return
            async with waiting():
                await self._news.wait()


class Asked:
    """Whether anybody has asked for the result of a run, or still can."""

    __slots__ = ("is_asked", "is_gone")

    def __init__(self) -> None:
        self.is_asked = False
        self.is_gone = False

    def complain(self, execution: Execution, task: asyncio.Task[RunResult]) -> None:
        """Logs the failure of a run that is over, if nobody will ever ask for it."""
        if self.is_asked or not self.is_gone or task.cancelled():
            return
        error = task.exception()
        if error is None:
            if not execution.is_failure(task.result()):
                return
            error = next((failure.error for failure in task.result().failures.values()), None)
        _log.error("Run %s failed, and nobody asked for its result.", execution.run_id, exc_info=error)
