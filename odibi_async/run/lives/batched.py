"""The elements of a step that is called once a batch: a few at a time, what they make in the order of the batches."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from odibi_async.dataset import ABSENT
from odibi_async.graph.node import Node
from odibi_async.result import CacheUse, Status
from odibi_async.run.attempts import Leash
from odibi_async.run.cancelling import end_all
from odibi_async.run.course import Course, Invocation
from odibi_async.run.datasets import loaded
from odibi_async.run.following import Streams
from odibi_async.run.layers import Inner
from odibi_async.run.lives.elements import listed
from odibi_async.run.state import RunState
from odibi_async.run.streams import BUFFER, AsyncBatches, Stream, in_memory
from odibi_async.run.supervisor import ElementFailed, Supervisor, UpstreamFailed
from odibi_async.run.telling import Telling


class Element:
    """What became of one batch."""

    __slots__ = ("course", "error", "made")

    def __init__(self, course: Course) -> None:
        self.course = course
        self.made: Any = ABSENT
        self.error: BaseException | None = None


class Batched:
    """
    Calls a step once a batch of another one, each time with its own slot, retries, time limit and cache entry.

    Args:
        row_of: One call of a step with the layers around it.
        new_task: Makes the task of an element.
        goes_on: Whether the other elements are made when one fails.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        streams: Streams,
        row_of: Callable[[Node], Inner],
        new_task: Callable[..., asyncio.Task[Any]],
        *,
        goes_on: bool,
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._streams = streams
        self._row_of = row_of
        self._new_task = new_task
        self._goes_on = goes_on

    async def all(self, node: Node, course: Course, stream: Stream) -> list[Any]:
        """
        What the elements make, if it is kept; it goes to the step's own readers as it is made.

        Raises:
            ElementFailed: One failed.
            UpstreamFailed: The step that makes the batches failed.
        """
        window = _Window(node.step.buffer or BUFFER)
        course.attempts = 1
        try:
            async with Leash(None, self._supervisor.grace) as leash:
                stream.is_making, stream.on_unread = True, functools.partial(self._cut, leash)
                try:
                    feeder = self._new_task(self._feed(node, course, window), f"{node.name} feeding")
                    window.open(feeder)
                    await self._emit(node, course, stream, window)
                finally:
                    stream.is_making, stream.on_unread = False, None
                    await window.end(self._supervisor.grace)
        except BaseException as error:
            if self._streams.has_lost(node, error):
                raise UpstreamFailed from None
            raise
        course.use, course.found = window.use, window.found
        if course.found is None and not course.started:
            self._begin(node, course, course.ready)
        return stream.kept or []

    def _cut(self, leash: Leash) -> None:
        """Ends a step that nobody reads any more; one that is being cancelled has its cancellation already."""
        if self._supervisor.may_begin():
            leash.cut()

    async def _source(self, node: Node) -> AsyncIterator[Any]:
        """The batches: as they are made, or those of a list that is there."""
        [(dataset, default)] = [(b.dataset, b.value) for b in node.call.bindings if b.parameter == node.maps]
        assert dataset is not None
        reader = self._streams.readers_of(node).get(str(node.maps))
        if reader is not None and self._state.graph.producers[dataset] in self._state.streaming:
            assert isinstance(reader, AsyncBatches)
            return reader
        value = self._state.values[dataset]
        value = await loaded(default if value is ABSENT else value)
        batches: AsyncBatches = in_memory(node, list(listed(node.name, str(node.maps), value)))
        return batches

    async def _feed(self, node: Node, course: Course, window: _Window) -> None:
        """Starts an element for each batch, as long as few enough are under way."""
        row, source, index = self._row_of(node), await self._source(node), 0
        while await window.opening():
            try:
                batch = await anext(source)
            except StopAsyncIteration:
                return
            task = self._new_task(self._element(node, course, row, index, batch), f"{node.name}[{index}]")
            window.put(task)
            index += 1

    async def _emit(self, node: Node, course: Course, stream: Stream, window: _Window) -> None:
        """Hands out what the elements make, in order."""
        failed: ElementFailed | None = None
        index = 0
        while (task := await window.first()) is not None:
            await asyncio.wait([task])
            element = Element(Course(0.0)) if task.cancelled() else task.result()
            if element.made is ABSENT:
                error = element.error or asyncio.CancelledError()
                failed = failed or ElementFailed(index, error, {})
                course.note = course.note or element.course.note
                if not self._goes_on or stream.kept is None or isinstance(error, asyncio.CancelledError):
                    break
            elif failed is not None:
                failed.made = {**failed.made, index: element.made}
            elif stream.has_room() or await stream.room():
                stream.put(element.made)
            else:
                break
            window.took(element)
            index += 1
        if failed is not None:
            made = stream.kept or []
            failed.made = {**dict(enumerate(made)), **failed.made}
            raise failed
        window.check()

    async def _element(self, node: Node, course: Course, row: Inner, index: int, batch: Any) -> Element:
        """The life of one element: its slot, its attempts, its result."""
        element = Element(Course(course.ready))
        on_begin = functools.partial(self._begin, node, course)
        try:
            [made] = await row(Invocation(node, element.course, on_begin, {str(node.maps): batch}, index))
            element.made = await loaded(made)
        except BaseException as error:
            element.error = error
        return element

    def _begin(self, node: Node, course: Course, at: float) -> None:
        """The first element of a step to be called is the step's own start."""
        if not course.started:
            course.started = at
            self._telling.started(node.name, at)


class _Window:
    """
    The elements that are under way, in the order of their batches.

    Args:
        size: How many there may be, the one that is being handed out included.
    """

    def __init__(self, size: int) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._places = asyncio.Semaphore(size)
        self._queue: asyncio.Queue[asyncio.Task[Element] | None] = asyncio.Queue()
        self._feeder: asyncio.Task[Any] | None = None
        self._count = self._hits = self._asked = self._resumed = self._found = 0
        self._miss = ""

    def open(self, feeder: asyncio.Task[Any]) -> None:
        """A task puts elements into it from now on; when it ends, there will be no more."""
        self._feeder = feeder
        feeder.add_done_callback(lambda _: self._queue.put_nowait(None))

    async def opening(self) -> bool:
        """Waits for a place for one more."""
        await self._places.acquire()
        return True

    def put(self, task: asyncio.Task[Element]) -> None:
        """One more is under way."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._queue.put_nowait(task)

    async def first(self) -> asyncio.Task[Element] | None:
        """The next in order; `None` when there are no more."""
        return await self._queue.get()

    async def end(self, grace: float) -> None:
        """Cancels what is under way and waits until it has ended."""
        feeders = [] if self._feeder is None else [self._feeder]
        await end_all([*self.tasks, *feeders], grace)
        for feeder in feeders:
            feeder.cancelled() or feeder.exception()  # heard, so that the loop does not complain

    def check(self) -> None:
        """
        Raises:
            BaseException: What kept batches from being had.
        """
        feeder = self._feeder
        if feeder is not None and feeder.cancelled():
            raise asyncio.CancelledError
        error = None if feeder is None else feeder.exception()
        if error is not None:
            raise error

    def took(self, element: Element) -> None:
        """The first was handed out."""
        self._places.release()
        self._count += 1
        use, found = element.course.use, element.course.found
        if use is not None:
            self._asked += 1
            self._hits += use.hit
            if not use.hit and not self._miss:
                self._miss = f"{self._count - 1}: {use.reason}"
        self._found += found is not None
        self._resumed += found is Status.RESUMED

    @property
    def use(self) -> CacheUse | None:
        """What the cache did for all of them together."""
        if not self._asked:
            return None
        if self._hits == self._asked:
            return CacheUse(hit=True)
        return CacheUse(hit=False, reason=f"{self._asked - self._hits} of {self._count} batches, such as {self._miss}")

    @property
    def found(self) -> Status | None:
        """How all of them were found; `None` if any was called, or there is none."""
        if not self._count or self._found < self._count:
            return None
        return Status.RESUMED if self._resumed == self._count else Status.CACHED
