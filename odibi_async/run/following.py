"""Which batches there are in a run, and who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

from odibi_async.dataset import ABSENT
from odibi_async.events import StepStreamed
from odibi_async.graph.node import Node
from odibi_async.result import Status
from odibi_async.run.state import RunState
from odibi_async.run.streams import AsyncBatches, Batches, Reader, Soon, Stream, at_once, in_memory
from odibi_async.run.telling import Telling

TOLD_SECONDS: Final = 0.1
"""Seconds between two events about the batches of one step."""


class Streams:
    """
    The streams of one run.

    Args:
        state: What the run knows.
        telling: Hears of batches.
        soon: Has something called on the loop's thread. From any thread.

    Attributes:
        again: Gets the batches of a step that has ended, by its place, by calling it again.
    """

    def __init__(self, state: RunState, telling: Telling, soon: Soon) -> None:
        self._state = state
        self._telling = telling
        self._soon = soon
        self._streams: dict[int, Stream] = {}
        self._readers: dict[int, dict[str, Reader]] = {}
        self.again: Callable[[int], Awaitable[Sequence[Any]]] | None = None

    def begin(self) -> None:
        """Makes a stream for each step that makes batches, with the readers that it will have."""
        state, nodes = self._state, [self._state.graph.nodes[index] for index in self._state.selection.nodes]
        for node in nodes:
            if node.is_stream:
                self._streams[node.index] = self._stream(node, is_kept=node.index not in state.selection.passing)
        for node in nodes:
            for parameter, dataset in node.follows.items():
                stream = self._streams.get(state.graph.producers[dataset])
                if stream is not None and dataset not in state.given:
                    is_blocking = node.in_thread and node.maps is None
                    soon = self._soon if is_blocking else at_once
                    reader = (Batches if is_blocking else AsyncBatches)(stream, node.name, node.index, soon)
                    self._readers.setdefault(node.index, {})[parameter] = reader
                    stream.add(reader)
        several = any(len(state.selection.upstream[node.index]) > 1 for node in nodes)
        if several or any(len(readers) > 1 for readers in self._readers.values()):
            for stream in self._streams.values():
                stream.on_wait = self._untie

    def _stream(self, node: Node, *, is_kept: bool) -> Stream:
        stream = Stream(node, is_kept=is_kept, soon=self._soon if node.in_thread and node.maps is None else at_once)
        if self._telling.observers:
            stream.on_batch = _Told(self._telling, stream)
        return stream

    def of(self, node: Node) -> Stream:
        """The stream of a step that runs; of one that has ended and is called again, one that nobody follows."""
        stream = self._streams.get(node.index)
        if stream is None or stream.is_over:
            return Stream(node, is_kept=True, soon=self._soon if node.in_thread else at_once)
        return stream

    def readers_of(self, node: Node) -> Mapping[str, Reader]:
        """What a step has of the batches of those that it follows, by parameter."""
        return self._readers.get(node.index, {})

    async def opened(self, node: Node, values: Sequence[Any] | Mapping[int, Any]) -> dict[str, Any]:
        """What a step gets for the parameters that take batches, for one attempt."""
        opened: dict[str, Any] = {}
        for parameter, _, dataset, default in node.call.bindings:
            if parameter not in node.iterates or dataset is None:
                continue
            reader = self._readers.get(node.index, {}).get(parameter)
            producer = self._state.graph.producers[dataset]
            if reader is None or producer not in self._state.streaming:
                value = default if values[dataset] is ABSENT else values[dataset]
                if value is not ABSENT:
                    opened[parameter] = in_memory(node, value)
            elif reader.is_closed and self.again is not None:  # the step is called once more, after its end
                opened[parameter] = in_memory(node, list(await self.again(producer)))
            else:
                opened[parameter] = reader
        return opened

    def has_lost(self, node: Node, error: BaseException) -> bool:
        """Whether what a step raised comes from the failure of a step that it follows."""
        return any(
            reader.has_failed
            or (isinstance(error, asyncio.CancelledError) and reader.stream.is_broken and not reader.is_closed)
            for reader in self.readers_of(node).values()
        )

    def heard(self, node: Node) -> None:
        """A step has ended: it reads no more, and makes no more batches."""
        readers = self._readers.get(node.index)
        if readers:
            for reader in readers.values():
                reader.shut()
        stream = self._streams.get(node.index)
        if stream is not None and not stream.is_over:
            record = self._state.record(node)
            stream.end(is_broken=record is None or not record.is_done)

    def why_unread(self, node: Node) -> str | None:
        """Why a step was not called whose batches nobody asked for: a reader; `None` if all are resumed."""
        nodes = self._state.graph.nodes
        readers = [reader.index for readers in self._readers.values() for reader in readers.values()]
        followers = [index for index in dict.fromkeys(readers) if self._follows(index, node.index)]
        for index in followers:
            record = self._state.record(nodes[index])
            if record is None or record.status is not Status.RESUMED:
                return nodes[index].name
        return None

    def _follows(self, index: int, other: int) -> bool:
        return any(reader.stream.node.index == other for reader in self._readers[index].values())

    # -- steps that wait for each other ----------------------------------------------------------------

    def _untie(self, index: int) -> None:
        """
        Gives readers more room when steps wait for each other in a circle: a step that reads one stream to its end
        while another, from the same source, stands still (T. Parks, Bounded Scheduling of Process Networks, 1995).
        """
        while (crowded := self._crowded(index)) is not None:
            crowded.stream.make_room(crowded)

    def _crowded(self, index: int) -> Reader | None:
        """A reader without room in a circle that a step is in; `None` where it is in none."""
        ways = list(self._waits_for(index))
        seen = set()
        while ways:
            place, crowded = ways.pop()
            if place == index and crowded is not None:
                return crowded
            if place not in seen:
                seen.add(place)
                ways += [(other, crowded or reader) for other, reader in self._waits_for(place)]
        return None

    def _waits_for(self, index: int) -> Iterator[tuple[int, Reader | None]]:
        """The steps that a step waits for at the moment; those that it waits for to take a batch, with their reader."""
        state, stream = self._state, self._streams.get(index)
        if state.unmet[index]:  # it has not begun
            yield from ((other, None) for other in state.selection.upstream[index] if self._is_lacking(other, index))
        if stream is not None and stream.waits:
            for reader in stream.crowded():
                yield reader.index, reader
        elif stream is not None and not stream.is_asked:
            for reader in stream.readers:
                yield reader.index, None
        for reader in self._readers.get(index, {}).values():
            if reader.waits:
                yield reader.stream.node.index, None

    def _is_lacking(self, index: int, for_whom: int) -> bool:
        """Whether a step that has not begun waits for another one."""
        state = self._state
        has_started = index in state.streaming and for_whom in state.graph.streams.get(index, ())
        return state.records[index] is None and not has_started


class _Told:
    """Tells of the batches of one step, now and then. Called in the thread of the step."""

    def __init__(self, telling: Telling, stream: Stream) -> None:
        self._telling = telling
        self._stream = stream
        self._next = 0.0

    def __call__(self) -> None:
        now = perf_counter()
        if now >= self._next:
            self._next = now + TOLD_SECONDS
            stream = self._stream
            stream.soon(self._telling.tell, StepStreamed, stream.node.name, stream.batches, stream.rows)
