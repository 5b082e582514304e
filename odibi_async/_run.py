"""
One run of a graph: ready -> start -> done.

A step starts the moment the last of the steps that it waits for is done. Async steps run each in a task of
their own on the loop. Blocking steps run in worker threads, where a thread that finishes a step itself
releases the steps that waited for it and goes on with one of them. So what both sides change (`_unmet`,
`_uses`, `values`) is changed under a lock; all else belongs to the loop's thread, and what the loop is to
know of a thread's work comes through the mailbox.

Once the run is to stop, threads no longer settle steps themselves: every end is then handled on the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import itertools
import logging
import threading
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from time import perf_counter
from typing import Any, Literal, NamedTuple

import anyio

from odibi_async._call import TimeLimit, try_again
from odibi_async._quick import quick
from odibi_async.abc import Observer
from odibi_async.dataset import ABSENT, KINDS, reader_copy
from odibi_async.errors import OutputError, StepError
from odibi_async.events import (
    Event,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepFinished,
    StepRetrying,
    StepStarted,
)
from odibi_async.executors.local import Job, Threads
from odibi_async.graph import Call, Graph, Node, Selection
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.retry import Retry

OnError = Literal["raise", "continue"]
AHEAD = 256
"""How many tasks may wait for their first turn: what the loop does in about two milliseconds."""

_log = logging.getLogger("odibi_async")
_step_result = quick(StepResult)
_step_started = quick(StepStarted)
_step_finished = quick(StepFinished)
_utc, now, _done = timezone.utc, datetime.now, Status.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """
    How one run treats its steps.

    Attributes:
        retry: For steps that bring no policy of their own; `None` for one attempt.
        timeout: Seconds that the whole run may take; `None` for no limit.
        on_error: `"raise"`: the first failure cancels the rest. `"continue"`: what can be done is done.
    """

    retry: Retry | None = None
    timeout: float | None = None
    on_error: OnError = "raise"


class Blame(NamedTuple):
    """Whom a skipped step has to thank: a step that failed, or one whose `when` was false."""

    step: str
    failed: bool


class Execution:
    """One run of a graph, in the loop and the context of the task that creates it."""

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        given: Mapping[str, Any],
        *,
        run_id: str,
        policies: Policies,
        threads: Threads,
        observers: Sequence[Observer],
    ) -> None:
        self.run_id = run_id
        self.deadline_passed = False
        self._graph = graph
        self._nodes = graph.nodes
        self._selection = selection
        self._policies = policies
        self._threads = threads
        self._observers = list(observers)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        # shared with worker threads, under the lock
        self._lock = threading.Lock()
        self._unmet = list(selection.unmet)
        self._uses = list(selection.uses)
        self._values = [ABSENT] * len(graph.datasets)
        for name, value in given.items():
            self._values[graph.ids[name]] = value
        self._given = frozenset(graph.ids[name] for name in given)
        self._stopping = False
        # nothing to copy for readers so far, nothing to drop, no thread to lock out, no end in sight
        self._ordinary = selection.kept is None and not given and not graph.has_threads
        # the loop's own
        self._backlog: deque[tuple[int, float]] = deque()
        self._ahead = 0
        self._running: dict[int, asyncio.Task[None] | Job] = {}
        self._left = len(selection.nodes)
        self._records: list[StepResult | None] = [None] * len(graph.nodes)
        self._failures: dict[str, StepError] = {}
        self._blame: dict[int, Blame] = {}
        self._ended = asyncio.Event()
        self._insisting: asyncio.TimerHandle | None = None
        self._seq = 0

    # -- the caller's side -----------------------------------------------------------------------------

    async def run(self) -> RunResult:
        """
        Runs the steps and waits until the last of them has ended.

        When the calling task is cancelled, every step is, and the cancellation goes on only when all
        of them have ended.
        """
        started_at, started = now(_utc), perf_counter()
        self._tell(RunStarted, tuple(self._nodes[index].name for index in self._selection.nodes))
        deadline = None
        if self._policies.timeout is not None:
            deadline = self._loop.call_later(self._policies.timeout, self._on_deadline)
        if self._left:
            self._release([index for index in self._selection.nodes if not self._unmet[index]], started)
        else:
            self._ended.set()
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._ended.wait()
        except asyncio.CancelledError as error:
            cancelled = error
            self.stop()
            with anyio.CancelScope(shield=True):
                await self._outlast()
        if deadline is not None:
            deadline.cancel()
        result = self._result(started_at, perf_counter() - started, cancelled is not None)
        self._tell(RunFinished, result.status, result)
        if cancelled is not None:
            raise cancelled
        return result

    async def _outlast(self) -> None:
        """Waits for the end, whoever cancels the waiting task meanwhile."""
        while not self._ended.is_set():
            try:
                await self._ended.wait()
            except asyncio.CancelledError:
                continue

    def _on_deadline(self) -> None:
        if not self._ended.is_set():
            self.deadline_passed = True
            self.stop()

    def _result(self, started_at: datetime, seconds: float, cancelled: bool) -> RunResult:
        graph, kept, values = self._graph, self._selection.kept, self._values
        if cancelled:
            status = Status.CANCELLED
        else:
            status = Status.FAILED if self._failures or self.deadline_passed else Status.SUCCEEDED
        places = range(len(values)) if kept is None else sorted(kept)
        records = [record for index in self._selection.nodes if (record := self._records[index]) is not None]
        return RunResult(
            run_id=self.run_id,
            status=status,
            steps={record.name: record for record in records},
            outputs={graph.datasets[place]: values[place] for place in places if values[place] is not ABSENT},
            failures=self._failures,
            started_at=started_at,
            seconds=seconds,
            producers=graph.makers,
        )

    # -- ready -----------------------------------------------------------------------------------------

    def _release(self, ready: Sequence[int], now: float) -> None:
        """Takes up steps whose inputs are all there."""
        if not self._stopping:
            for index in ready:
                self._backlog.append((index, now))
            self._start_ready()

    def _start_ready(self) -> None:
        """Starts what is ready, but few enough at a time that the loop comes round every few milliseconds."""
        backlog, nodes, others = self._backlog, self._nodes, AHEAD
        while backlog and self._ahead < AHEAD:
            index, ready_at = backlog.popleft()
            node = nodes[index]
            if node.runs_plain and not self._blame:
                self._start_task(node, self._plain_step(node, ready_at))
                continue
            if self._blame and (blame := self._blame_for(node)) is not None:
                self._skip(node, blame)
            elif node.in_thread and node.plain:
                self._start_job(StepJob(self, node, ready_at))
            else:
                self._start_task(node, self._step(node, ready_at))
                continue
            others -= 1
            if not others:
                self._loop.call_soon(self._start_ready)
                return

    def _start_job(self, job: StepJob) -> None:
        self._running[job.node.index] = job
        self._threads.put((job,))

    def priority_of(self, node: Node) -> int:
        """The longest way that still lies below a step."""
        return self._graph.heights[node.index]

    def _start_task(self, node: Node, coroutine: Coroutine[Any, Any, None]) -> None:
        self._ahead += 1
        self._running[node.index] = asyncio.Task(
            coroutine, loop=self._loop, name=node.name, context=self._context.copy()
        )

    # -- start: on the loop ----------------------------------------------------------------------------

    async def _plain_step(self, node: Node, ready_at: float) -> None:
        """
        The life of an async step that is nothing but a call, in a task of its own.

        Most steps are such, so this is `_step` and what it calls written out flat. Whatever is out of the
        ordinary goes the common way.
        """
        self._ahead -= 1
        if self._backlog and self._ahead < AHEAD // 2:
            self._start_ready()
        started, started_at, values, call = perf_counter(), now(_utc), self._values, node.call
        if self._observers:
            self._hear(_step_started(self.run_id, self._seq, started_at, node.name))
        try:
            if not call.reads:
                value = await call.fn()
            elif self._ordinary:
                value = await call.fn(*[values[dataset] for dataset in call.reads])
            else:
                value = await call.fn(*[reader_copy(values[dataset]) for dataset in call.reads])
            if KINDS[type(value)] is not None:
                self._ordinary = False
            ordinary = self._ordinary and node.single
            made = () if ordinary else outputs_of(node, value)
        except BaseException as error:
            await self._after_failure(node, error, ready_at, started, started_at)
            return
        if not ordinary:
            self._succeed(node, made, self._record(node, made, 1, ready_at, started, started_at))
            return
        index, ended, unmet, backlog = node.index, perf_counter(), self._unmet, self._backlog
        values[node.outputs[0]] = value
        record = _step_result(node.name, _done, 1, started - ready_at, ended - started, started_at, None, None, None)
        self._records[index] = record
        del self._running[index]
        self._left -= 1
        if self._observers:
            self._hear(_step_finished(self.run_id, self._seq, now(_utc), node.name, _done, record))
        for other in self._selection.downstream[index]:
            unmet[other] = count = unmet[other] - 1
            if not count:
                child = self._nodes[other]
                if child.runs_plain and self._ahead < AHEAD and not self._blame:
                    self._start_task(child, self._plain_step(child, ended))
                else:
                    backlog.append((other, ended))
        if backlog:
            self._start_ready()
        elif not self._left:
            self._end()

    async def _step(self, node: Node, ready_at: float) -> None:
        """The life of a step, in a task of its own."""
        self._ahead -= 1
        if self._backlog:
            self._start_ready()
        if node.when is not None and not await self._is_wanted(node, ready_at):
            return
        started, started_at = perf_counter(), now(_utc)
        if self._observers:
            self._tell_started(node.name, started_at)
        try:
            made = outputs_of(node, await self._attempt(node))
        except BaseException as error:
            await self._after_failure(node, error, ready_at, started, started_at)
        else:
            self._succeed(node, made, self._record(node, made, 1, ready_at, started, started_at))

    async def _attempt(self, node: Node) -> Any:
        """Calls the function once, within the step's time limit."""
        if node.step.timeout is None:
            return await self._call(node.call, node.in_thread)
        message = f"no result within {node.step.timeout:g} s"
        async with TimeLimit(node.step.timeout, self._threads.grace, message):
            return await self._call(node.call, node.in_thread)

    async def _call(self, call: Call, in_thread: bool) -> Any:
        args, kwargs = call.arguments(self._values)
        if in_thread:
            return await self._threads.call(call.fn, args, kwargs, self._context.copy(), self)
        value = call.fn(*args, **kwargs)
        return await value if call.is_async else value

    async def _is_wanted(self, node: Node, ready_at: float) -> bool:
        """Asks the step's predicate. If it says no, or fails, that is the end of the step."""
        assert node.when is not None
        started, started_at = perf_counter(), now(_utc)
        try:
            wanted = bool(await self._call(node.when, in_thread=not node.when.is_async))
        except BaseException as error:
            self._fail(node, error, 0, ready_at, started, started_at)
            return False
        if not wanted:
            self._skip(node, Blame(node.name, failed=False))
            self._start_ready()
        return wanted

    async def _after_failure(
        self, node: Node, error: BaseException, ready_at: float, started: float, started_at: datetime | None
    ) -> None:
        """Calls a step again whose first attempt failed, if its policy says so; else that was its end."""
        policy = self._retry_of(node)
        attempts = 1

        def on_retry(attempt: int, error: BaseException, wait: float) -> None:
            self._tell(StepRetrying, node.name, attempt, error, wait)

        async def attempt() -> Sequence[Any]:
            nonlocal attempts
            attempts += 1
            return outputs_of(node, await self._attempt(node))

        if policy is not None and not self._stopping and policy.covers(error):
            try:
                made = await try_again(policy, error, attempt, on_retry)
            except BaseException as last:
                error = last
            else:
                self._succeed(node, made, self._record(node, made, attempts, ready_at, started, started_at))
                return
        self._fail(node, error, attempts, ready_at, started, started_at)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    def _retry_of(self, node: Node) -> Retry | None:
        if node.step.retry is not None or node.step.layer == "publish":
            return node.step.retry
        return self._policies.retry

    # -- start: in a worker thread ---------------------------------------------------------------------

    def run_job(self, job: StepJob) -> None:
        """Runs a step in the calling worker thread, and releases what waited for it."""
        node, post = job.node, self._threads.mailbox.post
        if self._stopping:
            post(self.job_dropped, job, None, urgent=True)
            return
        job.started, job.started_at = perf_counter(), now(_utc)
        if self._observers:
            post(self._tell_started, node.name, job.started_at)
        try:
            made = self._call_here(node)
        except BaseException as error:
            post(self._job_failed, job, error, urgent=True)
            return
        record = self._record(node, made, 1, job.ready_at, job.started, job.started_at)
        with self._lock:
            settled = not self._stopping
            ready = self._settle(node, made) if settled else ()
        if settled:
            jobs, others = self._split(ready)
            post(self._job_done, job, record, jobs, others, urgent=bool(others))
            if jobs:
                self._threads.put_from_worker(jobs)
        else:
            post(self._job_late, job, record, made, urgent=True)

    def _call_here(self, node: Node) -> Sequence[Any]:
        args, kwargs = node.call.arguments(self._values)
        return outputs_of(node, self._context.copy().run(node.call.fn, *args, **kwargs))

    def _split(self, ready: Sequence[int]) -> tuple[list[StepJob], Sequence[int]]:
        """Ready steps that a worker may go on with, and those that the loop is to see to."""
        if self._blame:
            return [], ready  # some may have to be skipped
        now, nodes = perf_counter(), self._nodes
        for_threads = [nodes[index] for index in ready if nodes[index].in_thread and nodes[index].plain]
        others = [] if len(for_threads) == len(ready) else [i for i in ready if nodes[i] not in for_threads]
        return [StepJob(self, node, now) for node in for_threads], others

    def _job_done(self, job: StepJob, record: StepResult, jobs: Sequence[StepJob], ready: Sequence[int]) -> None:
        job.is_over = True
        for released in jobs:
            self._running[released.node.index] = released
            if self._stopping:
                self._threads.cancel(released)
        self._finish(job.node, record, ready)

    def _job_late(self, job: StepJob, record: StepResult, made: Sequence[Any]) -> None:
        """A step that was done when the run was already to stop."""
        if not job.is_over:
            job.is_over = True
            self._succeed(job.node, made, record)

    def _job_failed(self, job: StepJob, error: BaseException) -> None:
        if job.is_over:
            return
        job.is_over = True
        policy = self._retry_of(job.node)
        if policy is not None and not self._stopping and policy.covers(error):
            self._start_task(job.node, self._retry_job(job, error))
        else:
            self._fail(job.node, error, 1, job.ready_at, job.started, job.started_at)

    async def _retry_job(self, job: StepJob, error: BaseException) -> None:
        self._ahead -= 1
        await self._after_failure(job.node, error, job.ready_at, job.started, job.started_at)

    def job_dropped(self, job: StepJob, error: BaseException | None) -> None:
        """A step that no thread called, or whose thread did not return."""
        if not job.is_over:
            job.is_over = True
            attempts = 0 if job.started_at is None else 1
            self._fail(job.node, error or asyncio.CancelledError(), attempts, job.ready_at, job.started, job.started_at)

    def job_abandoned(self, job: StepJob) -> None:
        self._tell(StepAbandoned, job.node.name)
        self.job_dropped(job, None)

    # -- done ------------------------------------------------------------------------------------------

    def _settle(self, node: Node, made: Sequence[Any]) -> Sequence[int]:
        """
        Puts what a step made into the table, drops what nobody reads any more, and tells which steps have all
        their inputs now. Under the lock when threads are about.
        """
        kept, uses, values = self._selection.kept, self._uses, self._values
        for dataset, value in zip(node.outputs, made, strict=False):
            if (kept is None or uses[dataset] or dataset in kept) and dataset not in self._given:
                values[dataset] = value
        if kept is not None:
            for dataset in node.reads:
                uses[dataset] -= 1
                if not uses[dataset] and dataset not in kept:
                    values[dataset] = ABSENT
        ready = []
        unmet = self._unmet
        for other in self._selection.downstream[node.index]:
            unmet[other] -= 1
            if not unmet[other]:
                ready.append(other)
        return ready

    def _record(
        self,
        node: Node,
        made: Sequence[Any],
        attempts: int,
        ready_at: float,
        started: float,
        started_at: datetime | None,
    ) -> StepResult:
        kind = KINDS[type(made[0])] if len(made) == 1 else None
        rows = None if kind is None or kind.rows is None else kind.rows(made[0])
        took = perf_counter() - started
        return _step_result(
            node.name, Status.SUCCEEDED, attempts, started - ready_at, took, started_at, None, None, rows
        )

    def _succeed(self, node: Node, made: Sequence[Any], record: StepResult) -> None:
        with self._lock:
            ready = self._settle(node, made)
        self._finish(node, record, ready)

    def _fail(
        self,
        node: Node,
        error: BaseException,
        attempts: int,
        ready_at: float,
        started: float,
        started_at: datetime | None,
    ) -> None:
        """The end of a step that raised: a failure, or its cancellation if the run is to stop."""
        cancelled = self._stopping and isinstance(error, asyncio.CancelledError)
        began = started_at is not None
        record = StepResult(
            name=node.name,
            status=Status.CANCELLED if cancelled else Status.FAILED,
            attempts=attempts,
            queue_seconds=started - ready_at if began else 0.0,
            run_seconds=perf_counter() - started if began else 0.0,
            started_at=started_at,
            error=None if cancelled else error,
        )
        if not cancelled:
            self._failures[node.name] = StepError(node.name, error)
            self._blame[node.index] = Blame(node.name, failed=True)
        with self._lock:
            ready = self._settle(node, ())
        if not cancelled and self._policies.on_error == "raise":
            self.stop()
        self._finish(node, record, ready)

    def _skip(self, node: Node, blame: Blame) -> None:
        """The end of a step that is not to run; what waited for it is put to what is ready, not started."""
        self._blame[node.index] = blame
        with self._lock:
            ready = self._settle(node, ())
        record = StepResult(name=node.name, status=Status.SKIPPED, skipped_because=blame.step)
        if not self._stopping:
            at = perf_counter()
            self._backlog.extend((index, at) for index in ready)
        self._finish(node, record, ())

    def _blame_for(self, node: Node) -> Blame | None:
        """
        Why a step cannot run though all that it waited for has ended: something failed above it, or what it
        needs was not made. A parameter with a default does without what a false `when` kept from being made.
        """
        needed = None
        for other in self._graph.upstream[node.index]:
            blame = self._blame.get(other)
            if blame is None:
                continue
            if blame.failed:
                return blame
            if any(self._graph.producers[d] == other and self._values[d] is ABSENT for d in node.needs):
                needed = needed or blame
        return needed

    def _finish(self, node: Node, record: StepResult, ready: Sequence[int]) -> None:
        """Books the end of a step and goes on with those that waited for it."""
        self._records[node.index] = record
        self._running.pop(node.index, None)
        self._left -= 1
        if self._observers:
            self._hear(_step_finished(self.run_id, self._seq, now(_utc), node.name, record.status, record))
        if ready:
            self._release(ready, perf_counter())
        if not self._running and (self._stopping or not self._left):
            self._end()

    # -- stop ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Cancels what runs and starts nothing more; the run ends when all of it has ended."""
        if self._stopping or self._ended.is_set():
            return
        with self._lock:
            self._stopping = True
        self._ordinary = False
        self._backlog.clear()
        for index, running in list(self._running.items()):
            if isinstance(running, Job):
                self._threads.cancel(running)
            else:
                running.add_done_callback(functools.partial(self._never_began, index))
                if not running.cancelling():  # a loop that shuts down has cancelled it: twice would cut its clean-up
                    running.cancel()
        self._insisting = self._loop.call_later(self._threads.grace, self._insist)
        if not self._running:
            self._end()

    def _insist(self) -> None:
        """After the grace, cancels again what has not ended."""
        for running in list(self._running.values()):
            if not isinstance(running, Job):
                running.cancel()
        self._insisting = self._loop.call_later(self._threads.grace, self._insist)

    def _never_began(self, index: int, task: asyncio.Task[None]) -> None:
        """Books the end of a task that was cancelled before its first turn, so that nothing of it ran."""
        if self._running.get(index) is task:
            self._ahead -= 1
            self._fail(self._nodes[index], asyncio.CancelledError(), 0, 0.0, 0.0, None)

    def _end(self) -> None:
        if self._insisting is not None:
            self._insisting.cancel()
        if self._left:
            self._sweep(iter([index for index in self._selection.nodes if self._records[index] is None]))
        else:
            self._ended.set()

    def _sweep(self, unrecorded: Iterator[int]) -> None:
        """Books the steps that never became ready before the run was stopped, some at a time."""
        for index in itertools.islice(unrecorded, AHEAD):
            node = self._nodes[index]
            blame = next(
                (b for other in self._graph.upstream[index] if (b := self._blame.get(other)) and b.failed), None
            )
            if blame is None:
                record = StepResult(name=node.name, status=Status.CANCELLED)
            else:
                self._blame[index] = blame
                record = StepResult(name=node.name, status=Status.SKIPPED, skipped_because=blame.step)
            self._records[index] = record
            self._left -= 1
            self._tell(StepFinished, node.name, record.status, record)
        if self._left:
            self._loop.call_soon(self._sweep, unrecorded)
        else:
            self._ended.set()

    # -- tell ------------------------------------------------------------------------------------------

    def _tell(self, kind: type[Event], *about: Any) -> None:
        if self._observers:
            self._hear(kind(self.run_id, self._seq, now(_utc), *about))

    def _tell_started(self, step: str, at: datetime) -> None:
        self._hear(_step_started(self.run_id, self._seq, at, step))

    def _hear(self, event: Event) -> None:
        """Hands an event to the observers. One that raises is not asked again: it must not break a run."""
        self._seq += 1
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                _log.exception("Observer %r raised and is dropped from run %s.", observer, self.run_id)
                self._observers = [other for other in self._observers if other is not observer]


class StepJob(Job):
    """A step that runs in a worker thread, as the threads see it."""

    __slots__ = ("_execution", "node", "ready_at", "started", "started_at")

    def __init__(self, execution: Execution, node: Node, ready_at: float) -> None:
        super().__init__(execution, execution.priority_of(node))
        self._execution = execution
        self.node = node
        self.ready_at = ready_at
        self.started = 0.0
        self.started_at: datetime | None = None

    def run(self) -> None:
        self._execution.run_job(self)

    def dropped(self, error: BaseException | None) -> None:
        self._execution.job_dropped(self, error)

    def abandoned(self) -> None:
        self._execution.job_abandoned(self)


def outputs_of(node: Node, value: Any) -> Sequence[Any]:
    """
    What a step made, one value a dataset, from what its function returned.

    Raises:
        OutputError: The function returned something that nobody awaits, or not what the step declares.
    """
    kind = KINDS[type(value)]
    if kind is not None and kind.awaitable:
        if inspect.iscoroutine(value):
            value.close()
        raise OutputError(
            f"Step {node.name!r} returned {type(value).__name__} {value!r} that nobody awaits: "
            "make it an async function, or await inside it."
        )
    if len(node.outputs) == 1:
        return (value,)
    names = list(node.step.outputs)
    if isinstance(value, Mapping):
        if value.keys() != set(names):
            raise OutputError(f"Step {node.name!r} declares the outputs {names}, but returned {list(value)}.")
        return [value[name] for name in names]
    if not isinstance(value, tuple):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs, so it returns a tuple or a mapping, "
            f"not {type(value).__name__}."
        )
    if len(value) != len(names):
        raise OutputError(
            f"Step {node.name!r} declares {len(names)} outputs ({', '.join(names)}), but returned {len(value)}."
        )
    return value
