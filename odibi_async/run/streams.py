"""
Batches on their way from the step that makes them to the steps that follow it.

Each reader has a queue of its own. The step that makes batches goes on while every reader has room, so the slowest one
sets the pace; a batch takes its room until its reader asks for the next. Who waits, for room or for a batch, holds
neither a slot nor a thread meanwhile.

A queue has one writer and one reader, either of which may be in a worker thread. Nothing is locked: who is about to
wait notes that first and then looks once more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeVar

import anyio

from odibi_async.cancellation import CURRENT, CurrentCall
from odibi_async.dataset import ABSENT, KINDS
from odibi_async.errors import BatchesGone
from odibi_async.graph.node import Node
from odibi_async.run.attempts import TimeLimit
from odibi_async.run.outputs import refuse_used_up

T = TypeVar("T")
BUFFER: Final = 4
"""How many batches there may be, of a step that does not say so itself, for each of its readers."""
Soon = Callable[..., None]
"""Has something called on the loop's thread: at once when that is where it is called from."""


def at_once(call: Callable[..., None], *args: Any) -> None:
    """What the loop's own thread does."""
    call(*args)


class Stream:
    """
    The batches of one streaming step.

    Args:
        node: The step.
        is_kept: Whether they are kept, for those who want all of them.
        soon: How its own thread reaches the loop.

    Attributes:
        kept: Those that were made, where they are kept.
        readers: Those that still read.
        batches: How many were made.
        rows: How many rows they have; `None` where that cannot be told.
        is_over: Whether no more will come.
        is_broken: Whether that is so since the step did not succeed.
        is_making: Whether the step's own code is at work.
        on_batch: Told of each batch.
        on_unread: Told when nobody reads any more while the step's own code is at work.
        on_wait: Told that a step begins to wait.
    """

    def __init__(self, node: Node, *, is_kept: bool, soon: Soon = at_once) -> None:
        self.node = node
        self.kept: list[Any] | None = [] if is_kept else None
        self.readers: tuple[Reader, ...] = ()
        self.batches = 0
        self.rows: int | None = 0
        self.is_over = self.is_broken = self.is_making = False
        self.on_batch: Callable[[], None] | None = None
        self.on_unread: Callable[[], None] | None = None
        self.on_wait: Callable[[int], None] | None = None
        self.soon = soon
        self._capacity = node.step.buffer or BUFFER
        self._low = self._capacity // 2 if soon is not at_once else self._capacity
        self._room: asyncio.Future[None] | None = None
        self._asked = asyncio.Event()
        self._who = f"Step {node.name!r}"

    def add(self, reader: Reader) -> None:
        """Adds a reader, before the first batch."""
        self.readers = (*self.readers, reader)

    # -- the step that makes them ----------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether a batch was handed out: then the step cannot begin anew."""
        return self.batches > 0

    @property
    def is_read(self) -> bool:
        """Whether anybody wants a batch."""
        return self.kept is not None or bool(self.readers)

    @property
    def waits(self) -> bool:
        """Whether the step waits for room, and was not told of any."""
        room = self._room
        return room is not None and not room.done()

    def has_room(self) -> bool:
        """Whether the next batch may be made. From the thread of the step."""
        readers = self.readers
        for reader in readers:
            if reader.held >= self._capacity + reader.extra:
                return False
        return bool(readers) or self.kept is not None

    def crowded(self) -> Iterator[Reader]:
        """The readers that the step waits for; where all have room, those for whom it is not woken yet."""
        room = self._low + 1 if self.has_room() else self._capacity
        return (reader for reader in self.readers if reader.held >= room + reader.extra)

    def make_room(self, reader: Reader) -> None:
        """Has the step go on though a reader takes nothing. On the loop's thread."""
        if not self.has_room():
            reader.extra += 1
        self.look()

    def is_low(self, reader: Reader) -> bool:
        """Whether it is worth waking the step for the room that a reader has: a thread makes several batches then."""
        return reader.held <= self._low + reader.extra

    async def room(self) -> bool:
        """Waits until the next batch may be made; false when nobody reads any more."""
        while self.is_read and not self.is_over:
            if self.has_room():
                return True
            self._room = room = asyncio.get_running_loop().create_future()
            try:
                if not self.has_room():
                    if self.on_wait is not None:
                        self.on_wait(self.node.index)
                    await aside(room)
            finally:
                self._room = None
        return False

    def put(self, batch: Any) -> None:
        """
        Hands a batch to every reader. From the thread of the step.

        Raises:
            OutputError: It is something that only one reader could use.
        """
        kind = KINDS[type(batch)]
        if kind is not None and kind.refused:
            refuse_used_up(self._who, batch)
        rows = kind.rows(batch) if kind is not None and kind.rows is not None else _count(batch)
        self.rows = None if rows is None or self.rows is None else self.rows + rows
        if self.kept is not None:
            self.kept.append(batch if kind is None else kind.copied(batch))
        for reader in self.readers:
            reader.put(batch if kind is None else kind.copied(batch))
        self.batches += 1
        if self.on_batch is not None:
            self.on_batch()

    @property
    def is_asked(self) -> bool:
        """Whether the step need not wait until a reader asks for a batch."""
        return self.kept is not None or self._asked.is_set()

    async def is_wanted(self) -> bool:
        """Waits until somebody asks for a batch; false when nobody will."""
        while self.readers and not self.is_asked:
            if self.on_wait is not None:
                self.on_wait(self.node.index)
            await self._asked.wait()
        return self.is_read

    def fill(self, batches: Sequence[Any]) -> None:
        """Hands out batches that are in memory anyway, all at once. On the loop's thread."""
        self.kept, self.soon = None, at_once
        for batch in batches:
            self.put(batch)

    def end(self, *, is_broken: bool = False) -> None:
        """No more will come, and what was kept was taken. On the loop's thread."""
        self.kept = None
        self.is_broken = is_broken
        self.is_over = True
        self.look()
        for reader in self.readers:
            reader.wake()

    # -- its readers -----------------------------------------------------------------------------------

    def ask(self) -> None:
        """A reader asks for a batch. On the loop's thread."""
        self._asked.set()

    def look(self) -> None:
        """There may be room. On the loop's thread."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def left(self, reader: Reader) -> None:
        """A reader reads no more. On the loop's thread."""
        self.readers = tuple(each for each in self.readers if each is not reader)
        self.look()
        if not self.is_read:
            self._asked.set()
            if self.is_making and self.on_unread is not None and not self.is_over:
                self.on_unread()


class Reader:
    """
    What one step has of the batches of another one.

    Args:
        stream: The batches.
        name: The step that reads them.
        index: Its place.
        soon: How the thread of that step reaches the loop.

    Attributes:
        extra: How many batches more than others it may hold.
        taken: How many it has taken.
        limit: The time limit of its step, which stands still while that waits for a batch.
        has_failed: Whether it was told that the step that makes them failed.
        is_closed: Whether it reads no more.
    """

    __slots__ = (
        "_hand",
        "_has_left",
        "_name",
        "_queue",
        "_soon",
        "_waiters",
        "extra",
        "has_failed",
        "index",
        "is_closed",
        "limit",
        "stream",
        "taken",
    )

    def __init__(self, stream: Stream, name: str, index: int, soon: Soon = at_once) -> None:
        self.stream = stream
        self.index = index
        self.extra = self.taken = 0
        self.has_failed = self.is_closed = False
        self.limit: TimeLimit | None = None
        self._name = name
        self._soon = soon
        self._has_left = False
        self._hand = 0
        self._queue: deque[Any] = deque()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def held(self) -> int:
        """How many batches it holds, the one that it is at included."""
        return len(self._queue) + self._hand

    @property
    def waits(self) -> bool:
        """Whether its step waits for a batch."""
        return bool(self._waiters)

    def put(self, batch: Any) -> None:
        """Adds a batch. From the thread of the step that makes them."""
        self._queue.append(batch)
        if self._waiters:
            self.stream.soon(self.wake)

    def take(self) -> Any:
        """The next batch, `ABSENT` where there is none yet. From the reader's thread."""
        stream = self.stream
        if self._hand:
            self._hand = 0
            if stream.waits and stream.is_low(self):
                self._soon(stream.look)
        if self.is_closed or stream.is_broken:
            self._refuse()
        try:
            batch = self._queue.popleft()
        except IndexError:
            return ABSENT
        self._hand = 1
        self.taken += 1
        return batch

    def _refuse(self) -> None:
        """
        Raises:
            BatchesGone: There is no batch to be had any more, and that is not the end of them.
        """
        if self.is_closed and not self._has_left:
            raise BatchesGone(self.stream.node.name, self._name, failed=False)
        if self.stream.is_broken and not self.is_closed:
            self.has_failed = True
            raise BatchesGone(self.stream.node.name, self._name, failed=True)

    @property
    def _has_news(self) -> bool:
        return bool(self._queue) or self.is_closed or self.stream.is_over

    async def news(self) -> None:
        """Waits until there may be something to take."""
        self.stream.ask()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            if not self._has_news:
                if self.stream.on_wait is not None:
                    self.stream.on_wait(self.index)
                if self.limit is not None:
                    self.limit.pause()
                await aside(waiter)
        finally:
            if self.limit is not None:
                self.limit.start()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """There may be something to take. On the loop's thread."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def shut(self) -> None:
        """Its step reads no more. On the loop's thread."""
        if not self.is_closed:
            self.is_closed = True
            self._queue.clear()
            self._hand = 0
            self.wake()
            self.stream.left(self)

    def leave(self) -> None:
        """Its step says itself that it needs no more. From the reader's thread."""
        self._has_left = self._has_left or not self.is_closed
        self._soon(self.shut)


class AsyncBatches(Reader):
    """Batches for a step on the loop: what it gets for an `AsyncIterator`."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while True:
            is_over = self.stream.is_over
            batch = self.take()
            if batch is not ABSENT:
                return batch
            if is_over or self.is_closed:
                raise StopAsyncIteration
            await self.news()

    async def aclose(self) -> None:
        """No more batches are needed."""
        self.leave()


class Batches(Reader):
    """Batches for a step in a worker thread: what it gets for an `Iterator`."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while True:
            is_over = self.stream.is_over
            batch = self.take()
            if batch is not ABSENT:
                return batch
            if is_over or self.is_closed:
                raise StopIteration
            from_thread(self.news)

    def close(self) -> None:
        """No more batches are needed."""
        self.leave()


def in_memory(node: Node, value: Any) -> Any:
    """
    An iterator for a parameter of a step that gets batches, of a dataset that is there: the elements of a list, or a
    frame as the only batch. Any other value as it is.
    """
    kind = KINDS[type(value)]
    if isinstance(value, list | tuple):
        batches: Sequence[Any] = value
    elif kind is not None and (kind.engine or kind.rows is not None):
        batches = (value,)
    else:
        return value
    stream = Stream(node, is_kept=False)
    reader = (Batches if node.in_thread else AsyncBatches)(stream, node.name, node.index)
    stream.add(reader)
    stream.fill(batches)
    stream.end()
    return reader


async def aside(future: asyncio.Future[None]) -> None:
    """Waits for something that another step does, and holds neither a slot nor a thread meanwhile."""
    call = CURRENT.get()
    if call is None or type(call) is CurrentCall:
        await future
    else:
        async with call.aside():
            await future


def from_thread(wait: Callable[[], Awaitable[T]]) -> T:
    """Waits on the loop, as a blocking step that is cancelled with it."""
    import anyio.from_thread  # 7 ms to import, for those who have no blocking step

    try:
        return anyio.from_thread.run(_unless_cancelled, wait)
    except concurrent.futures.CancelledError:  # to the code of a step, a cancellation is always the same
        raise asyncio.CancelledError from None


async def _unless_cancelled(wait: Callable[[], Awaitable[T]]) -> T:
    if anyio.current_effective_deadline() == -math.inf:  # it was, before this task was there to be cancelled with it
        raise asyncio.CancelledError
    return await wait()


def _count(batch: Any) -> int | None:
    return len(batch) if isinstance(batch, list | tuple) else None
