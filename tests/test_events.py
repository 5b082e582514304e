"""Events: what observers hear, and in which order."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import random
import threading
from datetime import timezone
from typing import Any

import pytest

from odibi_async import Pipeline, Secret, Status, Step, StepResult, run_pipeline, step
from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepOutline, StepStarted
from odibi_async.quick import quick
from odibi_async.testing import Recorder


async def test_a_run_tells_all_that_happens(heard: Recorder):
    async def a() -> int:
        return 1

    def b(a: int) -> int:
        return a

    result = await run_pipeline([b, a], observers=[heard])
    assert heard.story == [
        "RunStarted",
        "StepStarted a",
        "StepFinished a",
        "StepStarted b",
        "StepFinished b",
        "RunFinished",
    ]
    assert [event.seq for event in heard] == list(range(6))
    assert {event.run_id for event in heard} == {result.run_id}
    assert all(event.time.tzinfo is timezone.utc for event in heard)
    started, finished = heard[0], heard[-1]
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    assert started.steps == ("a", "b")
    assert (finished.status, finished.result) == (Status.SUCCEEDED, result)
    [first, _] = heard.of(StepFinished)
    assert first.result is result.steps["a"]
    assert first.result.started_at == heard.of(StepStarted)[0].time


async def test_events_come_on_the_loops_thread_in_an_order_that_makes_sense(heard: Recorder):
    threads = set()
    draw = random.Random(3)

    async def on_loop(**_: Any) -> None: ...

    def in_thread(**_: Any) -> None: ...

    steps = []
    for i in range(300):
        reads = draw.sample(range(i), min(i, 3))
        fn: Any = draw.choice([on_loop, in_thread])
        steps.append(step(fn, name=f"n{i}", inputs={f"x{r}": f"n{r}" for r in reads}))
    await run_pipeline(steps, observers=[heard, lambda event: threads.add(threading.get_ident())])
    assert threads == {threading.get_ident()}
    assert [event.seq for event in heard] == list(range(602))
    place = {text: seq for seq, text in enumerate(heard.story)}
    assert len(place) == 602
    for each in steps:
        assert place[f"StepStarted {each.name}"] < place[f"StepFinished {each.name}"]
        for dataset in each.inputs.values():
            assert place[f"StepFinished {dataset}"] < place[f"StepStarted {each.name}"]


async def test_skipped_steps_are_told_of_too(heard: Recorder):
    await run_pipeline([step(lambda: 1, name="s", when=lambda: False)], observers=[heard])
    assert heard.story == ["RunStarted", "StepFinished s", "RunFinished"]
    assert heard.of(StepFinished)[0].status is Status.SKIPPED


async def test_an_observer_that_raises_is_logged_and_dropped(heard: Recorder, caplog: pytest.LogCaptureFixture):
    calls = []

    def broken(event: Event) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise RuntimeError("a bad listener")

    with caplog.at_level(logging.ERROR):
        result = await run_pipeline([step(lambda: 1, name="s")], observers=[broken, heard])
    assert result.ok
    assert len(calls) == 2
    assert len(heard) == 4
    assert "is dropped from run" in caplog.text
    assert "a bad listener" in caplog.text


async def test_events_are_frozen_and_pickle(heard: Recorder):
    await run_pipeline([step(lambda: 1, name="s")], observers=[heard])
    for event in heard:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.seq = 1  # type: ignore[misc]
        assert repr(pickle.loads(pickle.dumps(event))) == repr(event)
    assert pickle.loads(pickle.dumps(heard[0])).graph == heard[0].graph


def test_what_is_made_quickly_is_the_same_as_what_is_made_slowly():
    fields = ("a", Status.SUCCEEDED, 1, 0.5, 0.25, None, None, None, 3, None, None, None)
    made = quick(StepResult)(*fields)
    assert made == StepResult(*fields)
    assert type(made) is StepResult
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.rows = 4


async def test_the_start_of_a_run_tells_what_its_graph_is_without_its_engines(heard: Recorder):
    def b(a: int, given: int, key: Secret) -> int:
        return a

    steps = [
        step(lambda: 1, name="a", layer="ingest", outputs=("a", "rest")),
        step(b, params={"key": Secret("hunter2")}, after=("c",)),
        Step("transform", "c", "sql", "pandas", "SELECT 1 AS n"),
    ]
    pipeline = Pipeline(steps, inputs=("given",))
    for _ in range(2):
        await pipeline.run({"given": 1}, targets=["c"], observers=[heard])
    first, second = heard.of(RunStarted)
    assert first.steps == ("c",)
    assert first.graph is second.graph
    assert first.graph == {
        "a": StepOutline(layer="ingest", upstream=(), reads=(), makes=("a", "rest")),
        "b": StepOutline(
            layer="transform",
            upstream=("a", "c"),
            reads=("a", "given"),
            makes=("b",),
            secrets=(Secret("hunter2"),),
        ),
        "c": StepOutline(layer="transform", upstream=(), reads=(), makes=("c",)),
    }
    assert "hunter2" not in repr(first.graph["b"])
