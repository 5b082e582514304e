"""The life of a resource: a context manager that is entered, read by others, and exited when they have ended."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from odibi_async.dataset import ABSENT
from odibi_async.events import ResourceOpened
from odibi_async.graph.node import Node
from odibi_async.result import Status
from odibi_async.run.attempts import TimeLimit
from odibi_async.run.calls import Calls
from odibi_async.run.course import Course, Invocation
from odibi_async.run.layers import Inner
from odibi_async.run.lives.called import Called
from odibi_async.run.lives.managed import Managed
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import Phase, Supervisor
from odibi_async.run.telling import Telling


@dataclass(slots=True)
class Open:
    """
    A resource that is open.

    Attributes:
        readers: How many readers have not ended.
        close: Set when it is its turn to be exited.
    """

    readers: int
    close: asyncio.Event = field(default_factory=asyncio.Event)


class Resources:
    """
    Opens resources before their first readers and exits them after the last: one at a time, the last opened first.

    Args:
        row_of: One attempt to open a resource, with the layers around it.
    """

    asks_itself = True

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        calls: Calls,
        called: Called,
        row_of: Callable[[Node, Inner], Inner],
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._calls = calls
        self._called = called
        self._row_of = row_of
        self._open: dict[int, Open] = {}
        self._closing: int | None = None
        self._selected = frozenset(state.selection.nodes)
        supervisor.on_end.append(self._on_end)
        supervisor.on_stop = self._close_some

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the resource."""
        self._supervisor.start_task(node, self._live(node, Course(ready_at)))

    async def _live(self, node: Node, course: Course) -> None:
        if not await self._called.begins(node, course):
            return
        try:
            on_begin = functools.partial(self._telling.started, node.name)
            [managed, value] = await self._row_of(node, self._entered)(Invocation(node, course, on_begin))
        except BaseException as error:
            self._supervisor.failed(node, course, error)
            return
        await self._stay_open(node, value)
        failure = await managed.close(self._error_of_readers(node))
        del self._open[node.index]
        self._closing = None
        self._state.values[node.outputs[0]] = ABSENT
        if failure is None:
            self._supervisor.ended(node, self._state.success(node, (), course), [])
        else:
            self._supervisor.failed(node, course, failure, settled=True)

    async def _entered(self, invocation: Invocation) -> Sequence[Any]:
        """Makes and enters the context manager, within the step's time limit: the manager, and what it yields."""
        node, context = invocation.node, self._calls.context.copy()
        if not self._supervisor.may_begin():
            raise asyncio.CancelledError

        def on_start() -> None:
            invocation.begin()
            limit.start()

        def enter() -> None:
            self._telling.enter(node.name, attempt=invocation.course.attempts)

        async def in_thread(call: Callable[[], Any], sure: bool) -> Any:
            return await self._calls.in_thread(
                node, call, invocation.held, context=context, on_start=on_start, late=False, sure=sure
            )

        invocation.course.attempts += 1
        enter()
        context.run(enter)
        args, kwargs = node.call.arguments(invocation.values or self._state.values)
        managed = Managed(node.call.fn, in_thread)
        try:
            async with TimeLimit(node.step.timeout, self._supervisor.grace, at_once=False) as limit:
                if managed.is_async:
                    on_start()
                return managed, await managed.open(args, kwargs)
        except BaseException:
            await managed.give_up()
            raise

    async def _stay_open(self, node: Node, value: Any) -> None:
        """Lets the readers start, and waits until they have ended."""
        readers = sum(other in self._selected for other in self._state.selection.downstream[node.index])
        opened = self._open[node.index] = Open(readers)
        self._supervisor.watch.spare(node.index)
        ready = self._state.settle(node, (value,))
        self._telling.tell(ResourceOpened, node.name)
        self._supervisor.release(ready)
        self._close_some()
        while not opened.close.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # its readers end first
                await opened.close.wait()
        self._supervisor.watch.give_grace(node.index)

    def _error_of_readers(self, node: Node) -> BaseException | None:
        """What a `with` block around the readers of a resource would have raised."""
        nodes, readers = self._state.graph.nodes, self._state.selection.downstream[node.index]
        ended = [record for other in readers if (record := self._state.record(nodes[other]))]
        errors = [record.error for record in ended if record.error is not None]
        if errors:
            return errors[0]
        return asyncio.CancelledError() if any(r.status is Status.CANCELLED for r in ended) else None

    def _on_end(self, node: Node) -> None:
        """A step has ended: the resources that it read have a reader less."""
        for other in node.resources:
            if other in self._open:
                self._open[other].readers -= 1
        self._close_some()

    def _close_some(self) -> None:
        """Has the next resource exited that nobody reads any more."""
        if self._closing is not None or not self._open:
            return
        is_last = self._supervisor.phase is Phase.STOPPING and len(self._supervisor.running) == len(self._open)
        for index in reversed(self._open):
            if is_last or not self._open[index].readers:
                self._closing = index
                self._open[index].close.set()
                return
