"""Waiting that a stream can be told to end, and calls that nobody may cut short."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from odibi_async.runner.aside import in_a_thread

T = TypeVar("T")


class Told(Exception):
    """The stream was told something else while it waited."""


class Controls:
    """
    What a stream was told to do. On the loop's thread.

    Attributes:
        is_paused: Whether no batch may begin.
        is_draining: Whether it is to end when it has taken all that is there.
        is_stopping: Whether it is to end after the batch that it is at.
    """

    def __init__(self) -> None:
        self.is_paused = False
        self.is_draining = False
        self.is_stopping = False
        self._news = asyncio.Event()

    def tell(self, *, paused: bool = False, draining: bool = False, stopping: bool = False) -> None:
        """Says what to do from now on; who drains or stops does not go back."""
        self.is_draining = self.is_draining or draining
        self.is_stopping = self.is_stopping or stopping
        self.is_paused = paused and not (self.is_draining or self.is_stopping)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def may_go_on(self) -> bool:
        """Waits while it is paused; whether another batch may begin."""
        while self.is_paused:
            await self._news.wait()
        return not self.is_stopping

    async def unless(self, told: Callable[[], bool], waiting: Coroutine[Any, Any, T]) -> T:
        """
        What is waited for.

        Args:
            told: When it need not be waited for any more; looked at whenever the stream is told something.
            waiting: What is waited for. It is cancelled then, and has ended when this returns.

        Raises:
            Told: It was not waited for.
        """
        task = asyncio.ensure_future(waiting)
        try:
            while not task.done():
                if told():
                    raise Told
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait([task, news], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
            return task.result()
        finally:
            await ended(task)

    async def unless_stopping(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Waits, but not when the stream is told to stop."""
        with contextlib.suppress(Told):
            await self.unless(lambda: self.is_stopping, waiting)


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancels a task and waits until it has ended, whoever cancels the waiting one meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if not task.cancelled():
        task.exception()  # it was looked at
    if cancelled is not None:
        raise cancelled


async def whole(call: Callable[..., T], *args: Any) -> T:
    """
    Calls what blocks in a thread, and waits for its end, whoever cancels meanwhile: the cancellation goes on then.

    What was to be committed is known to be so, or not.
    """
    task = asyncio.ensure_future(in_a_thread(call, *args))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        with contextlib.suppress(Exception):
            task.result()
        raise cancelled
    return task.result()


async def raced(first: Awaitable[Any], second: Awaitable[Any]) -> None:
    """Returns when one of them has; the other one is cancelled and has ended."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            await ended(task)
