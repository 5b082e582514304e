"""What observers make of streams."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from odibi_async import Tracker
from odibi_async.abc import Observer
from odibi_async.errors import BatchFailed, SourceFailed
from odibi_async.observers.logs import JsonFormatter, Logs
from odibi_async.observers.openlineage import OpenLineage
from odibi_async.observers.otel import OpenTelemetry
from odibi_async.observers.progress import Progress
from odibi_async.observers.prometheus import Prometheus
from odibi_async.stream import Batch, Late, Memory, Stream, run_stream

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)


class Source:
    """A batch that succeeds, one that fails once, one that always does, and late rows; it fails once itself."""

    def __init__(self) -> None:
        self.trouble = [ConnectionError("postgresql://me:hunter2@db is down")]

    async def open(self) -> None: ...

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
        if self.trouble:
            raise self.trouble.pop()
        done = int(position or 0)
        for number in range(done + 1, 4):
            data = ["fine", "flaky", "bad"][number - 1]
            yield Batch(data=[data] * number, position=str(number), label=data, watermark=NOON, pending=3 - number)
        if done < 4:
            yield Late(rows=5, before=7, position="4")

    async def changed(self) -> bool:
        return False

    async def close(self) -> None: ...


def stream(folder: Path, *observers: Observer, **options: object) -> Stream:
    calls = []

    async def work(batch: list[str]) -> None:
        calls.append(batch)
        if batch[0] == "bad" or (batch[0] == "flaky" and calls.count(batch) == 1):
            raise ValueError("odd")

    about = {"wait": 0.001, "attempts": 2, "name": "orders", "now": lambda: NOON.timestamp() + 60, **options}
    return run_stream([work], Source(), into="batch", journal=folder, observers=observers, **about)


async def test_lag_rate_and_watermark_are_metrics(tmp_path: Path):
    registry = CollectorRegistry()
    await stream(tmp_path, Prometheus(registry))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"odibi_async_stream_{name}", {"stream": "orders", **labels})

    assert value("batches_total", status="succeeded") == 2
    assert value("batches_total", status="set aside") == 1
    assert value("rows_total") == 3
    assert value("batch_retries_total") == 2
    assert value("late_rows_total") == 5
    assert value("source_failures_total") == 1
    assert value("lag_seconds") == 60
    assert value("watermark_seconds") == NOON.timestamp()
    assert value("pending") == 1
    assert (value("rate") or 0) > 0
    assert value("batch_seconds_count") == 2


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> OpenTelemetry:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetry(provider.get_tracer("tests"))


async def test_a_batch_is_a_span_around_its_runs(tmp_path: Path, exporter: InMemorySpanExporter, traces: OpenTelemetry):
    await stream(tmp_path, traces)
    spans = exporter.get_finished_spans()
    batches = {str((each.attributes or {})["odibi_async.batch.name"]): each for each in spans if each.name == "batch"}
    assert list(batches) == ["fine", "flaky", "bad"]
    runs = [each.parent.span_id for each in spans if each.name == "run" and each.parent is not None]
    counts = {name: runs.count(each.context.span_id) for name, each in batches.items()}
    assert counts == {"fine": 1, "flaky": 2, "bad": 2}
    assert (batches["flaky"].attributes or {})["odibi_async.batch.attempts"] == 2
    assert (batches["fine"].attributes or {})["odibi_async.stream.lag_seconds"] == 60
    assert not batches["bad"].status.is_ok
    assert [event.name for event in batches["flaky"].events] == ["BatchRetrying"]


async def test_the_span_of_a_batch_that_was_cut_short_ends_with_its_stream(
    tmp_path: Path, exporter: InMemorySpanExporter, traces: OpenTelemetry
):
    with pytest.raises(BatchFailed):
        await stream(tmp_path, traces, on_poison="stop")
    assert len([each for each in exporter.get_finished_spans() if each.name == "batch"]) == 3


async def test_logs_tell_of_batches_without_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    await stream(tmp_path, Logs())
    lines = [record.getMessage() for record in caplog.records if "stream orders" in record.getMessage()]
    texts = [line.split(" after")[0].split(", again")[0] for line in lines]
    assert texts == [
        "stream orders: the source cannot be read",
        "stream orders: fine committed",
        "stream orders: flaky failed (attempt 1)",
        "stream orders: flaky committed",
        "stream orders: bad failed (attempt 1)",
        "stream orders: bad is set aside",
        "stream orders: 5 rows came too late",
        "stream orders: succeeded",
    ]
    assert "hunter2" not in caplog.text
    assert "1 rows" in lines[1]
    assert lines[1].endswith(" behind")
    for record in caplog.records:
        assert "time" in json.loads(JsonFormatter().format(record))


async def test_what_a_stream_failed_with_holds_no_passwords(tmp_path: Path):
    with pytest.raises(SourceFailed) as raised:
        await stream(tmp_path, attempts=1)
    assert "hunter2" not in str(raised.value)


async def test_no_observer_minds_a_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    heard: list[object] = []
    others = [Tracker(), Progress(), OpenLineage(heard.append, job="shop")]
    await stream(tmp_path, *others)
    assert "raised and is dropped" not in caplog.text
    assert heard
    await asyncio.sleep(0)
