"""
Starts the steps of a run when they are ready, and ends them all when the run is to stop.

Each started step holds a ticket, its entry in `running`; only the return of the last one lets the run end. A step that
is ready goes to the backlog; `drain` starts what is there, a bounded number at a turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from enum import IntEnum
from time import perf_counter
from typing import Any, Protocol

from odibi_async.executors.mailbox import Mailbox
from odibi_async.graph.node import Node
from odibi_async.result import StepResult
from odibi_async.run.cancelling import STARTING, Ticket, Watch
from odibi_async.run.course import Course
from odibi_async.run.slots import Held, Slots
from odibi_async.run.state import Blame, RunState
from odibi_async.run.telling import Telling
from odibi_async.run.tracebacks import freed

EAGERLY = sys.version_info >= (3, 12)
"""Whether a task takes its first turn at once: a step without anything to wait for then never goes through the loop."""
_eagerly: Any = {"eager_start": True} if EAGERLY else {}
_new_task: Any = functools.partial(asyncio.Task, **_eagerly) if EAGERLY else asyncio.Task
AT_A_TURN = 256
"""How many steps are started at a turn of the loop: what it does in about two milliseconds."""


class Phase(IntEnum):
    """How far a run has come."""

    NEW = 0
    """Nothing was started."""
    RUNNING = 1
    """Steps are started as they become ready."""
    WINDING_UP = 2
    """Every step has ended by itself; what the caller is to get is being loaded."""
    STOPPING = 3
    """Nothing is started any more; what runs is being cancelled."""
    OVER = 4
    """No step is running, and none will."""


class Life(Protocol):
    """
    How one kind of step goes from ready to ended.

    Attributes:
        asks_itself: Whether its steps ask for slots themselves, when they need them.
    """

    asks_itself: bool

    def start(self, node: Node, ready_at: float, held: Held | None, /) -> None:
        """Starts a step, with the slot that it was given, which is free again when it has ended."""


class ElementFailed(Exception):
    """
    An element of a mapped step failed; inside the engine only.

    Attributes:
        index: Which one, counted from 0.
        error: What it raised.
        made: What the other elements made, by their numbers.
    """

    def __init__(self, index: int, error: BaseException, made: Mapping[int, Any]) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error
        self.made = made


class UpstreamFailed(BaseException):
    """
    The step whose elements or batches were taken as they were made ended without making them all; inside the engine
    only. It is nothing that a retry or a guest could do something about, so it is no `Exception`.

    Attributes:
        made: What the elements made for which it was enough, by their numbers.
    """

    made: Mapping[int, Any] = {}


class Supervisor:
    """
    Starts and ends the steps of one run. On the loop's thread, but for `may_begin`.

    Args:
        state: What is known of the steps.
        telling: Hears of their ends.
        slots: Who may start when not all may.
        mailbox: What threads have to tell, before which nothing that they have released may start.
        context: What each step gets a copy of.
        grace: Seconds that a cancelled step has before it is cancelled again.
        stops_on_error: Whether the first failure cancels the rest.
        on_last: Called when every step has its record.

    Attributes:
        phase: How far the run has come.
        backlog: The steps that are ready and not started, each with the time when it was, and the slot that it got.
        running: The tickets of those that were started.
        held: The slots that they were given before.
        is_bounded: Whether any step has to wait for a slot.
        at_a_turn: How many steps may be started at a turn of the loop.
        budget: How many more steps may be started at this turn.
        watch: Cancels what runs.
        lives: How each step lives, by its place.
        on_end: Those that are told of each step that has ended, before those that it releases are started.
        on_stop: Told that the run is to stop, when everything was cancelled.
        interrupt: What a step on the loop has raised that is meant for the process: it goes on when the run is over.
    """

    def __init__(
        self,
        state: RunState,
        telling: Telling,
        slots: Slots,
        mailbox: Mailbox,
        context: contextvars.Context,
        *,
        grace: float,
        stops_on_error: bool,
        on_last: Callable[[], None],
    ) -> None:
        self.phase = Phase.NEW
        self.backlog: deque[tuple[int, float, Held | None]] = deque()
        self.running: dict[int, Ticket] = {}
        self.held: dict[int, Held] = {}
        self.on_end: list[Callable[[Node], None]] = []
        self.on_stop: Callable[[], None] | None = None
        self.interrupt: BaseException | None = None
        self.loop = asyncio.get_running_loop()
        self.grace = grace
        self._state = state
        self._telling = telling
        self._slots = slots
        self._mailbox = mailbox
        self._context = context
        self._stops_on_error = stops_on_error
        self._on_last = on_last
        self.lives: Sequence[Life] = ()
        self.at_a_turn = AT_A_TURN
        self.budget = AT_A_TURN
        self._is_draining = False
        self._drain_is_due = False
        self.is_bounded = slots.is_bounded or bool(state.graph.pools)
        self.watch = Watch(self.running, grace, self._task_ended)

    # -- ready -----------------------------------------------------------------------------------------

    def begin(self, lives: Sequence[Life]) -> None:
        """Starts the first steps, which live as said here by their places; if the run was stopped before, ends it."""
        self.lives = lives
        if self.phase is Phase.NEW:
            self.phase = Phase.RUNNING
        if self.phase is not Phase.RUNNING or not self._state.left:
            self._end()
            return
        self.watch.begin()
        now, unmet = perf_counter(), self._state.unmet
        self.backlog.extend([(index, now, None) for index in self._state.selection.nodes if not unmet[index]])
        self.drain()

    def may_begin(self) -> bool:
        """Whether a step, an attempt or an element may begin. From any thread."""
        return self.phase in (Phase.RUNNING, Phase.WINDING_UP)

    def release(self, ready: Sequence[int]) -> None:
        """
        Takes up steps that wait for nobody any more: behind what threads have still to tell, since one of them may
        have made what a step reads.
        """
        if len(self._mailbox):
            self._mailbox.post(self._release_now, ready, perf_counter(), urgent=True)
        else:
            self._release_now(ready, perf_counter())

    def _release_now(self, ready: Sequence[int], at: float) -> None:
        if self.phase is Phase.RUNNING:
            self.backlog.extend([(index, at, None) for index in ready])
            self.drain()

    def drain(self) -> None:
        """Starts what is ready, and goes on at the next turn of the loop while there is more."""
        if self._is_draining:  # a step that is over at once releases others: they join the backlog, no recursion
            return
        self._is_draining = True
        state, backlog, lives, left = self._state, self.backlog, self.lives, self.budget
        try:
            while left and (backlog or (self.is_bounded and self._slots.admit() and backlog)):
                left -= 1
                index, ready_at, held = backlog.popleft()
                node = state.graph.nodes[index]
                if state.blame and held is None and (why := state.blame_for(node)) is not None:
                    self.skipped(node, why)
                elif held is not None:
                    self.held[index] = held
                    lives[index].start(node, ready_at, held)
                elif not self.is_bounded or lives[index].asks_itself or not self._slots.limits(node.pool):
                    lives[index].start(node, ready_at, None)
                elif not node.pool and self._slots.have_room_for(1 + len(backlog)):
                    self.held[index] = held = self._slots.take(())
                    lives[index].start(node, ready_at, held)
                else:
                    self._queue(node, ready_at)
        finally:
            self._is_draining = False
            self.budget = left
            if not left:
                self._drain_soon()

    def _drain_soon(self) -> None:
        if not self._drain_is_due:
            self._drain_is_due = True
            self.loop.call_soon(self._drain_again)

    def _drain_again(self) -> None:
        self._drain_is_due = False
        self.budget = self.at_a_turn
        self.drain()

    def _queue(self, node: Node, ready_at: float) -> None:
        """Queues a step for a slot, the most urgent first; it comes back to the backlog with it."""

        def grant(held: Held) -> None:
            self.backlog.append((node.index, ready_at, held))
            if not self._is_draining:
                self._drain_soon()

        self._slots.enter(self, self._state.priorities[node.index], node.pool, grant)

    def start_task(self, node: Node, life: Coroutine[Any, Any, None]) -> None:
        """Gives a step a task of its own, which has its ticket."""
        index, running = node.index, self.running
        running[index] = STARTING
        task = _new_task(life, loop=self.loop, name=node.name, context=self._context.copy())
        if index in running:
            running[index] = task
            if self.phase is Phase.STOPPING:
                self.watch.cancel(index, task)

    # -- done ------------------------------------------------------------------------------------------

    def succeeded(self, node: Node, made: Sequence[Any], record: StepResult) -> None:
        """The end of a step that made its datasets."""
        self.ended(node, record, self._state.settle(node, made))

    def failed(self, node: Node, course: Course, error: BaseException, *, settled: bool = False) -> None:
        """The end of a step that raised: a failure, its cancellation if the run is to stop, or another's failure."""
        if isinstance(error, UpstreamFailed):
            if error.made:
                self._state.partial[node.name] = error.made
            if (blame := self._state.blame_for(node)) is not None:
                self.skipped(node, blame)
                return
            error = asyncio.CancelledError()
        element = None
        if isinstance(error, ElementFailed):
            self._state.partial[node.name] = error.made
            element, error = error.index, error.error
        freed(error)
        cancelled = self.phase is not Phase.RUNNING and isinstance(error, asyncio.CancelledError)
        state = self._state
        record = state.cancellation(node, course) if cancelled else state.failure(node, course, error, element)
        ready = [] if settled else state.settle(node, ())
        if isinstance(error, KeyboardInterrupt | SystemExit) and not (node.in_thread or node.executor):
            self.interrupt = self.interrupt or error
        if not cancelled and (self._stops_on_error or self.interrupt is not None):
            self.stop()
        self.ended(node, record, ready)

    def skipped(self, node: Node, blame: Blame) -> None:
        """The end of a step that is not to run."""
        record = self._state.skip(node, blame)
        self.ended(node, record, self._state.settle(node, ()))

    def ended(self, node: Node, record: StepResult, ready: Sequence[int]) -> None:
        """Books the end of a step, takes its ticket back, and goes on with those that waited for it."""
        self._state.book(node, record)
        self.running.pop(node.index, None)
        self.watch.over(node.index)
        self._telling.finished(record)
        if self._state.fresh:
            self._state.told(node)
        for hear in self.on_end:
            hear(node)
        if ready:
            self.release(ready)
        if self.held and node.index in self.held:  # now that those it released are among those who wait
            self.held.pop(node.index).end()
        self.end_if_last()

    def end_if_last(self) -> None:
        """Ends the run if nothing of it is running, and nothing will."""
        if not self.running and (not self._state.left or self.phase is Phase.STOPPING):
            self._end()

    # -- stop ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Cancels what runs and starts nothing more; the run ends when all of it has ended."""
        began = self.phase
        if began >= Phase.STOPPING:
            return
        with self._state.lock:
            self.phase = Phase.STOPPING if began < Phase.WINDING_UP else Phase.OVER
        while self.backlog:
            held = self.backlog.popleft()[2]
            if held is not None:
                held.end()
        self._slots.forget(self)
        if began is not Phase.RUNNING:  # a run that has not begun is ended when it does
            return
        if not self.running:
            self._end()
            return
        self.watch.cancel_all()
        if self.on_stop is not None:
            self.on_stop()

    def _task_ended(self, index: int, error: BaseException) -> None:
        """Books the end of a step whose task did not: cancelled before its first turn, or broken by a fault of ours."""
        self.failed(self._state.graph.nodes[index], Course(0.0), error)

    def _end(self) -> None:
        """No step is running, and none will: those that have no record get one."""
        self.watch.end()
        if self.phase is Phase.RUNNING:
            self.phase = Phase.WINDING_UP
            self._on_last()
        elif self.phase is Phase.STOPPING:
            self.phase = Phase.OVER
            self._sweep(self._state.unrecorded())

    def let_go(self) -> None:
        """Lets go of what refers to it: a run that is over is freed at once, not when the collector comes by."""
        self.lives = ()
        self.on_end.clear()
        self.on_stop = None
        self._on_last = _nothing
        self.watch.let_go()

    def _sweep(self, unrecorded: Iterator[Node]) -> None:
        """Books the steps that never became ready before the run was stopped, some at a time."""
        for node in itertools.islice(unrecorded, AT_A_TURN):
            record = self._state.never_ran(node)
            self._state.book(node, record)
            self._telling.finished(record)
        if self._state.left:
            self.loop.call_soon(self._sweep, unrecorded)
        else:
            self._on_last()


def _nothing() -> None:
    """A run that is over ends no more."""
