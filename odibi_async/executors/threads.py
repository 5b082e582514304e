"""
Worker threads of one event loop.

A worker is one `anyio.to_thread.run_sync` that takes job after job from a queue, so that a chain of blocking
steps costs no hop to the loop and back for each; `anyio.from_thread` still works in the jobs. A job
that is cancelled takes its worker with it: the thread finishes that job, or is stuck in it, and takes no
other; its slot stays taken until it has returned.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

import anyio
import anyio.to_thread

from odibi_async.cancellation import CURRENT, CurrentCall, Interrupt
from odibi_async.executors.fair_queue import FairQueue
from odibi_async.executors.mailbox import Mailbox

INTERRUPT_SECONDS = 0.2
"""How long after an interrupt the next one follows."""
_log = logging.getLogger("odibi_async")


class Worker:
    """
    One thread that takes jobs.

    Attributes:
        scope: Cancelling it lets go of the thread, and cancels what its job awaits on the loop; there as soon
            as it has taken a job.
        first: The job that it was started for, if it is no matter which one it takes.
        job: What it is doing.
        began: Whether the system gave it a thread.
        retired: Whether it takes no further job.
    """

    __slots__ = ("began", "first", "job", "retired", "scope")

    def __init__(self, first: Job | None = None) -> None:
        self.scope: anyio.CancelScope | None = None
        self.first = first
        self.job: Job | None = None
        self.began = False
        self.retired = False


class Job(ABC):
    """
    Something to do in a worker thread.

    Attributes:
        threads: Where it is done.
        owner: Owners take turns at the threads.
        priority: Of one owner's jobs, the highest goes first.
        call: The call of a step that it makes, whose interrupts stop it.
        worker: The worker that took it.
        withdrawn: Whether it was cancelled before a worker took it.
        stopped: Whether it was cancelled after that.
        lent: Whether its thread counts as free, since the job waits for others.
        is_sure: Whether it is done also when it is cancelled before a worker took it.
        is_over: Whether its end, whatever it was, has been told on the loop.
        is_away: Whether that was told though its thread had not returned.
        on_return: Called on the loop when a thread that was away has returned after all.
    """

    __slots__ = (
        "_timers",
        "call",
        "is_away",
        "is_over",
        "is_sure",
        "lent",
        "on_return",
        "owner",
        "priority",
        "stopped",
        "threads",
        "withdrawn",
        "worker",
    )

    def __init__(self, threads: Threads, owner: object, priority: float, call: CurrentCall) -> None:
        self.threads = threads
        self.owner = owner
        self.priority = priority
        self.call = call
        self.worker: Worker | None = None
        self.withdrawn = self.stopped = self.lent = self.is_sure = self.is_over = self.is_away = False
        self.on_return: Callable[[], None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def cancel(self) -> None:
        """Cancels it: see `Threads.cancel`."""
        self.threads.cancel(self)

    def unless_over(self, seconds: float, call: Callable[[Job], None]) -> None:
        """Calls this with the job in so many seconds, unless it has ended by then."""
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call, self))

    def end(self, *, is_away: bool = False) -> bool:
        """
        Notes that the job's end is being told; whether it is told for the first time.

        Args:
            is_away: Whether its thread has not returned.
        """
        for timer in self._timers:
            timer.cancel()
        first, self.is_over = not self.is_over, True
        if first:
            self.is_away = is_away
        elif self.is_away and not is_away:
            self.is_away = False
            if self.on_return is not None:
                self.on_return()
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


def calling(call: CurrentCall, fn: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
    """Calls a function as a part of this call: to be run in a context of its own."""
    CURRENT.set(call)
    return fn(*args, **kwargs)


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
        self._returning: deque[tuple[Job, asyncio.Event]] = deque()
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

    def lend(self, job: Job) -> None:
        """The thread of a job that only waits counts as free, until `regain`."""
        with self._lock:
            if job.lent or job.worker is None or job.worker.job is not job:
                return
            job.lent = True
            self.active -= 1
        self._staff()

    async def regain(self, job: Job) -> None:
        """Ends that, as soon as there is a thread to spare."""
        back = asyncio.Event()
        with self._lock:
            self._returning.append((job, back))
        self._staff()
        await back.wait()

    def regain_now(self, job: Job) -> None:
        """Ends that at once, also where there is none; then no other worker starts until that is made good."""
        with self._lock:
            if job.lent:
                job.lent = False
                self.active += 1

    def _let_return(self) -> None:
        """Gives threads to those who want theirs back. Under the lock."""
        while self._returning:
            job, back = self._returning[0]
            if job.lent and self.active >= self.limit:
                return
            self._returning.popleft()
            if job.lent:
                job.lent = False
                self.active += 1
            back.set()

    def _staff(self) -> None:
        """
        Starts the workers that are lacking.

        None for jobs that nobody waits for: a worker that begins while the loop ends would never end itself.
        """
        with self._lock:
            self._let_return()
            if self._some_withdrawn:
                self._some_withdrawn = False
                self._queue.keep(lambda job: not job.withdrawn)
            lacking = max(0, min(len(self._queue) - self._starting, self.limit - self.active))
            self.active += lacking
            self._starting += lacking
        for _ in range(lacking):
            self._hire(Worker())

    def _hire(self, worker: Worker) -> None:
        task = asyncio.get_running_loop().create_task(self._host(worker), name="odibi_async worker", context=Context())
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
        error = None if host.cancelled() else host.exception()  # its jobs told of all that went wrong
        if worker.first is not None:
            worker.first.dropped(error)
        self._staff()

    def _work(self, worker: Worker) -> None:
        with self._lock:
            if worker.retired:
                return
            worker.began = True
            self._starting -= 1
        try:
            while (job := self._next(worker)) is not None:
                job.run()
                if job.lent:
                    self.regain_now(job)
        finally:
            with self._lock:
                self.active -= 1
                waiting = len(self._queue) or self._returning
            if waiting:
                self.mailbox.post(self._staff, urgent=True)

    def _next(self, worker: Worker) -> Job | None:
        with self._lock:
            worker.job, worker.first = worker.first, None
            while worker.job is None and not worker.retired and len(self._queue) and not self._has_to_make_room():
                job = self._queue.take()
                if not job.withdrawn:
                    job.worker, worker.job = worker, job
                    break
            return worker.job

    def _has_to_make_room(self) -> bool:
        """Whether a worker ends, since others want their threads back, or have taken them beyond the limit."""
        return self.active > self.limit or (bool(self._returning) and self.active >= self.limit)

    def cancel(self, job: Job) -> None:
        """
        Cancels a job. On the loop's thread.

        One that waits is dropped at once; if it has to be done all the same, it is done at once. One that runs is told
        (`check_cancelled`, and what it awaits through `anyio.from_thread`); if it has not returned after the
        grace, it is abandoned.
        """
        with self._lock:
            worker = job.worker
            runs = worker is not None and worker.job is job and not job.stopped
            waits = worker is None and not job.withdrawn
            if runs and worker is not None:
                worker.retired = job.stopped = True
            job.withdrawn = job.withdrawn or waits
            self._some_withdrawn = self._some_withdrawn or waits
        if waits and job.is_sure:
            self._do_now(job)
        elif waits:
            job.dropped(None)
        elif runs and worker is not None and worker.scope is not None:
            worker.scope.cancel()
            self._interrupt(job)
            job.unless_over(self.grace, self._abandon)

    def _do_now(self, job: Job) -> None:
        """Starts a worker for a job, also beyond the limit; then no other one starts until that is made good."""
        job.worker = worker = Worker(job)
        with self._lock:
            self.active += 1
            self._starting += 1
        self._hire(worker)

    def _interrupt(self, job: Job) -> None:
        """Stops what the job waits for, again and again: one interrupt may come a moment too early."""
        for interrupt in job.call.interrupts:
            if not _interrupted(interrupt):
                job.call.interrupts = tuple(each for each in job.call.interrupts if each is not interrupt)
        job.unless_over(INTERRUPT_SECONDS, self._interrupt)

    def _abandon(self, job: Job) -> None:
        self.mailbox.post(job.abandoned, urgent=True)  # behind what the job itself may have told just now

    async def call(self, job: CallJob) -> Any:
        """
        Calls a function in a worker thread and waits for it.

        When the waiting task is cancelled, the job is; the task then waits until the thread has returned or
        is abandoned, and is cancelled whatever the function came to: `job.value` and `job.error` tell.
        """
        self.put((job,))
        cancelled: asyncio.CancelledError | None = None
        while not job.is_over:
            try:
                await job.over.wait()
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                job.cancel()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled
        if job.error is not None:
            raise job.error
        return job.value


def _interrupted(interrupt: Interrupt) -> bool:
    """Calls an interrupt, which is anybody's code; whether it may be called again."""
    try:
        interrupt()
    except BaseException as error:
        _log.error("What was to interrupt a blocking step raised.", exc_info=error)
        return False
    return True


class CallJob(Job):
    """
    A call that a task waits for: `await threads.call(CallJob(...))`.

    Args:
        fn: What to call.
        context: What to call it in.
        call: The call of a step that this is a part of.
        on_start: Called on the loop when a thread has taken the job.
        on_abandoned: Called on the loop if its thread does not return.
        sure: Whether it is called also when it is cancelled before a thread has taken it.

    Attributes:
        value: What the function returned.
        error: What it raised; a cancellation where it was not called, or has not returned.
        has_returned: Whether it returned a value.
    """

    __slots__ = ("_context", "_fn", "_on_abandoned", "_on_start", "error", "has_returned", "over", "value")

    def __init__(
        self,
        threads: Threads,
        owner: object,
        priority: float,
        fn: Callable[[], Any],
        *,
        context: Context,
        call: CurrentCall | None = None,
        on_start: Callable[[], None] | None = None,
        on_abandoned: Callable[[], None] | None = None,
        sure: bool = False,
    ) -> None:
        super().__init__(threads, owner, priority, call or CurrentCall())
        self.is_sure = sure
        self._fn: Callable[[], Any] | None = fn
        self._context = context
        self._on_start = on_start
        self._on_abandoned = on_abandoned
        self.over = asyncio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.has_returned = False

    def run(self) -> None:
        value, error, fn = None, None, self._fn
        if self._on_start is not None:
            self.threads.mailbox.post(self._on_start, urgent=True)
        try:
            assert fn is not None
            value = self._context.run(calling, self.call, fn, (), {})
        except BaseException as raised:
            error = raised
        self.threads.mailbox.post(self._end, value, error, urgent=True)

    def dropped(self, error: BaseException | None) -> None:
        self._end(None, error or asyncio.CancelledError())

    def abandoned(self) -> None:
        if not self.is_over and self._on_abandoned is not None:
            self._on_abandoned()
        self._end(None, asyncio.CancelledError(), is_away=True)

    def _end(self, value: Any, error: BaseException | None, *, is_away: bool = False) -> None:
        if self.end(is_away=is_away):
            self.value, self.error, self._fn = value, error, None
            self.has_returned = error is None
            self.over.set()
