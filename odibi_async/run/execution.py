"""
One run of a graph, from the first event to the last.

The caller's task does nothing but start the supervisor and wait: steps live in tasks and threads of their own, and when
the caller is cancelled, it gets control back when all of them have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

import anyio

from odibi_async.abc import Executor, Observer
from odibi_async.cancellation import CURRENT, CurrentCall
from odibi_async.current import RUN
from odibi_async.dataset import ABSENT
from odibi_async.errors import DeadlineError, RunCancelled, RunError, StepError
from odibi_async.events import RunFinished, RunStarted
from odibi_async.executors.threads import Threads
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import NOTHING, Node
from odibi_async.graph.select import Selection
from odibi_async.result import RunResult, Status, Teller
from odibi_async.run.composition import Inside, Parts
from odibi_async.run.crossing import Crossing
from odibi_async.run.guard import GUARD
from odibi_async.run.layers import Guest
from odibi_async.run.policies import Policies
from odibi_async.run.slots import Slots
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import Supervisor
from odibi_async.run.telling import Telling, pass_on
from odibi_async.run.tracebacks import freed
from odibi_async.secret import Secret


class Execution:
    """
    One run of a graph, in the loop and the context of the task that creates it.

    Args:
        graph: What is run.
        selection: The part of it that is run.
        given: Dataset -> value, for those that come from outside.
        loop_blocked: Seconds that a step may hold the loop before the observers hear of it.
        guests: What makes the layers that this run is given.
        seconds: How long steps took in earlier runs, by name.
        executors: Name -> what calls the steps that say so (`run_on=`).

    Attributes:
        begun: Set when the guests are ready and the first steps may start; never, when one of them failed.
        was_cancelled: Whether it was cancelled, by whomever.
        deadline_passed: Whether its time was over before it ended.
    """

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        given: Mapping[str, Any],
        *,
        run_id: str,
        policies: Policies,
        threads: Threads,
        slots: Slots,
        observers: Sequence[Observer],
        secrets: tuple[Secret, ...] = (),
        loop_blocked: float | None = None,
        guests: Sequence[Callable[[Inside], Guest]] = (),
        crossing: Crossing | None = None,
        teller: Teller | None = None,
        seconds: Mapping[str, float] = NOTHING,
        executors: Mapping[str, Executor] = NOTHING,
    ) -> None:
        self.run_id = run_id
        self._teller = teller
        self.policies = policies
        self.deadline_passed = False
        self.was_cancelled = False
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop_blocked = loop_blocked
        self._secrets = secrets
        self._over = asyncio.Event()
        self._loading: asyncio.Task[None] | None = None
        context = contextvars.copy_context()
        context.run(CURRENT.set, CurrentCall())
        context.run(RUN.set, run_id)
        self._telling = Telling(run_id, observers, self._loop)
        self._state = RunState(graph, selection, given, self._telling.epoch, seconds)
        self._supervisor = Supervisor(
            self._state,
            self._telling,
            slots,
            threads.mailbox,
            context,
            grace=threads.grace,
            stops_on_error=policies.on_error == "raise",
            on_last=self._wind_up,
        )
        self._state.has_handles = bool(graph.executors)
        self._parts = Parts(
            self._supervisor, self._state, self._telling, policies, slots, threads, context, executors, crossing
        )
        self._guests = [guest(self._parts.inside(self._status)) for guest in guests]

    async def run(self) -> RunResult:
        """
        Runs the steps and waits until the last of them has ended.

        When the calling task is cancelled, every step is, and the cancellation goes on only when all
        of them have ended.

        Raises:
            BaseException: The run could not be prepared; nothing has run.
        """
        with GUARD.watching(self._telling, self._loop_blocked):
            return await self._run()

    async def _run(self) -> RunResult:
        began, graph = perf_counter(), self._state.graph
        if self._telling.observers:
            names = tuple([graph.nodes[index].name for index in self._state.selection.nodes])
            self._state.fresh = {}
            self._telling.tell(RunStarted, names, graph.outline, self._secrets, self._state.peek())
        deadline = None
        if self.policies.timeout is not None:
            deadline = self._loop.call_later(self.policies.timeout, self._on_deadline)
        trouble = await self._begin()
        trouble = await self._ended() or trouble
        if self._guests:
            trouble = await self._dismiss() or trouble
        if deadline is not None:
            deadline.cancel()
        result = self._result(began, trouble)
        self._telling.tell(RunFinished, result.status, result)
        self._telling.close()
        if self._supervisor.interrupt is not None:
            pass_on(self._supervisor.interrupt, self._loop)
        self._let_go()
        if trouble is not None:
            del result
            try:
                raise trouble
            finally:
                del trouble
        return result

    def cancel(self) -> None:
        """Cancels the run, unless it is over."""
        if not self._over.is_set():
            self.was_cancelled = True
            self._stop()

    def _on_deadline(self) -> None:
        if not self._over.is_set() and not self.was_cancelled:
            self.deadline_passed = True
            self._stop()

    def _stop(self) -> None:
        self._supervisor.stop()
        if self._loading is not None:
            self._loading.cancel()

    # -- from the beginning to the end -----------------------------------------------------------------

    async def _begin(self) -> BaseException | None:
        """Prepares what the run was given and starts the first steps; what went wrong with that."""
        trouble: BaseException | None = None
        try:
            for guest in self._guests:
                await guest.open()
        except BaseException as error:
            trouble = freed(error)
            self.was_cancelled = self.was_cancelled or isinstance(error, asyncio.CancelledError)
            self._supervisor.stop()
        if trouble is None:
            self.begun.set()
        self._parts.begin(self._guests)
        return trouble

    async def _ended(self) -> BaseException | None:
        """Waits for the end, whoever cancels the waiting task meanwhile: the first such cancellation."""
        try:
            await self._over.wait()
        except asyncio.CancelledError as error:
            self.cancel()
            with anyio.CancelScope(shield=True):
                while not self._over.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._over.wait()
            return error
        return None

    async def _dismiss(self) -> BaseException | None:
        """Closes the guests, whatever happens meanwhile; what that was."""
        trouble: BaseException | None = None
        with anyio.CancelScope(shield=True):
            for guest in reversed(self._guests):
                closing = self._parts.new_task(guest.close(), "odibi_async closing")
                while not closing.done() or closing.cancelled():
                    if closing.done():  # whoever cancels all tasks has cancelled it before its first turn
                        closing = self._parts.new_task(guest.close(), "odibi_async closing")
                    try:
                        await asyncio.wait([closing])
                    except asyncio.CancelledError as error:
                        trouble = trouble or error
                trouble = trouble or closing.exception()
        return trouble

    def _wind_up(self) -> None:
        """Every step has its record: what the caller gets is loaded, unless the time is over."""
        is_wanted = not (self.was_cancelled or self.deadline_passed)
        if is_wanted and self._state.has_handles and self._parts.datasets.lying():
            self._loading = self._parts.new_task(self._load_outputs(), "odibi_async loading")
            self._loading.add_done_callback(lambda _: self._over.set())
        else:
            self._over.set()

    async def _load_outputs(self) -> None:
        await asyncio.gather(*map(self._load_output, self._parts.datasets.lying()))

    async def _load_output(self, dataset: int) -> None:
        try:
            await self._parts.datasets.value(dataset)
        except Exception as error:
            self._fail_late(self._state.graph.nodes[self._state.graph.producers[dataset]], freed(error))
            self._state.values[dataset] = ABSENT

    def _fail_late(self, node: Node, error: BaseException) -> None:
        """A step that was cached has failed after all: what it had made was damaged, and it could not be called."""
        if isinstance(error, StepError) and error.step == node.name:
            error = error.error
        record = self._state.record(node)
        assert record is not None
        self._state.records[node.index] = record = dataclasses.replace(record, status=Status.FAILED, error=error)
        self._state.failures[node.name] = StepError(node.name, error)
        self._telling.finished(record)

    def _let_go(self) -> None:
        """Keeps neither data nor itself alive."""
        self._state.let_go()
        self._supervisor.let_go()
        self._parts.let_go()
        self._guests.clear()

    # -- what it came to -------------------------------------------------------------------------------

    def _result(self, began: float, trouble: BaseException | None) -> RunResult:
        state, status = self._state, self._status()
        if trouble is not None and status is Status.SUCCEEDED:
            status = Status.FAILED
        return RunResult(
            run_id=self.run_id,
            status=status,
            steps=state.steps(),
            outputs=state.outputs(),
            failures=state.failures,
            started_at=datetime.fromtimestamp(began + self._telling.epoch, timezone.utc),
            seconds=perf_counter() - began,
            producers=state.graph.makers,
            partial=state.partial,
            teller=self._teller,
        )

    def _status(self) -> Status:
        """How the run ends, as things are."""
        if self.was_cancelled:
            return Status.CANCELLED
        return Status.FAILED if self._state.failures or self.deadline_passed else Status.SUCCEEDED

    def is_failure(self, result: RunResult) -> bool:
        """Whether it failed, and not since somebody cancelled it."""
        return bool(result.failures or self.deadline_passed) and not self.was_cancelled

    def judged(self, result: RunResult) -> RunResult:
        """
        The result, unless it is to be raised.

        Raises:
            RunCancelled: The run was cancelled, but not the task that waits for it.
            DeadlineError: It did not end in its time.
            RunError: A step failed, and `on_error` is `"raise"`.
        """
        if self.was_cancelled:
            raise RunCancelled(result.failures, result)
        if self.deadline_passed and self.policies.timeout is not None:
            raise DeadlineError(self.policies.timeout, result.failures, result)
        if result.failures and self.policies.on_error == "raise":
            raise RunError(result.failures, result)
        return result
