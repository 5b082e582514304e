"""What a service hears of a run: its last events, for those who listen, and how its steps stand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

from odibi_async.events import (
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepRetrying,
    StepStarted,
)
from odibi_async.integrations.fastapi.told import sent, short
from odibi_async.observers.redaction import Redaction
from odibi_async.result import StepResult

AT_ONCE: Final = 256
"""Events that a listener is sent in one piece."""


class RunLog:
    """
    An observer of one run.

    Events are made into text when somebody listens, but for those that hold data or errors: these are made into text
    at once, so that nothing keeps them alive.

    Args:
        most: Events that are kept; older ones are dropped.

    Attributes:
        first: The number of the oldest event that is kept.
        started: The first event, and with it the names of the steps.
        began: Step -> when its first attempt began, in seconds since the epoch.
        retried: Step -> the attempts that failed and were followed by another.
        results: Step -> how it ended, without its error.
        errors: Step -> what went wrong, in a line.
        on_over: Called when the run is over.
        over: Set when it is over.
        listeners: How many listen.
    """

    def __init__(self, most: int) -> None:
        self.on_over: Callable[[], None] = _nothing
        self.first = 0
        self.started: RunStarted | None = None
        self.began: dict[str, float] = {}
        self.retried: dict[str, int] = {}
        self.results: dict[str, StepResult] = {}
        self.errors: dict[str, str] = {}
        self.over = asyncio.Event()
        self.listeners = 0
        self._most = most
        self._kept: list[Event | bytes] = []
        self._redaction: Redaction | None = None
        self._news: asyncio.Event | None = None

    def redact(self, text: str) -> str:
        """A text on one line and without the run's secrets."""
        return self._redaction.line(text) if self._redaction is not None else ""

    def __call__(self, event: Event) -> None:
        told: Event | bytes = event
        match event:
            case StepStarted():
                self.began[event.step] = event.at
            case StepFinished():
                told = self._finished(event)
            case StepRetrying():
                self.retried[event.step] = event.attempt
                told = sent(event, self.redact)
            case RunStarted():
                self.started, self._redaction = event, Redaction(event)
            case RunFinished():
                told = sent(event, self.redact, next(iter(self.errors.values()), None))
        self._kept.append(told)
        if len(self._kept) > 2 * self._most:
            dropped = len(self._kept) - self._most
            del self._kept[:dropped]
            self.first += dropped
        self._wake()

    def _finished(self, event: StepFinished) -> Event | bytes:
        result = event.result
        if result.error is None:
            self.results[event.step] = result
            return event
        assert self._redaction is not None
        element = "" if result.element is None else f"element {result.element}: "
        self.errors[event.step] = error = short(element + self._redaction.error(result.error))
        self.results[event.step] = replace(result, error=None)
        return sent(event, self.redact, error)

    def close(self) -> None:
        """The run is over. What is called then refers to this log: it goes, so that no collector has to come by."""
        on_over, self.on_over = self.on_over, _nothing
        on_over()
        self.over.set()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def stream(self) -> AsyncIterator[Event]:
        """Nothing: who listens to a service's run gets texts."""
        return
        yield

    def after(self, number: int) -> tuple[int, bytes]:
        """
        Some of the events behind that of a number.

        Returns:
            The number of the last one, and all of them as they are sent; nothing where there are no more.
        """
        place = max(number + 1 - self.first, 0)
        chosen = range(place, min(place + AT_ONCE, len(self._kept)))
        if not chosen:
            return number, b""
        return self.first + chosen[-1], b"".join([self._text(each) for each in chosen])

    def _text(self, place: int) -> bytes:
        told = self._kept[place]
        if not isinstance(told, bytes):
            told = self._kept[place] = sent(told, self.redact)
        return told

    async def news(self) -> None:
        """Returns when there is another event, or the run is over."""
        self._news = self._news or asyncio.Event()
        await self._news.wait()


def _nothing() -> None:
    """Nobody waits for the end of a run."""
