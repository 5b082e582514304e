"""
The journal as a layer around the calls of steps: what is committed is not called again, what is made is committed.

It is the outermost layer. A step has ended when its row is committed, and what depends on it begins then. Rows are
written by one thread; what takes longer, digesting and keeping datasets, is done in others.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from time import perf_counter
from typing import Any, Final, TypeVar

from odibi_async.cache.stored import Again
from odibi_async.dataset import ABSENT, Handle, HandleList, reader_copy
from odibi_async.errors import Damaged, JournalUnavailable, OdibiError, StepError, in_a_line
from odibi_async.events import JournalBypassed, RunStarted
from odibi_async.executors.aside import surely
from odibi_async.executors.threads import CallJob, Threads
from odibi_async.fingerprint.functions import Undigestible, combined, digest_of
from odibi_async.graph.node import NOTHING, OUTSIDE, Node
from odibi_async.journal.fingerprints import Fingerprints, Static, digest_of_class, key_of
from odibi_async.journal.for_run import RunJournal, is_small
from odibi_async.journal.records import StepRecord
from odibi_async.journal.writer import Told
from odibi_async.observers.redaction import Redaction
from odibi_async.result import Status, StepResult
from odibi_async.run.composition import Inside
from odibi_async.run.course import Invocation
from odibi_async.run.datasets import loaded
from odibi_async.run.layers import Inner
from odibi_async.secret import given_secrets
from odibi_async.steps import TAP
from odibi_async.store.kept import Kept

T = TypeVar("T")
NOTHING_CHANGED: Final[tuple[str, ...]] = ()
READ_AT_ONCE: Final = ("json", "text", "bytes")
"""Kinds of datasets that are read within microseconds when they stand in the row."""


class Resumed(Handle):
    """
    Stands for a dataset that a resumed step made earlier, until somebody reads it.

    Attributes:
        kept: Where it is.
        place: Its place among the step's outputs.
        again: Makes them anew, for when it is found damaged.
    """

    __slots__ = ("_load", "again", "kept", "place")

    def __init__(self, kept: Kept, place: int, again: Again, load: Callable[[Resumed], Any]) -> None:
        self.kept = kept
        self.place = place
        self.again = again
        self._load = load

    @property
    def rows(self) -> int | None:
        return self.kept.rows

    @property
    def digest(self) -> str:
        return self.kept.digest

    async def load(self) -> Any:
        """The value itself; of what is damaged, by calling its step."""
        return await self._load(self)


class JournalLayer:
    """
    Finds what steps have made before the run was resumed, and commits what they make.

    Args:
        journal: What the run has of its journal.
        threads: Where datasets are digested, kept and loaded.
        inside: What the layer gets of the run.
    """

    def __init__(self, journal: RunJournal, threads: Threads, inside: Inside) -> None:
        self._journal = journal
        self._threads = threads
        self._inside = inside
        self._state = inside.state
        self._graph = inside.state.graph
        self._fingerprints = Fingerprints(self._graph, self._state.values)
        self._digests: dict[int, str] = {}
        self._of_elements: dict[tuple[int, int], Sequence[str]] = {}
        self._of_streams: dict[int, str] = {}
        self._written: set[str] = set()
        self._told = Told()
        self._redaction = self._redacting()

    def _redacting(self) -> Redaction:
        """What keeps the secrets of the run's params and inputs out of its rows."""
        secrets = given_secrets(self._state.values[dataset] for dataset in self._state.given)
        names = tuple(self._graph.nodes[index].name for index in self._state.selection.nodes)
        return Redaction(RunStarted(self._inside.telling.run_id, 0, 0.0, names, self._graph.outline, secrets))

    async def open(self) -> None:
        """Takes up the run, and looks at the code of its steps as it is now."""
        await self._do(self._open)

    def _open(self) -> None:
        self._journal.open()
        self._digests.update(self._journal.digests)
        self._fingerprints.prepared([self._graph.nodes[index] for index in self._state.selection.nodes])
        committed = self._journal.committed.values()
        if any(kept.inline is None or kept.kind not in READ_AT_ONCE for each in committed for kept in each.kept or ()):
            self._state.has_handles = True

    async def close(self) -> None:
        """Commits how the run ended."""
        await surely(self._close, self._inside.status())

    def _close(self, status: Status) -> None:
        results = [self._state.record(self._graph.nodes[index]) for index in self._state.selection.nodes]
        ended = [result for result in results if result is not None]
        rest = [self._ended(each) for each in ended if each.name not in self._written and not self._stands(each)]
        seconds = {each.name: each.run_seconds for each in ended if each.status is Status.SUCCEEDED}
        error = self._redaction(next((failure.summary for failure in self._state.failures.values()), ""))
        self._journal.close(status, rest, error, seconds)

    def _stands(self, result: StepResult) -> bool:
        """Whether a step was committed before and not come to this time: the next resumption takes what it made."""
        record = self._journal.committed.get((result.name, None))
        return record is not None and record.is_committed and result.status in (Status.SKIPPED, Status.CANCELLED)

    def _ended(self, result: StepResult) -> StepRecord:
        """The row of a step that has none: it was skipped or cancelled, is a resource, or was mapped."""
        return StepRecord(
            step=result.name,
            status=result.status,
            attempts=result.attempts,
            started_at=result.at,
            seconds=result.run_seconds,
            error="" if result.error is None else self._redaction(in_a_line(result.error)),
            note=f"because of {result.skipped_because}" if result.skipped_because else "",
        )

    def wants(self, node: Node) -> bool:
        """Whether the step is journaled: all are, except resources and what hands a run's results to its caller."""
        return not (node.is_resource or node.step.type == TAP)

    async def __call__(self, invocation: Invocation, inner: Inner) -> Sequence[Any]:
        """What a step makes, or an element of one: as the journal has it, or by calling it; then it is committed."""
        if self._journal.trouble is not None:  # what cannot be committed is not to be done
            raise JournalUnavailable(*self._journal.trouble.args)
        if invocation.element is None and invocation.node.index in self._state.selection.passing:
            await self._asked(invocation)  # its readers are known by its key, also when what it reads is dropped
            return await inner(invocation)
        place = (invocation.node.name, invocation.element)
        static, reads, why = await self._asked(invocation)
        record = self._journal.committed.get(place)
        if record is not None:
            found = await self._found(invocation, record, static, reads)
            if found is not None:
                return found
        elif place in self._journal.damaged:
            self._tell(invocation, "its row is damaged, so it is called again.")
        try:
            made = await inner(invocation)
        except Exception as error:
            await self._failed(invocation, error)
            raise
        made = [reader_copy(value) for value in made]
        kept, state = self._journal.small(made), NOTHING_CHANGED
        if kept is None or (static is not None and static.mutable):
            kept, state, more = await self._kept(invocation.node, made, kept, static)
            why = why or more
        if why:
            why = self._redaction(why)
            self._tell(invocation, f"{why.rstrip('.')}. It runs again when the run is resumed.")
        elif kept is not None:
            self._note(invocation, kept)
        key = None if static is None else key_of(static.without(state), reads)
        record = self._about(invocation, Status.SUCCEEDED, key=key, state=state, kept=kept, note=why)
        try:
            await self._put(record)
        except JournalUnavailable as error:
            self._journal.trouble = error
            raise
        return made

    # -- keys ------------------------------------------------------------------------------------------

    async def _asked(self, invocation: Invocation) -> tuple[Static | None, Sequence[str], str]:
        """What a step's key is made of; or why there is none."""
        try:
            static, reads = await self._parts(invocation.node, invocation.instead)
        except Undigestible as error:
            return None, (), str(error)
        except JournalUnavailable:
            raise
        except (OSError, OdibiError) as error:  # a file is missing, which the step will meet itself
            return None, (), in_a_line(error)
        if invocation.element is None and invocation.node.is_stream:
            self._of_streams.setdefault(invocation.node.index, key_of(static.digest, reads))
        return static, reads, ""

    async def _parts(self, node: Node, instead: Mapping[str, Any] = NOTHING) -> tuple[Static, Sequence[str]]:
        """The code of a step, and the digests of what it reads; of batches that are not made yet, what makes them."""
        static = self._fingerprints.known(node)
        if static is None:
            static = await self._do(self._fingerprints.static, node)
        reads = []
        for parameter, dataset in self._fingerprints.reads(node):
            if parameter in instead:
                reads.append(await self._digest(parameter, instead[parameter]))
            elif parameter in node.follows and self._graph.producers[dataset] in self._state.streaming:
                reads.append(await self._digest_of_stream(self._graph.producers[dataset]))
            else:
                reads.append(self._digests.get(dataset) or await self._digest_of(parameter, dataset))
        return static, reads

    async def _digest_of_stream(self, index: int) -> str:
        """Stands for batches that pass by: the key of the step that makes them."""
        if index not in self._of_streams:
            static, reads = await self._parts(self._graph.nodes[index])
            self._of_streams[index] = key_of(static.digest, reads)
        return self._of_streams[index]

    async def _digest_of(self, parameter: str, dataset: int) -> str:
        """The digest of a dataset that is not known yet."""
        value, producer = self._state.values[dataset], self._graph.producers[dataset]
        if value is ABSENT:
            return "absent"
        if producer != OUTSIDE and self._graph.nodes[producer].maps is not None and type(value) in (list, HandleList):
            elements = value.elements if isinstance(value, HandleList) else value
            column = list(self._graph.nodes[producer].outputs).index(dataset)
            known = [self._of_elements.get((producer, index)) for index in range(len(elements))]
            digests = [
                each[column] if each is not None else await self._digest(parameter, value)
                for each, value in zip(known, elements, strict=True)
            ]
            digest = combined({str(index): each for index, each in enumerate(digests)})
        else:
            try:
                digest = await self._digest(parameter, value)
            except Undigestible:
                if dataset not in self._state.given:
                    raise
                digest = digest_of_class(value)
        self._digests[dataset] = digest
        return digest

    async def _digest(self, parameter: str, value: Any) -> str:
        """The digest of what a step reads."""
        if isinstance(value, Handle):
            if value.digest is not None:
                return value.digest
            value = await value.load()
        digest = functools.partial(digest_of, value, name=f"the input {parameter!r}", ordered=True)
        return digest() if is_small(value) else await self._do(digest)

    # -- found -----------------------------------------------------------------------------------------

    async def _found(
        self, invocation: Invocation, record: StepRecord, static: Static | None, reads: Sequence[str]
    ) -> Sequence[Any] | None:
        """What the journal has of a step; `None` where the step is to be called."""
        node, kept = invocation.node, record.kept
        if not record.is_committed or kept is None or static is None or len(kept) != len(node.outputs):
            return None
        if record.key != key_of(static.without(record.state), reads):
            return None
        load = functools.partial(self._loaded, kept)
        try:
            if all(each.inline is not None and each.kind in READ_AT_ONCE for each in kept):
                is_simple = not any(b"Path" in (each.inline or b"") for each in kept)
                made = load() if is_simple or await self._do(self._journal.sound, record) else None
            elif not await self._do(self._journal.sound, record):
                made = None
            else:  # resources are closed and batches gone when others read this: now the step can still be called
                is_now = node.resources or node.follows
                made = await self._do(load) if is_now else self._handles(invocation, kept)
        except Damaged:
            made = None
        if made is None:
            self._tell(invocation, "what it made is damaged or gone, so it is called again.")
            return None
        invocation.course.found = Status.RESUMED
        self._note(invocation, kept)
        return made

    def _loaded(self, kept: Sequence[Kept]) -> Sequence[Any]:
        return [self._journal.load(each) for each in kept]

    def _handles(self, invocation: Invocation, kept: Sequence[Kept]) -> Sequence[Any]:
        """Handles of what lies in the store; they are loaded when a step reads them, or at the end for the caller."""
        node, element = invocation.node, invocation.element
        again = Again(node.name, functools.partial(self._made_again, node, invocation.instead, element))
        handles = [Resumed(each, place, again, self._load) for place, each in enumerate(kept)]
        if element is None:
            self._inside.recovery.origins.update(zip(node.outputs, handles, strict=True))
        return handles

    async def _load(self, resumed: Resumed) -> Any:
        """The value of a dataset; of one that was damaged since the run began, by calling its step."""
        if resumed.again.made is None:
            try:
                return await self._do(self._journal.load, resumed.kept)
            except Damaged as error:
                self._inside.telling.tell(JournalBypassed, resumed.again.step, f"{error} It is called again.", None)
                if not self._inside.may_begin():
                    return ABSENT
        made = await self._inside.new_task(resumed.again(), resumed.again.step)  # its own: a long chain may be damaged
        return made[resumed.place]

    async def _made_again(self, node: Node, instead: Mapping[str, Any], element: int | None) -> Sequence[Any]:
        """
        Calls a step that was committed after all. What it makes is not committed again: others may have read the old.

        Raises:
            StepError: It failed.
        """
        try:
            made = await self._inside.recovery.call(self._inside.recovery.invocation(node, instead, element))
            return [await loaded(value) for value in made]
        except Exception as error:
            raise StepError(node.name, error) from error

    # -- committed -------------------------------------------------------------------------------------

    async def _kept(
        self, node: Node, made: Sequence[Any], kept: tuple[Kept, ...] | None, static: Static | None
    ) -> tuple[tuple[Kept, ...] | None, tuple[str, ...], str]:
        """What a step made, kept; which parts of its code it has changed; or why it cannot be resumed."""
        try:
            if kept is None:
                kept = await self._all_kept(node, made)
            if static is None or not static.mutable:
                return kept, NOTHING_CHANGED, ""
            return kept, await self._do(self._fingerprints.changed, node, static), ""
        except (Undigestible, OdibiError) as error:
            if isinstance(error, JournalUnavailable):
                self._journal.trouble = error
                raise
            return kept, NOTHING_CHANGED, str(error)

    async def _all_kept(self, node: Node, made: Sequence[Any]) -> tuple[Kept, ...]:
        """Keeps what may take its time."""
        values, handles = [], {}
        for place, value in enumerate(made):
            if isinstance(value, Handle):
                there = getattr(value, "kept", None)
                if isinstance(there, Kept) and await self._do(self._journal.has, there):
                    handles[place] = there
                else:
                    value = await value.load()
            values.append(value)
        names = [self._graph.datasets[dataset] for dataset in node.outputs]
        return await self._do(self._journal.keep, names, values, handles)

    def _note(self, invocation: Invocation, kept: Sequence[Kept]) -> None:
        """Notes the digests of what a step made, for the keys of its readers."""
        node = invocation.node
        digests = [each.digest for each in kept]
        if invocation.element is not None:
            self._of_elements[node.index, invocation.element] = digests
            return
        self._written.add(node.name)
        for dataset, digest in zip(node.outputs, digests, strict=True):
            if dataset not in self._state.given:
                self._digests[dataset] = digest

    async def _failed(self, invocation: Invocation, error: Exception) -> None:
        """Commits that a step failed; if that fails too, its own error is the one to tell of."""
        if self._journal.trouble is None:
            record = self._about(invocation, Status.FAILED, error=self._redaction(in_a_line(error)))
            try:
                await self._put(record)
            except JournalUnavailable as trouble:
                self._journal.trouble = trouble

    def _put(self, record: StepRecord) -> asyncio.Future[None]:
        """Commits a row; raises `JournalUnavailable` when that cannot be done."""
        if record.element is None:
            self._written.add(record.step)
        return self._journal.put(record, self._told)

    def _about(self, invocation: Invocation, status: Status, **about: Any) -> StepRecord:
        course, now = invocation.course, perf_counter()
        began = course.started
        return StepRecord(
            step=invocation.node.name,
            element=invocation.element,
            status=course.found or status,
            attempts=course.attempts,
            started_at=began + self._inside.telling.epoch if began else None,
            seconds=now - began if began else 0.0,
            **about,
        )

    def _tell(self, invocation: Invocation, reason: str) -> None:
        self._inside.telling.tell(JournalBypassed, invocation.node.name, reason, invocation.element)

    async def _do(self, call: Callable[..., T], *args: Any) -> T:
        """Calls what blocks, in a thread of the journal's own. If the waiting task was cancelled, it is at the end."""
        job = CallJob(self._threads, self._inside.owner, 0, functools.partial(call, *args), context=Context())
        result: T = await self._threads.call(job)
        return result
