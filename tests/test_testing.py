"""What is shipped for the tests of others: recorder, failpoints, virtual clock, the pytest fixture."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from odibi_async import Limits, Pipeline, Retry, RunError, Status, check_cancelled, resource, run_pipeline, step
from odibi_async.errors import DeadlineError, GraphError, OptionError
from odibi_async.events import RunFinished, RunStarted, StepEvent, StepFinished, StepRetrying, StepStarted
from odibi_async.testing import Recorder, VirtualLoop, failing, hanging, impatient, rehearse, slowed, virtual_clock

ROOT = Path(__file__).parent.parent
DOWN = OSError("down")


async def on_loop(x: int = 1) -> int:
    """Runs on the loop."""
    return x


def in_thread(x: int = 1) -> int:
    return x


class Callable_:
    unrelated: str

    def __call__(self, x: int = 1) -> int:
        return x


@resource
async def opened_on_loop(x: int = 1) -> AsyncIterator[int]:
    yield x


@resource
def opened_in_thread(x: int = 1) -> Iterator[int]:
    yield x


@resource
@contextlib.contextmanager
def given_a_manager(x: int = 1) -> Iterator[int]:
    yield x


KINDS = [
    step(on_loop, name="s"),
    step(in_thread, name="s"),
    step(in_thread, name="s", run_on="loop"),
    step(partial(on_loop, x=3), name="s"),
    step(Callable_(), name="s"),
    step(int, name="s"),
    resource(opened_on_loop.value, name="s"),
    resource(opened_in_thread.value, name="s"),
    resource(given_a_manager.value, name="s"),
]
IDS = ["async", "thread", "blocking-on-loop", "partial", "object", "class", "async-resource", "resource", "manager"]


# -- the recorder ------------------------------------------------------------------------------------------


async def test_a_recorder_waits_for_an_event():
    recorder, release = Recorder(), asyncio.Event()

    async def first() -> None:
        await release.wait()

    def second(first: None) -> None: ...

    run = asyncio.create_task(run_pipeline([first, second], observers=[recorder]))
    started = await recorder.wait_for(StepStarted, step="first")
    assert recorder.story == ["RunStarted", "StepStarted first"]
    assert await recorder.wait_for(StepStarted) is started  # it is there already
    release.set()
    finished = await recorder.wait_for(StepFinished, step="second")
    assert finished.status is Status.SUCCEEDED
    await run
    assert [event.step for event in recorder.of(StepEvent)] == ["first", "first", "second", "second"]
    assert recorder.of(StepEvent, step="second") == recorder[3:5]


@pytest.mark.parametrize("late", [False, True])
async def test_a_recorder_says_so_when_the_event_can_come_no_more(late: bool):
    recorder = Recorder()
    run = asyncio.create_task(run_pipeline([on_loop], observers=[recorder]))
    if late:
        await run
    with pytest.raises(LookupError, match=r"without StepRetrying, step='on_loop'\. It told: RunStarted, StepStarted "):
        await recorder.wait_for(StepRetrying, step="on_loop")
    await run


async def test_who_stops_waiting_is_forgotten():
    recorder = Recorder()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(recorder.wait_for(RunFinished), 0.001)
    assert not recorder._news


# -- failpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
async def test_a_step_of_any_kind_fails_so_many_times_and_then_works(kind: Any):
    reader = step(lambda s: s, name="reader", run_on="loop")
    pipeline = failing(Pipeline([kind, reader]), {"s": DOWN}, times=2)
    run = await rehearse(pipeline, retry=Retry(attempts=3))
    assert run.result.steps["s"].attempts == 3
    assert run.result["reader"] == (await run_pipeline([kind, reader]))["reader"]
    assert [event.error for event in run.events.of(StepRetrying)] == [DOWN, DOWN]
    assert (await rehearse(pipeline)).result.ok  # it counts over runs


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_rigged_step_is_the_same_but_for_its_failure(kind: Any):
    before = Pipeline([kind, step(lambda s: s, name="reader")])
    after = failing(before, {"s": DOWN})
    [old, new] = [pipeline.steps[0] for pipeline in (before, after)]
    assert new.value is not old.value
    assert (new.name, new.layer, new.type, new.run_on, new.retry) == (old.name, old.layer, old.type, old.run_on, None)
    assert after.graph.nodes[0].in_thread == before.graph.nodes[0].in_thread
    assert after.inputs == before.inputs
    assert after.steps[1] is before.steps[1]
    with contextlib.suppress(ValueError):  # some callables have no signature that can be told
        assert inspect.signature(new.value) == inspect.signature(old.value)


async def test_a_step_fails_always_unless_told_otherwise():
    pipeline = failing(Pipeline([step(on_loop, name="s")]), {"s": OSError})
    for _ in range(3):
        with pytest.raises(RunError) as caught:
            await pipeline.run(retry=Retry(attempts=5, wait=0))
        assert caught.value.result.steps["s"].attempts == 5


async def test_elements_fail_too():
    pipeline = failing(
        Pipeline([step(in_thread, name="s", map_over="x", retry=Retry(wait=0))], ["x"]), {"s": DOWN}, times=2
    )
    run = await rehearse(pipeline, {"x": [1, 2, 3]})
    assert run.result["s"] == [1, 2, 3]
    assert len(run.events.of(StepRetrying)) == 2


def test_a_step_that_is_not_there_is_a_fault():
    for rigged in (partial(failing, errors={"lod": DOWN}), partial(slowed, seconds={"lod": 1.0})):
        with pytest.raises(GraphError, match=r"There is no step 'lod' in this pipeline\. Did you mean 'load'\?"):
            rigged(Pipeline([step(on_loop, name="load")]))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.run_on is None], ids=[i for i in IDS if "-on-" not in i]
)
async def test_a_step_that_hangs_ends_when_it_is_cancelled(kind: Any):
    recorder = Recorder()
    pipeline = hanging(Pipeline([kind, step(lambda s: s, name="reader")]), "s")
    run = asyncio.create_task(pipeline.run(limits=Limits(grace=5), observers=[recorder]))
    if not kind.is_resource:
        await recorder.wait_for(StepStarted, step="s")
    await recorder.wait_for(RunStarted)
    await asyncio.sleep(0.01)
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 4)
    assert [event.status for event in recorder.of(StepFinished)] == [Status.CANCELLED] * 2


def test_a_step_that_would_hang_the_loop_is_refused():
    with pytest.raises(OptionError, match="blocks the loop"):
        hanging(Pipeline([step(in_thread, name="s", run_on="loop")]), "s")


# -- not waiting -------------------------------------------------------------------------------------------


class Busy(Exception):
    retry_after = 3600


@pytest.mark.parametrize("error", [DOWN, Busy()])
async def test_an_impatient_pipeline_retries_as_often_and_at_once(error: Exception):
    policy = Retry(attempts=4, wait=3600, on=(Exception,))
    pipeline = impatient(failing(Pipeline([step(on_loop, name="s", retry=policy)]), {"s": error}, times=3))
    recorder = Recorder()
    result = await asyncio.wait_for(pipeline.run(observers=[recorder]), 10)
    assert result.steps["s"].attempts == 4
    assert {event.wait for event in recorder.of(StepRetrying)} == {0}
    assert pipeline.steps[0].retry == Retry(attempts=4, wait=0, max_wait=0, on=(Exception,))


# -- the virtual clock -------------------------------------------------------------------------------------


def test_hours_of_sleep_take_no_time():
    async def sleeper(hours: int) -> float:
        await asyncio.sleep(hours * 3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    with virtual_clock() as clock:
        result = clock.run(run_pipeline([step(sleeper, map_over="hours")], {"hours": [3, 1, 240]}))
        assert result["sleeper"] == pytest.approx([3 * 3600, 3600, 240 * 3600], abs=1)
        began_at = clock.time
        clock.run(asyncio.sleep(3600))  # without any thread, to the last digit
        assert clock.time == began_at + 3600
    assert time.monotonic() - began < 5


def test_retries_wait_their_time_and_the_run_has_its_deadline():
    policy = Retry(attempts=4, wait=100, max_wait=1000, jitter=False)
    pipeline = Pipeline([step(on_loop, name="s", retry=policy)])
    with virtual_clock() as clock:
        clock.run(failing(pipeline, {"s": DOWN}, times=3).run())
        assert clock.time == pytest.approx(100 + 200 + 400, abs=1)  # importing tenacity in a thread takes real time
        with pytest.raises(DeadlineError):
            clock.run(failing(pipeline, {"s": DOWN}).run(timeout=250))
        assert clock.time == pytest.approx(700 + 250, abs=1)


@pytest.mark.parametrize("kind", KINDS[:2] + KINDS[3:], ids=IDS[:2] + IDS[3:])
def test_slow_and_hanging_steps_take_no_time_on_a_virtual_clock(kind: Any):
    pipeline = Pipeline([kind, step(lambda s: s, name="reader", run_on="loop")])
    began = time.monotonic()
    with virtual_clock() as clock:
        assert clock.run(slowed(pipeline, {"s": 3600}).run()).ok
        assert 3600 <= clock.time < 3605
        with pytest.raises(DeadlineError):
            clock.run(hanging(pipeline, "s").run(timeout=3600))
        assert 7200 <= clock.time < 7210
    assert time.monotonic() - began < 5


def test_the_clock_really_waits_for_threads():
    def work() -> int:
        time.sleep(0.05)
        return 1

    async def by_hand(work: int) -> int:
        return await asyncio.to_thread(in_thread, work + 1) + await anyio.to_thread.run_sync(in_thread)

    with virtual_clock() as clock:
        for _ in range(20):
            result = clock.run(run_pipeline([step(work, timeout=60), by_hand], timeout=3600))
            assert result["by_hand"] == 3
        assert 0.5 < clock.time < 30


def test_a_blocking_step_that_is_cancelled_has_its_grace():
    recorder = Recorder()

    def work() -> None:
        while True:
            check_cancelled()
            time.sleep(0.001)

    with virtual_clock() as clock, pytest.raises(DeadlineError):
        clock.run(run_pipeline([work], timeout=0.05, observers=[recorder]))
    assert recorder.story[-2:] == ["StepFinished work", "RunFinished"]
    assert recorder.of(StepFinished)[0].status is Status.CANCELLED


def test_the_clock_really_waits_for_sockets_and_for_threads_of_others():
    async def echo() -> bytes:
        here, there = socket.socketpair()
        here.setblocking(False)
        threading.Timer(0.05, there.send, [b"news"]).start()
        async with asyncio.timeout(3600):
            data = await asyncio.get_running_loop().sock_recv(here, 10)
        here.close()
        there.close()
        return data

    async def told() -> None:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        threading.Timer(0.01, loop.call_soon_threadsafe, [event.set]).start()
        await event.wait()

    with virtual_clock() as clock:
        assert clock.run(echo()) == b"news"
        assert clock.time < 60
        clock.run(told())


def test_the_loop_fits_whatever_takes_a_factory():
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(10**6))
        assert runner.get_loop().time() == 10**6


# -- whole runs, and pytest --------------------------------------------------------------------------------


def test_the_fixture_runs_a_pipeline_in_a_plain_test(odibi_run: Any):
    run = odibi_run([in_thread, step(lambda in_thread: in_thread + 1, name="s")], {"x": 1})
    assert run.result["s"] == 2
    assert isinstance(run.events[-1], RunFinished)
    with pytest.raises(RunError):
        odibi_run([step(lambda: 1 / 0, name="s")])


async def test_the_fixture_runs_a_pipeline_in_an_async_test(odibi_run: Any):
    mine = Recorder()
    run = await odibi_run([in_thread], targets=["in_thread"], observers=[mine])
    assert run.result["in_thread"] == 1
    assert run.events == mine


def test_the_page_on_testing_is_a_test_file_that_passes(tmp_path: Path):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    tests = "\n".join(block for block in blocks if not re.search(r"^(run|await) ?=? ?", block, re.MULTILINE))
    (tmp_path / "test_page.py").write_text(tests, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert f"{tests.count('def test_')} passed" in done.stdout, done.stdout


def test_importing_the_package_loads_nothing_for_tests():
    code = "import sys, odibi_async; print([m for m in sys.modules if m in ('pytest', 'odibi_async.testing')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    code = "import sys, odibi_async.testing; print('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    code = "import sys, odibi_async.integrations.pytest; print('odibi_async.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
