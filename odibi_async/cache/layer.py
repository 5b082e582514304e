"""
The cache as a layer around the calls of steps: found, or called and kept.

A hit puts handles of what lies in the store in the place of datasets; they are loaded when a step reads them, or at the
end for the caller. What is found damaged then is made anew at that moment, by the step that had made it, and if need be
by those before it. A step that waits for the cache, or for another run that computes the same, holds neither a thread
nor a slot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from odibi_async.cache.entries import Entry
from odibi_async.cache.for_run import RunCache
from odibi_async.cache.stored import Again, Question, Stored, Uncached
from odibi_async.cache_policy import CachePolicy
from odibi_async.dataset import ABSENT, Handle, reader_copy
from odibi_async.errors import Damaged, StepError
from odibi_async.events import CacheBypassed, CacheDamaged, CacheMissed, CacheNotShared
from odibi_async.graph.node import NOTHING, Node
from odibi_async.result import CacheUse, Status
from odibi_async.run.composition import Inside
from odibi_async.run.course import Invocation
from odibi_async.run.datasets import loaded
from odibi_async.run.layers import Inner


class CacheLayer:
    """
    Looks steps up before they are called, and keeps what they make.

    Args:
        cache: What the run asks of its cache.
        inside: What the layer gets of the run.
    """

    def __init__(self, cache: RunCache, inside: Inside) -> None:
        self._cache = cache
        self._questions = cache.questions
        self._inside = inside
        self._tell = inside.telling.tell
        state = inside.state
        for place in state.given:  # nobody outside is to change what keys are made of
            state.values[place] = reader_copy(state.values[place])
            self._questions.origins[place] = state.values[place]
        state.has_handles = True
        inside.recovery.origins.update(self._questions.origins)
        self._questions.origins = inside.recovery.origins

    async def open(self) -> None:
        """Protects everything that this run finds in the store from removal."""
        await self._cache.open()
        if self._cache.shared is not None and self._cache.shared.trouble:
            self._tell(CacheNotShared, self._cache.shared.trouble)

    async def close(self) -> None:
        """Ends the protection."""
        await self._cache.close()

    def wants(self, node: Node) -> bool:
        """Whether the step is cached; batches that only pass through are not."""
        if node.maps is None and node.index in self._inside.state.selection.passing:
            return False
        return self._questions.policy(node) is not None

    async def __call__(self, invocation: Invocation, inner: Inner) -> Sequence[Any]:
        """What a step makes, or an element of one: as the cache has it, or by calling it, and then it is kept."""
        cache, node, owner = self._cache, invocation.node, self._inside.owner
        try:
            question, entry = await cache.do(owner, cache.ask, self._asking(node, invocation.instead))
        except Uncached as error:
            self._bypass(invocation, str(error))
            return await inner(invocation)
        found = await self._found(invocation, question, entry)
        if found is not None:
            return found
        async with cache.flight(owner, question.key) as flight:
            entry, reason = await cache.do(owner, cache.entry_or_reason, node, question)
            found = await self._found(invocation, question, entry)
            if found is not None:
                flight.succeeded = True
                return found
            invocation.course.use = CacheUse(hit=False, reason=reason, key=question.key)
            self._tell(CacheMissed, node.name, reason, invocation.element)
            keeping, began = cache.keeping(node), perf_counter()
            invocation.keeping = None if keeping is None else keeping.around
            made: Sequence[Any] = await inner(invocation)
            seconds, ask = perf_counter() - began, self._asking(node, invocation.instead)  # as things are now
            keep = self._keep if keeping is None else self._record
            made, flight.succeeded = await keep(invocation, question, ask, made, seconds)
            return made

    def _policy(self, node: Node) -> CachePolicy:
        policy = self._questions.policy(node)
        assert policy is not None
        return policy

    def _asking(self, node: Node, instead: Mapping[str, Any]) -> Callable[[], Question]:
        """What asks about a step, or about an element of one, with the datasets as they are now."""
        values, origins = self._inside.state.values, self._questions.origins
        there = {d: origins.get(d, ABSENT) if values[d] is ABSENT else values[d] for d in node.call.datasets}
        return functools.partial(self._questions.question, node, self._policy(node), there, instead)

    async def _found(self, invocation: Invocation, question: Question, entry: Entry | None) -> Sequence[Any] | None:
        """What the cache has of a step; `None` if that is nothing, or turned out to be damaged."""
        if entry is None:
            return None
        node, course, is_whole = invocation.node, invocation.course, invocation.element is None
        stored = self._stored(node, question, entry, invocation.instead, invocation.element)
        made: list[Any] = list(stored)
        if node.resources or node.follows:  # those are closed, batches gone when others read this: now it can be called
            try:
                made = [await self._cache.do(self._inside.owner, self._cache.load, each) for each in stored]
            except Damaged as error:
                self._tell(CacheDamaged, node.name, str(error))
                return None
        elif is_whole:
            self._questions.origins.update(zip(node.outputs, made, strict=True))
        course.use, course.found = CacheUse(hit=True, key=question.key), Status.CACHED
        return made

    async def _keep(
        self,
        invocation: Invocation,
        question: Question,
        ask: Callable[[], Question],
        made: Sequence[Any],
        seconds: float,
    ) -> tuple[Sequence[Any], bool]:
        """Keeps what a step made, or an element of one; what its readers get, and whether it could be kept."""
        node, course, is_whole = invocation.node, invocation.course, invocation.element is None
        made = [reader_copy(value) for value in made]
        reason = "damaged" if course.use is None else course.use.reason
        values = [self._inside.state.values[dataset] for dataset in node.call.datasets]
        read = [each for each in (*values, *invocation.instead.values()) if not isinstance(each, Handle)]
        keep = functools.partial(self._cache.keep, node, question, ask, read, made, seconds, reason, is_whole=is_whole)
        try:
            entry, made = await self._cache.do(self._inside.owner, keep)
        except Uncached as error:
            self._bypass(invocation, f"not kept: {error}")
            return made, False
        if is_whole:
            self._questions.origins.update(
                zip(node.outputs, self._stored(node, question, entry, NOTHING, None), strict=True)
            )
        return made, True

    async def _record(
        self,
        invocation: Invocation,
        question: Question,
        ask: Callable[[], Question],
        made: Sequence[Any],
        seconds: float,
    ) -> tuple[Sequence[Any], bool]:
        """As `_keep`, for what was kept where the step was called: it stays there."""
        node, (*live, report) = invocation.node, made
        reason = "damaged" if invocation.course.use is None else invocation.course.use.reason
        record = functools.partial(self._cache.record, node, question, ask, report, seconds, reason)
        try:
            entry = await self._cache.do(self._inside.owner, record)
        except Uncached as error:
            self._bypass(invocation, f"not kept: {error}")
            return [await loaded(value) for value in live], False
        handles = self._stored(node, question, entry, invocation.instead, invocation.element)
        if invocation.element is None:
            self._questions.origins.update(zip(node.outputs, handles, strict=True))
        if not report.has_parts:
            for handle, each in zip(handles, live, strict=True):
                handle.fresh = each if isinstance(each, Handle) else None
        return handles, True

    def _bypass(self, invocation: Invocation, reason: str) -> None:
        self._tell(CacheBypassed, invocation.node.name, reason, invocation.element)
        invocation.course.use = CacheUse(hit=False, reason=reason)

    # -- what lies in the store, as it is read ---------------------------------------------------------

    def _stored(
        self, node: Node, question: Question, entry: Entry, instead: Mapping[str, Any], element: int | None
    ) -> list[Stored]:
        again = Again(node.name, functools.partial(self._made_again, node, question, instead, element))
        datasets = list(node.outputs) if element is None else [None] * len(entry.kept)
        shared = self._cache.shared if entry.is_shared else None
        directory = None if shared is None else shared.directory
        return [Stored(entry, p, datasets[p], again, self._load, directory) for p in range(len(entry.kept))]

    async def _load(self, stored: Stored) -> Any:
        """The value of a stored dataset; of a damaged one, by calling its step."""
        if stored.again.made is None:
            try:
                return await self._cache.do(self._inside.owner, self._cache.load, stored)
            except Damaged as error:
                self._tell(CacheDamaged, stored.again.step, str(error))
                if not self._inside.may_begin():
                    return ABSENT
        made = await self._inside.new_task(stored.again(), stored.again.step)  # its own: a long chain may be damaged
        return made[stored.place]

    async def _made_again(
        self, node: Node, question: Question, instead: Mapping[str, Any], element: int | None
    ) -> Sequence[Any]:
        """
        Calls a cached step, or an element of one, after all: what it had made is damaged. Then keeps it.

        Raises:
            StepError: It failed.
        """
        invocation, began = self._inside.recovery.invocation(node, instead, element), perf_counter()
        try:
            made = [await loaded(value) for value in await self._inside.recovery.call(invocation)]
        except Exception as error:
            raise StepError(node.name, error) from error
        asked, origins = self._inside.state.values, self._questions.origins
        is_there = all(asked[dataset] is not ABSENT or dataset in origins for dataset in node.call.datasets)
        ask = self._asking(node, instead) if is_there else lambda: question  # what was dropped cannot have changed
        kept, _ = await self._keep(invocation, question, ask, made, perf_counter() - began)
        return kept
