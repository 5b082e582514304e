"""The life of an async step that is nothing but a call."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from odibi_async.cancellation import CURRENT
from odibi_async.dataset import KINDS, reader_copy
from odibi_async.graph.graph import Node
from odibi_async.result import Status
from odibi_async.run.course import Course
from odibi_async.run.lives.called import Called
from odibi_async.run.outputs import outputs_of
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState, step_result
from odibi_async.run.supervisor import Supervisor
from odibi_async.run.telling import Telling, step_finished, step_started
from odibi_async.run.tracebacks import calls_users_code

_done = Status.SUCCEEDED


class Plain:
    """
    Calls an async step that reads nothing but required datasets, written out flat.

    Most steps are such, so this is `Called` and what it calls in one function, which takes a third off what the
    engine adds to asyncio's own cost of a task. Whatever is out of the ordinary goes the common way.
    """

    def __init__(self, supervisor: Supervisor, state: RunState, telling: Telling, called: Called) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._called = called
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
        self._epoch = telling.epoch

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        self._supervisor.start_task(node, self._live(node, ready_at, held))

    @calls_users_code
    async def _live(self, node: Node, ready_at: float, held: Held | None) -> None:
        started, values, call, telling = perf_counter(), self._values, node.call, self._telling
        if held is not None:
            CURRENT.set(held)
        if telling.observers:
            telling.hear(step_started(telling.run_id, telling.seq, started + self._epoch, node.name))
        try:
            reads = call.reads
            if not reads:
                value = await call.fn()
            elif self._state.copies:
                value = await call.fn(*[reader_copy(values[dataset]) for dataset in reads])
            elif len(reads) == 1:
                value = await call.fn(values[reads[0]])
            else:
                value = await call.fn(*[values[dataset] for dataset in reads])
            is_ordinary = node.single and KINDS[type(value)] is None and not self._is_shared
            if not is_ordinary:
                course = Course(ready_at, started, 1)
                made = outputs_of(node, value)
                record = self._state.success(node, made, course)
        except BaseException as error:
            await self._failed(node, Course(ready_at, started, 1), error, held)
            return
        if is_ordinary:
            self._succeed(node, value, ready_at, started)
        else:
            self._supervisor.succeeded(node, made, record)

    async def _failed(self, node: Node, course: Course, error: BaseException, held: Held | None) -> None:
        if held is not None:
            held.end()
        await self._called.go_on(node, course, error)

    def _succeed(self, node: Node, value: Any, ready_at: float, started: float) -> None:
        """Books the end of a step, as `Supervisor.succeeded` does, where no thread is about."""
        index, place, ended, kept = node.index, node.outputs[0], perf_counter(), self._kept
        if kept is None or self._uses[place] or place in kept:
            self._values[place] = value
        if kept is not None:
            self._state.drop(node, kept)
        at = started + self._epoch
        record = step_result(node.name, _done, 1, started - ready_at, ended - started, at, None, None, None, None)
        self._records[index] = record
        self._state.left -= 1
        del self._running[index]
        telling, backlog, unmet = self._telling, self._backlog, self._unmet
        if telling.observers:
            telling.hear(step_finished(telling.run_id, telling.seq, ended + self._epoch, node.name, _done, record))
        for other in self._downstream[index]:
            unmet[other] = count = unmet[other] - 1
            if not count:
                backlog.append((other, ended, None))
        if self._held and index in self._held:
            self._held.pop(index).end()
        if backlog:
            self._supervisor.drain()
        elif not self._running:
            self._supervisor.end_if_last()
