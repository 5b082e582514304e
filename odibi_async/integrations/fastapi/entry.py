"""A run that this process began, and the table of those."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from odibi_async.errors import in_a_line
from odibi_async.integrations.fastapi.limits import ServiceLimits
from odibi_async.integrations.fastapi.log import RunLog
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.sizes import bytes_of
from odibi_async.integrations.fastapi.told import short
from odibi_async.result import RunResult, Status
from odibi_async.runner import Run

Ending = asyncio.Future[Mapping[str, Any] | None]
"""What becomes the datasets of the answer about a run; `None` where one waited in vain."""


class Entry:
    """
    A run that this process began or resumed.

    Attributes:
        id: Its name.
        run: The run; `None` when it is over.
        offer: Its pipeline.
        log: What was heard of it.
        inputs: What it was given, as it was sent and without secrets.
        wanted: The datasets of an answer: those asked for, else those that no step reads.
        number: Its place among those of this process.
        status: `running`, or how it ended.
        ended: When it ended; `None` before.
        outputs: The datasets that are kept of it; `None` where they were dropped.
        size: Bytes that they take, about.
        result: Its result with these datasets alone; kept as long as they are.
        waiting: Those who wait for the datasets of its answer.
    """

    def __init__(
        self, run: Run, offer: Offer, log: RunLog, inputs: Mapping[str, Any], wanted: tuple[str, ...], number: int
    ) -> None:
        self.id = run.id
        self.run: Run | None = run
        self.offer = offer
        self.log = log
        self.inputs = inputs
        self.wanted = wanted
        self.number = number
        self._since = time.time()
        self.ended: float | None = None
        self.outputs: Mapping[str, Any] | None = None
        self.size = 0
        self.result: RunResult | None = None
        self.waiting: list[Ending] = []
        self.status = Status.RUNNING
        self._trouble = ""

    @property
    def since(self) -> float:
        """When it began, in seconds since the epoch."""
        return self._since if self.log.started is None else self.log.started.at

    @property
    def error(self) -> str | None:
        """What went wrong, in a line; `None` where nothing did, or has yet."""
        if self._trouble:
            return self._trouble
        return next((f"Step {name!r} failed: {error}" for name, error in self.log.errors.items()), None)

    def end(self, *, keeps: bool) -> None:
        """
        Takes in how it ended, and lets go of all else.

        Args:
            keeps: Whether the datasets of an answer are kept.
        """
        assert self.run is not None
        run, self.run = self.run, None
        self.ended, self.status = time.time(), run.status
        outputs: dict[str, Any] = {}
        match run.outcome():
            case RunResult() as result:
                outputs = {name: result.outputs[name] for name in self.wanted if name in result.outputs}
                if run.deadline_passed and not self.log.errors:
                    self._trouble = "The run did not end in its time."
                if keeps:
                    self.outputs, self.size = outputs, sum(map(bytes_of, outputs.values()))
                    self.result = replace(result, outputs=outputs)
            case BaseException() as error:
                self._trouble = short(self.log.redact(in_a_line(error)))
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(outputs)
        self.waiting.clear()

    def forget_data(self) -> None:
        """Keeps no data any more."""
        self.outputs, self.size, self.result = None, 0, None

    async def end_within(self, seconds: float, ending: Ending) -> Mapping[str, Any] | None:
        """
        Waits for its end.

        Args:
            seconds: How long, at most.
            ending: What to wait for; whoever gives it a result ends the waiting.

        Returns:
            The datasets of an answer; `None` where it is not over.
        """
        self.waiting.append(ending)
        timer = ending.get_loop().call_later(seconds, give_up, ending)
        try:
            return await ending
        finally:
            timer.cancel()
            if ending in self.waiting:
                self.waiting.remove(ending)


def give_up(ending: Ending) -> None:
    """Ends the waiting for a run, which goes on."""
    if not ending.done():
        ending.set_result(None)


class RunTable:
    """
    The runs that this process began: all that are not over, and the last of those that are.

    Args:
        limits: How many of them.
        keeps: Whether what they made is kept: where no journal has it.
    """

    def __init__(self, limits: ServiceLimits, *, keeps: bool) -> None:
        self._limits = limits
        self._keeps = keeps
        self._running: dict[str, Entry] = {}
        self._over: OrderedDict[str, Entry] = OrderedDict()
        self._sweeping: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event | None = None
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Entry]:
        """Those that there are, the newest first."""
        every = (*self._running.values(), *self._over.values())
        return iter(sorted(every, key=lambda each: each.number, reverse=True))

    def get(self, run_id: str) -> Entry | None:
        """A run."""
        return self._running.get(run_id) or self._over.get(run_id)

    def running(self) -> Iterator[Entry]:
        """Those that are not over."""
        return iter(tuple(self._running.values()))

    def add(self, run: Run, offer: Offer, log: RunLog, inputs: Mapping[str, Any], wanted: tuple[str, ...]) -> Entry:
        """Adds a run that has begun."""
        self._count += 1
        entry = Entry(run, offer, log, inputs, wanted, self._count)
        if (before := self._over.get(entry.id)) is not None:
            self.drop(before)
        self._running[entry.id] = entry
        return entry

    def end(self, entry: Entry) -> None:
        """Notes that a run is over."""
        if self._running.get(entry.id) is not entry:
            return
        del self._running[entry.id]
        entry.end(keeps=self._keeps)
        self._over[entry.id] = entry
        self._size += entry.size
        if not self._running and self._idle is not None:
            self._idle.set()
            self._idle = None
        self.sweep()

    async def idle(self) -> None:
        """Returns when all of them are over."""
        if self._running:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def drop(self, entry: Entry) -> None:
        """Forgets a run that is over."""
        if self._over.get(entry.id) is entry:
            del self._over[entry.id]
            self._size -= entry.size

    def sweep(self) -> None:
        """Forgets those that have been over for long, and those that are too many."""
        now, limits = time.time(), self._limits
        while self._over:
            oldest = next(iter(self._over.values()))
            if len(self._over) <= limits.kept and now - (oldest.ended or now) < limits.kept_seconds:
                break
            self.drop(oldest)
        for entry in self._over.values() if self._size > limits.kept_bytes else ():
            if self._size <= limits.kept_bytes:
                break
            self._size -= entry.size
            entry.forget_data()
        if self._over and self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(limits.kept_seconds, self._sweep_later)

    def _sweep_later(self) -> None:
        self._sweeping = None
        self.sweep()

    def close(self) -> None:
        """Forgets those that are over."""
        self._over.clear()
        self._size = 0
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
