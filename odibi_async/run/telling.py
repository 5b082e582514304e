"""What a run tells its observers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter, time
from typing import Any, TypeGuard

from odibi_async.abc import Entering, Observer
from odibi_async.events import Event, LoopBlocked, StepFinished, StepStarted
from odibi_async.place import PLACE, new_place
from odibi_async.quick import quick
from odibi_async.result import StepResult
from odibi_async.run.standing import Hold

_step_started = quick(StepStarted)
_step_finished = quick(StepFinished)
_log = logging.getLogger("odibi_async")


class Telling:
    """
    The stream of a run's events. On the loop's thread.

    Attributes:
        run_id: The run.
        observers: Who hears of it.
        seq: The number of the next event.
        holds: The steps that were seen to hold the loop and that nobody was told of; others than the loop add to it.
        epoch: What is added to seconds of `perf_counter` to get those of the clock.
    """

    __slots__ = ("_entering", "_loop", "epoch", "holds", "observers", "run_id", "seq")

    def __init__(self, run_id: str, observers: Sequence[Observer], loop: asyncio.AbstractEventLoop) -> None:
        self.run_id = run_id
        self.observers = list(observers)
        self.seq = 0
        self.holds: list[Hold] = []
        self.epoch = time() - perf_counter()
        self._loop = loop
        self._entering: list[Entering] = [each for each in self.observers if _is_entering(each)]

    def tell(self, kind: type[Event], *about: Any) -> None:
        """Tells of something that happens now."""
        if self.observers:
            if self.holds:
                self.report()
            self.hear(kind(self.run_id, self.seq, perf_counter() + self.epoch, *about))

    def started(self, step: str, at: float) -> None:
        """Tells that a step began at a time of `perf_counter`."""
        if self.observers:
            if self.holds:
                self.report()
            event = _step_started(self.run_id, self.seq, at + self.epoch, step)
            self.seq += 1
            for observer in self.observers:  # as `hear` does, for the two events that every step has
                try:
                    observer(event)
                except BaseException as error:
                    self.drop(observer, error)

    def finished(self, record: StepResult, at: float | None = None) -> None:
        """Tells that a step ended, now or at a time of `perf_counter`."""
        if self.observers:
            if self.holds:
                self.report()
            at = (perf_counter() if at is None else at) + self.epoch
            event = _step_finished(self.run_id, self.seq, at, record.name, record.status, record)
            self.seq += 1
            for observer in self.observers:
                try:
                    observer(event)
                except BaseException as error:
                    self.drop(observer, error)

    def hear(self, event: Event) -> None:
        """Hands an event to the observers. One that raises is not asked again: it must not break a run."""
        self.seq += 1
        for observer in self.observers:
            try:
                observer(event)
            except BaseException as error:
                self.drop(observer, error)

    def enter(self, step: str, element: int | None = None, attempt: int = 1) -> None:
        """
        Notes, in the context of a call, which one it is, and lets observers set variables there; of a predicate
        (attempt 0) they are not told. From any thread.
        """
        if self.observers:
            place = new_place(self.run_id, step, element, attempt)
            PLACE.set(place)
            for observer in self._entering if attempt else ():
                try:
                    observer.entering(place)
                except BaseException as error:
                    self._loop.call_soon_threadsafe(self.drop, observer, error)

    def report(self) -> None:
        """Tells of the steps that were seen to hold the loop. On the loop's thread: they do no longer."""
        while self.holds and self.observers:
            hold = self.holds.pop(0)
            seconds, (file, line) = hold.end(now := perf_counter()), hold.where
            self.hear(LoopBlocked(self.run_id, self.seq, now + self.epoch, hold.step, seconds, file, line))

    def close(self) -> None:
        """The last event was told."""
        self.observers = []

    def drop(self, observer: Observer, error: BaseException) -> None:
        """Asks an observer no more, since it raised."""
        if all(other is not observer for other in self.observers):  # it raised in several threads, or the run is over
            return
        self.observers = [other for other in self.observers if other is not observer]
        self._entering = [other for other in self._entering if other is not observer]
        name = type(observer).__qualname__  # not its repr, which is anybody's code
        _log.error("An observer (%s) raised and is dropped from run %s.", name, self.run_id, exc_info=error)
        pass_on(error, self._loop)


def _is_entering(observer: Any) -> TypeGuard[Entering]:
    return callable(getattr(type(observer), "entering", None))


def pass_on(error: BaseException, loop: asyncio.AbstractEventLoop) -> None:
    """Hands `KeyboardInterrupt` and `SystemExit` on to the loop, as `asyncio` does when a task raises them."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        loop.call_soon(_reraise, error)


def _reraise(error: BaseException) -> None:
    raise error
