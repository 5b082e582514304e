"""Runs as spans of OpenTelemetry, with the SDK's exporter in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from odibi_async import Limits, Retry, RunError, Runner, Secret, resource, run_pipeline, step
from odibi_async.events import Event
from odibi_async.observers.otel import OpenTelemetry


class Spans:
    """What was traced."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("tests")
        self.observer = OpenTelemetry(self.tracer)

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def attempts(self, of: str) -> list[ReadableSpan]:
        return [span for span in self.named("attempt") if (span.attributes or {})["odibi_async.step.name"] == of]

    def parent(self, span: ReadableSpan) -> str | None:
        if span.parent is None:
            return None
        return next(each.name for each in self.all if each.context.span_id == span.parent.span_id)


@pytest.fixture
def spans() -> Spans:
    return Spans()


def about(span: ReadableSpan, *names: str) -> tuple[Any, ...]:
    return tuple((span.attributes or {}).get(f"odibi_async.{name}") for name in names)


async def test_a_run_is_a_span_in_that_of_its_caller_with_one_a_step_and_one_an_attempt(spans: Spans):
    async def frame() -> pd.DataFrame:
        return pd.DataFrame({"a": [1, 2]})

    def rows(frame: pd.DataFrame) -> int:
        return len(frame)

    with spans.tracer.start_as_current_span("request"):
        result = await run_pipeline([frame, rows], observers=[spans.observer])
    tree = {(span.name, spans.parent(span)) for span in spans.all}
    assert tree == {
        ("request", None),
        ("run", "request"),
        ("step frame", "run"),
        ("step rows", "run"),
        ("attempt", "step frame"),
        ("attempt", "step rows"),
    }
    assert len({span.context.trace_id for span in spans.all}) == 1
    [run], [first], [attempt] = spans.named("run"), spans.named("step frame"), spans.attempts("frame")
    assert about(run, "run.id", "run.steps", "run.status") == (result.run_id, 2, "succeeded")
    assert about(first, "step.name", "step.layer", "step.status", "step.attempts", "step.rows") == (
        "frame",
        "transform",
        "succeeded",
        1,
        2,
    )
    assert about(attempt, "attempt.number") == (1,)
    assert all(span.status.status_code is trace.StatusCode.UNSET for span in spans.all)
    for outer, inner in ((run, first), (first, attempt)):
        assert outer.start_time is not None
        assert outer.end_time is not None
        assert inner.start_time is not None
        assert inner.end_time is not None
        assert outer.start_time - 2_000_000 <= inner.start_time <= inner.end_time <= outer.end_time + 2_000_000


async def test_the_span_of_the_caller_is_found_in_the_background_too(spans: Spans):
    async with Runner(observers=[spans.observer]) as runner:
        with spans.tracer.start_as_current_span("request"):
            run = await runner.start([step(lambda: 1, name="s")])
        await run.result()
    assert spans.parent(spans.named("run")[0]) == "request"


@pytest.mark.parametrize("limits", [None, Limits(concurrency=3)])
async def test_what_a_step_traces_itself_is_in_its_attempt(spans: Spans, limits: Limits | None):
    def traced(name: str) -> int:
        with spans.tracer.start_as_current_span(f"in {name}"):
            return 1

    async def plain() -> int:
        return await asyncio.create_task(deeper())

    async def deeper() -> int:
        return traced("plain")

    def blocking() -> int:
        return traced("blocking")

    def mapped(n: int) -> int:
        return traced(f"mapped {n}")

    @resource
    async def opened() -> AsyncIterator[int]:
        yield traced("opened")

    @resource
    def entered() -> Iterator[int]:
        yield traced("entered")

    def reader(opened: int, entered: int) -> int:
        return traced("reader")

    steps = [plain, blocking, step(blocking, name="limited", timeout=9), step(mapped, map_over="n")]
    await run_pipeline([*steps, opened, entered, reader], {"n": [0, 1]}, observers=[spans.observer], limits=limits)
    inner = [span for span in spans.all if span.name.startswith("in ")]
    assert len(inner) == 8
    for span in inner:
        assert spans.parent(span) == "attempt"
    parents = {span.name: span.parent.span_id for span in inner if span.parent}
    for name in ("plain", "opened", "entered", "reader"):
        [attempt] = spans.attempts(name)
        assert attempt.context.span_id == parents[f"in {name}"]
    elements = {about(span, "element")[0]: span.context.span_id for span in spans.attempts("mapped")}
    assert elements == {0: parents["in mapped 0"], 1: parents["in mapped 1"]}
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("is_async", [True, False])
async def test_each_attempt_has_a_span_with_its_own_error(spans: Spans, is_async: bool):
    calls = []

    def blocking() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(f"attempt {len(calls)}")
        return 1

    async def coroutine() -> int:
        return blocking()

    retry = Retry(attempts=3, wait=0.0, jitter=False)
    flaky = step(coroutine if is_async else blocking, name="flaky", retry=retry)
    await run_pipeline([flaky], observers=[spans.observer])
    attempts = spans.attempts("flaky")
    assert [about(span, "attempt.number")[0] for span in attempts] == [1, 2, 3]
    assert [span.status.description for span in attempts] == ["OSError: attempt 1", "OSError: attempt 2", None]
    [ended] = spans.named("step flaky")
    assert ended.status.status_code is trace.StatusCode.UNSET
    assert about(ended, "step.attempts") == (3,)


async def test_errors_are_noted_as_the_conventions_say(spans: Spans):
    def fails() -> None:
        raise ValueError("no luck")

    steps = [fails, step(lambda fails: 1, name="skipped")]
    await run_pipeline(steps, observers=[spans.observer], on_error="continue")
    [run], [failed], [skipped], [attempt] = (
        spans.named("run"),
        spans.named("step fails"),
        spans.named("step skipped"),
        spans.attempts("fails"),
    )
    for span in (failed, attempt):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description == "ValueError: no luck"
        assert (span.attributes or {})["error.type"] == "ValueError"
        [event] = span.events
        assert event.name == "exception"
        noted = dict(event.attributes or {})
        assert (noted["exception.type"], noted["exception.message"]) == ("ValueError", "no luck")
        assert f'File "{__file__}"' in str(noted["exception.stacktrace"])
    assert (run.status.status_code, run.status.description) == (trace.StatusCode.ERROR, "failed: fails")
    assert about(skipped, "step.status", "step.skipped_because") == ("skipped", "fails")
    assert spans.attempts("skipped") == []


async def test_a_cached_step_has_a_span_without_attempts(spans: Spans, tmp_path: Path):
    def clean(n: int) -> int:
        return n

    for n in (1, 1, 2):
        await run_pipeline([clean], {"n": n}, observers=[spans.observer], cache=tmp_path / "cache")
    first, hit, miss = spans.named("step clean")
    assert about(first, "step.status", "cache.hit", "cache.reason") == ("succeeded", False, "new step")
    assert about(hit, "step.status", "cache.hit", "cache.reason") == ("cached", True, None)
    assert about(miss, "cache.reason") == ("the input 'n' changed",)
    assert "CacheMissed" in [event.name for event in miss.events]
    assert len(spans.attempts("clean")) == 2


async def test_a_cancelled_run_leaves_no_span_open(spans: Spans):
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with Runner(observers=[spans.observer]) as runner:
        run = await runner.start([hangs, step(lambda hangs: 1, name="after")])
        await begun.wait()
        await run.cancel()
    assert about(spans.named("run")[0], "run.status") == ("cancelled",)
    assert about(spans.named("step hangs")[0], "step.status") == ("cancelled",)
    assert len(spans.attempts("hangs")) == 1
    assert spans.observer._runs == {}


@pytest.mark.foreign_loop
async def test_a_held_loop_is_an_event_of_the_step(spans: Spans):
    import time

    async def freezes() -> None:
        time.sleep(0.4)

    await run_pipeline([freezes], observers=[spans.observer])
    [event] = spans.named("step freezes")[0].events
    assert event.name == "LoopBlocked"
    assert dict(event.attributes or {})["code.file.path"] == __file__


async def test_secrets_do_not_come_into_a_span(spans: Spans):
    def fails(key: Secret, token: Secret) -> None:
        raise OSError(f"401 for {key.reveal()} and {token.reveal()} at https://me:other@host")

    retry = Retry(attempts=2, wait=0.0, jitter=False)
    with pytest.raises(RunError):
        await run_pipeline(
            [step(fails, params={"key": Secret("s3cret")}, retry=retry)],
            {"token": Secret("hunter2")},
            observers=[spans.observer],
        )
    text = "".join(span.to_json() for span in spans.all)
    assert text.count("401 for **********") >= 6
    assert not any(secret in text for secret in ("s3cret", "hunter2", "other@"))


async def test_it_ignores_runs_whose_beginning_it_missed(spans: Spans):
    missed: list[Event] = []
    await run_pipeline([step(lambda: 1, name="s")], observers=[missed.append])
    spans.observer(missed[1])
    assert spans.all == ()


def test_without_the_library_it_says_what_to_install():
    script = "import sys; sys.modules['opentelemetry'] = None; import odibi_async.observers.otel"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "needs a library that is not installed: pip install 'odibi_async[otel]'" in done.stderr


async def test_every_text_of_a_span_can_be_sent(spans: Spans):
    def fails(a: int) -> None:
        raise FileNotFoundError("/data/\udcff")

    odd = "a\udc80"
    steps = [
        step(lambda: 1, name=odd, layer=odd),
        step(fails, inputs={"a": odd}, name=f"fails {odd}"),
        step(lambda b: b, name=f"skipped {odd}", inputs={"b": f"fails {odd}"}),
    ]
    await run_pipeline(steps, observers=[spans.observer], on_error="continue", run_id=odd)
    assert len(spans.all) == 6
    for span in spans.all:
        events = [value for event in span.events for value in (event.attributes or {}).values()]
        for text in (span.name, span.status.description, *(span.attributes or {}).values(), *events):
            assert str(text).encode()
