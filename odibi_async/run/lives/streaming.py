"""
The life of a step that makes batches, and what is around a step that takes them one by one.

A step whose batches only pass through begins when a reader asks for the first one: where all readers are resumed, it is
not called at all. It is called anew, if its policy says so, only while no batch was handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from typing import Any, Final

from odibi_async.cancellation import check_cancelled
from odibi_async.current import STEP
from odibi_async.graph.node import Node
from odibi_async.result import Status, StepResult
from odibi_async.run.attempts import Leash
from odibi_async.run.batches import are_frames, whole
from odibi_async.run.calls import Calls
from odibi_async.run.course import Course, Invocation
from odibi_async.run.datasets import loaded
from odibi_async.run.following import Streams
from odibi_async.run.layers import Inner
from odibi_async.run.lives.batched import Batched
from odibi_async.run.lives.called import Called
from odibi_async.run.slots import Held
from odibi_async.run.state import Blame, RunState
from odibi_async.run.streams import Stream, from_thread
from odibi_async.run.supervisor import Supervisor, UpstreamFailed
from odibi_async.run.telling import Telling
from odibi_async.run.tracebacks import calls_users_code

AT_ONCE: Final = 16
"""How many batches are made before the loop comes round, where no reader holds the step back."""


class Streaming:
    """
    Calls a step that makes batches, and hands them to its readers.

    Args:
        streams: The streams of the run.
        batched: Calls a step once a batch of another one.
        row_of: One call of a step with the layers around it.
    """

    asks_itself = True

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        calls: Calls,
        called: Called,
        streams: Streams,
        batched: Batched,
        row_of: Callable[[Node], Inner],
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._calls = calls
        self._called = called
        self._streams = streams
        self._batched = batched
        self._row_of = row_of

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        self._supervisor.start_task(node, self._live(node, Course(ready_at)))

    async def _live(self, node: Node, course: Course) -> None:
        if not await self._called.begins(node, course):
            return
        stream = self._streams.of(node)
        ready = self._state.stream(node)
        if ready:
            self._supervisor.release(ready)
        try:
            if not await stream.is_wanted():
                self._unread(node, course)
                return
            made = await self._made(node, course, stream)
            record = self._state.success(node, made, course)
        except BaseException as error:
            self._supervisor.failed(node, course, error)
        else:
            record = dataclasses.replace(record, rows=stream.rows, batches=stream.batches)
            self._supervisor.succeeded(node, made, record)

    def _unread(self, node: Node, course: Course) -> None:
        """The end of a step that was not called, since nobody asked for a batch."""
        reader = self._streams.why_unread(node)
        if reader is None:
            record = StepResult(name=node.name, status=Status.RESUMED)
            self._supervisor.succeeded(node, (), record)
        else:
            self._supervisor.skipped(node, Blame(reader, failed=False))

    async def _made(self, node: Node, course: Course, stream: Stream) -> Sequence[Any]:
        """The dataset that the batches make together, if anybody wants it."""
        is_kept = stream.kept is not None
        if node.maps is not None:
            batches = await self._batched.all(node, course, stream)
        else:
            invocation = Invocation(node, course, functools.partial(self._telling.started, node.name))
            invocation.spent = functools.partial(self._spent, node, stream)
            [batches] = await self._row_of(node)(invocation)
            if course.found is not None:
                batches = await loaded(batches)
                stream.fill(batches)
        if not is_kept:
            return ()
        if node.maps is not None or not are_frames(batches):
            return (batches,)
        return (await self._calls.in_thread(node, functools.partial(whole, node.name, batches), None),)

    def _spent(self, node: Node, stream: Stream) -> str:
        if stream.has_begun:
            return f"It had handed out {stream.batches:,} batches, so the step was not called again."
        return self._spent_reading(node)

    def _spent_reading(self, node: Node) -> str:
        for parameter, reader in self._streams.readers_of(node).items():
            if reader.taken:
                return f"It had taken {reader.taken:,} batches as {parameter!r}, so the step was not called again."
        return ""

    # -- one attempt -----------------------------------------------------------------------------------

    async def follow(self, invocation: Invocation) -> Sequence[Any]:
        """One attempt of a step that takes batches and makes none."""
        node = invocation.node
        if invocation.spent is None:
            invocation.spent = functools.partial(self._spent_reading, node)
        async with self._reading(invocation):
            return await self._calls.attempt(invocation)

    async def attempt(self, invocation: Invocation) -> Sequence[Any]:
        """One attempt of a step that yields batches: those that are kept."""
        node, stream = invocation.node, self._streams.of(invocation.node)
        if not self._supervisor.may_begin():
            raise asyncio.CancelledError
        invocation.course.attempts += 1
        STEP.set((node.name, invocation.element))
        async with self._reading(invocation):
            args, kwargs = await self._calls.arguments(invocation)
            make = functools.partial(node.call.fn, *args, **kwargs)
            try:
                async with Leash(node.step.timeout, self._supervisor.grace) as leash:
                    stream.on_unread = functools.partial(self._cut, leash)
                    for reader in self._streams.readers_of(node).values():
                        reader.limit = leash.limit
                    if node.in_thread:
                        await self._in_thread(invocation, stream, leash, make)
                    else:
                        await self._on_loop(invocation, stream, leash, make)
            finally:
                stream.on_unread = None
        return (stream.kept if stream.kept is not None else [],)

    def _cut(self, leash: Leash) -> None:
        """Ends a step that nobody reads any more; one that is being cancelled has its cancellation already."""
        if self._supervisor.may_begin():
            leash.cut()

    @contextlib.asynccontextmanager
    async def _reading(self, invocation: Invocation) -> AsyncIterator[None]:
        """A block in which a step has the batches that it reads; if it missed any, it has not succeeded."""
        node, values = invocation.node, invocation.values or self._state.values
        readers = self._streams.readers_of(node).values()
        if node.iterates:
            invocation.instead = {**invocation.instead, **await self._streams.opened(node, values)}
        try:
            yield
        except BaseException as error:
            if self._streams.has_lost(node, error):
                raise UpstreamFailed from None
            raise
        if any(reader.has_failed for reader in readers):
            raise UpstreamFailed
        for reader in readers:
            reader.shut()

    @calls_users_code
    async def _on_loop(self, invocation: Invocation, stream: Stream, leash: Leash, make: Callable[[], Any]) -> None:
        """Has a generator make batches, as long as there is room for them."""
        invocation.begin()
        self._calls.enter(invocation)
        made = make()
        generator: AsyncGenerator[Any, None] = made if invocation.node.call.is_async else _iterated(made)
        limit = leash.limit
        try:
            while stream.has_room() or await stream.room():
                limit.start()
                stream.is_making = True
                try:
                    batch = await anext(generator)
                except StopAsyncIteration:
                    return
                finally:
                    stream.is_making = False
                    limit.pause()
                stream.put(batch)
                if not (stream.readers or stream.batches % AT_ONCE):
                    await asyncio.sleep(0)
        finally:
            await generator.aclose()

    async def _in_thread(self, invocation: Invocation, stream: Stream, leash: Leash, make: Callable[[], Any]) -> None:
        """The same in a worker thread, which is one and the same for all batches."""
        node = invocation.node

        def on_start() -> None:
            invocation.begin()
            leash.limit.start()

        raised: list[BaseException] = []
        pump = functools.partial(_pump, make, stream, None if node.step.timeout is None else leash, raised)
        fn = functools.partial(self._calls.entered, invocation, pump)
        context = self._calls.context_of(invocation)
        stream.is_making = True
        try:
            await self._calls.in_thread(node, fn, invocation.held, context=context, on_start=on_start)
        except asyncio.CancelledError:
            if leash.is_cut and raised:  # it was interrupted, and that is its answer
                raise raised[-1] from None
            raise
        finally:
            stream.is_making = False


@calls_users_code
def _pump(
    make: Callable[[], Generator[Any, None, None]], stream: Stream, leash: Leash | None, raised: list[BaseException]
) -> None:
    """
    Has a generator make batches in the calling worker thread, as long as there is room for them.

    Args:
        make: Makes the generator.
        stream: Gets the batches.
        leash: Limits the time for each; `None` for no limit.
        raised: Gets what the generator raises: who has cancelled the call does not hear of that otherwise.
    """
    generator = make()
    try:
        while stream.has_room() or _room(stream, leash):
            check_cancelled()
            try:
                batch = next(generator)
            except StopIteration:
                return
            except Exception as error:  # a cancellation is what it is told to raise
                raised.append(error)
                raise
            stream.put(batch)
            if leash is not None:
                stream.soon(leash.limit.start)
    finally:
        try:
            generator.close()
        except BaseException as error:
            raised.append(error)
            raise


def _room(stream: Stream, leash: Leash | None) -> bool:
    if leash is None:
        return from_thread(stream.room)
    stream.soon(leash.limit.pause)
    has_room = from_thread(stream.room)
    stream.soon(leash.limit.start)
    return has_room


async def _iterated(generator: Generator[Any, None, None]) -> AsyncGenerator[Any, None]:
    """A plain generator that is to run on the loop."""
    try:
        for batch in generator:
            yield batch
    finally:
        generator.close()
