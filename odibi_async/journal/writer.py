"""The one thread that writes the rows of steps: many steps share a commit, and each waits for its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from odibi_async.errors import JournalUnavailable, in_a_line
from odibi_async.journal.backend import Backend, StepRow
from odibi_async.journal.records import StepRecord

T = TypeVar("T")
AT_ONCE: Final = 1024
"""Rows in a commit at most."""
AT_A_TURN: Final = 64
"""How many steps go on at a turn of the loop, of those that are committed."""


class Job(NamedTuple):
    """
    A row to be written.

    Attributes:
        run: The number of its run.
        run_id: The name of its run.
        record: What it says.
        committed: Done when it is.
        told: Hears of that.
    """

    run: int
    run_id: str
    record: StepRecord
    committed: asyncio.Future[None]
    told: Told


class Told:
    """Lets the steps of one run go on when they are committed, some at a turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: deque[tuple[asyncio.Future[None], JournalUnavailable | None]] = deque()
        self._is_due = False

    def tell(self, futures: Sequence[asyncio.Future[None]], error: JournalUnavailable | None) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._take, futures, error)

    def _take(self, futures: Sequence[asyncio.Future[None]], error: JournalUnavailable | None) -> None:
        self._over.extend([(future, error) for future in futures])
        if not self._is_due:
            self._some()

    def _some(self) -> None:
        for _ in range(min(AT_A_TURN, len(self._over))):
            future, error = self._over.popleft()
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(JournalUnavailable(*error.args))  # each its own: it will have another traceback
        self._is_due = bool(self._over)
        if self._is_due:
            self._loop.call_soon(self._some)


class Writer:
    """
    Writes rows for as long as there are runs that use it.

    Args:
        backend: Where to.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._users = 0
        self._jobs: queue.SimpleQueue[Job | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        """Begins to serve one more run."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="odibi_async journal", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        """Ends that; after the last run, returns when the thread has ended. What was put before is written."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            thread, self._thread = self._thread, None
            self._jobs.put(None)
            if thread is not None:
                thread.join()

    def put(self, job: Job) -> None:
        """Writes a row soon. Does not block."""
        self._jobs.put(job)

    def flush(self) -> None:
        """Returns when what was put before is written, or could not be. Blocks."""
        written = threading.Event()
        self._jobs.put(written)
        written.wait()

    # -- in the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            jobs, end = self._taken()
            if jobs:
                self._commit(jobs)
            if isinstance(end, threading.Event):
                end.set()
            elif end:
                return

    def _taken(self) -> tuple[list[Job], threading.Event | bool]:
        """All jobs that are there, at least one; and what came after them, `True` for the end."""
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while len(jobs) < AT_ONCE:
                job = self._jobs.get(block=not jobs)
                if not isinstance(job, Job):
                    return jobs, True if job is None else job
                jobs.append(job)
        return jobs, False

    def _commit(self, jobs: Sequence[Job]) -> None:
        error: JournalUnavailable | None = None
        try:
            rows = [step_row(job.run, job.run_id, job.record) for job in jobs]
            self._backend.write(rows)
        except JournalUnavailable as raised:
            error = raised
        except Exception as raised:  # a fault of ours: those who wait are told of it, too
            error = JournalUnavailable(self._backend.name, in_a_line(raised))
        waiting: dict[Told, list[asyncio.Future[None]]] = {}
        for job in jobs:
            waiting.setdefault(job.told, []).append(job.committed)
        for told, futures in waiting.items():
            told.tell(futures, error)


def step_row(run: int, run_id: str, record: StepRecord) -> StepRow:
    """What a run's record of a step is in the journal."""
    element = -1 if record.element is None else record.element
    return StepRow(run=run, step=record.step, element=element, text=record.to_text(run_id))
