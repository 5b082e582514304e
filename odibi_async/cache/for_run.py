"""
The cache as one run uses it: what is there of a step, and what is kept of it.

When it is asked is the run loop's decision. What blocks is called through `RunCache.do`, in threads of its own, so that
a hit does not wait for the long steps that hold the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, Literal, TypeVar

import anyio
import anyio.to_thread

from odibi_async.abc import Described, FrameKeeper
from odibi_async.cache.cache import Cache
from odibi_async.cache.entries import Entry
from odibi_async.cache.flights import Flight, Flights
from odibi_async.cache.questions import Questions
from odibi_async.cache.sharing import shares
from odibi_async.cache.stored import Question, Stored, Uncached
from odibi_async.cancellation import CURRENT
from odibi_async.dataset import engine_of
from odibi_async.errors import Damaged, OdibiError, in_a_line, shortened
from odibi_async.executors.aside import surely
from odibi_async.executors.threads import CallJob, Threads
from odibi_async.fingerprint.functions import Undigestible, combined, digest_of, is_mutable
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import Node
from odibi_async.store.keeping import Keeping, Report
from odibi_async.store.kept import Kept

T = TypeVar("T")
FILES: Final = "spark"
"""The kind of datasets that their engine writes and reads itself, which is called so, too."""
THREADS: Final = 4
"""How many ask the caches of one runner at a time."""
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.05
"""Seconds between two looks at a lock that another process holds; doubled from the first to the longest."""
LOCKS: Final = 100
"""Locks between processes that the runs of a loop hold at most for one cache: each is an open file."""


class RunCache:
    """
    What one run asks of a cache.

    Args:
        cache: The cache.
        flights: What runs of this loop compute at the moment.
        threads: Where the cache is asked.
        graph: What is run.
        keeper: The engine whose frames it writes and reads itself, if the run has one.

    Attributes:
        questions: Which steps it asks about, and under which keys.
        store: Where the cache keeps what steps make.
        shared: Where workers of a cluster keep it; `None` for nowhere.
    """

    def __init__(
        self, cache: Cache, flights: Flights, threads: Threads, graph: Graph, keeper: FrameKeeper | None = None
    ) -> None:
        self.store = cache.store
        self.shared = cache.shared
        self._cache = cache
        self._keeper = keeper
        self._lease: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._flights = flights
        self._threads = threads
        self._graph = graph
        self._is_in_a_step = CURRENT.get() is not None
        self.questions = Questions(graph)

    async def open(self) -> None:
        """Protects everything that this run finds in the store from removal, until `close`."""

        def take() -> None:
            self._lease = self._cache.lease()
            if self.shared is not None:
                self.shared.open()

        await self.do(self, take)

    async def close(self) -> None:
        """Ends the protection; to be called again when it was cancelled before its first turn."""
        lease, self._lease = self._lease, contextlib.nullcontext()
        await surely(lease.__exit__, None, None, None)

    async def do(self, owner: object, call: Callable[..., T], *args: Any) -> T:
        """Calls what blocks, in a thread of the cache's own. If the waiting task was cancelled, it is at the end."""
        job = CallJob(self._threads, owner, 0, functools.partial(call, *args), context=Context())
        result: T = await self._threads.call(job)
        return result

    @contextlib.asynccontextmanager
    async def flight(self, owner: object, key: str) -> AsyncIterator[Flight]:
        """
        A block that only one run at a time is in for a key, over all processes that share the cache.

        Who waited looks again for what the other has kept. Where that run failed, or could not keep what it
        made, those who waited for it in this loop go ahead side by side; where it was cancelled, the next one does.

        A run that a step has started waits for nobody: that step may hold the slot or the thread that the other
        run needs. Nor is there a lock where there are many already. Computing twice is no error.
        """
        flights = self._flights
        async with flights.of(key, waits=not self._is_in_a_step) as flight:
            if not flight.leads or flights.locks >= LOCKS:
                yield flight
                return
            lock, pause = self._cache.flight(key), FIRST_PAUSE
            flights.locks += 1
            try:
                while not await self.do(owner, lock.try_acquire) and not self._is_in_a_step:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                yield flight
            finally:
                flights.locks -= 1
                await surely(lock.release)

    # -- what is there, and what is kept ---------------------------------------------------------------

    def ask(self, ask: Callable[[], Question]) -> tuple[Question, Entry | None]:
        """
        A question, and what the cache has, if it has it.

        Raises:
            Uncached: There is no question, since something has no content to identify it by.
        """
        try:
            question = ask()
        except Undigestible as error:
            raise Uncached(str(error)) from error
        except Uncached:
            raise
        except Exception as error:  # a missing file, which the step will meet itself; whatever a node type raises
            raise Uncached(in_a_line(error)) from error
        found = self._cache.lookup(question.key, question.ttl)
        return question, found if isinstance(found, Entry) else None

    def entry_or_reason(self, node: Node, question: Question) -> tuple[Entry | None, str]:
        """What the cache has, or why it has nothing."""
        found = self._cache.lookup(question.key, question.ttl, step=node.name)
        if isinstance(found, Entry):
            return found, ""
        return None, self._cache.why(node.name, question.parts) if found.reason == "new" else found.reason

    def load(self, stored: Stored) -> Any:
        """
        The value of a stored dataset.

        Raises:
            Damaged: It is missing, or not what was stored.
        """
        value = self._loaded(stored.entry, stored.place)
        if stored.dataset is not None:
            self.questions.note(stored.dataset, value, stored.kept.digest)
        return value

    def _loaded(self, entry: Entry, place: int) -> Any:
        if entry.kept[place].kind != FILES:
            return self._cache.load(entry, place)
        if self._keeper is None:
            raise Damaged("it is a frame of Spark, which this run does not use.")
        return self._keeper.restore(*self._cache.paths(entry, place))

    def keep(
        self,
        node: Node,
        question: Question,
        ask: Callable[[], Question],
        read: Iterable[Any],
        made: Sequence[Any],
        seconds: float,
        reason: str,
        *,
        is_whole: bool,
    ) -> tuple[Entry, Sequence[Any]]:
        """
        Keeps what a step made.

        Args:
            node: The step.
            question: What was asked before the step ran.
            ask: Asks it again: what the key was made of may have changed meanwhile.
            read: What it read.
            made: One value a dataset.
            seconds: What it took.
            reason: Why it had to be made.
            is_whole: Whether these are the step's datasets, not those of an element.

        Returns:
            What is kept, and what readers get: what was made or, where that shares parts with what was read, what a
            hit would give, which does not.

        Raises:
            Uncached: It cannot be kept, or not exactly.
        """
        if all(value is None for value in made) and not (node.step.cache or isinstance(node.call.fn, Described)):
            raise Uncached("it returned None, so it is run for its effects; use cache=True to cache it anyway")
        self.questions.check_frames(node, made)
        try:
            kept = []
            for dataset, value in zip(node.outputs, made, strict=True):
                kept.append(self._kept(f"the output {self._graph.datasets[dataset]!r}", value, node, question))
                if is_whole:
                    self.questions.note(dataset, value, kept[-1].digest)
            changed = _changed(question.parts, ask().parts)  # last: outputs may be parts of inputs
            if changed:
                raise Uncached(f"{changed} changed while the step ran.")
            entry = Entry(key=question.key, step=node.name, kept=tuple(kept), tags=node.step.tags, cost=seconds)
            self._cache.record(entry, question.parts, reason)
            if shares(made, read) or any(each.kind == FILES for each in kept):  # whose rows are then computed once
                made = [self._loaded(entry, place) for place in range(len(made))]
        except (Undigestible, OdibiError, OSError) as error:
            raise Uncached(str(error)) from error
        return entry, made

    def keeping(self, node: Node) -> Keeping | None:
        """What keeps the datasets of a step where it is called, away from here; `None` for one that is called here."""
        if node.executor is None or self.shared is None or not self.shared.takes:
            return None
        is_told = bool(node.step.cache) or isinstance(node.call.fn, Described)
        names = tuple(self._graph.datasets[dataset] for dataset in node.outputs)
        return Keeping(self.shared.directory, names, is_told)

    def record(
        self,
        node: Node,
        question: Question,
        ask: Callable[[], Question],
        report: Report,
        seconds: float,
        reason: str,
    ) -> Entry:
        """
        Notes what was kept where the step was called; see `keep`.

        Raises:
            Uncached: It could not be kept.
        """
        if not report.kept:
            raise Uncached(report.reason)
        entry = Entry(
            key=question.key, step=node.name, kept=report.kept, tags=node.step.tags, cost=seconds, is_shared=True
        )
        try:
            changed = _changed(question.parts, ask().parts)
            if changed:
                raise Uncached(f"{changed} changed while the step ran.")
            self._cache.record(entry, question.parts, reason)
        except (Undigestible, OdibiError, OSError) as error:
            raise Uncached(str(error)) from error
        return entry

    def _kept(self, name: str, value: Any, node: Node, question: Question) -> Kept:
        """
        Stores an output, and says where. A frame of Spark is known by the key of its step: its rows are elsewhere.

        Raises:
            Uncached: It was changed meanwhile by code that still holds it.
        """
        if engine_of(value) == FILES:
            return self._kept_files(name, value, node, question)
        digest = _digest_of_output(name, value)
        kept = self._cache.store.keep(value, digest)
        if is_mutable(value) and _digest_of_output(name, value) != digest:
            raise Uncached(f"{name} changed while it was kept.")
        return kept

    def _kept_files(self, name: str, value: Any, node: Node, question: Question) -> Kept:
        if self._keeper is None:
            raise Uncached(f"{name} is a frame of Spark: run it with engine='spark' to have it cached.")
        with self._keeper.around(node.name), self._cache.store.folder() as folder:
            about = self._keeper.save(value, folder)
            digest = combined({"the key": question.key, "the output": digest_of(name)})
            kept = self._cache.store.keep_files(folder, about, digest, FILES)
            change = self._keeper.save_is_exact(value, *self._cache.store.paths(kept))
        if change:
            raise Uncached(f"{name} would not come back as it is: {change}")
        return kept


class Caches:
    """
    The caches that the runs of a runner use, opened when a run needs them, and the threads that ask them.

    Args:
        grace: Seconds that a cancelled run waits for an answer.
    """

    def __init__(self, grace: float) -> None:
        self._opened: dict[str | None, Cache] = {}
        self._flights: weakref.WeakKeyDictionary[Cache, Flights] = weakref.WeakKeyDictionary()
        self._threads = Threads(THREADS, grace)

    def for_run(
        self, asked: Literal[True] | str | os.PathLike[str] | Cache, graph: Graph, keeper: FrameKeeper | None = None
    ) -> RunCache:
        """What a run asks of its cache: the user's, one in a directory, or the one that is given."""
        cache = asked if isinstance(asked, Cache) else self._open(None if asked is True else os.fspath(asked))
        return RunCache(cache, self._flights.setdefault(cache, Flights()), self._threads, graph, keeper)

    def _open(self, directory: str | None) -> Cache:
        if directory not in self._opened:
            self._opened[directory] = Cache(directory)  # touches no disk
        return self._opened[directory]

    async def close(self) -> None:
        """Closes the caches that were opened here."""
        opened, self._opened = self._opened, {}
        for cache in opened.values():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(cache.close, limiter=anyio.CapacityLimiter(1))


def _digest_of_output(name: str, value: Any) -> str:
    """The digest of what a step made. Paths are refused: the file may be gone at the next hit."""
    return digest_of(value, name=name, ordered=True, paths=False)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What is not the same in both, in words."""
    return shortened([name for name in {**before, **after} if before.get(name) != after.get(name)])
