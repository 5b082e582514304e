"""
The life of a blocking step that is nothing but a call.

A worker thread that has finished one settles it itself, and goes on with a step that this released: a chain of blocking
steps costs no hop to the loop and back for each. Once the run is to stop, every end is handled on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from odibi_async.events import StepAbandoned
from odibi_async.executors.threads import Job, Threads
from odibi_async.graph.node import Node
from odibi_async.result import StepResult
from odibi_async.run.calls import Calls
from odibi_async.run.course import Course
from odibi_async.run.layers import Retrying
from odibi_async.run.lives.called import Called
from odibi_async.run.slots import Held
from odibi_async.run.state import RunState
from odibi_async.run.supervisor import Phase, Supervisor
from odibi_async.run.telling import Telling


class Blocking:
    """Calls a blocking step in a worker thread, without a task."""

    asks_itself = False

    def __init__(
        self,
        supervisor: Supervisor,
        state: RunState,
        telling: Telling,
        calls: Calls,
        retrying: Retrying,
        called: Called,
        *,
        is_bounded: bool,
    ) -> None:
        self._supervisor = supervisor
        self._state = state
        self._telling = telling
        self._calls = calls
        self._threads: Threads = calls.threads
        self._retrying = retrying
        self._called = called
        self._is_bounded = is_bounded

    def start(self, node: Node, ready_at: float, held: Held | None) -> None:
        """Starts the step."""
        job = self._job(node, ready_at, held or Held())
        self._supervisor.running[node.index] = job
        self._threads.put((job,))

    def _job(self, node: Node, ready_at: float, held: Held) -> StepJob:
        return StepJob(self, self._threads, self._supervisor, self._state.priorities[node.index], node, ready_at, held)

    # -- in the worker thread --------------------------------------------------------------------------

    def run(self, job: StepJob) -> None:
        """Calls the step, and releases what waited for it."""
        node, course, post, supervisor = job.node, job.course, self._threads.mailbox.post, self._supervisor
        if supervisor.phase is not Phase.RUNNING:
            post(self.dropped, job, None, urgent=True)
            return
        course.started, course.attempts = perf_counter(), 1
        if self._telling.observers:
            post(self._telling.started, node.name, course.started)
        try:
            made = self._calls.directly(node, job.held)
            record = self._state.success(node, made, course)
        except BaseException as error:
            post(self._failed, job, error, urgent=True)
            return
        with self._state.lock:  # reported before any other thread can start what is ready now
            if supervisor.phase is not Phase.RUNNING:
                jobs = []
                post(self._late, job, made, record, urgent=True)
            else:
                jobs, others = self._split(self._state.settle_locked(node, made))
                post(self._done, job, record, jobs, others, urgent=bool(others))
        if jobs:
            self._threads.put_from_worker(jobs)

    def _split(self, ready: Sequence[int]) -> tuple[list[StepJob], Sequence[int]]:
        """Ready steps that a worker may go on with, and those that the loop is to see to."""
        if self._is_bounded or self._state.blame:
            return [], ready  # some may have to be skipped, or to wait for a slot
        at, nodes, lives = perf_counter(), self._state.graph.nodes, self._supervisor.lives
        jobs, others = [], []
        for index in ready:
            node = nodes[index]
            if lives[index] is self and not node.pool:
                jobs.append(self._job(node, at, Held()))
            else:
                others.append(index)
        return jobs, others

    # -- on the loop -----------------------------------------------------------------------------------

    def _done(self, job: StepJob, record: StepResult, jobs: Sequence[StepJob], ready: Sequence[int]) -> None:
        job.end()
        for released in jobs:
            self._supervisor.running[released.node.index] = released
            if self._supervisor.phase is Phase.STOPPING:
                released.cancel()
        self._supervisor.ended(job.node, record, ready)

    def _late(self, job: StepJob, made: Sequence[Any], record: StepResult) -> None:
        """A step that was done when the run was already to stop."""
        if job.end():
            self._supervisor.succeeded(job.node, made, record)

    def _failed(self, job: StepJob, error: BaseException) -> None:
        if not job.end():
            return
        job.held.end()
        if self._retrying.wants(job.node) and isinstance(error, Exception) and self._supervisor.may_begin():
            self._called.start_again(job.node, job.course, error)
        else:
            self._supervisor.failed(job.node, job.course, error)

    def dropped(self, job: StepJob, error: BaseException | None) -> None:
        """A step that no thread called."""
        if job.end():
            self._supervisor.failed(job.node, job.course, error or asyncio.CancelledError())

    def abandoned(self, job: StepJob) -> None:
        """A step whose thread does not return: it keeps its slot until it does."""
        if job.is_over:
            return
        self._telling.tell(StepAbandoned, job.node.name)
        job.end(is_away=True)
        self._supervisor.failed(job.node, job.course, asyncio.CancelledError())


class StepJob(Job):
    """A step that runs in a worker thread, as the threads see it."""

    __slots__ = ("_life", "course", "held", "node")

    def __init__(
        self, life: Blocking, threads: Threads, owner: object, priority: float, node: Node, ready_at: float, held: Held
    ) -> None:
        super().__init__(threads, owner, priority, held)
        held.job = self
        self._life = life
        self.node = node
        self.course = Course(ready_at)
        self.held = held

    def end(self, *, is_away: bool = False) -> bool:
        first = super().end(is_away=is_away)
        if not self.is_away:
            self.held.job = None  # the two would keep each other, and the run, until the collector comes by
        return first

    def run(self) -> None:
        self._life.run(self)

    def dropped(self, error: BaseException | None) -> None:
        self._life.dropped(self, error)

    def abandoned(self) -> None:
        self._life.abandoned(self)
