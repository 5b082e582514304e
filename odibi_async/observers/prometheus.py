"""Runs and steps as metrics of Prometheus."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Final, TypeVar

from odibi_async.errors import ExtraMissing, OptionError
from odibi_async.events import (
    BatchFinished,
    BatchRetrying,
    BatchSetAside,
    Event,
    LoopBlocked,
    RowsLate,
    RunFinished,
    RunStarted,
    StepFinished,
    StepRetrying,
    StreamEvent,
    StreamLagged,
)
from odibi_async.observers.redaction import in_utf8
from odibi_async.result import StepResult

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:
    raise ExtraMissing("Metrics for Prometheus", "prometheus") from error

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Seconds."""
_PREFIX: Final = "odibi_async_"
M = TypeVar("M", Counter, Histogram)


class Prometheus:
    """
    An observer that counts: `Runner(observers=[Prometheus()])`.

    Several of them that share a registry add to the same metrics.

    Args:
        registry: Where the metrics are registered; `None` for the library's own registry.
        per_step: Whether metrics of steps have the label `step`: a time series for each name of a step.

    Raises:
        OptionError: The registry has the metrics already, with another `per_step`.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, per_step: bool = False) -> None:
        registry = REGISTRY if registry is None else registry
        metrics = _made.get(registry) or _made.setdefault(registry, _Metrics(registry, per_step))
        if metrics.per_step is not per_step:
            raise OptionError(f"per_step={per_step}: this registry has metrics already that were made with another.")
        self._metrics = metrics
        self._running: set[str] = set()

    def __call__(self, event: Event) -> None:
        metrics = self._metrics
        match event:
            case RunStarted():
                self._running.add(event.run_id)
                metrics.running.inc()
            case StepRetrying():
                _at(metrics.retries, *metrics.labels(event.step)).inc()
            case LoopBlocked():
                _at(metrics.blocked, *metrics.labels(event.step)).inc(event.seconds)
            case StepFinished():
                metrics.end(event.result)
            case RunFinished():
                if event.run_id in self._running:
                    self._running.remove(event.run_id)
                    metrics.running.dec()
                metrics.runs.labels(str(event.status)).inc()
                metrics.run_seconds.observe(event.result.seconds)
            case StreamEvent():
                metrics.streams.hear(event)


class _Metrics:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry, per_step: bool) -> None:
        self.per_step = per_step
        by_step = self.labels("step")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=registry)

        self.running = Gauge(f"{_PREFIX}runs_running", "Runs that are going on", registry=registry)
        self.runs = counter("runs", "Runs that have ended", "status")
        self.run_seconds = Histogram(f"{_PREFIX}run_seconds", "How long runs took", registry=registry, buckets=BUCKETS)
        self.steps = counter("steps", "Steps that have ended", *by_step, "status")
        self.step_seconds = Histogram(
            f"{_PREFIX}step_seconds",
            "How long steps took that were called, waits between attempts included",
            by_step,
            registry=registry,
            buckets=BUCKETS,
        )
        self.queue_seconds = counter("step_queue_seconds", "How long steps that were ready waited", *by_step)
        self.retries = counter("step_retries", "Attempts that failed and were followed by another", *by_step)
        self.hits = counter("cache_hits", "Steps that came from the cache", *by_step)
        self.misses = counter("cache_misses", "Steps that the cache was asked for in vain", *by_step)
        self.blocked = counter("loop_blocked_seconds", "How long async steps held the event loop", *by_step)
        self.streams = _StreamMetrics(registry)

    def labels(self, step: str) -> Sequence[str]:
        """What tells the metrics of a step from those of others."""
        return (in_utf8(step),) if self.per_step else ()

    def end(self, record: StepResult) -> None:
        """Counts a step that has ended."""
        step = self.labels(record.name)
        self.steps.labels(*step, str(record.status)).inc()
        if record.at is not None:
            _at(self.step_seconds, *step).observe(record.run_seconds)
            _at(self.queue_seconds, *step).inc(max(0.0, record.queue_seconds))
        if record.cache is not None:
            _at(self.hits if record.cache.hit else self.misses, *step).inc()


class _StreamMetrics:
    """The metrics of streams in one registry, each with the label `stream`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}stream_{name}", text, ("stream", *labels), registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{_PREFIX}stream_{name}", text, ("stream",), registry=registry)

        self.batches = counter("batches", "Batches that were committed or set aside", "status")
        self.rows = counter("rows", "Rows of batches that were committed")
        self.retries = counter("batch_retries", "Attempts of batches that failed and were followed by another")
        self.late = counter("late_rows", "Rows that came later than the source's bound allows")
        self.failures = counter("source_failures", "How often a source could not be read")
        self.seconds = Histogram(
            f"{_PREFIX}stream_batch_seconds",
            "How long batches took, waits between attempts included",
            ("stream",),
            registry=registry,
            buckets=BUCKETS,
        )
        self.lag = gauge("lag_seconds", "From the watermark to the moment when that was looked at")
        self.watermark = gauge("watermark_seconds", "The watermark, where it is a time: seconds since the epoch")
        self.pending = gauge("pending", "How much more the source knew of: files, events")
        self.rate = gauge("rate", "Rows a second, over the last batches")

    def hear(self, event: StreamEvent) -> None:
        """Counts what happened to a stream."""
        stream = in_utf8(event.stream)
        match event:
            case BatchFinished():
                self.batches.labels(stream, "succeeded").inc()
                self.rows.labels(stream).inc(event.rows or 0)
                self.seconds.labels(stream).observe(event.seconds)
                self.rate.labels(stream).set(event.rate)
                if event.pending is not None:
                    self.pending.labels(stream).set(event.pending)
                self._lag(stream, event.at, event.lag)
            case BatchSetAside():
                self.batches.labels(stream, "set aside").inc()
            case BatchRetrying():
                self.retries.labels(stream).inc()
            case RowsLate():
                self.late.labels(stream).inc(event.rows)
            case StreamLagged():
                if event.error is not None:
                    self.failures.labels(stream).inc()
                self._lag(stream, event.at, event.lag)

    def _lag(self, stream: str, at: float, lag: float | None) -> None:
        if lag is not None:
            self.lag.labels(stream).set(lag)
            self.watermark.labels(stream).set(at - lag)


def _at(metric: M, *labels: str) -> M:
    """A metric for some labels; the library refuses to be asked for none."""
    return metric.labels(*labels) if labels else metric


_made: Final[weakref.WeakKeyDictionary[CollectorRegistry, _Metrics]] = weakref.WeakKeyDictionary()
"""The metrics that each registry has already, since it takes each name once."""
