"""Making again what a step had made, when it is gone and somebody needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from odibi_async.dataset import ABSENT, Handle, HandleList
from odibi_async.errors import OdibiError
from odibi_async.graph.node import NOTHING, OUTSIDE, Node
from odibi_async.run.batches import whole
from odibi_async.run.course import Course, Invocation
from odibi_async.run.datasets import Datasets
from odibi_async.run.layers import Inner
from odibi_async.run.lives.elements import listed
from odibi_async.run.state import RunState


class Recovery:
    """
    Calls steps again whose datasets are gone. They take slots like any other, and no start is reported.

    Args:
        attempts_of: One attempt of a step with its retries and its slot around it.
    """

    def __init__(self, state: RunState, datasets: Datasets, attempts_of: Callable[[Node], Inner]) -> None:
        self._state = state
        self._datasets = datasets
        self._attempts_of = attempts_of
        datasets.get_back = self._dropped
        datasets.get_element = self._element
        self.origins: dict[int, Any] = {}

    def invocation(self, node: Node, instead: Mapping[str, Any] = NOTHING, element: int | None = None) -> Invocation:
        """One more call of a step, or of an element of one."""
        return Invocation(node, Course(0.0, perf_counter()), _unheard, instead, element)

    async def call(self, invocation: Invocation) -> Sequence[Any]:
        """What it makes."""
        return await self._attempts_of(invocation.node)(invocation)

    async def _dropped(self, dataset: int) -> Any:
        """A dataset that is not in the table: one that was dropped after its last reader, or one that never was."""
        producer = self._state.graph.producers[dataset]
        if dataset in self.origins:
            value = await _loaded(self.origins[dataset])
            is_stream = producer != OUTSIDE and self._state.graph.nodes[producer].is_stream
            return self._whole(self._state.graph.nodes[producer], [value])[0] if is_stream else value
        record = None if producer == OUTSIDE else self._state.record(self._state.graph.nodes[producer])
        if record is None or not record.is_done:
            return ABSENT
        node = self._state.graph.nodes[producer]
        if node.is_resource:
            raise OdibiError(f"Resource {node.name!r} is closed.")
        made = await asyncio.create_task(self._again(node))  # a task of its own: a long chain may be gone
        return self._whole(node, made)[list(node.outputs).index(dataset)]

    def _whole(self, node: Node, made: Sequence[Any]) -> Sequence[Any]:
        """What a step makes, of one that yields batches what these are together."""
        return [whole(node.name, made[0])] if node.is_stream and node.maps is None else made

    async def batches(self, index: int) -> Sequence[Any]:
        """The batches of a streaming step that has ended, once more."""
        node = self._state.graph.nodes[index]
        if node.outputs[0] in self.origins:
            found: Sequence[Any] = await _loaded(self.origins[node.outputs[0]])
            return found
        [made] = await asyncio.create_task(self._again(node))  # a task of its own: a long chain may be gone
        batches: Sequence[Any] = await _loaded(made)
        return batches

    async def _element(self, dataset: int, index: int) -> Any:
        """One element of what a mapped step had made."""
        graph = self._state.graph
        node = graph.nodes[graph.producers[dataset]]
        [mapped] = [b.dataset for b in node.call.bindings if b.parameter == node.maps and b.dataset is not None]
        source = self._state.values[mapped]
        if source is ABSENT:
            source = self.origins.get(mapped, ABSENT)
        if isinstance(source, HandleList):
            element = source.elements[index]
        elif source is ABSENT and graph.producers[mapped] != OUTSIDE and graph.nodes[graph.producers[mapped]].maps:
            element = await self._element(mapped, index)
        else:
            element = (await self._datasets.value(mapped))[index]
        again = self.call(self.invocation(node, {str(node.maps): element}, index))
        made = await asyncio.create_task(again)  # a task of its own: a long chain may be gone
        return made[list(node.outputs).index(dataset)]

    async def _again(self, node: Node) -> Sequence[Any]:
        """What a step makes that has nothing kept."""
        if node.maps is None:
            return await self.call(self.invocation(node))
        [mapped] = [b.dataset for b in node.call.bindings if b.parameter == node.maps and b.dataset is not None]
        if node.maps in node.follows:
            source = await self.batches(self._state.graph.producers[mapped])
        else:
            source = await self._datasets.value(mapped)
        made = [
            await self.call(self.invocation(node, {node.maps: element}, index))
            for index, element in enumerate(listed(node.name, node.maps, source))
        ]
        return [list(column) for column in zip(*made, strict=True)]


def _unheard(at: float) -> None:
    """The start of a call that is not reported."""


async def _loaded(value: Any) -> Any:
    return await value.load() if isinstance(value, Handle) else value
