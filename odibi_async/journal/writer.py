"""The one thread that writes the rows of steps: many steps share a commit, and each waits for its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from odibi_async.errors import JournalUnavailable
from odibi_async.journal.backend import Backend, StepRow

AT_ONCE: Final = 128
"""Rows in a commit at most: their steps all go on at one turn of the loop, which is not to be long."""
PAUSES: Final = (0.02, 0.1, 0.4)
"""Seconds after which a commit that failed is tried again."""

Job = tuple[StepRow, "asyncio.Future[None]"]


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
        self._is_over = False

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

    def put(self, row: StepRow) -> asyncio.Future[None]:
        """Writes a row soon; the future is done when it is committed. On a loop's thread; does not block."""
        future = asyncio.get_running_loop().create_future()
        self._jobs.put((row, future))
        return future

    def flush(self) -> None:
        """Returns when what was put before is written, or could not be. Blocks."""
        written = threading.Event()
        self._jobs.put(written)
        written.wait()

    # -- in the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        jobs: list[Job] = []
        while True:
            job = self._next(jobs)
            if isinstance(job, tuple):
                jobs.append(job)
            if jobs and (len(jobs) == AT_ONCE or not isinstance(job, tuple)):
                self._commit(jobs)
                jobs = []
            if isinstance(job, threading.Event):
                job.set()
            elif job is None and not jobs and self._is_over:
                return

    def _next(self, jobs: Sequence[Job]) -> Job | threading.Event | None:
        """What comes next; `None` at the end, and where nothing is there for what waits to be committed."""
        try:
            job = self._jobs.get(block=not jobs)
        except queue.Empty:
            return None
        self._is_over = job is None
        return job

    def _commit(self, jobs: Sequence[Job]) -> None:
        error: JournalUnavailable | None = None
        try:
            write_surely(self._backend, [row for row, _ in jobs])
        except JournalUnavailable as raised:
            error = raised
        waiting = defaultdict(list)
        for _, future in jobs:
            waiting[future.get_loop()].append(future)
        for loop, futures in waiting.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_tell, futures, error)


def write_surely(backend: Backend, rows: Sequence[StepRow]) -> None:
    """
    Writes rows, again if that fails: the same rows twice are the same as once.

    Raises:
        JournalUnavailable: It failed for good.
    """
    surely(lambda: backend.write(rows))


def surely(call: Any) -> Any:
    """What a call returns, which is tried again if the journal cannot be used: in doubt it has been done already."""
    for pause in PAUSES:
        try:
            return call()
        except JournalUnavailable:
            time.sleep(pause)
    return call()


def _tell(futures: Sequence[asyncio.Future[None]], error: JournalUnavailable | None) -> None:
    for future in futures:
        if future.done():  # nobody waits any more
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(type(error)(*error.args))  # each its own: it will have another traceback
