"""
Worker threads of one event loop.

A worker is one `anyio.to_thread.run_sync` that takes job after job from a queue, so that a chain of blocking
steps costs no hop to the loop and back for each; `anyio.from_thread` works in the jobs all the same. A job
that is cancelled takes its worker with it: the thread finishes that job, or is stuck in it, and takes no
other; its slot stays taken until it has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any

import anyio
import anyio.to_thread

from odibi_async.executors.fair_queue import FairQueue

FLUSH_SECONDS = 0.002
"""How long what a worker tells may wait, so that a burst of short jobs wakes the loop once."""
INTERRUPT_SECONDS = 0.2
"""How long after an interrupt the next one follows."""
MAILS_AT_ONCE = 256
"""How many messages the loop takes before it turns to others: about a millisecond's worth."""


class Mailbox:
    """Calls that threads leave for the loop, made there in the order in which they were left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # a loop that keeps its threads must not be kept by them
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._flush_is_due = False

    def __len__(self) -> int:
        return len(self._calls)

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
        try:
            for _ in range(min(len(self._calls), MAILS_AT_ONCE)):
                call, args = self._calls.popleft()
                call(*args)
        finally:
            if self._calls:
                asyncio.get_running_loop().call_soon(self.empty)


class Worker:
    """
    One thread that takes jobs.

    Attributes:
        scope: Cancelling it lets go of the thread, and cancels what its job awaits on the loop; there as soon
            as it has taken a job.
        job: What it is doing.
        began: Whether the system gave it a thread.
        retired: Whether it takes no further job.
    """

    __slots__ = ("began", "job", "retired", "scope")

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.job: Job | None = None
        self.began = False
        self.retired = False


class Job(ABC):
    """
    Something to do in a worker thread.

    Attributes:
        owner: Owners take turns at the threads.
        priority: Of one owner's jobs, the highest goes first.
        worker: The worker that took it.
        withdrawn: Whether it was cancelled before a worker took it.
        stopped: Whether it was cancelled after that.
        is_over: Whether its end, whatever it was, has been told on the loop.
        interrupts: What stops it, where it waits for something that can be stopped.
    """

    __slots__ = ("_timers", "interrupts", "is_over", "owner", "priority", "stopped", "withdrawn", "worker")

    def __init__(self, owner: object, priority: int) -> None:
        self.owner = owner
        self.priority = priority
        self.stopped = False
        self.withdrawn = False
        self.is_over = False
        self.worker: Worker | None = None
        self.interrupts: list[Callable[[], object]] = []
        self._timers: list[asyncio.TimerHandle] = []

    def unless_over(self, seconds: float, call: Callable[[Job], None]) -> None:
        """Calls this with the job in so many seconds, unless it has ended by then."""
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call, self))

    def end(self) -> bool:
        """Notes that the job's end is being told; whether it is told for the first time."""
        for timer in self._timers:
            timer.cancel()
        first, self.is_over = not self.is_over, True
        return first

    @abstractmethod
    def run(self) -> None:
        """Does the work, in the worker's thread. It must not raise."""

    @abstractmethod
    def dropped(self, error: BaseException | None) -> None:
        """On the loop: no thread will take it, since it was cancelled or since no thread can be had."""

    @abstractmethod
    def abandoned(self) -> None:
        """On the loop: it was cancelled and its thread did not return within the grace."""


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
        self._queue: FairQueue[Job] = FairQueue()
        self._hosts: set[asyncio.Task[None]] = set()
        self._some_withdrawn = False
        self._starting = 0
        self.active = 0

    def put(self, jobs: Iterable[Job]) -> None:
        """Queues jobs and sees to it that threads come for them. On the loop's thread."""
        with self._lock:
            for job in jobs:
                self._queue.put(job.owner, job.priority, job)
        self._staff()

    def put_from_worker(self, jobs: Iterable[Job]) -> None:
        """The same from a worker's thread, which will itself take the next job if it can."""
        with self._lock:
            for job in jobs:
                self._queue.put(job.owner, job.priority, job)
            short = len(self._queue) > 1 + self._starting and self.active < self.limit
        if short:
            self.mailbox.post(self._staff, urgent=True)

    def _staff(self) -> None:
        """
        Starts the workers that are lacking.

        None for jobs that nobody waits for: a worker that begins while the loop ends would never end itself.
        """
        with self._lock:
            if self._some_withdrawn:
                self._some_withdrawn = False
                self._queue.keep(lambda job: not job.withdrawn)
            lacking = max(0, min(len(self._queue) - self._starting, self.limit - self.active))
            self.active += lacking
            self._starting += lacking
        for _ in range(lacking):
            worker = Worker()
            task = asyncio.get_running_loop().create_task(
                self._host(worker), name="odibi_async worker", context=Context()
            )
            self._hosts.add(task)
            task.add_done_callback(functools.partial(self._host_ended, worker))

    async def _host(self, worker: Worker) -> None:
        """The life of one worker, seen from the loop."""
        try:
            with anyio.CancelScope() as worker.scope:
                await anyio.to_thread.run_sync(self._work, worker, abandon_on_cancel=True, limiter=self._limiter)
        except RuntimeError as error:
            if worker.began:
                raise
            self._no_thread(error)
        self.mailbox.empty()

    def _no_thread(self, error: RuntimeError) -> None:
        """The system has no thread left to give: when no worker is at work, nobody will take the jobs."""
        with self._lock:
            at_work = self.active - self._starting
            hopeless = [] if at_work else [self._queue.take() for _ in range(len(self._queue))]
        for job in hopeless:
            job.dropped(error)

    def _host_ended(self, worker: Worker, host: asyncio.Task[None]) -> None:
        """Gives back the slot of a worker that never got its thread, whoever cancelled its host."""
        self._hosts.discard(host)
        with self._lock:
            worker.retired = True
            if not worker.began:
                self.active -= 1
                self._starting -= 1
        if not host.cancelled():
            host.exception()  # its jobs told of all that went wrong
        self._staff()

    def _work(self, worker: Worker) -> None:
        with self._lock:
            if worker.retired:
                return
            worker.began = True
            self._starting -= 1
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
            worker.job = None
            while not worker.retired and len(self._queue):
                job = self._queue.take()
                if not job.withdrawn:
                    job.worker, worker.job = worker, job
                    break
            return worker.job

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
            self._some_withdrawn = self._some_withdrawn or waits
        if waits:
            job.dropped(None)
        elif runs and worker is not None and worker.scope is not None:
            worker.scope.cancel()
            self._interrupt(job)
            job.unless_over(self.grace, self._abandon)

    def _interrupt(self, job: Job) -> None:
        """Stops what the job waits for, again and again: one interrupt may come a moment too early."""
        for interrupt in list(job.interrupts):
            interrupt()
        job.unless_over(INTERRUPT_SECONDS, self._interrupt)

    def _abandon(self, job: Job) -> None:
        self.mailbox.post(job.abandoned, urgent=True)  # behind what the job itself may have told just now

    async def call(self, job: CallJob) -> Any:
        """
        Calls a function in a worker thread and waits for it.

        When the waiting task is cancelled, the job is; the task then waits until the thread has returned or
        is abandoned. What the function returns or raises in the meantime is what counts.
        """
        self.put((job,))
        cancelled: asyncio.CancelledError | None = None
        while not job.is_over:
            try:
                await job.over.wait()
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                self.cancel(job)
        if isinstance(job.error, asyncio.CancelledError) and cancelled is not None:
            raise cancelled
        if job.error is not None:
            raise job.error
        return job.value


class CallJob(Job):
    """
    A call that a task waits for: `await threads.call(CallJob(...))`.

    Args:
        call: What to call.
        mailbox: That of the threads.
        context: What to call it in.
        on_start: Called on the loop when a thread has taken the job.
        on_abandoned: Called on the loop if its thread does not return.
    """

    __slots__ = ("_call", "_context", "_mailbox", "_on_abandoned", "_on_start", "error", "over", "value")

    def __init__(
        self,
        owner: object,
        priority: int,
        call: Callable[[], Any],
        *,
        mailbox: Mailbox,
        context: Context,
        on_start: Callable[[], None] | None = None,
        on_abandoned: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(owner, priority)
        self._call: Callable[[], Any] | None = call
        self._mailbox = mailbox
        self._context = context
        self._on_start = on_start
        self._on_abandoned = on_abandoned
        self.over = asyncio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        value, error, call = None, None, self._call
        if self._on_start is not None:
            self._mailbox.post(self._on_start, urgent=True)
        try:
            assert call is not None
            value = self._context.run(call)
        except BaseException as raised:
            error = raised
        self._mailbox.post(self._end, value, error, urgent=True)

    def dropped(self, error: BaseException | None) -> None:
        self._end(None, error or asyncio.CancelledError())

    def abandoned(self) -> None:
        if not self.is_over and self._on_abandoned is not None:
            self._on_abandoned()
        self._end(None, asyncio.CancelledError())

    def _end(self, value: Any, error: BaseException | None) -> None:
        if self.end():
            self.value, self.error, self._call = value, error, None
            self.over.set()


class _Here(threading.local):
    job: Job | None = None


_here = _Here()


@contextlib.contextmanager
def on_cancel(interrupt: Callable[[], object]) -> Iterator[None]:
    """
    A block within which the cancellation of a blocking step calls `interrupt`, to stop what the block waits for.

    Args:
        interrupt: Called on the loop's thread, again every 0.2 s until the block is left. It must not block.

    Raises:
        asyncio.CancelledError: The step is cancelled already.
    """
    job = _here.job
    if job is None:
        yield
        return
    job.interrupts.append(interrupt)
    try:
        check_cancelled()
        yield
    finally:
        job.interrupts.remove(interrupt)


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
