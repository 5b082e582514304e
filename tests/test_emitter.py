"""The event emitter: who asked for an event hears it, whatever the others do."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from odibi_async import EventEmitter, Orchestrator, RunError, step
from odibi_async.errors import OptionError

NAMES = ("pipeline_start", "pipeline_complete", "pipeline_error", "step_start", "step_complete", "step_error")


def listening() -> tuple[EventEmitter, list[tuple[str, dict[str, Any]]]]:
    events, heard = EventEmitter(), list[tuple[str, dict[str, Any]]]()
    for name in NAMES:
        events.on(name, lambda name=name, **data: heard.append((name, data)))
    return events, heard


@pytest.mark.parametrize("parallel", [True, False])
def test_a_run_emits_its_events_with_their_data(parallel: bool):
    events, heard = listening()
    one, two = step(lambda: 1, name="one"), step(lambda one: one + 1, name="two")
    Orchestrator([two, one], None, None, events, parallel).run()
    assert [name for name, _ in heard] == [
        "pipeline_start",
        "step_start",
        "step_complete",
        "step_start",
        "step_complete",
        "pipeline_complete",
    ]
    assert heard[0][1] == {"steps": [two, one]}
    assert [data["step"] for _, data in heard[1:-1]] == [one, one, two, two]
    assert heard[2][1].keys() == {"step", "duration_ms"}
    assert 0 < heard[2][1]["duration_ms"] < 5_000
    assert heard[-1][1] == {"data_map": {"one": 1, "two": 2}}


def test_a_failed_run_emits_the_error_of_the_step_and_that_of_the_run():
    events, heard = listening()
    bad = step(lambda: 1 / 0, name="bad")
    with pytest.raises(RunError) as caught:
        Orchestrator([bad, step(lambda bad: bad, name="skipped")], None, None, events).run()
    assert [name for name, _ in heard] == ["pipeline_start", "step_start", "step_error", "pipeline_error"]
    assert heard[2][1]["step"] is bad
    assert isinstance(heard[2][1]["error"], ZeroDivisionError)
    assert heard[3][1] == {"error": caught.value}


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_a_listener_that_raises_is_logged_and_nobody_else_is_disturbed(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
):
    events, _ = listening()
    calls, heard = [], []

    def broken(**_: Any) -> None:
        calls.append(1)
        raise error("a bad listener")

    for name in NAMES:
        events.on(name, broken)
        events.on(name, lambda name=name, **_: heard.append(name))
    with caplog.at_level(logging.ERROR):
        result = Orchestrator([step(lambda: 1, name="a")], None, None, events).run()
    assert result.run.ok
    assert heard == ["pipeline_start", "step_start", "step_complete", "pipeline_complete"]
    assert len(calls) == 4
    assert len(caplog.records) == 4
    assert "of the event 'step_start' raised" in caplog.text
    assert "a bad listener" in caplog.text


def test_clear_forgets_one_event_or_all():
    events, heard = listening()
    events.clear("step_start")
    events.emit("step_start", step="s")
    events.emit("step_complete", step="s", duration_ms=1.0)
    assert heard == [("step_complete", {"step": "s", "duration_ms": 1.0})]
    events.clear()
    events.emit("step_complete", step="s", duration_ms=1.0)
    events.clear("never asked for")
    assert len(heard) == 1


def test_listeners_hear_in_the_order_of_asking_and_may_ask_meanwhile():
    events, heard = EventEmitter(), []

    def first(**_: Any) -> None:
        heard.append("first")
        events.on("mine", lambda **_: heard.append("later"))

    events.on("mine", first)
    events.on("mine", lambda **_: heard.append("second"))
    events.emit("mine")
    assert heard == ["first", "second"]
    events.clear("mine")
    events.emit("unheard", of="it")
    assert heard == ["first", "second"]


def test_what_cannot_listen_is_refused():
    async def later(**_: Any) -> None: ...

    for callback in (None, later):
        with pytest.raises(OptionError, match="'step_start'"):
            EventEmitter().on("step_start", callback)  # type: ignore[arg-type]


def test_listeners_are_called_in_the_thread_of_the_caller_where_no_loop_runs():
    threads, events = set(), EventEmitter()
    for name in NAMES:
        events.on(name, lambda **_: threads.add(threading.get_ident()))
    Orchestrator([step(lambda: 1, name="a")], None, None, events).run()
    assert threads == {threading.get_ident()}
