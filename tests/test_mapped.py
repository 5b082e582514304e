"""Mapped steps: one call an element, each with its own slot, retries, time limit and place in the list."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from odibi_async import Limits, Pipeline, Retry, RunError, Status, run_pipeline, step
from odibi_async.errors import GraphError, MapOverError
from odibi_async.events import StepFinished, StepProgressed, StepRetrying, StepStarted
from odibi_async.testing import Recorder


def numbers(count: int) -> list[int]:
    return list(range(count))


@pytest.mark.parametrize("place", ["loop", "thread", "async"])
async def test_the_dataset_is_the_list_of_the_results_in_order(place: Any, heard: Recorder):
    def square(n: int, plus: int) -> int:
        return n * n + plus

    async def square_async(n: int, plus: int) -> int:
        for _ in range(10 - n):
            await asyncio.sleep(0)
        return n * n + plus

    options: Any = {"name": "squares", "map_over": "n", "inputs": {"n": "numbers"}, "params": {"plus": 1}}
    mapped = step(square_async, **options) if place == "async" else step(square, run_on=place, **options)
    steps = [numbers, mapped, step(lambda squares: sum(squares), name="total")]
    result = await run_pipeline(steps, {"count": 10}, observers=[heard])
    assert result["squares"] == [n * n + 1 for n in range(10)]
    assert result["total"] == sum(result["squares"])
    assert [event.done for event in heard.of(StepProgressed)] == list(range(1, 11))
    assert {event.total for event in heard.of(StepProgressed)} == {10}
    assert heard.story.count("StepFinished squares") == 1


async def test_an_empty_list_gives_an_empty_list():
    mapped = step(lambda n: n, name="mapped", map_over="n", inputs={"n": "numbers"})
    two = step(lambda n: (n, n), name="two", map_over="n", inputs={"n": "numbers"}, outputs=("left", "right"))
    result = await run_pipeline([numbers, mapped, two], {"count": 0})
    assert result["mapped"] == result["left"] == result["right"] == []


async def test_several_outputs_give_several_lists():
    split = step(lambda n: (n, -n), name="split", map_over="n", inputs={"n": "numbers"}, outputs=("plus", "minus"))
    result = await run_pipeline([numbers, split], {"count": 3})
    assert (result["plus"], result["minus"]) == ([0, 1, 2], [0, -1, -2])


async def test_each_element_has_its_own_retries(heard: Recorder):
    calls = dict.fromkeys(range(4), 0)

    def flaky(n: int) -> int:
        calls[n] += 1
        if calls[n] <= n:
            raise OSError("flaky")
        return n

    mapped = step(flaky, map_over="n", inputs={"n": "numbers"}, retry=Retry(attempts=4, wait=0))
    result = await run_pipeline([numbers, mapped], {"count": 4}, observers=[heard])
    assert result["flaky"] == [0, 1, 2, 3]
    assert sorted(event.element for event in heard.of(StepRetrying)) == [1, 2, 2, 3, 3, 3]


async def test_each_element_has_its_own_time():
    async def slow(n: int) -> int:
        await asyncio.sleep(0.02)
        return n

    mapped = step(slow, map_over="n", inputs={"n": "numbers"}, timeout=5)
    assert (await run_pipeline([numbers, mapped], {"count": 5}, limits=Limits(concurrency=1)))["slow"] == numbers(5)

    async def stuck(n: int) -> int:
        if n == 3:
            await asyncio.Event().wait()
        return n

    with pytest.raises(RunError, match=r"stuck: element 3: TimeoutError: no result within 0.02 s"):
        await run_pipeline([numbers, step(stuck, map_over="n", inputs={"n": "numbers"}, timeout=0.02)], {"count": 5})


async def test_each_element_takes_a_slot():
    now = most = 0

    async def work(n: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    mapped = step(work, map_over="n", inputs={"n": "numbers"}, pool="db")
    await run_pipeline([numbers, mapped], {"count": 30}, limits=Limits(pools={"db": 4}))
    assert most == 4


async def test_a_failed_element_names_its_index_and_cancels_the_others():
    cleaned = []

    async def work(n: int) -> None:
        if n == 2:
            raise ValueError("two")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(n)

    mapped = step(work, map_over="n", inputs={"n": "numbers"})
    with pytest.raises(RunError) as raised:
        await run_pipeline([numbers, mapped, step(lambda work: 1, name="below")], {"count": 5})
    failure = raised.value.failures["work"]
    assert (failure.element, str(failure)) == (2, "Step 'work' failed: element 2: ValueError: two")
    assert isinstance(failure.__cause__, ValueError)
    assert sorted(cleaned) == [0, 1, 3, 4]
    assert raised.value.result.steps["below"].skipped_because == "work"


async def test_with_continue_the_other_elements_are_made_when_one_fails():
    failed = asyncio.Event()

    async def work(n: int) -> int:
        if n == 2:
            failed.set()
            raise ValueError("two")
        await failed.wait()
        await asyncio.sleep(0)
        return 10 * n

    mapped = step(work, map_over="n", inputs={"n": "numbers"})
    result = await run_pipeline(
        [numbers, mapped, step(lambda work: 1, name="below"), step(lambda: 1, name="apart")],
        {"count": 5},
        on_error="continue",
    )
    assert result.failures["work"].element == 2
    assert result.partial == {"work": {0: 0, 1: 10, 3: 30, 4: 40}}
    assert result.steps["below"].skipped_because == "work"
    assert result["apart"] == 1


async def test_an_element_cancelled_by_itself_is_a_failure():
    async def work(n: int) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RunError, match="element 0: CancelledError"):
        await run_pipeline([numbers, step(work, map_over="n", inputs={"n": "numbers"})], {"count": 1})


async def test_a_mapped_step_fed_by_a_mapped_step_starts_element_by_element(heard: Recorder):
    third_may_go = asyncio.Event()

    async def first(n: int) -> int:
        if n == 2:
            await third_may_go.wait()
        return n * 10

    async def second(m: int) -> int:
        if m == 10:
            third_may_go.set()  # waiting for the list of `first` would wait for ever
        return m + 1

    steps = [
        numbers,
        step(first, map_over="n", inputs={"n": "numbers"}),
        step(second, map_over="m", inputs={"m": "first"}),
        step(lambda second, first: (second, first), name="both"),
    ]
    result = await asyncio.wait_for(run_pipeline(steps, {"count": 3}, observers=[heard]), 10)
    assert result["both"] == ([1, 11, 21], [0, 10, 20])
    assert heard.story.index("StepStarted second") < heard.story.index("StepFinished first")
    only = await asyncio.wait_for(run_pipeline(steps, {"count": 3}, targets=["second"]), 10)
    assert dict(only.outputs) == {"second": [1, 11, 21]}


@pytest.mark.parametrize("on_error", ["raise", "continue"])
async def test_a_failure_upstream_ends_what_takes_its_elements(on_error: Any):
    async def first(n: int) -> int:
        if n == 2:
            await asyncio.sleep(0.01)
            raise ValueError("two")
        return n

    steps = [
        numbers,
        step(first, map_over="n", inputs={"n": "numbers"}),
        step(lambda m: m, name="second", map_over="m", inputs={"m": "first"}),
    ]
    if on_error == "raise":
        with pytest.raises(RunError, match="first: element 2"):
            await asyncio.wait_for(run_pipeline(steps, {"count": 3}), 10)
    else:
        result = await asyncio.wait_for(run_pipeline(steps, {"count": 3}, on_error="continue"), 10)
        assert result.steps["second"].status is Status.SKIPPED
        assert result.steps["second"].skipped_because == "first"


async def test_a_skipped_mapped_step_skips_what_takes_its_elements():
    steps = [
        numbers,
        step(lambda n: n, name="first", map_over="n", inputs={"n": "numbers"}, when=lambda: False),
        step(lambda m: m, name="second", map_over="m", inputs={"m": "first"}),
    ]
    result = await run_pipeline(steps, {"count": 3})
    assert result.steps["second"].skipped_because == "first"


async def test_a_given_list_stands_in_for_a_mapped_step():
    steps = [
        numbers,
        step(lambda n: n, name="first", map_over="n", inputs={"n": "numbers"}),
        step(lambda m: m + 1, name="second", map_over="m", inputs={"m": "first"}),
    ]
    result = await Pipeline(steps, inputs=("count",)).run({"first": [5, 6]}, targets=["second"])
    assert result["second"] == [6, 7]


@pytest.mark.parametrize("value", ["text", {"a": 1}, {1, 2}, 7, None])
async def test_what_is_no_list_is_refused(value: Any):
    mapped = step(lambda x: x, name="mapped", map_over="x", inputs={"x": "value"})
    with pytest.raises(RunError) as caught:
        await run_pipeline([mapped], {"value": value})
    assert isinstance(caught.value.__cause__, MapOverError)
    assert f"Step 'mapped' maps over 'x': a list or a tuple is needed, not {type(value).__name__}." in str(caught.value)


def test_the_parameter_must_be_there_and_read_a_dataset():
    with pytest.raises(GraphError, match="is to map over 'm', which is no parameter that reads a dataset"):
        Pipeline([step(lambda n: n, name="x", map_over="m")], inputs=("n",))
    with pytest.raises(GraphError, match="is to map over 'n'"):
        Pipeline([step(lambda n: n, name="x", map_over="n", params={"n": [1]})])


async def test_a_cancelled_run_ends_its_elements(heard: Recorder):
    cleaned = []
    begun = asyncio.Event()

    async def work(n: int) -> None:
        if n == 9:
            begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            cleaned.append(n)

    task = asyncio.ensure_future(
        run_pipeline([numbers, step(work, map_over="n", inputs={"n": "numbers"})], {"count": 10}, observers=[heard])
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cleaned) == numbers(10)
    assert heard.of(StepFinished)[-1].status is Status.CANCELLED


async def test_waiting_elements_give_their_places_back_when_cancelled():
    from odibi_async import Runner

    begun = asyncio.Event()

    async def work(n: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Runner(limits=Limits(concurrency=2, pools={"p": 1})) as runner:
        run = await runner.start([numbers, step(work, map_over="n", inputs={"n": "numbers"}, pool="p")], {"count": 9})
        await begun.wait()
        await run.cancel()
        done = await runner.run([step(lambda: 1, name=f"s{i}", pool="p") for i in range(4)])
        assert done.ok


async def test_elements_in_threads_overlap():
    meeting = threading.Barrier(3, timeout=10)

    def meet(n: int) -> int:
        meeting.wait()
        return n

    mapped = step(meet, map_over="n", inputs={"n": "numbers"})
    assert (await run_pipeline([numbers, mapped], {"count": 3}, limits=Limits(threads=3)))["meet"] == numbers(3)


async def test_thousands_of_elements_run(heard: Recorder):
    async def same(n: int) -> int:
        return n

    mapped = step(same, map_over="n", inputs={"n": "numbers"})
    result = await run_pipeline([numbers, mapped], {"count": 5000}, observers=[heard])
    assert result["same"] == numbers(5000)
    assert len(heard.of(StepStarted)) == 2
