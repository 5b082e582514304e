"""The life of a step that is called once an element; each element has a task of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from odibi_async.dataset import ABSENT, HandleList
from odibi_async.events import StepProgressed
from odibi_async.graph.node import Node
from odibi_async.run.course import Course, Invocation
from odibi_async.run.datasets import Datasets, gathered
from odibi_async.run.layers import Inner
from odibi_async.run.lives.called import Called
from odibi_async.run.lives.elements import Elements, listed
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import Supervisor, UpstreamFailed
from odibi_async.run.telling import Telling


class Mapped:
    """
    Calls a step once an element, each with its own slot, retries, time limit and cache entry.

    Args:
        row_of: One attempt of a step with the layers around it.
        new_task: Makes the task of an element.
        goes_on: Whether the other elements are made when one fails.
    """

    asks_itself = True

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        datasets: Datasets,
        called: Called,
        row_of: Callable[[Node], Inner],
        new_task: Callable[..., asyncio.Task[None]],
        *,
        goes_on: bool,
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._datasets = datasets
        self._called = called
        self._row_of = row_of
        self._new_task = new_task
        self._goes_on = goes_on
        self._running: dict[int, Elements] = {}

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        self._supervisor.start_task(node, self._live(node, Course(ready_at)))

    async def _live(self, node: Node, course: Course) -> None:
        if not await self._called.begins(node, course):
            return
        try:
            made = await self._made(node, course)
            record = self._state.success(node, made, course)
        except BaseException as error:
            self._supervisor.failed(node, course, error)
        else:
            self._supervisor.succeeded(node, made, record)
        finally:
            if node.index in self._running:
                self._running.pop(node.index).close()

    async def _made(self, node: Node, course: Course) -> Sequence[Any]:
        """The lists of what the elements make."""
        source = await self._source(node)
        elements = self._running[node.index] = Elements(len(source), self._supervisor.grace, goes_on=self._goes_on)
        ready = self._state.stream(node)
        if ready:
            self._supervisor.release(ready)
        row, course.attempts = self._row_of(node), 1
        start = functools.partial(self._start_element, node, course, row, source, elements)
        made = await elements.all(start, self._supervisor.may_begin)
        columns = zip(*made, strict=True) if made else [()] * len(node.outputs)
        course.use = elements.use
        course.found = elements.found
        if course.found is None and not course.started:
            self._begin(node, course, perf_counter())
        return [gathered(list(column)) for column in columns]

    async def _source(self, node: Node) -> Sequence[Any] | Elements:
        """What is mapped over: a list, or the elements of a mapped step as they are made."""
        [(dataset, default)] = [(b.dataset, b.value) for b in node.call.bindings if b.parameter == node.maps]
        assert dataset is not None
        value = self._state.values[dataset]
        if value is ABSENT:
            if node.streams_from in self._running:
                return self._running[node.streams_from]
            if default is ABSENT:  # its maker has failed since it was started
                raise UpstreamFailed
            value = default
        if isinstance(value, HandleList):  # each is loaded when its element needs it
            return value.elements
        if self._state.has_handles:
            value = await self._datasets.value(dataset)
        return listed(node.name, str(node.maps), value)

    def _start_element(
        self,
        node: Node,
        course: Course,
        row: Inner,
        source: Sequence[Any] | Elements,
        elements: Elements,
        index: int,
    ) -> asyncio.Task[None]:
        return self._new_task(self._element(node, course, row, source, elements, index), f"{node.name}[{index}]")

    async def _element(
        self,
        node: Node,
        course: Course,
        row: Inner,
        source: Sequence[Any] | Elements,
        elements: Elements,
        index: int,
    ) -> None:
        """The life of one element: its slot, its attempts, its result."""
        own = Course(course.ready)
        try:
            value = await source.item(index) if isinstance(source, Elements) else source[index]
            on_begin = functools.partial(self._begin, node, course)
            made = await row(Invocation(node, own, on_begin, {str(node.maps): value}, index))
        except BaseException as error:
            elements.failed(index, error)
            course.note = course.note or own.note
        else:
            if own.use is not None:
                elements.uses[index] = own.use
            if own.found is not None:
                elements.ways[index] = own.found
            elements.made(index, made)
            self._telling.tell(StepProgressed, node.name, elements.done, len(elements), index)

    def _begin(self, node: Node, course: Course, at: float) -> None:
        """The first element of a step to be called is the step's own start."""
        if not course.started:
            course.started = at
            self._telling.started(node.name, at)
