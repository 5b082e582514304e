"""
Notices a step that holds the event loop.

One daemon thread looks at the loops of all observed runs of the process. Where it finds a loop within a task of a step,
it asks the loop for an answer: as long as there is none and the task is the same, that task holds the loop. A loop that
is idle is never woken, and the thread ends when no run is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Final

from odibi_async.run.standing import Hold, lines_of, place_of
from odibi_async.run.telling import Telling

LOOKS: Final = 5
"""How many times within the threshold the thread looks."""
AT_MOST: Final = 0.2
"""Seconds that it waits at most between two looks."""
AT_LEAST: Final = 0.002
"""Seconds that it waits at least."""


class Guard:
    """The loops of a process that are looked at, and the thread that does."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets all loops: a forked process has those of its parent, but no thread."""
        self._lock = threading.Lock()
        self._loops: dict[int, Watched] = {}
        self._tick = AT_MOST

    @contextlib.contextmanager
    def watching(self, telling: Telling, threshold: float | None) -> Iterator[None]:
        """
        A block in which a run is going on in the running loop, and its observers hear of steps that hold it.

        Args:
            telling: Tells them.
            threshold: Seconds that a step may hold the loop; `None` for any time.
        """
        if threshold is None or not telling.observers:
            yield
            return
        loop = asyncio.get_running_loop()
        self._enter(loop, telling, threshold)
        try:
            yield
        finally:
            self._leave(loop, telling)

    def _enter(self, loop: asyncio.AbstractEventLoop, telling: Telling, threshold: float) -> None:
        with self._lock:
            watched = self._loops.get(id(loop))
            if watched is None or watched.loop is not loop:
                watched = self._loops[id(loop)] = Watched(loop)
            watched.runs.setdefault(telling.run_id, (telling, threshold))  # another run of this name cannot begin
            self._tick = min(self._tick, max(threshold / LOOKS, AT_LEAST))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._look, args=(perf_counter(),), name="odibi-async guard", daemon=True
                )
                with contextlib.suppress(RuntimeError):  # no thread can be had: nobody looks
                    self._thread.start()

    def _leave(self, loop: asyncio.AbstractEventLoop, telling: Telling) -> None:
        with self._lock:
            watched = self._loops.get(id(loop))
            if watched is None or watched.loop is not loop:
                return
            if watched.runs.get(telling.run_id, (None, 0.0))[0] is telling:
                del watched.runs[telling.run_id]  # the loop is forgotten at the next look: a run may follow at once

    def _look(self, woke: float) -> None:
        """
        What the thread does. It may outlast the last run by one tick, for a run that follows at once.

        Args:
            woke: When it was started: it may get the interpreter's lock a good while later.
        """
        while True:
            due = woke + self._tick
            if (left := due - perf_counter()) > 0:  # else somebody has kept the interpreter's lock since then
                time.sleep(left)
            woke = perf_counter()
            with self._lock:
                self._loops = {
                    key: each for key, each in self._loops.items() if each.runs and not each.loop.is_closed()
                }
                if not self._loops:
                    self._thread, self._tick = None, AT_MOST
                    return
                loops = list(self._loops.values())
            for watched in loops:
                watched.look(due)
            del loops, watched


class Watched:
    """
    A loop that is looked at.

    Attributes:
        loop: The loop.
        runs: Run -> its observers, and what they call long.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.runs: dict[str, tuple[Telling, float]] = {}
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread) if hasattr(time, "pthread_getcpuclockid") else None
        self._looked, self._burnt = perf_counter(), self._cpu_seconds()
        self._asked = self._answered = 0
        self._task: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._hold: tuple[Telling, Hold] | None = None

    def look(self, due: float) -> None:
        """Looks which task the loop is in. In the guard's thread, which wanted to do so at the time that is named."""
        now, task = perf_counter(), asyncio.current_task(self.loop)
        kept_the_lock = self._has_kept_the_lock(due, now)
        if task is not None and task is self._task and self._answered != self._asked:
            if self._hold is None:
                self._consider(task, now)
            return
        ended, self._hold = self._hold, None
        self._task, self._since = task, due if kept_the_lock else now
        if task is not None and kept_the_lock:  # before a call to the loop, which gives the lock away
            self._consider(task, now)
        if task is not None and self._asked == self._answered:
            self._asked += 1
            self._call(self._answer, self._asked)
        if ended is not None:
            telling, hold = ended
            hold.end(now)
            self._call(telling.report)

    def _has_kept_the_lock(self, due: float, now: float) -> bool:
        """
        Whether the guard comes late because the loop's thread has not given the interpreter's lock away, as one call of
        C code may do: since the guard was due, it has used the processor. A tenth of the time is enough, since others
        may want the processor too.
        """
        looked, burnt = self._looked, self._burnt
        self._looked, self._burnt = now, self._cpu_seconds()
        return self._burnt - burnt - max(due - looked, 0.0) > max(now - due, AT_LEAST) / 10

    def _call(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self.loop.call_soon_threadsafe(call, *args)

    def _answer(self, number: int) -> None:
        """The loop comes round: nobody holds it. On the loop's thread."""
        self._answered = number
        if self._hold is not None:
            telling, hold = self._hold
            hold.end(perf_counter())
            telling.report()

    def _consider(self, task: asyncio.Task[Any], now: float) -> None:
        """Notes a task that has held the loop for too long, if it is a step's of a run that is observed."""
        place = place_of(task)
        telling, threshold = (None, 0.0) if place is None else self.runs.get(place.run_id, (None, 0.0))
        if place is not None and telling is not None and now - self._since >= threshold:
            hold = Hold(place.step, self._since, lines_of(self._thread, task))
            telling.holds.append(hold)
            self._hold = (telling, hold)

    def _cpu_seconds(self) -> float:
        """What the loop's thread has used of a processor so far; 0 where that is not known."""
        if self._clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread is gone
            return 0.0


GUARD: Final = Guard()
"""The guard of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GUARD.reset)
