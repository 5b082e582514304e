"""
Faults that were found in the run loop by attacking it, each in kind: user code that raises at odd places, nested runs,
lost cancellations, leaked resources, slots and data.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio.from_thread
import pytest

from odibi_async import (
    Cache,
    Limits,
    Pipeline,
    Retry,
    RunError,
    Runner,
    Status,
    resource,
    run_pipeline,
    run_pipeline_sync,
    step,
)
from odibi_async.cancellation import on_cancel
from odibi_async.errors import DeadlineError, OptionError, RunCancelled, RunnerClosed
from odibi_async.events import RunFinished, RunStarted, StepAbandoned, StepFinished, StepStarted
from odibi_async.testing import Recorder

SOON = 10
"""Seconds after which something that does not end counts as hanging."""


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception that takes neither notes nor attributes."""

    number: int = 1


class Own(BaseException):
    """An exception that is no `Exception`."""


class Slotted(Exception):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("no attributes")

    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes")


def raiser(error: BaseException, *, is_async: bool, turns: int = 0) -> Callable[[], Any]:
    async def on_loop() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise error

    def in_thread() -> None:
        raise error

    return on_loop if is_async else in_thread


async def failed(steps: list[Any], **options: Any) -> RunError:
    with pytest.raises(RunError) as raised:
        await asyncio.wait_for(run_pipeline(steps, **options), SOON)
    return raised.value


# -- user code that raises at odd places -------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("error", [Frozen(), Slotted(), Own(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("retry", [None, Retry(attempts=2, wait=0)])
async def test_whatever_a_step_raises_is_its_failure(is_async: bool, error: BaseException, retry: Retry | None):
    caught = await failed([step(raiser(error, is_async=is_async), name="s", retry=retry)])
    assert caught.failures["s"].__cause__ is error


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("broken", [ValueError("predicate"), Own(), SystemExit(3), KeyboardInterrupt()])
async def test_a_retry_predicate_that_raises_leaves_the_steps_own_error(is_async: bool, broken: BaseException):
    def predicate(error: Exception) -> bool:
        raise broken

    error = Frozen()
    caught = await failed([step(raiser(error, is_async=is_async), name="s", retry=Retry(on=predicate))])
    assert caught.failures["s"].__cause__ is error
    assert f"Retry(on=...) raised {type(broken).__name__}" in str(caught.failures["s"])


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("broken", [ValueError("predicate"), Own()])
async def test_a_condition_that_raises_is_the_steps_failure(is_async: bool, broken: BaseException):
    caught = await failed([step(lambda: 1, name="s", when=raiser(broken, is_async=is_async))])
    assert caught.failures["s"].__cause__ is broken


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_truth_value_that_cannot_be_told_is_the_steps_failure(is_async: bool):
    class Unsure:
        def __bool__(self) -> bool:
            raise Own

    async def on_loop() -> Unsure:
        return Unsure()

    caught = await failed([step(lambda: 1, name="s", when=on_loop if is_async else lambda: Unsure())])
    assert isinstance(caught.failures["s"].__cause__, Own)


@pytest.mark.parametrize("broken", [ValueError("observer"), Own()])
async def test_an_observer_that_raises_is_dropped(broken: BaseException, caplog: pytest.LogCaptureFixture):
    class Observer:
        def __call__(self, event: object) -> None:
            raise broken

        def __repr__(self) -> str:
            raise Own

    result = await asyncio.wait_for(run_pipeline([step(lambda: 1, name="s")], observers=[Observer()]), SOON)
    assert result.ok
    assert "An observer (" in caplog.text


@pytest.mark.parametrize("error", ["KeyboardInterrupt()", "SystemExit(3)"])
@pytest.mark.parametrize("turns", [0, 2])
def test_an_interrupt_in_a_step_ends_the_run_and_goes_on_to_the_loop(error: str, turns: int):
    code = f"""
        import asyncio
        from odibi_async import run_pipeline, step

        async def stop():
            for _ in range({turns}):
                await asyncio.sleep(0)
            raise {error}

        async def other():
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.01)
                print("cleaned")

        async def main():
            try:
                await run_pipeline([other, stop], observers=[lambda event: print(type(event).__name__)])
            except BaseException as error:
                print("caught", type(error).__name__)
                raise

        asyncio.run(main())
    """
    done = python(code)
    told = done.stdout.split()
    assert told[-3 if "caught" in told else -1 :][0] == "RunFinished"
    assert "cleaned" in told
    assert done.returncode == (3 if "SystemExit" in error else -signal.SIGINT)


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)


async def test_an_interrupt_hook_that_raises_does_not_stop_the_stop(caplog: pytest.LogCaptureFixture):
    begun, interrupted, go = threading.Event(), [], threading.Event()

    def broken() -> None:
        raise Own

    def work() -> None:
        with on_cancel(broken), on_cancel(lambda: (interrupted.append(1), go.set())):
            begun.set()
            assert go.wait(SOON)

    task = asyncio.ensure_future(run_pipeline([step(work, name="a"), step(lambda: 1, name="b")]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, SOON)
    assert interrupted
    assert "What was to interrupt a blocking step raised." in caplog.text


async def test_batches_of_first_failures_between_two_releases_lose_no_step():
    def boom() -> None:
        raise OSError

    steps = [step(boom, name=f"b{i}") for i in range(1500)] + [step(lambda: 1, name=f"g{i}") for i in range(1500)]
    retry = Retry(attempts=2, wait=0)
    result = await asyncio.wait_for(run_pipeline(steps, on_error="continue", retry=retry), 60)
    assert result.stats()["failed"] == result.stats()["succeeded"] == 1500


async def test_a_run_that_cannot_be_prepared_is_told_to_its_end(heard: Recorder, tmp_path: Any):
    class Broken(Cache):
        def lease(self) -> Any:
            raise Own

    running = run_pipeline([step(lambda: 1, name="s")], cache=Broken(tmp_path), observers=[heard], timeout=60)
    with pytest.raises(Own):
        await asyncio.wait_for(running, SOON)
    assert isinstance(heard[0], RunStarted)
    assert isinstance(heard[-1], RunFinished)
    assert heard[-1].status is Status.FAILED
    assert [event.status for event in heard.of(StepFinished)] == [Status.CANCELLED]


# -- runs inside steps -------------------------------------------------------------------------------------


async def inner() -> int:
    await asyncio.sleep(0)
    return 1


def blocking_inner() -> int:
    return 2


async def test_blocking_steps_that_each_start_a_run_do_not_wait_for_their_own_threads():
    def parent() -> Any:
        return anyio.from_thread.run(run_pipeline, [blocking_inner, inner])["blocking_inner"]

    steps = [step(parent, name=f"p{i}") for i in range(40)]
    result = await asyncio.wait_for(run_pipeline(steps), SOON)
    assert set(result.outputs.values()) == {2}


async def test_runs_three_deep_share_one_slot_and_one_thread():
    limits = Limits(concurrency=1, threads=1, pools={"p": 1})
    async with Runner(limits=limits) as runner:

        async def third() -> Any:
            return (await runner.run([step(inner, pool="p"), blocking_inner]))["inner"]

        def second() -> Any:
            return anyio.from_thread.run(runner.run, [step(third, pool="p")])["third"]

        async def first() -> Any:
            run = await runner.start([step(second, pool="p")])
            return (await run.result())["second"]

        result = await asyncio.wait_for(runner.run([step(first, pool="p"), inner, blocking_inner]), SOON)
        assert result["first"] == 1


async def test_runs_that_need_each_others_pools_go_on():
    async with Runner(limits=Limits(pools={"p": 1, "q": 1})) as runner:

        async def crossing(pool: str) -> Any:
            await asyncio.sleep(0.01)
            return (await runner.run([step(inner, pool=pool)]))["inner"]

        steps = [
            step(crossing, name="a", params={"pool": "q"}, pool="p"),
            step(crossing, name="b", params={"pool": "p"}, pool="q"),
        ]
        assert (await asyncio.wait_for(runner.run(steps), SOON)).ok


async def test_a_step_that_waits_for_a_run_takes_its_slot_again_before_it_goes_on():
    inside = most = 0

    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        yield
        inside -= 1

    async def child() -> None:
        with counted():
            await asyncio.sleep(0.001)

    async with Runner(limits=Limits(concurrency=2)) as runner:

        async def parent() -> None:
            await runner.run([step(child, name=f"c{i}") for i in range(3)])
            with counted():
                await asyncio.sleep(0.002)

        await asyncio.wait_for(runner.run([step(parent, name=f"p{i}") for i in range(5)]), SOON)
    assert most == 2


async def test_a_run_in_a_blocking_step_hears_of_its_cancellation():
    begun, cleaned = threading.Event(), threading.Event()

    async def sleeps() -> None:
        begun.set()
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.3)  # longer than the time after which an interrupt comes again
            cleaned.set()

    def parent() -> None:
        run_pipeline_sync([sleeps])

    task = asyncio.ensure_future(run_pipeline([parent]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, SOON)
    assert cleaned.is_set()


def test_a_run_for_which_a_running_loop_stands_still_hears_the_first_interrupt():
    code = """
        import asyncio, os, signal, threading
        from odibi_async import run_pipeline_sync

        async def sleeps():
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                await asyncio.sleep(100)
            finally:
                print("cleaned", flush=True)

        async def main():
            run_pipeline_sync([sleeps])

        asyncio.run(main())
    """
    done = python(code)
    assert done.stdout == "cleaned\n"
    assert done.stderr.strip().endswith("KeyboardInterrupt")


# -- cancellation ------------------------------------------------------------------------------------------


async def test_no_attempt_begins_when_the_run_was_stopped():
    attempts, second = 0, asyncio.Event()

    async def stubborn() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("first")
        second.set()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise ValueError("answers a cancellation") from None

    async with Runner() as runner:
        run = await runner.start([step(stubborn, retry=Retry(attempts=5, wait=0))])
        await asyncio.wait_for(second.wait(), SOON)
        await asyncio.wait_for(run.cancel(), SOON)
    assert attempts == 2


async def test_no_element_begins_when_the_run_was_stopped():
    begun = []

    async def work(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(100)

    async def boom(begin: asyncio.Event) -> None:
        while not begun:
            await asyncio.sleep(0)
        raise ValueError("boom")

    mapped = step(work, map_over="n", pool="one")
    with pytest.raises(RunError):
        await asyncio.wait_for(
            run_pipeline(
                [mapped, boom],
                {"n": list(range(1000)), "begin": asyncio.Event()},
                limits=Limits(pools={"one": 1}),
            ),
            SOON,
        )
    assert begun == [0]


@pytest.mark.parametrize("moment", ["factory", "enter"])
async def test_a_cancellation_while_a_thread_opens_a_resource_is_not_swallowed(moment: str):
    begun, go, log = threading.Event(), threading.Event(), []

    def wait(here: str) -> None:
        if here == moment:
            begun.set()
            assert go.wait(SOON)

    class Manager:
        def __init__(self) -> None:
            wait("factory")

        def __enter__(self) -> Manager:
            wait("enter")
            log.append("entered")
            return self

        def __exit__(self, *_: object) -> None:
            log.append("exited")

    read = []
    reader = step(lambda Manager: read.append(1), name="use")
    task = asyncio.ensure_future(run_pipeline([resource(Manager), reader]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, SOON)
    assert log == ([] if moment == "factory" else ["entered", "exited"])
    assert not read


async def test_a_cancellation_that_meets_another_one_does_not_wait_for_a_grace():
    """The step is in its own timeout when the run is stopped: it is cancelled soon, not after the grace."""
    entered, ended = asyncio.Event(), []

    async def busy() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                try:
                    await asyncio.sleep(100)
                finally:
                    entered.set()
                    await asyncio.sleep(0.02)
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(time.monotonic())

    async def boom(gate: asyncio.Event) -> None:
        await gate.wait()
        raise ValueError("boom")

    began = time.monotonic()
    await failed([busy, boom], inputs={"gate": entered}, limits=Limits(grace=30))
    assert ended[0] - began < SOON


def test_the_end_of_a_loop_cancels_each_step_once():
    code = """
        import asyncio
        from odibi_async import run_pipeline, step

        started = 0

        async def work():
            global started
            started += 1
            if started == 3:
                asyncio.get_running_loop().call_later(0.01, asyncio.get_running_loop().stop)
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.05)
                print("cleaned", flush=True)

        async def main():
            await run_pipeline([step(work, name=f"s{i}") for i in range(3)])

        try:
            asyncio.run(main())
        except RuntimeError as error:
            print(error)
    """
    assert python(code).stdout.count("cleaned") == 3


async def test_no_grace_at_all_does_not_spin():
    cancels = 0

    async def stubborn() -> None:
        nonlocal cancels
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                cancels += 1

    with pytest.raises(DeadlineError):
        await asyncio.wait_for(run_pipeline([stubborn], timeout=0.02, limits=Limits(grace=0)), SOON)
    assert 1 <= cancels <= 5


# -- resources ---------------------------------------------------------------------------------------------


async def test_a_resource_whose_time_is_over_when_it_has_just_been_entered_is_exited():
    log = []

    class Manager:
        async def __aenter__(self) -> Manager:
            log.append("entered")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
            return self

        async def __aexit__(self, *_: object) -> None:
            log.append("exited")

    caught = await failed([resource(Manager, timeout=0.01), step(lambda Manager: 1, name="use")])
    assert isinstance(caught.failures["Manager"].__cause__, TimeoutError)
    assert log == ["entered", "exited"]


async def test_a_resource_that_an_abandoned_thread_enters_later_is_exited_there(heard: Recorder):
    begun, go, log, over = threading.Event(), threading.Event(), [], threading.Event()

    class Manager:
        def __enter__(self) -> Manager:
            begun.set()
            assert go.wait(SOON)
            log.append("entered")
            return self

        def __exit__(self, *_: object) -> None:
            log.append("exited")
            over.set()

    async with Runner(limits=Limits(grace=0.02)) as runner:
        run = await runner.start([resource(Manager, timeout=0.01), step(lambda Manager: 1, name="use")])
        with pytest.raises(RunError):
            await asyncio.wait_for(run.result(), SOON)
        go.set()
        while not over.is_set():
            await asyncio.sleep(0.001)
    assert log == ["entered", "exited"]


async def test_a_resource_that_is_exited_late_gets_a_whole_grace():
    log = []

    async def db() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.15)
            log.append("closed")

    async def slow(db: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.15)

    with pytest.raises(DeadlineError):
        await asyncio.wait_for(run_pipeline([resource(db), slow], timeout=0.02, limits=Limits(grace=0.2)), SOON)
    assert log == ["closed"]


async def test_an_exit_that_waits_for_a_thread_when_the_run_is_stopped_is_not_forgotten():
    entered, exited, release = threading.Event(), threading.Event(), threading.Event()

    @contextlib.contextmanager
    def db():
        entered.set()
        time.sleep(0.05)
        yield 1
        exited.set()

    async def gate() -> None:
        while not entered.is_set():
            await asyncio.sleep(0.001)

    def hog(gate: None) -> None:  # more is below it, so it goes before the exit
        release.wait(SOON)

    async def fail(gate: None) -> None:
        await asyncio.sleep(0.1)  # the time of `db` is over, and its exit waits for the only thread
        assert not exited.is_set()
        raise ValueError("stop")

    below = [step(lambda hog: hog, name="one"), step(lambda one: one, name="two")]
    steps = [resource(db, timeout=0.02), step(lambda db: db, name="use"), gate, hog, *below, fail]
    try:
        with pytest.raises(RunError):
            await asyncio.wait_for(run_pipeline(steps, limits=Limits(threads=1, grace=0.2)), SOON)
        assert exited.is_set()
    finally:
        release.set()


async def test_an_exit_that_does_not_end_is_cancelled_when_the_run_is_stopped_during_it():
    begun = asyncio.Event()

    @contextlib.asynccontextmanager
    async def db():
        yield 1
        begun.set()
        await asyncio.sleep(60)

    async with Runner(limits=Limits(grace=0.05)) as runner:
        run = await runner.start([resource(db), step(lambda db: db, name="use")])
        await asyncio.wait_for(begun.wait(), SOON)
        await asyncio.wait_for(run.cancel(), SOON)
        assert run.status is Status.CANCELLED


async def test_resources_take_slots_of_their_pool_while_they_are_opened():
    inside = most = 0

    async def opened() -> AsyncIterator[int]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.002)
        inside -= 1
        yield 1

    steps: list[Any] = [resource(opened, name=f"r{i}", pool="db") for i in range(6)]
    steps += [step(lambda r: r, name=f"use{i}", inputs={"r": f"r{i}"}, pool="db") for i in range(6)]
    assert (await asyncio.wait_for(run_pipeline(steps, limits=Limits(pools={"db": 2})), SOON)).ok
    assert most == 2


# -- runners -----------------------------------------------------------------------------------------------


def test_a_runner_is_at_home_in_the_loop_that_uses_it():
    runner = Runner(limits=Limits(concurrency=2, threads=1))

    async def timed_out() -> None:
        with pytest.raises(DeadlineError):
            await runner.run([step(asyncio.sleep, name="s", params={"delay": 100})], timeout=0.02)
        assert (await runner.run([step(lambda: 1, name="s")])).ok

    for _ in range(3):
        asyncio.run(timed_out())


async def test_a_runner_with_runs_in_another_loop_is_refused():
    async with Runner() as runner:
        run = await runner.start([step(asyncio.sleep, name="s", params={"delay": 100})])
        with pytest.raises(OptionError, match="has runs in another event loop"):
            await asyncio.to_thread(asyncio.run, runner.run([step(lambda: 1, name="s")]))
        await run.cancel()


async def test_closing_cancels_all_at_once_and_waits_for_all():
    cleaned = 0

    async def slow() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.05)
            cleaned += 1

    began = time.monotonic()
    async with Runner() as runner:
        waiting = [asyncio.ensure_future(runner.run([slow])) for _ in range(20)]
        started = [await runner.start([slow]) for _ in range(20)]
        await asyncio.sleep(0.01)
    assert cleaned == 40
    assert time.monotonic() - began < 40 * 0.05
    assert all(isinstance(each, RunCancelled) for each in await asyncio.gather(*waiting, return_exceptions=True))
    assert {run.status for run in started} == {Status.CANCELLED}
    for take in (runner.run, runner.start):
        with pytest.raises(RunnerClosed, match="closed"):
            await take([slow])


async def test_closing_may_wait_for_runs_to_end_by_themselves():
    async with Runner(drain=SOON) as runner:
        run = await runner.start([step(asyncio.sleep, name="s", params={"delay": 0.02})])
    assert run.status is Status.SUCCEEDED


async def test_a_cancelled_close_abandons_nobody():
    cleaned = 0

    async def slow() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.05)
            cleaned += 1

    runner = Runner()
    for _ in range(3):
        await runner.start([slow])
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(runner.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(closing, SOON)
    assert cleaned == 3


# -- slots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_slot_is_free_while_a_step_waits_for_its_next_attempt(is_async: bool):
    order = []

    async def on_loop() -> None:
        order.append("try")
        if order.count("try") == 1:
            raise OSError

    def in_thread() -> None:
        asyncio.run(on_loop())

    flaky = step(on_loop if is_async else in_thread, name="flaky", retry=Retry(attempts=2, wait=0.2, jitter=False))
    other = step(lambda: order.append("other"), name="other")
    await asyncio.wait_for(run_pipeline([flaky, other], limits=Limits(concurrency=1)), SOON)
    assert order == ["try", "other", "try"]


@pytest.mark.parametrize("plain", [True, False])
async def test_an_abandoned_thread_keeps_its_slot(plain: bool):
    go, inside, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def stuck() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        go.wait(SOON)
        with lock:
            inside -= 1

    async with Runner(limits=Limits(pools={"one": 1}, threads=4, grace=0.02)) as runner:
        options: dict[str, Any] = (
            {} if plain else {"timeout": 0.02, "retry": Retry(attempts=2, wait=0, on=TimeoutError)}
        )
        runs = [await runner.start([step(stuck, pool="one", **options)]) for _ in range(3)]
        await asyncio.sleep(0.1)
        for run in runs:
            await asyncio.wait_for(run.cancel(), SOON)
        go.set()
        assert most == 1
        done = await asyncio.wait_for(runner.run([step(lambda: 1, name="s", pool="one")]), SOON)
        assert done.ok


async def test_steps_of_a_pool_do_not_starve_another_runs_only_step():
    ended = []

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    async with Runner(limits=Limits(concurrency=1, pools={"p": 1})) as runner:
        chain = [step(work, name="c0", params={"name": "c"}, pool="p")]
        chain += [step(work, name=f"c{i}", params={"name": "c"}, pool="p", after=(f"c{i - 1}",)) for i in range(1, 3)]
        many = [step(work, name=f"m{i}", params={"name": "m"}, pool="p") for i in range(50)]
        first = asyncio.ensure_future(runner.run([*chain, *many]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.ensure_future(runner.run([step(work, name="only", params={"name": "only"})]))
        await asyncio.wait_for(asyncio.gather(first, second), SOON)
    assert ended.index("only") < 10


# -- memory ------------------------------------------------------------------------------------------------


class Blob:
    """Data that can be watched."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("retry", [None, Retry(attempts=2, wait=0)])
@pytest.mark.parametrize("kept", ["run", "step", "own"])
async def test_an_error_that_is_kept_keeps_no_dataset(is_async: bool, retry: Retry | None, kept: str):
    watched: list[weakref.ref[Blob]] = []

    def blob() -> Blob:
        made = Blob()
        watched.append(weakref.ref(made))
        return made

    async def later(blob: Blob) -> Blob:
        made = Blob()
        watched.append(weakref.ref(made))
        return made

    boom = step(raiser(ValueError("boom"), is_async=is_async), name="boom", after=("later",), retry=retry)
    last = step(lambda boom, blob, later: 1, name="last")
    caught = await failed([blob, later, boom, last], targets=["last"])
    error: Any = {"run": caught, "step": caught.failures["boom"], "own": caught.failures["boom"].error}[kept]
    del caught
    await asyncio.sleep(0)
    assert [each() for each in watched] == [None, None]
    assert error is not None


@pytest.mark.usefixtures("no_collector")
async def test_a_cancelled_run_keeps_no_dataset():
    watched: list[weakref.ref[Blob]] = []

    async def blob() -> Blob:
        made = Blob()
        watched.append(weakref.ref(made))
        return made

    async def slow(blob: Blob) -> None:
        await asyncio.sleep(100)

    task = asyncio.ensure_future(run_pipeline([blob, slow]))
    while not watched:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)
    assert watched[0]() is None


def test_a_loop_whose_first_bare_runs_overlap_is_not_kept():
    code = """
        import asyncio, gc, time, weakref
        from odibi_async import run_pipeline, step

        loops = []

        async def main():
            loops.append(weakref.ref(asyncio.get_running_loop()))
            steps = [step(lambda: 1, name="a"), step(asyncio.sleep, name="b", params={"delay": 0})]
            await asyncio.gather(*[run_pipeline(steps) for _ in range(20)])

        for _ in range(3):
            asyncio.run(main())
        for _ in range(100):  # a thread that has just answered may still hold the last one
            gc.collect()
            if not any(loop() for loop in loops):
                break
            time.sleep(0.1)
        print([loop() for loop in loops])
    """
    assert python(code).stdout == "[None, None, None]\n"


async def test_classes_that_were_returned_are_not_kept():
    def make() -> Any:
        return type("Made", (), {})()

    result = await run_pipeline([step(make), step(lambda make: 1, name="last")], targets=["last"])
    assert result.ok
    seen = await run_pipeline([make])
    cls = weakref.ref(type(seen["make"]))
    del seen
    gc.collect()
    assert cls() is None


# -- order -------------------------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_before_it_begins_is_told_from_its_start(heard: Recorder):
    async with Runner() as runner:
        run = await runner.start([inner, blocking_inner], observers=[heard])
        await run.cancel()
    assert [type(event) for event in heard] == [RunStarted, StepFinished, StepFinished, RunFinished]


async def test_nothing_is_told_when_the_run_is_over(heard: Recorder):
    begun, go = threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        go.wait(SOON)

    async with Runner(limits=Limits(grace=0.02, threads=2)) as runner:
        run = await runner.start([stuck], observers=[heard])
        while not begun.is_set():
            await asyncio.sleep(0.001)
        await asyncio.wait_for(run.cancel(), SOON)
        go.set()
        await asyncio.sleep(0.05)
    assert isinstance(heard[-1], RunFinished)
    assert [type(event) for event in heard].count(StepAbandoned) == 1
    assert [type(event) for event in heard].count(StepStarted) == 1


@pytest.mark.parametrize("let_go", ["before", "after"])
async def test_a_run_that_fails_while_nobody_asks_is_logged(caplog: pytest.LogCaptureFixture, let_go: str):
    async with Runner() as runner:
        run: Any = await runner.start([step(raiser(ValueError("boom"), is_async=True), name="boom")])
        if let_go == "before":
            run = None
        await asyncio.sleep(0.02)
        run = None
        gc.collect()
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "nobody asked for its result" in record.getMessage()
    assert run is None


async def test_a_run_whose_failure_somebody_has_seen_is_not_logged(caplog: pytest.LogCaptureFixture):
    async with Runner() as runner:
        run = await runner.start([step(raiser(ValueError("boom"), is_async=True), name="boom")])
        with pytest.raises(RunError):
            await run.result()
        del run
    assert not caplog.records


# -- many at once ------------------------------------------------------------------------------------------


async def test_a_thousand_runs_at_once_leave_turns_to_others():
    pipeline, turns = Pipeline([step(inner, name=f"s{i}", inputs={}) for i in range(3)]), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(others())
    await asyncio.wait_for(asyncio.gather(*[functools.partial(pipeline.run)() for _ in range(1000)]), 60)
    other.cancel()
    assert turns > 100
