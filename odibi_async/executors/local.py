"""
Worker threads of one event loop.

A worker is one `anyio.to_thread.run_sync` that takes job after job from a queue, so that a chain of blocking
steps costs no hop to the loop and back for each; `anyio.from_thread` works in the jobs all the same. A job
that is cancelled takes its worker with it: the thread finishes that job, or is stuck in it, and takes no
other; its slot stays taken until it has returned.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

import anyio
import anyio.to_thread

FLUSH_SECONDS = 0.002
"""How long what a worker tells may wait, so that a burst of short jobs wakes the loop once."""
MAILS_AT_ONCE = 256
"""How many messages the loop takes before it turns to others: about a millisecond's worth."""


class Mailbox:
    """Calls that threads leave for the loop, made there in the order in which they were left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # a loop that keeps its threads must not be kept by them
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._flush_is_due = False

    def post(self, call: Callable[..., None], *args: Any, urgent: bool = False) -> None:
        """Leaves a call, to be made within 2 ms, or at once if it is urgent. From any thread."""
        self._calls.append((call, args))
        if urgent:
            self._wake(self.empty)
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._wake(self._flush_later)

    def _wake(self, call: Callable[[], Any]) -> None:
        loop = self._loop()
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:  # an abandoned thread outlived its loop: nobody is left to be told
            if not loop.is_closed():
                raise

    def _flush_later(self) -> None:
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.empty)

    def empty(self) -> None:
        """Makes the calls. On the loop's thread."""
        self._flush_is_due = False
        for _ in range(min(len(self._calls), MAILS_AT_ONCE)):
            call, args = self._calls.popleft()
            call(*args)
        if self._calls:
            asyncio.get_running_loop().call_soon(self.empty)


class Worker:
    """
    One thread that takes jobs.

    Attributes:
        scope: Cancelling it lets go of the thread, and cancels what its job awaits on the loop.
        job: What it is doing.
        began: Whether the system gave it a thread.
        retired: Whether it takes no further job.
    """

    __slots__ = ("began", "job", "retired", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.job: Job | None = None
        self.began = False
        self.retired = False


class Job:
    """
    Something to do in a worker thread.

    Attributes:
        owner: Owners take turns at the threads.
        priority: Of one owner's jobs, the highest goes first.
        stopped: Whether it was cancelled.
        worker: The worker that took it.
        is_over: Whether its end, whatever it was, has been told on the loop.
    """

    __slots__ = ("is_over", "owner", "priority", "stopped", "withdrawn", "worker")

    def __init__(self, owner: object, priority: int) -> None:
        self.owner = owner
        self.priority = priority
        self.stopped = False
        self.withdrawn = False
        self.is_over = False
        self.worker: Worker | None = None

    def run(self) -> None:
        """Does the work, in the worker's thread. It must not raise."""
        raise NotImplementedError

    def dropped(self, error: BaseException | None) -> None:
        """On the loop: no thread will take it, since it was cancelled or since no thread can be had."""
        raise NotImplementedError

    def abandoned(self) -> None:
        """On the loop: it was cancelled and its thread did not return within the grace."""
        raise NotImplementedError


class FairQueue:
    """Jobs of several owners: the owners take turns, each with its job of the highest priority."""

    def __init__(self) -> None:
        self._heaps: dict[object, list[tuple[int, int, Job]]] = {}
        self._turns: deque[object] = deque()
        self._count = itertools.count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, job: Job) -> None:
        self._length += 1
        heap = self._heaps.get(job.owner)
        if heap is None:
            heap = self._heaps[job.owner] = []
            self._turns.append(job.owner)
        heapq.heappush(heap, (-job.priority, next(self._count), job))

    def take(self) -> Job | None:
        while self._turns:
            owner = self._turns.popleft()
            heap = self._heaps[owner]
            job = heapq.heappop(heap)[2]
            self._length -= 1
            if heap:
                self._turns.append(owner)
            else:
                del self._heaps[owner]
            if not job.withdrawn:
                return job
        return None


class Threads:
    """
    The worker threads of one event loop, started as jobs come and ended when none are left.

    Args:
        limit: How many threads there may be at a time, those of abandoned jobs included.
        grace: Seconds that a cancelled job has to return before it is abandoned.
    """

    def __init__(self, limit: int, grace: float) -> None:
        self.limit = limit
        self.grace = grace
        self.mailbox = Mailbox(asyncio.get_running_loop())
        self._limiter = anyio.CapacityLimiter(math.inf)  # private; the counting is ours, see `active`
        self._lock = threading.Lock()
        self._queue = FairQueue()
        self._hosts: set[asyncio.Task[None]] = set()
        self.active = 0

    def put(self, jobs: Iterable[Job]) -> None:
        """Queues jobs and sees to it that threads come for them. On the loop's thread."""
        with self._lock:
            for job in jobs:
                self._queue.put(job)
        self._staff()

    def put_from_worker(self, jobs: Iterable[Job]) -> None:
        """The same from a worker's thread, which will itself take the next job if it can."""
        with self._lock:
            for job in jobs:
                self._queue.put(job)
            short = len(self._queue) > 1 and self.active < self.limit
        if short:
            self.mailbox.post(self._staff, urgent=True)

    def _staff(self) -> None:
        """Starts the workers that are lacking."""
        with self._lock:
            lacking = min(len(self._queue), self.limit - self.active)
            self.active += max(0, lacking)
        for _ in range(lacking):
            task = asyncio.get_running_loop().create_task(
                self._host(Worker()), name="odibi_async worker", context=Context()
            )
            self._hosts.add(task)
            task.add_done_callback(self._hosts.discard)

    async def _host(self, worker: Worker) -> None:
        """The life of one worker, seen from the loop."""
        try:
            with worker.scope:
                await anyio.to_thread.run_sync(self._work, worker, abandon_on_cancel=True, limiter=self._limiter)
        except RuntimeError as error:  # the system has no thread left to give
            if worker.began:
                raise
            self._no_thread(error)
        finally:
            worker.retired = True
            self.mailbox.empty()

    def _no_thread(self, error: RuntimeError) -> None:
        with self._lock:
            self.active -= 1
            hopeless = [] if self.active else list(iter(self._queue.take, None))
        for job in hopeless:
            job.dropped(error)

    def _work(self, worker: Worker) -> None:
        worker.began = True
        try:
            while (job := self._next(worker)) is not None:
                _here.job = job
                job.run()
        finally:
            _here.job = None
            with self._lock:
                self.active -= 1
                waiting = len(self._queue)
            if waiting:
                self.mailbox.post(self._staff, urgent=True)

    def _next(self, worker: Worker) -> Job | None:
        with self._lock:
            job = worker.job = None if worker.retired else self._queue.take()
            if job is not None:
                job.worker = worker
        return job

    def cancel(self, job: Job) -> None:
        """
        Cancels a job. On the loop's thread.

        One that waits is dropped at once. One that runs is told (`check_cancelled`, and what it awaits
        through `anyio.from_thread`); if it has not returned after the grace, it is abandoned.
        """
        with self._lock:
            worker = job.worker
            runs = worker is not None and worker.job is job and not job.stopped
            waits = worker is None and not job.withdrawn
            if runs and worker is not None:
                worker.retired = job.stopped = True
            job.withdrawn = job.withdrawn or waits
        if waits:
            job.dropped(None)
        elif runs and worker is not None:
            worker.scope.cancel()
            asyncio.get_running_loop().call_later(self.grace, self._abandon, job)

    def _abandon(self, job: Job) -> None:
        if not job.is_over:
            job.abandoned()

    async def call(
        self, fn: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], context: Context, owner: object
    ) -> Any:
        """
        Calls a function in a worker thread and waits for it.

        When the waiting task is cancelled, the job is; the task then waits until the thread has returned or
        is abandoned. An error that the function raises in the meantime is raised.
        """
        job = CallJob(self, fn, args, kwargs, context, owner)
        self.put((job,))
        try:
            await job.over.wait()
        except asyncio.CancelledError:
            self.cancel(job)
            while not job.is_over:
                try:
                    await job.over.wait()
                except asyncio.CancelledError:
                    continue
            if job.error is not None and not isinstance(job.error, asyncio.CancelledError):
                raise job.error from None
            raise
        if job.error is not None:
            raise job.error
        return job.value


class CallJob(Job):
    """A call that a task waits for."""

    __slots__ = ("_args", "_context", "_fn", "_kwargs", "_threads", "error", "over", "value", "was_abandoned")

    def __init__(
        self,
        threads: Threads,
        fn: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        context: Context,
        owner: object,
    ) -> None:
        super().__init__(owner, 0)
        self._threads = threads
        self._fn, self._args, self._kwargs, self._context = fn, args, kwargs, context
        self.over = asyncio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.was_abandoned = False

    def run(self) -> None:
        value, error = None, None
        try:
            value = self._context.run(self._fn, *self._args, **self._kwargs)
        except BaseException as raised:
            error = raised
        self._threads.mailbox.post(self._end, value, error, urgent=True)

    def dropped(self, error: BaseException | None) -> None:
        self._end(None, error or asyncio.CancelledError())

    def abandoned(self) -> None:
        self.was_abandoned = True
        self._end(None, asyncio.CancelledError())

    def _end(self, value: Any, error: BaseException | None) -> None:
        if not self.is_over:
            self.is_over, self.value, self.error = True, value, error
            self._args, self._kwargs = [], {}
            self.over.set()


class _Here(threading.local):
    job: Job | None = None


_here = _Here()


def check_cancelled() -> None:
    """
    Ends a blocking step that was cancelled: call it now and then in a long loop.

    Outside a step it does nothing.

    Raises:
        asyncio.CancelledError: The step was cancelled, its time is over, or another step failed.
    """
    job = _here.job
    if job is not None and job.stopped:
        raise asyncio.CancelledError("the step was cancelled")
