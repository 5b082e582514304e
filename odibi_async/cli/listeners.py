"""Who listens to a run: a file, a terminal, and the thread in which they do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from odibi_async.cli.answer import Problem, Refused
from odibi_async.cli.output import complain, harmless, plain
from odibi_async.errors import in_a_line
from odibi_async.events import (
    CacheBypassed,
    CacheDamaged,
    CacheMissed,
    CacheNotShared,
    Event,
    JournalBypassed,
    LoopBlocked,
    Outline,
    StepAbandoned,
    StepFinished,
    StepRetrying,
    StepStarted,
)
from odibi_async.result import RunResult, StepResult, seconds_text
from odibi_async.secret import masked

Listener = Callable[[Event], None]


class Scribe:
    """
    An observer that hands on events to listeners in a thread of its own, where they may block.

    Attributes:
        has_abandoned: Whether a step was left to itself.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.has_abandoned = False
        self._listeners = listeners
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._hand_on, name="odibi-async events")

    def __call__(self, event: Event) -> None:
        self.has_abandoned |= isinstance(event, StepAbandoned)
        self._events.put(event)

    def __enter__(self) -> Scribe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.put(None)
        self._thread.join()

    def _hand_on(self) -> None:
        while (event := self._events.get()) is not None:
            for listener in self._listeners:
                listener(event)


class EventFile:
    """
    Writes each event as a line of JSON.

    Attributes:
        error: What kept it from writing all of them.
    """

    def __init__(self, path: str, secrets: Collection[str]) -> None:
        self.error: OSError | None = None
        self._path = path
        self._secrets = secrets

    def __enter__(self) -> EventFile:
        try:
            self._file = open(self._path, "w", encoding="utf-8", buffering=1)  # closed by __exit__
        except OSError as error:
            raise Refused(_unwritten(self._path, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._noting_errors():
            self._file.close()

    def __call__(self, event: Event) -> None:
        if self.error is not None:
            return
        found: dict[str, Any] = {"event": type(event).__name__, "time": event.time}
        for field in dataclasses.fields(event):
            if field.name != "at" and field.metadata.get("told", True):
                found[field.name] = _told(getattr(event, field.name))
        with self._noting_errors():
            self._file.write(json.dumps(plain(found, self._secrets)) + "\n")

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    @property
    def problems(self) -> list[Problem]:
        return [] if self.error is None else [_unwritten(self._path, self.error)]


def _unwritten(path: str, error: OSError) -> Problem:
    return Problem(code="OA310", message=f"the events cannot be written to {path!r}: {error.strerror}")


def _told(value: Any) -> Any:
    """One of an event's values as its line shows it."""
    if isinstance(value, StepResult):
        return step_record(value)
    if isinstance(value, Outline):
        return {name: {"layer": step.layer, "upstream": step.upstream} for name, step in value.items()}
    return value.stats() if isinstance(value, RunResult) else value


def step_record(record: StepResult) -> dict[str, Any]:
    """A step's record, for JSON."""
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name != "at"}
    return {**found, "started_at": record.started_at}


class Lines:
    """Tells of each event in a line on stderr."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = secrets

    def __call__(self, event: Event) -> None:
        if text := _line(event):
            complain(f"{event.time.astimezone():%H:%M:%S} {harmless(masked(text, self._secrets))}")


def _line(event: Event) -> str:
    match event:
        case StepStarted():
            return f"{event.step}: started"
        case StepRetrying():
            error = in_a_line(event.error)
            return f"{event.step}: attempt {event.attempt} failed, again in {event.wait:.1f} s: {error}"
        case CacheMissed():
            return f"{event.step}: not in the cache: {event.reason}"
        case StepFinished():
            because = f" because of {event.result.skipped_because}" if event.result.skipped_because else ""
            rows = f", {event.result.rows:,} rows" if event.result.rows is not None else ""
            return f"{event.step}: {event.status}{because} after {event.result.run_seconds:.3f} s{rows}"
    return ""


class Warnings:
    """Warns on stderr of threads that do not end, of steps that hold the loop, and of a cache that does not serve."""

    def __init__(self, secrets: Collection[str], is_quiet: bool) -> None:
        self._secrets = secrets
        self._is_quiet = is_quiet

    def __call__(self, event: Event) -> None:
        match event:
            case StepAbandoned():
                complain(f"step {event.step!r} does not end; its thread ends with the process")
            case LoopBlocked() if not self._is_quiet:
                where = harmless(f"{event.file}:{event.line}")
                complain(
                    f"async step {event.step!r} held the event loop for {seconds_text(event.seconds)} at {where};"
                    " make it a plain function, which runs in a thread, or call what blocks with asyncio.to_thread"
                )
            case CacheBypassed() if not self._is_quiet:
                complain(masked(f"step {event.step!r} is not cached: {event.reason}", self._secrets))
            case JournalBypassed() if not self._is_quiet:
                complain(masked(f"step {event.step!r} in the journal: {event.reason}", self._secrets))
            case CacheNotShared() if not self._is_quiet:
                complain(f"the shared directory of the cache: {event.reason}")
            case CacheDamaged() if not self._is_quiet:
                complain(f"what the cache had of step {event.step!r} is damaged, and it runs after all: {event.reason}")
