"""The life of an async step that is nothing but a call."""

from __future__ import annotations

from asyncio import Task
from contextvars import Context
from time import perf_counter
from typing import Any

from odibi_async.cancellation import CURRENT
from odibi_async.current import STEP
from odibi_async.dataset import KINDS, reader_copy
from odibi_async.graph.node import Node
from odibi_async.run.course import Course
from odibi_async.run.lives.called import Called
from odibi_async.run.outputs import outputs_of
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import EAGERLY, Supervisor
from odibi_async.run.telling import Telling
from odibi_async.run.tracebacks import calls_users_code


class Plain:
    """
    Calls an async step that reads nothing but required datasets, written out flat.

    Most steps are such, so this is `Called` and what it calls in one function, which takes half off what the engine
    adds to asyncio's own cost of a task. Whatever is out of the ordinary goes the common way.
    """

    asks_itself = False

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        called: Called,
        context: Context,
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._called = called
        self._context = context
        self._loop = supervisor.loop
        self._nodes = state.graph.nodes
        self._values = state.values
        self._unmet = state.unmet
        self._uses = state.uses
        self._records = state.records
        self._kept = state.selection.kept
        self._downstream = state.selection.downstream
        self._backlog = supervisor.backlog
        self._running = supervisor.running
        self._held = supervisor.held
        self._is_shared = state.graph.has_threads or bool(state.given)
        self._may_start = not (EAGERLY or supervisor.is_bounded)

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        life = self._live(node, ready_at, held)
        if EAGERLY:
            self._supervisor.start_task(node, life)
        else:
            self._running[node.index] = Task(life, loop=self._loop, name=node.name, context=self._context.copy())

    @calls_users_code
    async def _live(self, node: Node, ready_at: float, held: Held | None) -> None:
        started, values, state, telling = perf_counter(), self._values, self._state, self._telling
        STEP.set((node.name, None))
        if held is not None:
            CURRENT.set(held)
        if telling.observers:
            telling.started(node.name, started)
            telling.enter(node.name)
        try:
            call = node.call
            reads = call.reads
            if not reads:
                value = await call.fn()
            elif state.copies:
                value = await call.fn(*[reader_copy(values[dataset]) for dataset in reads])
            elif len(reads) == 1:
                value = await call.fn(values[reads[0]])
            else:
                value = await call.fn(*[values[dataset] for dataset in reads])
            is_ordinary = node.single and KINDS[type(value)] is None and not self._is_shared
            if not is_ordinary:
                made = outputs_of(node, value)
                record = state.success(node, made, Course(ready_at, started, 1))
        except BaseException as error:
            await self._failed(node, Course(ready_at, started, 1), error, held)
            return
        if not is_ordinary:
            self._supervisor.succeeded(node, made, record)
            return
        index, place, ended, kept = node.index, node.outputs[0], perf_counter(), self._kept
        if kept is None:
            values[place] = value
        else:
            self._keep(node, place, value, kept)
        self._records[index] = (ready_at, started, ended)
        state.left -= 1
        del self._running[index]
        if telling.observers:
            telling.finished(state.whole(node), ended)
        unmet, backlog, supervisor = self._unmet, self._backlog, self._supervisor
        for other in self._downstream[index]:
            unmet[other] = count = unmet[other] - 1
            if count:
                continue
            child, left = self._nodes[other], supervisor.budget
            if left > 1 and self._may_start and child.runs_plain and not state.blame:  # as `drain` would, but at once
                supervisor.budget = left - 1
                life = self._live(child, ended, None)
                self._running[other] = Task(life, loop=self._loop, name=child.name, context=self._context.copy())
            else:
                backlog.append((other, ended, None))
        if held is not None:
            self._held.pop(index).end()
        if backlog:
            supervisor.drain()
        elif not self._running:
            supervisor.end_if_last()

    def _keep(self, node: Node, place: int, value: Any, kept: frozenset[int]) -> None:
        """Puts a dataset into the table where only some stay there, and drops what nobody reads any more."""
        if self._uses[place] or place in kept:
            self._values[place] = value
        self._state.drop(node, kept)

    async def _failed(self, node: Node, course: Course, error: BaseException, held: Held | None) -> None:
        if held is not None:
            held.end()
        await self._called.go_on(node, course, error)
