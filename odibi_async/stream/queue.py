"""Events that others put into this process."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from odibi_async.errors import OptionError, PositionDamaged
from odibi_async.stream.source import Batch, Found, Memory


class QueueClosed(OptionError):
    """Something was put into a queue that is closed."""


class Queue:
    """
    A source of events: `await queue.put(event)`. A batch is the list of those that are there.

    An event stays in the queue until its batch is committed or set aside. One that no run has begun with is lost with
    its process: whoever must know puts it with `deliver`. Belongs to one event loop.

    Args:
        maxsize: How many events wait at most; `put` waits while there are so many.
        batch_size: How many events a batch has at most; `None` for single events that are no lists.
    """

    def __init__(self, maxsize: int = 1000, *, batch_size: int | None = 100) -> None:
        for what, number in (("maxsize", maxsize), ("batch_size", batch_size)):
            if number is not None and (type(number) is not int or number < 1):
                raise OptionError(f"{what}={number!r}: a number from 1 on is needed.")
        self.maxsize = maxsize
        self._batch_size = batch_size
        self._events: deque[tuple[Any, asyncio.Future[None] | None]] = deque()
        self._first: int | None = None
        self._is_closed = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    # -- for those who put -----------------------------------------------------------------------------

    async def put(self, event: Any) -> None:
        """
        Puts an event at the end, as soon as there is room.

        Raises:
            QueueClosed: It takes no more.
        """
        await self._put(event, None)

    async def deliver(self, event: Any) -> None:
        """
        Puts an event at the end, and waits until its batch is committed, or set aside in the journal.

        If the waiting task is cancelled, the event stays in the queue.

        Raises:
            QueueClosed: It takes no more.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._put(event, done)
        await asyncio.wait([done])

    def put_nowait(self, event: Any) -> None:
        """
        Puts an event at the end.

        Raises:
            asyncio.QueueFull: There is no room.
            QueueClosed: It takes no more.
        """
        if len(self._events) >= self.maxsize:
            raise asyncio.QueueFull
        self._add(event, None)

    def finish(self) -> None:
        """Takes no more events: a stream ends when it has taken those that are there."""
        self._is_closed = True
        self._news.set()
        self._wake()

    async def _put(self, event: Any, done: asyncio.Future[None] | None) -> None:
        while len(self._events) >= self.maxsize and not self._is_closed:
            await self._room.wait()
        self._add(event, done)

    def _add(self, event: Any, done: asyncio.Future[None] | None) -> None:
        if self._is_closed:
            raise QueueClosed("This queue is closed and takes no more events.")
        self._events.append((event, done))
        self._news.set()

    # -- for a stream ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Found]:
        """The events that are there now."""
        self._take_up(position)
        left = len(self._events)
        while left:
            count = min(left, self._batch_size or 1)
            events = [event for event, _ in list_of(self._events, count)]
            last = (self._first or 0) + count
            yield Batch(
                data=events[0] if self._batch_size is None else events,
                position=json.dumps(last),
                label=f"event {last}" if count == 1 else f"events {last - count + 1} to {last}",
                pending=len(self._events) - count,
                settled=functools.partial(self._done, count),
            )
            left -= count

    def _take_up(self, position: str | None) -> None:
        """Lets go of the events up to a position: their batch was open when a stream ended, and is committed since."""
        try:
            done = 0 if position is None else int(json.loads(position))
        except (ValueError, TypeError) as error:
            raise PositionDamaged("", f"{position!r} is not that of a Queue.") from error
        if self._first is None:
            self._first = done
        self._done(max(0, done - self._first))
        self._first = done

    def _done(self, count: int) -> None:
        for _ in range(min(count, len(self._events))):
            _, done = self._events.popleft()
            if done is not None and not done.done():
                done.set_result(None)
        self._first = (self._first or 0) + count
        self._wake()

    def _wake(self) -> None:
        room, self._room = self._room, asyncio.Event()
        room.set()

    async def changed(self) -> bool:
        """Returns when there is an event."""
        while not self._events:
            if self._is_closed:
                return False
            self._news.clear()
            await self._news.wait()
        return True

    async def close(self) -> None:
        """What is in the queue stays there, for another stream."""


def list_of(events: deque[Any], count: int) -> list[Any]:
    """The first entries of a queue."""
    return [events[index] for index in range(count)]
