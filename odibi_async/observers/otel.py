"""Runs, steps and attempts as spans of OpenTelemetry."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Mapping
from typing import Any, Final

from odibi_async.errors import ExtraMissing, text_of
from odibi_async.events import (
    BatchEvent,
    BatchFinished,
    BatchRetrying,
    BatchSetAside,
    BatchStarted,
    CacheBypassed,
    CacheDamaged,
    CacheMissed,
    Event,
    LoopBlocked,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepEvent,
    StepFinished,
    StepProgressed,
    StepRetrying,
    StreamEvent,
    StreamFinished,
)
from odibi_async.observers.redaction import Redaction, in_utf8
from odibi_async.place import Place
from odibi_async.result import Status, StepResult

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
except ImportError as error:
    raise ExtraMissing("Tracing with OpenTelemetry", "otel") from error

Attributes = dict[str, str | int | float | bool]
_PREFIX: Final = "odibi_async."
_NANO: Final = 1e9


class OpenTelemetry:
    """
    An observer that makes spans: one for a run, within the caller's span; in it one a step; in that one an attempt.
    Around the runs of a batch of a stream, there is one for the batch.

    Spans that the code of a step makes, or a library that it calls, are children of its attempt. The texts of secrets
    among the params of steps and the inputs of the run show nowhere.

    Args:
        tracer: Makes the spans; `None` for that of the global provider.
    """

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer("odibi_async")
        self._runs: dict[str, _Run] = {}
        self._batches: dict[str, tuple[str, trace.Span]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StreamEvent):
            self._hear_stream(event)
            return
        if isinstance(event, RunStarted):
            _, batch = self._batches.get(event.run_id, ("", None))
            self._runs[event.run_id] = _Run(event, self._tracer, batch)
            return
        run = self._runs.get(event.run_id)
        if run is None:  # it listens since the middle of the run
            return
        if isinstance(event, StepEvent):
            run.hear(event)
        elif isinstance(event, RunFinished):
            del self._runs[event.run_id]
            run.end(event)

    def _hear_stream(self, event: StreamEvent) -> None:
        """The span of a batch begins with its first attempt, and ends when it is committed or set aside."""
        if isinstance(event, StreamFinished):  # a batch that was cut short stays open
            for run_id, (stream, span) in list(self._batches.items()):
                if stream == event.stream:
                    del self._batches[run_id]
                    span.end(_nano(event.at))
        elif isinstance(event, BatchEvent):
            self._hear_batch(event)

    def _hear_batch(self, event: BatchEvent) -> None:
        if isinstance(event, BatchStarted) and event.run_id not in self._batches:
            about: Attributes = {
                f"{_PREFIX}stream.name": in_utf8(event.stream),
                f"{_PREFIX}batch.name": in_utf8(event.batch),
                f"{_PREFIX}batch.rows": -1 if event.rows is None else event.rows,
            }
            started = self._tracer.start_span("batch", start_time=_nano(event.at), attributes=about)
            self._batches[event.run_id] = event.stream, started
        if event.run_id not in self._batches:
            return
        _, span = self._batches[event.run_id]
        if isinstance(event, BatchRetrying):
            span.add_event("BatchRetrying", {"attempt": event.attempt, "wait": event.wait}, _nano(event.at))
        elif isinstance(event, BatchFinished | BatchSetAside):
            del self._batches[event.run_id]
            span.set_attribute(f"{_PREFIX}batch.attempts", event.attempt)
            if isinstance(event, BatchSetAside):
                span.set_status(trace.StatusCode.ERROR, "set aside")
            elif event.lag is not None:
                span.set_attribute(f"{_PREFIX}stream.lag_seconds", event.lag)
            span.end(_nano(event.at))

    def entering(self, place: Place) -> None:
        """Makes the span of an attempt the current one. In the thread of the call."""
        run = self._runs.get(place.run_id)
        span = None if run is None else run.attempt(place)
        if span is not None:
            contexts.attach(trace.set_span_in_context(span))


class _Step:
    """
    A step that has begun.

    Attributes:
        span: Its span.
        context: The context of its attempts.
        attempts: Element -> the number of the attempt that is under way, and its span.
    """

    def __init__(self, span: trace.Span, around: contexts.Context) -> None:
        self.span = span
        self.context = trace.set_span_in_context(span, around)
        self.attempts: dict[int | None, tuple[int, trace.Span]] = {}


class _Run:
    """The spans of a run. Attempts begin in any thread, all else happens on the loop's."""

    def __init__(self, started: RunStarted, tracer: trace.Tracer, batch: trace.Span | None = None) -> None:
        self._started = started
        self._tracer = tracer
        self._lock = threading.Lock()
        self._steps: dict[str, _Step | None] = {}
        self._redaction = Redaction(started)
        about: Attributes = {f"{_PREFIX}run.id": in_utf8(started.run_id), f"{_PREFIX}run.steps": len(started.steps)}
        around = None if batch is None else trace.set_span_in_context(batch)
        self._span = tracer.start_span("run", around, start_time=_nano(started.at), attributes=about)
        self._context = trace.set_span_in_context(self._span)

    def attempt(self, place: Place) -> trace.Span | None:
        """The span of an attempt that begins now; `None` if its step has ended."""
        with self._lock:
            step = self._step(place.step)
            if step is None:
                return None
            number, span = step.attempts.get(place.element, (0, self._span))
            if number != place.attempt:
                step_name = in_utf8(place.step)
                about: Attributes = {f"{_PREFIX}step.name": step_name, f"{_PREFIX}attempt.number": place.attempt}
                if place.element is not None:
                    about[f"{_PREFIX}element"] = place.element
                span = self._tracer.start_span("attempt", context=step.context, attributes=about)
                step.attempts[place.element] = (place.attempt, span)
            return span

    def hear(self, event: StepEvent) -> None:
        with self._lock:
            step = self._step(event.step, event.at)
            if step is None:
                return
            match event:
                case StepRetrying():
                    self._end_attempt(step, event.element, event.at, event.error)
                case StepProgressed():
                    self._end_attempt(step, event.element, event.at)
                case StepFinished():
                    self._end_step(step, event.result, event.at)
                case CacheMissed() | CacheBypassed() | CacheDamaged():
                    about: Attributes = {"reason": self._redaction(event.reason)}
                    step.span.add_event(type(event).__name__, about, _nano(event.at))
                case LoopBlocked():
                    file = in_utf8(event.file)
                    about = {
                        "seconds": event.seconds,
                        "code.file.path": file,
                        "code.line.number": event.line,
                    }
                    step.span.add_event("LoopBlocked", about, _nano(event.at))
                case StepAbandoned():
                    step.span.add_event("StepAbandoned", timestamp=_nano(event.at))

    def end(self, event: RunFinished) -> None:
        result = event.result
        self._span.set_attribute(f"{_PREFIX}run.status", str(event.status))
        if event.status is Status.FAILED:
            failed = ", ".join(result.failures) or "it ran out of time, or could not begin"
            self._span.set_status(trace.StatusCode.ERROR, self._redaction.line(f"failed: {failed}"))
        self._span.end(_nano(event.at))

    def _step(self, name: str, at: float | None = None) -> _Step | None:
        """A step, with a span that begins now if it has none yet; `None` if it has ended."""
        if name not in self._steps:
            shown, layer = in_utf8(name), in_utf8(self._started.graph[name].layer)
            about: Attributes = {f"{_PREFIX}step.name": shown, f"{_PREFIX}step.layer": layer}
            begin = None if at is None else _nano(at)
            span = self._tracer.start_span(f"step {shown}", self._context, attributes=about, start_time=begin)
            self._steps[name] = _Step(span, self._context)
        return self._steps[name]

    def _end_attempt(self, step: _Step, element: int | None, at: float, error: BaseException | None = None) -> None:
        _, span = step.attempts.pop(element, (0, None))
        if span is not None:
            self._note(span, error, at)
            span.end(_nano(at))

    def _end_step(self, step: _Step, record: StepResult, at: float) -> None:
        for element in list(step.attempts):
            is_it = element == record.element or element is None
            self._end_attempt(step, element, at, record.error if is_it else None)
        step.span.set_attributes(_about(record, self._redaction))
        self._note(step.span, record.error, at)
        step.span.end(_nano(at))
        self._steps[record.name] = None

    def _note(self, span: trace.Span, error: BaseException | None, at: float) -> None:
        """Notes an error on a span, as OpenTelemetry's conventions say; its text is masked."""
        if error is None:
            return
        kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        about: Attributes = {
            "exception.type": kind,
            "exception.message": self._redaction(text_of(error)),
            "exception.stacktrace": in_utf8(_stack(error)),
        }
        span.add_event("exception", about, _nano(at))
        span.set_attribute("error.type", kind)
        span.set_status(trace.StatusCode.ERROR, self._redaction.error(error))


def _about(record: StepResult, redaction: Redaction) -> Attributes:
    """What is known of a step that has ended."""
    found: Mapping[str, Any] = {
        "step.status": str(record.status),
        "step.attempts": record.attempts,
        "step.queue_seconds": record.queue_seconds,
        "step.rows": record.rows,
        "step.skipped_because": record.skipped_because and in_utf8(record.skipped_because),
        "cache.hit": None if record.cache is None else record.cache.hit,
        "cache.reason": None if record.cache is None else redaction(record.cache.reason) or None,
        "cache.key": None if record.cache is None else record.cache.key,
    }
    return {_PREFIX + name: value for name, value in found.items() if value is not None}


def _stack(error: BaseException) -> str:
    """The frames of an error, the innermost last; no lines of code, which would have to be read from files."""
    frames = traceback.walk_tb(error.__traceback__)
    return "".join(f'  File "{f.f_code.co_filename}", line {line}, in {f.f_code.co_name}\n' for f, line in frames)


def _nano(at: float) -> int:
    return int(at * _NANO)
