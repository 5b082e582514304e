"""Events of a run as a stream of Server-Sent Events says them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, Final

from odibi_async.errors import in_a_line
from odibi_async.events import Event, RunFinished, RunStarted, StepEvent, StepFinished
from odibi_async.integrations.fastapi.answers import json_of
from odibi_async.result import StepResult

Redact = Callable[[str], str]
LINES: Final = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))
"""Letters that some readers take for the end of a line, and what JSON can write instead."""
NAMES: Final = ("run_id", "step")
"""Members of events that are names, which are told as they are."""
LONGEST: Final = 10_000
"""Letters of a text that a step has made up, an error for instance."""


def moment(at: float | None) -> str | None:
    """Seconds since the epoch, as JSON says a time (UTC)."""
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()


def short(text: str) -> str:
    """A text that is no longer than an answer is to have it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


@functools.cache
def name_of(kind: str) -> str:
    """The name of a kind of events: `StepStarted` is `step.started`."""
    first, *rest = re.findall(r"[A-Z][a-z0-9]*", kind)
    return ".".join((first.lower(), "_".join(rest).lower()))


def _members(event: Event) -> tuple[str, ...]:
    return tuple(member.name for member in fields(event) if member.metadata.get("told", True) and member.name != "at")


def step_document(result: StepResult, error: str | None) -> dict[str, Any]:
    """What became of a step."""
    return {
        "name": result.name,
        "status": str(result.status),
        "attempts": result.attempts,
        "started_at": moment(result.at),
        "queue_seconds": result.queue_seconds,
        "run_seconds": result.run_seconds,
        "rows": result.rows,
        "error": error,
        "skipped_because": result.skipped_because,
        "cache": None if result.cache is None else str(result.cache),
    }


def sent(event: Event, redact: Redact, error: str | None = None) -> bytes:
    """
    An event as it is sent.

    Args:
        event: The event.
        redact: Takes secrets out of texts.
        error: What went wrong, for the end of a step or of a run.
    """
    about: dict[str, Any]
    match event:
        case RunStarted():
            about = {"steps": event.steps}
        case StepFinished():
            result = step_document(event.result, error)
            about = {"step": event.step, "status": str(event.status), "result": result}
        case RunFinished():
            about = {"status": str(event.status), "seconds": event.result.seconds, "error": error}
        case _:
            about = {name: _plain(getattr(event, name), redact) for name in _members(event) if name not in NAMES}
            if isinstance(event, StepEvent):
                about["step"] = event.step
    said = {"run_id": event.run_id, "seq": event.seq, "time": moment(event.at), **about}
    return framed(event.seq, name_of(type(event).__name__), said)


def framed(number: int, name: str, said: Mapping[str, Any]) -> bytes:
    """One event of the stream. JSON has no line breaks, so its data is one line, for all that anybody calls a line."""
    data = json_of(said)
    if not data.isascii():
        for letter, written in LINES:
            data = data.replace(letter, written)
    return b"event: %b\ndata: %b\nid: %d\n\n" % (name.encode(), data, number)


def _plain(value: Any, redact: Redact) -> Any:
    if isinstance(value, BaseException):
        return short(redact(in_a_line(value)))
    if isinstance(value, str):
        return short(redact(str(value)))
    return value if value is None or isinstance(value, bool | int | float) else str(value)
