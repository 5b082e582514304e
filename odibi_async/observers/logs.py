"""The events of a run in the standard library's `logging`."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, Final

from odibi_async.errors import in_a_line, one_line
from odibi_async.events import (
    BatchFinished,
    BatchRetrying,
    BatchSetAside,
    CacheBypassed,
    CacheDamaged,
    CacheMissed,
    Event,
    LoopBlocked,
    ResourceOpened,
    RowsLate,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepEvent,
    StepFinished,
    StepProgressed,
    StepRetrying,
    StepStarted,
    StepStreamed,
    StreamEvent,
    StreamFinished,
    StreamLagged,
)
from odibi_async.observers.redaction import Redaction
from odibi_async.observers.snapshot import plain
from odibi_async.place import PLACE
from odibi_async.result import Status, StepResult, seconds_text
from odibi_async.secret import masked_urls

Line = tuple[int, str, dict[str, Any]]
"""A level, a text, and what the text says, by name."""
_LEVELS: Final = {Status.FAILED: logging.ERROR, Status.CANCELLED: logging.WARNING}
_FIELDS: Final = ("run", "step", "element", "attempt", "event")


class Logs:
    """
    An observer that logs a line an event: `run_pipeline(steps, observers=[Logs()])`.

    Failures are logged as errors, what a run gets along with as warnings, the ends of steps and runs as information,
    all else for debugging. Each record has the attributes `run`, `step`, `event` and `fields`. Handlers are called in
    the event loop: give one that blocks, such as a socket, a `logging.handlers.QueueHandler`. The texts of secrets
    among the params of steps and the inputs of the run show nowhere.

    Args:
        logger: Where to.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("odibi_async")
        self._redactions: dict[str, Redaction] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StreamEvent):
            self._log_stream(event)
            return
        if isinstance(event, RunStarted):
            self._redactions[event.run_id] = Redaction(event)
        redaction = self._redactions.get(event.run_id)
        if redaction is None:  # it listens since the middle of the run
            return
        if isinstance(event, RunFinished):
            del self._redactions[event.run_id]
        level, text, fields = _line(event, redaction)
        if self._logger.isEnabledFor(level):
            step = one_line(event.step) if isinstance(event, StepEvent) else ""
            about = {"run": event.run_id, "step": step, "event": type(event).__name__, "fields": fields}
            self._logger.log(level, "%s", redaction.line(f"{step}: {text}" if step else text), extra=about)

    def _log_stream(self, event: StreamEvent) -> None:
        level, text, fields = _line_of_stream(event)
        if self._logger.isEnabledFor(level):
            about = {"run": event.run_id, "step": "", "event": type(event).__name__}
            line = masked_urls(one_line(f"stream {event.stream}: {text}"))
            self._logger.log(level, "%s", line, extra={**about, "fields": {"stream": event.stream, **fields}})


def _line_of_stream(event: StreamEvent) -> Line:
    """What is said of an event of a stream. What went wrong in a batch, its run has said."""
    match event:
        case BatchFinished():
            rows = "" if event.rows is None else f", {event.rows:,} rows"
            lag = "" if event.lag is None else f", {seconds_text(max(0.0, event.lag))} behind"
            about = {"rows": event.rows, "seconds": event.seconds, "lag": event.lag, "attempt": event.attempt}
            text = f"{event.batch} committed after {seconds_text(event.seconds)}{rows}{lag}"
            return logging.INFO, text, {"batch": event.batch, "pending": event.pending, **about}
        case BatchRetrying():
            text = f"{event.batch} failed (attempt {event.attempt}), again in {seconds_text(event.wait)}"
            return logging.WARNING, text, {"batch": event.batch, "attempt": event.attempt, "wait": event.wait}
        case BatchSetAside():
            text = f"{event.batch} is set aside after {event.attempt} attempts"
            return logging.ERROR, text, {"batch": event.batch, "attempt": event.attempt}
        case RowsLate():
            return logging.WARNING, f"{event.rows:,} rows came too late", {"rows": event.rows}
        case StreamLagged() if event.error is not None:
            error = in_a_line(event.error)
            text = f"the source cannot be read, again in {seconds_text(event.wait)}: {error}"
            return logging.WARNING, text, {"error": error, "wait": event.wait}
        case StreamFinished():
            error = "" if event.error is None else f": {in_a_line(event.error)}"
            level = _LEVELS.get(event.status, logging.INFO)
            return level, f"{event.status}{error}", {"status": str(event.status)}
    return logging.DEBUG, type(event).__name__, {}


def _line(event: Event, redaction: Redaction) -> Line:
    """What is said of an event."""
    match event:
        case RunStarted():
            count = len(event.steps)
            return logging.INFO, f"run {event.run_id} started: {count} steps", {"steps": count}
        case StepStarted():
            return logging.DEBUG, "started", {}
        case ResourceOpened():
            return logging.DEBUG, "opened", {}
        case StepProgressed():
            return logging.DEBUG, f"{event.done} of {event.total}", {"done": event.done, "total": event.total}
        case StepStreamed():
            rows = "" if event.rows is None else f", {event.rows:,} rows"
            return logging.DEBUG, f"{event.batches:,} batches{rows}", {"batches": event.batches, "rows": event.rows}
        case StepRetrying():
            error = redaction.error(event.error)
            text = f"attempt {event.attempt} failed, again in {seconds_text(event.wait)}: {error}"
            about = {"attempt": event.attempt, "wait": event.wait, "error": error, "element": event.element}
            return logging.WARNING, text, about
        case CacheMissed():
            return logging.DEBUG, f"not in the cache: {event.reason}", {"reason": redaction(event.reason)}
        case CacheBypassed():
            return logging.WARNING, f"is not cached: {event.reason}", {"reason": redaction(event.reason)}
        case CacheDamaged():
            return logging.WARNING, f"is damaged in the cache: {event.reason}", {"reason": redaction(event.reason)}
        case StepAbandoned():
            return logging.WARNING, "does not end; its thread runs on", {}
        case LoopBlocked():
            text = f"held the event loop for {seconds_text(event.seconds)} at {event.file}:{event.line}"
            return logging.WARNING, text, {"seconds": event.seconds, "file": event.file, "line": event.line}
        case StepFinished():
            return _end(event.result, redaction)
        case RunFinished():
            result = event.result
            level = _LEVELS.get(event.status, logging.INFO)
            about = {"status": str(event.status), "seconds": result.seconds}
            return level, f"run {event.run_id} {event.status} in {seconds_text(result.seconds)}", about
    return logging.DEBUG, type(event).__name__, {}


def _end(record: StepResult, redaction: Redaction) -> Line:
    """How a step ended."""
    error = None if record.error is None else redaction.error(record.error)
    text = f"{record.status} after {seconds_text(record.run_seconds)}" if record.at else str(record.status)
    text += f", {record.rows:,} rows" if record.rows is not None else ""
    text += f" because of {record.skipped_because!r}" if record.skipped_because else ""
    text += f": {error}" if error else ""
    about = {
        "status": str(record.status),
        "seconds": record.run_seconds,
        "queue_seconds": record.queue_seconds,
        "attempts": record.attempts,
        "rows": record.rows,
        "batches": record.batches,
        "skipped_because": record.skipped_because,
        "cache": None if record.cache is None else redaction(str(record.cache)),
        "error": error,
    }
    return _LEVELS.get(record.status, logging.INFO), text, about


class StepContext(logging.Filter):
    """
    Notes on each record which call of a step it comes from: `handler.addFilter(StepContext())`.

    The attributes are `run`, `step`, `element` and `attempt`; outside of the steps of observed runs they are empty
    texts, so that `%(step)s` works everywhere. It lets every record pass, and looks in the context of the code that
    logs: where a handler hands records to another thread, the filter belongs to that handler, not to the last one.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        place = PLACE.get()
        found = ("", "", "", "")
        if place is not None:
            element = "" if place.element is None else str(place.element)
            found = (place.run_id, one_line(place.step), element, str(place.attempt))
        for name, value in zip(_FIELDS, found, strict=False):
            record.__dict__.setdefault(name, value)
        return True


class JsonFormatter(logging.Formatter):
    """
    A record as an object of JSON on one line: `time`, `level`, `logger` and `message`, then `run`, `step`, `element`,
    `attempt` and `event` where they are known, the `fields` of an event, and `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        found.update({name: value for name in _FIELDS if (value := getattr(record, name, "")) != ""})
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            known = {str(name): plain(value) for name, value in fields.items() if value is not None}
            found = {**known, **found}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)
