"""Cancellation: one `cancel()` a step, clean-up that may await, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import anyio
import anyio.from_thread
import pytest

from odibi_async import Limits, RunError, Runner, Status, check_cancelled, run_pipeline, step
from odibi_async.errors import DeadlineError
from odibi_async.events import RunFinished, StepAbandoned, StepFinished
from odibi_async.executors.threads import CallJob, Threads
from odibi_async.testing import Recorder

STEPS = 20


class Cleaners:
    """Steps that run until they are cancelled and whose clean-up awaits."""

    def __init__(self) -> None:
        self.running = 0
        self.cleaned = 0
        self.all_run = asyncio.Event()

    async def endless(self) -> None:
        self.running += 1
        if self.running == STEPS:
            self.all_run.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0.001)
            self.cleaned += 1

    def steps(self) -> list[Any]:
        return [step(self.endless, name=f"s{i}") for i in range(STEPS)]


async def by_cancel(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    task = asyncio.ensure_future(run)
    await ready.wait()
    task.cancel("why not")
    with pytest.raises(asyncio.CancelledError, match="why not"):
        await task


async def by_many_cancels(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    task = asyncio.ensure_future(run)
    await ready.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def by_wait_for(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(run, 0.1)


async def by_timeout(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await run


async def by_anyio(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    with anyio.move_on_after(0.1) as scope:
        await run
    assert scope.cancelled_caught


async def by_task_group(run: Coroutine[Any, Any, Any], ready: asyncio.Event) -> None:
    async def fail() -> None:
        await ready.wait()
        raise ValueError("sibling")

    async def await_it() -> None:
        await run

    async def together() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(await_it)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup):
        await together()


WAYS = [by_cancel, by_many_cancels, by_wait_for, by_timeout, by_anyio, by_task_group]


@pytest.mark.parametrize("way", WAYS)
async def test_every_step_finishes_its_clean_up_however_the_run_is_cancelled(way: Callable[..., Any], heard: Recorder):
    cleaners = Cleaners()
    await way(run_pipeline(cleaners.steps(), observers=[heard]), cleaners.all_run)
    assert (cleaners.running, cleaners.cleaned) == (STEPS, STEPS)
    assert {event.status for event in heard.of(StepFinished)} == {Status.CANCELLED}
    assert isinstance(heard[-1], RunFinished)
    assert heard[-1].status is Status.CANCELLED


async def test_steps_whose_task_is_cancelled_before_its_first_turn_are_told_of_and_never_called(heard: Recorder):
    called = []

    async def boom() -> None:
        raise ValueError("first of all")

    async def never() -> None:
        called.append(1)

    with pytest.raises(RunError):
        await run_pipeline([boom, *[step(never, name=str(i)) for i in range(5)]], observers=[heard])
    assert not called
    assert [event.status for event in heard.of(StepFinished)] == [Status.FAILED] + [Status.CANCELLED] * 5
    assert "StepStarted 0" not in heard.story


async def test_a_loop_that_shuts_down_ends_the_run():
    cleaned: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    async def main() -> None:
        task = asyncio.ensure_future(run_pipeline([endless, step(lambda endless: 1, name="below")]))
        await asyncio.sleep(0.01)
        assert not task.done()  # and leaves it behind: asyncio.run cancels all tasks at once

    await asyncio.to_thread(asyncio.run, main())
    assert cleaned == ["yes"]


async def test_a_step_that_swallows_its_cancellation_is_cancelled_again_after_the_grace():
    cancels = 0
    begun = asyncio.Event()

    async def stubborn() -> None:
        nonlocal cancels
        begun.set()
        while cancels < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancels += 1

    await by_cancel(run_pipeline([stubborn], limits=Limits(grace=0.02)), begun)
    assert cancels == 3


async def test_a_step_that_ends_well_though_cancelled_has_succeeded(heard: Recorder):
    begun = asyncio.Event()

    async def finishes() -> int:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 1

    await by_cancel(run_pipeline([finishes], observers=[heard]), begun)
    assert heard.of(StepFinished)[0].status is Status.SUCCEEDED


async def test_an_error_in_the_clean_up_is_reported(heard: Recorder):
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the clean-up")

    await by_cancel(run_pipeline([endless], observers=[heard]), begun)
    [finished] = heard.of(StepFinished)
    assert finished.status is Status.FAILED
    assert str(finished.result.error) == "in the clean-up"


# -- blocking steps ----------------------------------------------------------------------------------------


async def test_a_blocking_step_ends_itself_when_it_asks(heard: Recorder):
    begun = threading.Event()

    def loop_for_long() -> None:
        begun.set()
        while True:
            check_cancelled()
            threading.Event().wait(0.001)

    async def fail() -> None:
        while not begun.is_set():
            await asyncio.sleep(0.001)
        raise ValueError("sibling")

    with pytest.raises(RunError) as caught:
        await run_pipeline([loop_for_long, fail], observers=[heard])
    assert caught.value.result.steps["loop_for_long"].status is Status.CANCELLED
    assert not heard.of(StepAbandoned)


def test_check_cancelled_does_nothing_outside_a_step():
    check_cancelled()


async def test_what_a_blocking_step_awaits_on_the_loop_is_cancelled():
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    await by_cancel(run_pipeline([step(lambda: anyio.from_thread.run(wait), name="s")]), begun)


async def test_a_blocking_step_that_returns_in_the_grace_is_waited_for(heard: Recorder):
    begun, release = threading.Event(), threading.Event()

    def block() -> int:
        begun.set()
        assert release.wait(10)
        return 1

    task = asyncio.ensure_future(run_pipeline([block], observers=[heard]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard.of(StepFinished)[0].status is Status.SUCCEEDED


async def test_a_thread_that_does_not_end_is_abandoned_and_keeps_its_slot(heard: Recorder):
    runner = Runner(limits=Limits(threads=2, grace=0.05))
    threads = await runner._at_home().workers()
    begun, release = threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        assert release.wait(10)

    task = asyncio.ensure_future(runner.run([stuck], observers=[heard]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.step for event in heard.of(StepAbandoned)] == ["stuck"]
    assert heard.of(StepFinished)[0].status is Status.CANCELLED
    assert threads.active == 1

    both = threading.Barrier(2)
    result = await runner.run([step(lambda: both.wait(0.1), name=n) for n in "ab"], on_error="continue")
    assert isinstance(result.steps["a"].error, threading.BrokenBarrierError)  # only one thread is left

    release.set()
    while threads.active:
        await asyncio.sleep(0.001)


async def test_waiting_blocking_steps_are_dropped_at_once(heard: Recorder):
    begun = threading.Event()
    called = []

    def first() -> None:
        begun.set()
        while True:
            check_cancelled()
            threading.Event().wait(0.001)

    steps = [first, *[step(lambda i=i: called.append(i), name=f"w{i}") for i in range(10)]]
    task = asyncio.ensure_future(run_pipeline(steps, observers=[heard], limits=Limits(threads=1)))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 3)
    assert not called
    assert len(heard.of(StepFinished)) == 11


async def test_a_cancelled_run_does_not_disturb_another_one_on_the_same_threads():
    begun, go = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go.wait(10)
        return 1

    def victim() -> None:
        while True:
            check_cancelled()
            threading.Event().wait(0.001)

    other = asyncio.ensure_future(run_pipeline([slow, step(lambda slow: slow + 1, name="next")]))
    victims = asyncio.ensure_future(run_pipeline([victim]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    victims.cancel()
    with pytest.raises(asyncio.CancelledError):
        await victims
    go.set()
    assert (await other)["next"] == 2


# -- time limits -------------------------------------------------------------------------------------------


async def test_a_step_that_takes_too_long_fails_with_the_builtin_timeout_error():
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            cleaned.append("yes")

    with pytest.raises(RunError) as caught:
        await run_pipeline([step(slow, timeout=0.02)])
    cause = caught.value.failures["slow"].__cause__
    assert type(cause) is TimeoutError
    assert str(cause) == "no result within 0.02 s"
    assert cleaned == ["yes"]


async def test_a_blocking_step_that_takes_too_long_is_told():
    told = threading.Event()

    def slow() -> None:
        while True:
            try:
                check_cancelled()
            except asyncio.CancelledError:
                told.set()
                raise
            threading.Event().wait(0.001)

    with pytest.raises(RunError) as caught:
        await run_pipeline([step(slow, timeout=0.02)])
    assert type(caught.value.__cause__) is TimeoutError
    assert told.is_set()


async def test_the_limit_holds_for_each_attempt(heard: Recorder):
    from odibi_async import Retry

    calls = 0

    async def slow_at_first() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            await asyncio.Event().wait()
        return calls

    result = await run_pipeline([step(slow_at_first, timeout=0.02, retry=Retry(wait=0))], observers=[heard])
    assert result["slow_at_first"] == 3
    assert [type(event.error) for event in heard if hasattr(event, "error")] == [TimeoutError, TimeoutError]


async def test_a_users_own_timeout_in_a_step_is_not_taken_for_ours():
    async def own() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "mine"
        return "none"

    assert (await run_pipeline([step(own, timeout=5)]))["own"] == "mine"


async def test_the_deadline_cuts_a_retry_that_waits():
    from odibi_async import Retry

    def fails() -> None:
        raise OSError("down")

    with pytest.raises(DeadlineError):
        await run_pipeline([step(fails, retry=Retry(attempts=9, wait=60, jitter=False))], timeout=0.05)


async def test_the_callers_cancellation_count_is_untouched():
    async def quick() -> int:
        await asyncio.sleep(0)
        return 1

    await run_pipeline([step(quick, timeout=1)])
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tasks take their first turn as they are made")
async def test_a_task_that_a_stranger_cancels_before_its_first_turn_is_a_failure_and_no_hang():
    async def meddle() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "victim":
                task.cancel()

    async def victim() -> None: ...

    run = run_pipeline([meddle, victim], on_error="continue", limits=Limits(grace=0.02))
    result = await asyncio.wait_for(run, 5)
    assert isinstance(result.failures["victim"].__cause__, asyncio.CancelledError)


async def test_slots_of_workers_that_a_stranger_cancels_come_back():
    async with Runner(limits=Limits(threads=2)) as runner:
        run = asyncio.ensure_future(runner.run([step(lambda: 1, name=str(i)) for i in range(5)], on_error="continue"))
        await asyncio.sleep(0)
        while not any(task.get_name() == "odibi_async worker" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if task.get_name() == "odibi_async worker":
                task.cancel()
        assert (await asyncio.wait_for(run, 5)).ok


async def test_a_cancelled_worker_has_no_successor_when_nobody_waits_for_its_jobs():
    """One that began while its loop ends would keep its thread, and the process, for ever."""
    threads = Threads(limit=1, grace=1)
    jobs = [CallJob(threads, "me", 0, lambda: 1, context=Context()) for _ in range(3)]
    threads.put(jobs)
    [host] = [task for task in asyncio.all_tasks() if task.get_name() == "odibi_async worker"]
    for job in jobs:
        threads.cancel(job)
    host.cancel()
    await asyncio.wait([host])
    await asyncio.sleep(0)  # its callbacks
    assert "odibi_async worker" not in [task.get_name() for task in asyncio.all_tasks()]
    assert threads.active == 0
    assert await threads.call(CallJob(threads, "me", 0, lambda: 2, context=Context())) == 2


async def test_a_chain_cut_while_all_that_runs_waits_for_a_thread_ends_once(heard: Recorder):
    chain = [step(lambda: 0, name="s0")]
    chain += [step(lambda x: x, name=f"s{i}", inputs={"x": f"s{i - 1}"}) for i in range(1, 1000)]
    async with Runner(limits=Limits(threads=1), observers=[heard]) as runner:
        task = asyncio.ensure_future(runner.run(chain))
        while not heard:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
    assert len(heard.of(StepFinished)) == 1000
    assert heard.story[-1] == "RunFinished"


async def test_the_time_of_a_blocking_step_does_not_run_while_it_waits_for_a_thread(heard: Recorder):
    steps = [step(lambda: threading.Event().wait(0.03), name=f"s{i}", timeout=0.2) for i in range(12)]
    result = await run_pipeline(steps, limits=Limits(threads=1), observers=[heard])
    assert result.ok
    assert max(record.run_seconds for record in result.steps.values()) < 0.2
    assert max(record.queue_seconds for record in result.steps.values()) > 0.2


async def test_a_blocking_step_with_policies_that_does_not_end_is_told_of_as_abandoned(heard: Recorder):
    release = threading.Event()
    result = await run_pipeline(
        [step(lambda: release.wait(10), name="stuck", timeout=0.01)],
        on_error="continue",
        limits=Limits(threads=1, grace=0.02),
        observers=[heard],
    )
    release.set()
    assert isinstance(result.failures["stuck"].__cause__, TimeoutError)
    assert [event.step for event in heard.of(StepAbandoned)] == ["stuck"]


INTERRUPTED = """
import asyncio, signal, threading
from odibi_async import check_cancelled, run_pipeline

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where these tests run in the background of a shell

async def endless():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        print("cleaned")

def blocking():
    print("ready", flush=True)
    try:
        while True:
            check_cancelled()
            threading.Event().wait(0.005)
    finally:
        print("told")

asyncio.run(run_pipeline([endless, blocking]))
"""


def test_ctrl_c_lets_every_step_clean_up():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=20)
    assert sorted(printed.split()) == ["cleaned", "told"]
    assert errors.strip().endswith("KeyboardInterrupt")
    assert process.returncode in (-signal.SIGINT, 130)
