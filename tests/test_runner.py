"""Runners and runs: limits that are shared, runs in the background, and the way in without `await`."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from odibi_async import (
    Limits,
    Pipeline,
    RunError,
    Runner,
    Status,
    check_cancelled,
    run_pipeline,
    run_pipeline_sync,
    step,
)
from odibi_async.errors import DeadlineError, GraphError, OptionError, RunCancelled
from odibi_async.events import RunFinished, RunStarted
from odibi_async.limits import cgroup_cpus, default_threads, usable_cpus
from odibi_async.testing import Recorder


class Crowd:
    """Counts how many are in at a time."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def async_steps(crowd: Crowd, count: int, **options: Any) -> list[Any]:
    async def work() -> None:
        with crowd:
            for _ in range(3):
                await asyncio.sleep(0)

    return [step(work, name=f"a{i}", **options) for i in range(count)]


def blocking_steps(crowd: Crowd, count: int, **options: Any) -> list[Any]:
    def work() -> None:
        with crowd:
            threading.Event().wait(0.002)

    return [step(work, name=f"b{i}", **options) for i in range(count)]


# -- limits ------------------------------------------------------------------------------------------------


async def test_no_more_steps_run_at_a_time_than_concurrency_allows():
    crowd = Crowd()
    steps = async_steps(crowd, 30) + blocking_steps(crowd, 30)
    assert (await run_pipeline(steps, limits=Limits(concurrency=3))).ok
    assert (crowd.most, crowd.total) == (3, 60)


async def test_no_more_blocking_steps_run_at_a_time_than_there_are_threads():
    crowd = Crowd()
    await run_pipeline(blocking_steps(crowd, 30), limits=Limits(threads=2))
    assert (crowd.most, crowd.total) == (2, 30)


async def test_a_pool_limits_its_own_steps_and_no_others():
    db, free = Crowd(), Crowd()
    steps = async_steps(db, 20, pool="db") + [step(s, name=f"f{i}") for i, s in enumerate(async_steps(free, 20))]
    await run_pipeline(steps, limits=Limits(pools={"db": 2}))
    assert db.most == 2
    assert free.most > 2


async def test_runs_of_a_runner_share_its_limits_and_those_of_another_do_not():
    crowd, other = Crowd(), Crowd()
    async with Runner(limits=Limits(concurrency=2)) as runner, Runner() as free:
        await asyncio.gather(
            *[runner.run(async_steps(crowd, 5)) for _ in range(6)],
            *[free.run(async_steps(other, 5)) for _ in range(6)],
        )
    assert (crowd.most, crowd.total) == (2, 30)
    assert other.most > 2


async def test_runs_take_turns_at_scarce_slots():
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    def steps(name: str) -> list[Any]:
        return [step(note, name=f"{name}{i}", params={"name": name}) for i in range(10)]

    async with Runner(limits=Limits(concurrency=1, threads=1)) as runner:
        await asyncio.gather(runner.run(steps("a")), runner.run(steps("b")))
    assert set(order[:4]) == {"a", "b"}
    assert order.count("a") == order.count("b") == 10


@pytest.mark.parametrize("limits", [Limits(concurrency=1), Limits(threads=1)])
async def test_of_ready_steps_the_one_with_the_longest_way_below_goes_first(limits: Limits):
    order: list[str] = []

    def note(name: str) -> Any:
        return lambda **_: order.append(name)

    steps = [step(note(f"leaf{i}"), name=f"leaf{i}", inputs={"x": "root"}) for i in range(5)]
    steps += [step(note("c1"), name="c1", inputs={"x": "root"}), step(note("c2"), name="c2", inputs={"x": "c1"})]
    steps += [step(note("c3"), name="c3", inputs={"x": "c2"}), step(note("root"), name="root")]
    await run_pipeline(steps, limits=limits)
    assert order[:3] == ["root", "c1", "c2"]


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"threads": 0},
        {"threads": 1.5},
        {"pools": {"db": 0}},
        {"pools": {"db": None}},
        {"concurrency": True},
        {"grace": -1},
        {"grace": float("nan")},
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]):
    with pytest.raises(OptionError, match="Limits:"):
        Limits(**options)


async def test_an_unknown_pool_is_refused_with_a_hint():
    with pytest.raises(GraphError, match=r"Step 'a0' takes a slot of pool 'dbs'.*Did you mean 'db'.*Known pools: db"):
        await run_pipeline(async_steps(Crowd(), 1, pool="dbs"), limits=Limits(pools={"db": 1}))
    with pytest.raises(GraphError, match=r"none; give them with Limits\(pools="):
        await run_pipeline(async_steps(Crowd(), 1, pool="db"))


def test_the_default_number_of_threads_follows_the_usable_cpus():
    assert default_threads() == min(32, usable_cpus() + 4)
    assert usable_cpus() >= 1


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_cgroup_is_read(files: dict[str, str], cpus: float | None, tmp_path: Path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup_cpus(tmp_path) == cpus


async def test_the_threads_that_others_share_stay_free():
    """anyio's default limiter, which Starlette uses for its blocking endpoints, has 40 tokens."""
    started = threading.Barrier(2, timeout=10)
    release = threading.Event()

    def block() -> None:
        started.wait()
        release.wait(10)

    run = asyncio.ensure_future(run_pipeline([step(block, name=str(i)) for i in range(2)], limits=Limits(threads=2)))
    try:
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        await asyncio.wait_for(anyio.to_thread.run_sync(lambda: None), 5)
    finally:
        release.set()
        await run


# -- runs in the background --------------------------------------------------------------------------------


async def test_a_started_run_tells_its_events_and_gives_its_result():
    async def a() -> int:
        return 1

    async with Runner() as runner:
        run = await runner.start([a])
        events = [event async for event in run.events()]
        again = [event async for event in run.events()]
        result = await run.result()
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert events == again
    assert result["a"] == 1
    assert {event.run_id for event in events} == {run.id} == {result.run_id}
    assert run.status is Status.SUCCEEDED


async def test_listeners_hear_events_as_they_happen():
    go, heard_start = asyncio.Event(), asyncio.Event()

    async def a() -> None:
        await go.wait()

    async with Runner() as runner:
        run = await runner.start([a])
        assert run.status is Status.RUNNING
        async for event in run.events():
            if type(event).__name__ == "StepStarted":
                heard_start.set()
                go.set()
        await run.result()
    assert heard_start.is_set()


async def test_a_started_run_can_be_cancelled_and_says_so(heard: Recorder):
    cleaned = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            cleaned.append("yes")

    async with Runner(observers=[heard]) as runner:
        run = await runner.start([endless, step(lambda endless: 1, name="below")])
        await asyncio.sleep(0.01)
        await run.cancel()
        assert cleaned == ["yes"]
        assert run.status is Status.CANCELLED
        with pytest.raises(RunCancelled, match="The run was cancelled: 0 of 2 steps were done") as caught:
            await run.result()
        assert caught.value.result.steps["below"].status is Status.CANCELLED
        await run.cancel()  # once more does nothing


async def test_cancelling_who_waits_for_a_run_does_not_cancel_the_run():
    go = asyncio.Event()

    async def a() -> int:
        await go.wait()
        return 1

    async with Runner() as runner:
        run = await runner.start([a])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.result()
        go.set()
        assert (await run.result())["a"] == 1


async def test_a_started_run_that_fails_raises_when_its_result_is_asked_for():
    async with Runner() as runner:
        run = await runner.start([step(lambda: 1 / 0, name="bad")])
        with pytest.raises(RunError):
            await run.result()
        assert run.status is Status.FAILED
        late = await runner.start([step(asyncio.Event().wait, name="endless")], timeout=0.01)
        with pytest.raises(DeadlineError):
            await late.result()


async def test_leaving_a_runner_cancels_what_it_started():
    async with Runner() as runner:
        run = await runner.start([step(asyncio.Event().wait, name="endless")])
    assert run.status is Status.CANCELLED


async def test_a_mistake_is_raised_by_start_itself():
    async with Runner() as runner:
        with pytest.raises(GraphError):
            await runner.start([step(lambda nothing: 1, name="x")])


async def test_the_lifespan_is_that_of_the_runner():
    runner = Runner()
    async with runner.lifespan(object()):
        run = await runner.start([step(asyncio.Event().wait, name="endless")])
    assert run.status is Status.CANCELLED


async def test_a_thousand_runs_at_once_end_well():
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    pipeline = Pipeline([double, step(lambda double: double + 1, name="more", run_on="loop")], inputs=("n",))
    results = await asyncio.gather(*[pipeline.run({"n": n}) for n in range(1000)])
    assert [result["more"] for result in results] == [2 * n + 1 for n in range(1000)]


async def test_a_cancelled_run_leaves_no_data_behind():
    class Big: ...

    alive: list[weakref.ref[Big]] = []
    begun = threading.Event()

    def source() -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        return big

    def reader(source: Big) -> None:
        begun.set()
        while True:
            check_cancelled()
            threading.Event().wait(0.001)

    task = asyncio.ensure_future(run_pipeline([source, reader]))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0.01)
    gc.collect()
    assert alive[0]() is None


# -- without await -----------------------------------------------------------------------------------------


def total(a: int, b: int) -> int:
    return a + b


def test_a_pipeline_runs_without_a_loop():
    assert run_pipeline_sync([total], {"a": 1, "b": 2})["total"] == 3


def test_without_a_loop_an_error_of_a_step_tells_of_no_other_error():
    with pytest.raises(RunError) as caught:
        run_pipeline_sync([step(lambda: 1 / 0, name="bad")])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.__cause__.__context__ is None


@pytest.mark.foreign_loop
async def test_a_pipeline_runs_inside_a_running_loop_in_a_thread_of_its_own():
    assert run_pipeline_sync([total], {"a": 1, "b": 2}, on_error="continue")["total"] == 3
    with pytest.raises(RunError):
        run_pipeline_sync([step(lambda: 1 / 0, name="bad")])


@pytest.mark.parametrize("journaled", [False, True], ids=["bare", "journaled"])
async def test_a_run_that_is_over_is_freed_without_the_garbage_collector(tmp_path: Path, journaled: bool):
    async def load(n: int) -> int:
        return n

    def double(load: int) -> int:
        return 2 * load

    async def parts(double: int) -> AsyncIterator[int]:
        yield double

    async def total(parts: AsyncIterator[int]) -> int:
        return sum([part async for part in parts])

    each = step(lambda xs: xs, name="each", map_over="xs")
    pipeline = Pipeline([load, double, parts, total, each, step(lambda double: [double], name="xs")], ["n"])
    async with Runner(journal=tmp_path / "journal" if journaled else None) as runner:
        for count in (3, 30):
            gc.collect()
            gc.disable()
            try:
                for n in range(count):
                    await runner.run(pipeline, {"n": n})
                found = gc.collect()
            finally:
                gc.enable()
    assert found < 30, "not one object a run"
