"""
One run of a graph with a cache: ready -> found, or start -> kept -> done.

What was computed before from the same content is not computed again. A hit puts something in the table of datasets that
stands for what lies in the store, and is loaded when a step reads it, or at the end for the caller. What is found
damaged then is made anew at that moment, by the step that had made it, and if need be by those before it.

In such a run each step has a task of its own on the loop, blocking ones too: while it waits for the cache, or for
another run that computes the same, it must hold neither a thread nor a slot.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import anyio

from odibi_async.cache.cache import Entry
from odibi_async.cache.for_run import RunCache
from odibi_async.cache.stored import LYING, Again, Question, Stored, StoredList, Uncached, listed_or_stored
from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT, reader_copy
from odibi_async.errors import Damaged, OdibiError, StepError
from odibi_async.events import CacheBypassed, CacheDamaged, CacheMissed, StepFinished
from odibi_async.graph.graph import NOTHING, OUTSIDE, Call, Node
from odibi_async.result import CacheUse, RunResult, Status, StepResult
from odibi_async.run.calls import Course
from odibi_async.run.execution import Execution, Task, Values
from odibi_async.run.lives.elements import listed


class CachedExecution(Execution):
    """
    One run of a graph, with a cache.

    Args:
        cache: What it asks.
    """

    def __init__(self, *args: Any, cache: RunCache, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cache = cache
        self._ordinary = False
        self._loading: asyncio.Task[None] | None = None
        for place in self._given:  # nobody outside is to change what keys are made of
            cache.origins[place] = self._values[place] = reader_copy(self._values[place])

    # -- from the beginning to the end -----------------------------------------------------------------

    async def _prepare(self) -> None:
        await self._cache.open()

    async def _dispose(self) -> asyncio.CancelledError | None:
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            closing = self._closing()
            while not closing.done() or closing.cancelled():
                if closing.done():  # whoever cancels all tasks has cancelled it before its first turn
                    closing = self._closing()
                try:
                    await asyncio.wait([closing])
                except asyncio.CancelledError as error:
                    cancelled = error
        closing.result()
        return cancelled

    def _closing(self) -> asyncio.Task[None]:
        return Task(self._cache.close(), loop=self._loop, name="odibi_async closing")

    def stop(self) -> None:
        if self._loading is None:
            super().stop()
        else:
            self._loading.cancel()

    def _wind_up(self) -> None:
        """What the caller gets is loaded, unless the time is over."""
        if self.was_cancelled or self.deadline_passed:
            self._ended.set()
        else:
            self._loading = Task(self._load_outputs(), loop=self._loop, name="odibi_async loading")
            self._loading.add_done_callback(lambda _: self._ended.set())

    def _result(self, started: float) -> RunResult:
        self._values = [ABSENT if isinstance(value, LYING) else value for value in self._values]
        return super()._result(started)

    # -- one step --------------------------------------------------------------------------------------

    def _takes_slots_itself(self, node: Node) -> bool:
        return super()._takes_slots_itself(node) or self._cache.policy(node) is not None

    def _is_called_at_once(self, node: Node) -> bool:
        return super()._is_called_at_once(node) and self._cache.policy(node) is None

    def _start(self, node: Node, ready_at: float) -> None:
        if node.is_resource or node.maps is not None:
            super()._start(node, ready_at)
        else:
            self._start_task(node, self._step(node, Course(ready_at)))

    async def _made(self, node: Node, course: Course) -> Sequence[Any]:
        policy = self._cache.policy(node)
        call = functools.partial(super()._made, node, course)
        if policy is None:
            return await call()

        async def attempts() -> Sequence[Any]:
            if not node.in_thread:
                self._note_start(node, course)
            return await call()

        return await self._through_cache(node, course, policy, attempts)

    async def _made_of_element(
        self,
        node: Node,
        course: Course,
        attempts: Callable[[], Awaitable[Sequence[Any]]],
        instead: Mapping[str, Any],
        index: int,
    ) -> Sequence[Any]:
        policy = self._cache.policy(node)
        if policy is None:
            return await super()._made_of_element(node, course, attempts, instead, index)
        return await self._through_cache(node, course, policy, attempts, instead, index)

    def _gathered(self, elements: Sequence[Any]) -> Any:
        return listed_or_stored(elements)

    async def _to_map(self, dataset: int, value: Any) -> Any:
        if isinstance(value, StoredList):  # each is loaded when its element needs it
            return value.elements
        return await self._value(dataset) if isinstance(value, Stored) else value

    def _record(self, node: Node, made: Sequence[Any], course: Course) -> StepResult:
        if course.use is None or not course.use.hit:
            return super()._record(node, made, course)
        rows = made[0].kept.rows if len(made) == 1 and isinstance(made[0], Stored) else None
        return StepResult(name=node.name, status=Status.CACHED, rows=rows, cache=course.use)

    # -- what the cache has, and what it gets ----------------------------------------------------------

    async def _through_cache(
        self,
        node: Node,
        course: Course,
        policy: CachePolicy,
        attempts: Callable[[], Awaitable[Sequence[Any]]],
        instead: Mapping[str, Any] = NOTHING,
        element: int | None = None,
    ) -> Sequence[Any]:
        """What a step makes, or an element of one: as the cache has it, or by calling it, and then it is kept."""
        cache = self._cache
        try:
            question, entry = await cache.do(self, cache.ask, self._asking(node, policy, instead))
        except Uncached as error:
            self._bypass(node, course, str(error), element)
            async with self._slot(node):
                return await attempts()
        found = await self._found(node, course, question, entry, instead)
        if found is not None:
            return found
        async with cache.flight(self, question.key) as flight:
            entry, reason = await cache.do(self, cache.entry_or_reason, node, question)
            found = await self._found(node, course, question, entry, instead)
            if found is not None:
                flight.succeeded = True
                return found
            course.use = CacheUse(hit=False, reason=reason, key=question.key)
            self._tell(CacheMissed, node.name, reason, element)
            async with self._slot(node):
                began = perf_counter()
                made = await attempts()
                seconds = perf_counter() - began
            made = [reader_copy(value) for value in made]
            ask = self._asking(node, policy, instead)  # as things are now
            flight.succeeded = await self._keep(node, course, question, ask, made, seconds, element)
            return made

    def _asking(self, node: Node, policy: CachePolicy, instead: Mapping[str, Any]) -> Callable[[], Question]:
        """What asks about a step, or about an element of one, with the datasets as they are now."""
        values, origins = self._values, self._cache.origins
        there = {d: origins.get(d, ABSENT) if values[d] is ABSENT else values[d] for d in node.call.datasets}
        return functools.partial(self._cache.question, node, policy, there, instead)

    async def _found(
        self, node: Node, course: Course, question: Question, entry: Entry | None, instead: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """What the cache has of a step; `None` if that is nothing, or turned out to be damaged."""
        if entry is None:
            return None
        made: list[Any] = self._stored(node, question, entry, instead)
        if node.resources:  # they are closed when others read this: now the step can still be called if it is damaged
            try:
                made = [await self._cache.do(self, self._cache.load, stored) for stored in made]
            except Damaged as error:
                self._tell(CacheDamaged, node.name, str(error))
                return None
        elif instead is NOTHING:
            self._cache.origins.update(zip(node.outputs, made, strict=True))
        course.use = CacheUse(hit=True, key=question.key)
        return made

    async def _keep(
        self,
        node: Node,
        course: Course,
        question: Question,
        ask: Callable[[], Question],
        made: Sequence[Any],
        seconds: float,
        element: int | None,
    ) -> bool:
        """Keeps what a step made, or an element of one; whether that could be done."""
        reason = "damaged" if course.use is None else course.use.reason
        keep = functools.partial(self._cache.keep, node, question, ask, made, seconds, reason, is_whole=element is None)
        try:
            entry = await self._cache.do(self, keep)
        except Uncached as error:
            self._bypass(node, course, f"not kept: {error}", element)
            return False
        if element is None:
            self._cache.origins.update(zip(node.outputs, self._stored(node, question, entry, NOTHING), strict=True))
        return True

    def _bypass(self, node: Node, course: Course, reason: str, element: int | None) -> None:
        self._tell(CacheBypassed, node.name, reason, element)
        course.use = CacheUse(hit=False, reason=reason)

    def _stored(self, node: Node, question: Question, entry: Entry, instead: Mapping[str, Any]) -> list[Stored]:
        again = Again(node.name, functools.partial(self._made_again, node, question, instead))
        return [Stored(entry, place, again) for place in range(len(entry.kept))]

    async def _made_again(self, node: Node, question: Question, instead: Mapping[str, Any]) -> Sequence[Any]:
        """
        Calls a cached step, or an element of one, after all: what it had made is damaged. Then keeps it.

        Raises:
            StepError: It failed.
        """
        course = Course(0.0, perf_counter())  # begun already: of this, `CacheDamaged` tells
        attempt = functools.partial(self._attempt, node, course, instead)
        try:
            made = await self._attempts(node, course, attempt)
        except Exception as error:
            raise StepError(node.name, error) from error
        policy = self._cache.policy(node)
        assert policy is not None
        seconds, ask = perf_counter() - course.started, self._asking(node, policy, instead)
        await self._keep(node, course, question, ask, made, seconds, None if instead is NOTHING else 0)
        return made

    # -- what lies in the store, as it is read ---------------------------------------------------------

    async def _read(self, call: Call, instead: Mapping[str, Any] = NOTHING) -> tuple[Values, Mapping[str, Any]]:
        """The same; what lies in the store is loaded."""
        values = {dataset: await self._value(dataset) for dataset in call.datasets}
        return values, {name: await self._loaded(value) for name, value in instead.items()}

    async def _value(self, dataset: int) -> Any:
        """A dataset, loaded if it lies in the store; if it was dropped and is needed once more, it is got back."""
        value = self._values[dataset]
        if isinstance(value, Stored):
            async with value.lock:
                if self._values[dataset] is value:  # nobody has loaded it meanwhile
                    self._values[dataset] = await self._loaded(value, dataset)
        elif isinstance(value, StoredList):
            self._values[dataset] = [await self._loaded(element) for element in value.elements]
        elif value is ABSENT:
            return await self._dropped(dataset)
        return self._values[dataset]

    async def _loaded(self, value: Any, dataset: int | None = None) -> Any:
        """The value itself, of what lies in the store; of what is damaged there, by calling its step."""
        if not isinstance(value, Stored):
            return value
        if value.again.made is None:
            try:
                return await self._cache.do(self, self._cache.load, value, dataset)
            except Damaged as error:
                self._tell(CacheDamaged, value.again.step, str(error))
                if self._stopping:
                    return ABSENT
        made = await Task(value.again(), loop=self._loop)  # a task of its own: a long chain may be damaged
        return made[value.place]

    async def _dropped(self, dataset: int) -> Any:
        """A dataset that is not in the table: one that was dropped after its last reader, or one that never was."""
        if dataset in self._cache.origins:
            return await self._loaded(self._cache.origins[dataset])
        producer = self._graph.producers[dataset]
        record = None if producer == OUTSIDE else self._records[producer]
        if record is None or not record.is_done:
            return ABSENT
        node = self._nodes[producer]
        if node.is_resource:
            raise OdibiError(f"Resource {node.name!r} is closed.")
        made = await Task(self._remade(node), loop=self._loop)
        return made[list(node.outputs).index(dataset)]

    async def _remade(self, node: Node) -> Sequence[Any]:
        """What an uncached step makes, called once more, since somebody who needs it has to be."""
        course = Course(0.0, perf_counter())
        if node.maps is None:
            return await self._attempts(node, course, functools.partial(self._attempt, node, course))
        made = []
        [mapped] = [b.dataset for b in node.call.bindings if b.parameter == node.maps and b.dataset is not None]
        for element in listed(node.name, node.maps, await self._value(mapped)):
            attempt = functools.partial(self._attempt, node, course, {node.maps: element})
            made.append(await self._attempts(node, course, attempt))
        return [list(column) for column in zip(*made, strict=True)]

    async def _load_outputs(self) -> None:
        """Loads what the caller is to get."""
        kept = self._selection.kept
        places = range(len(self._values)) if kept is None else kept
        lying = [place for place in places if isinstance(self._values[place], LYING)]
        await asyncio.gather(*map(self._load_output, lying))

    async def _load_output(self, dataset: int) -> None:
        try:
            await self._value(dataset)
        except Exception as error:
            self._fail_late(self._nodes[self._graph.producers[dataset]], error)
            self._values[dataset] = ABSENT

    def _fail_late(self, node: Node, error: BaseException) -> None:
        """A step that was cached has failed after all: what it had made was damaged, and it could not be called."""
        if isinstance(error, StepError) and error.step == node.name:
            error = error.error
        record = self._records[node.index]
        assert record is not None
        self._records[node.index] = record = dataclasses.replace(record, status=Status.FAILED, error=error)
        self._failures[node.name] = StepError(node.name, error)
        self._tell(StepFinished, node.name, record.status, record)
