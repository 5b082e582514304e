"""Streaming steps: batches read while they are made, bounded, in order, and cleaned up whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import Limits, Pipeline, Retry, RunError, Runner, Status, resource, run_pipeline, step
from odibi_async.errors import (
    BatchesDiffer,
    BatchesGone,
    DatasetMissing,
    DeadlineError,
    GraphError,
    OptionError,
    OutputError,
)
from odibi_async.events import StepStreamed
from odibi_async.testing import Recorder, failing, slowed

SECONDS = 20
"""After which a run counts as hanging."""


async def run(steps: Any, inputs: Any = None, **options: Any) -> Any:
    async with asyncio.timeout(SECONDS):
        return await run_pipeline(steps, inputs, **options)


class Source:
    """A streaming step, and what became of it."""

    def __init__(self, count: int = 20, *, fails_at: int | None = None, error: BaseException | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.error = error or OSError("source")
        self.made: list[int] = []
        self.closed = 0
        self.calls = 0

    def _next(self, number: int) -> list[int]:
        if number == self.fails_at:
            raise self.error
        self.made.append(number)
        return [number]

    @property
    def on_loop(self) -> Any:
        async def numbers() -> AsyncIterator[list[int]]:
            self.calls += 1
            try:
                for number in range(self.count):
                    await asyncio.sleep(0)
                    yield self._next(number)
            finally:
                await asyncio.sleep(0)
                self.closed += 1

        return numbers

    @property
    def in_thread(self) -> Any:
        def numbers() -> Iterator[list[int]]:
            self.calls += 1
            try:
                for number in range(self.count):
                    yield self._next(number)
            finally:
                self.closed += 1

        return numbers

    def of(self, kind: str) -> Any:
        return self.on_loop if kind == "async" else self.in_thread


async def total(numbers: AsyncIterator[list[int]]) -> int:
    count = 0
    async for batch in numbers:
        count += sum(batch)
    return count


def total_in_thread(numbers: Iterator[list[int]]) -> int:
    return sum(sum(batch) for batch in numbers)


KINDS = pytest.mark.parametrize("kind", ["async", "plain"])
READERS = pytest.mark.parametrize("reader", [total, total_in_thread])


# -- what readers get -------------------------------------------------------------------------------------


@KINDS
@READERS
@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=1, threads=1), Limits(concurrency=2, threads=1)])
async def test_a_reader_takes_batches_while_they_are_made(kind: str, reader: Any, limits: Limits):
    source = Source(50)
    result = await run([source.of(kind), reader], limits=limits)
    assert result[reader] == sum(range(50))
    assert source.closed == source.calls == 1
    assert result.steps["numbers"].batches == result.steps["numbers"].rows == 50
    assert "50 batches" in str(result)


async def test_a_reader_starts_at_the_first_batch():
    first_was_read = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await first_was_read.wait()
        yield 2

    async def read(numbers: AsyncIterator[int]) -> list[int]:
        seen = []
        async for number in numbers:
            seen.append(number)
            first_was_read.set()
        return seen

    assert (await run([numbers, read]))["read"] == [1, 2]


@pytest.mark.parametrize("taken", [AsyncIterator, AsyncIterable[int], AsyncGenerator[int, None], "AsyncIterator[int]"])
async def test_annotations_that_mean_batches(taken: Any):
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def read(numbers: Any) -> list[int]:
        return [number async for number in numbers]

    read.__annotations__["numbers"] = taken
    assert (await run([numbers, read]))["read"] == [1]


async def test_an_iterable_may_be_a_list_so_it_gets_one():
    def read(numbers: Iterable[list[int]]) -> list[list[int]]:
        return [*numbers, *numbers]

    assert (await run([Source(2).on_loop, read]))["read"] == [[0], [1], [0], [1]]


async def test_callable_objects_and_partials_are_streaming_steps_too():
    class Numbers:
        async def __call__(self, last: int) -> AsyncIterator[int]:
            for number in range(last):
                yield number

    class Plain:
        def __call__(self, last: int) -> Iterator[int]:
            yield from range(last)

    def chain(first: int, last: int) -> Iterator[int]:
        yield from range(first, last)

    steps = [
        step(Numbers(), name="a"),
        step(Plain(), name="b"),
        step(functools.partial(chain, 1), name="c"),
        step(functools.partial(Numbers(), last=1), name="d"),
    ]
    result = await run(steps, {"last": 3})
    assert [result[name] for name in "abcd"] == [[0, 1, 2], [0, 1, 2], [1, 2], [0]]


@KINDS
async def test_other_readers_get_the_list_when_it_is_whole(kind: str):
    def read(numbers: Any) -> Any:
        return numbers

    result = await run([Source(3).of(kind), read, total])
    assert result["read"] == result["numbers"] == [[0], [1], [2]]
    assert result["total"] == 3


async def test_frames_make_one_frame():
    async def frames() -> AsyncIterator[pd.DataFrame]:
        for number in range(3):
            yield pd.DataFrame({"n": [number, number]})

    def rows(frames: pd.DataFrame) -> int:
        return len(frames)

    async def batches(frames: AsyncIterator[pd.DataFrame]) -> list[int]:
        return [len(frame) async for frame in frames]

    result = await run([frames, rows, batches])
    expected = pd.DataFrame({"n": [0, 0, 1, 1, 2, 2]})
    pd.testing.assert_frame_equal(result["frames"], expected)
    assert (result["rows"], result["batches"]) == (6, [2, 2, 2])
    assert (result.steps["frames"].batches, result.steps["frames"].rows) == (3, 6)


async def test_an_index_that_means_something_is_kept():
    def frames() -> Iterator[pd.DataFrame]:
        yield pd.DataFrame({"n": [1]}, index=pd.Index(["a"], name="key"))
        yield pd.DataFrame({"n": [2]}, index=pd.Index(["b"], name="key"))

    assert list((await run([frames]))["frames"].index) == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (pd.DataFrame({"m": [1]}), "there is no n and there is also m in batch 1"),
        (pd.DataFrame({"n": [1.5]}), "n is float64, not int64 as in batch 0, in batch 1"),
        (pd.DataFrame({"n": [1]}, index=["x"]), "the index is another one in batch 1"),
    ],
)
async def test_frames_that_are_not_alike_fail_the_step(second: pd.DataFrame, says: str):
    async def frames() -> AsyncIterator[pd.DataFrame]:
        yield pd.DataFrame({"n": [1]})
        yield second

    with pytest.raises(RunError) as failed:
        await run([frames])
    error = failed.value.failures["frames"].error
    assert isinstance(error, BatchesDiffer)
    assert says in str(error)


async def test_frames_of_other_categories_are_told_apart():
    async def frames() -> AsyncIterator[pd.DataFrame]:
        for name in ("a", "b"):
            yield pd.DataFrame({"n": pd.Categorical([name])})

    with pytest.raises(RunError, match="n is category of other values than in batch 0, in batch 1"):
        await run([frames])


async def test_frames_that_only_pass_by_may_differ():
    async def frames() -> AsyncIterator[pd.DataFrame]:
        yield pd.DataFrame({"n": [1]})
        yield pd.DataFrame({"m": [1.5]})

    async def read(frames: AsyncIterator[pd.DataFrame]) -> list[str]:
        return [str(column) async for frame in frames for column in frame]

    assert (await run([frames, read]))["read"] == ["n", "m"]


@KINDS
@READERS
async def test_a_stream_may_be_empty(kind: str, reader: Any):
    def read(numbers: Any) -> Any:
        return numbers

    result = await run([Source(0).of(kind), read, reader])
    assert (result["read"], result[reader]) == ([], 0)
    assert result.steps["numbers"].batches == 0


async def test_batches_that_pass_by_are_not_kept_unless_they_are_a_target():
    result = await run([Source(3).on_loop, total])
    with pytest.raises(DatasetMissing, match="name it among the targets"):
        result["numbers"]
    result = await run([Source(3).on_loop, total], targets=["numbers", "total"])
    assert result["numbers"] == [[0], [1], [2]]


async def test_a_batch_that_is_changed_after_it_was_yielded_stays_as_it_was():
    async def numbers() -> AsyncIterator[list[int]]:
        batch: list[int] = []
        for number in range(10):
            batch.clear()
            batch.append(number)
            yield batch

    async def spoil(numbers: AsyncIterator[list[int]]) -> None:
        async for batch in numbers:
            batch.append(100)

    result = await run([numbers, spoil, total], targets=["total", "spoil", "numbers"])
    assert result["total"] == sum(range(10))
    assert result["numbers"] == [[number] for number in range(10)]


async def test_a_generator_among_the_batches_is_refused():
    async def numbers() -> AsyncIterator[Any]:
        yield (each for each in ())

    with pytest.raises(RunError) as failed:
        await run([numbers, total])
    assert isinstance(failed.value.failures["numbers"].error, OutputError)


# -- pipelines of streams ---------------------------------------------------------------------------------


def doubled(kind: str) -> Any:
    async def on_loop(numbers: AsyncIterator[list[int]]) -> AsyncIterator[list[int]]:
        async for batch in numbers:
            yield [2 * each for each in batch]

    def in_thread(numbers: Iterator[list[int]]) -> Iterator[list[int]]:
        for batch in numbers:
            yield [2 * each for each in batch]

    return step(on_loop if kind == "async" else in_thread, name="double")


@KINDS
@pytest.mark.parametrize("middle", ["async", "plain"])
@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=1, threads=1), Limits(threads=2)])
async def test_a_streaming_step_may_read_a_stream(kind: str, middle: str, limits: Limits):
    last = step(total_in_thread if kind == "async" else total, name="total", inputs={"numbers": "double"})
    result = await run([Source(30).of(kind), doubled(middle), last], limits=limits)
    assert result["total"] == 2 * sum(range(30))


async def test_steps_of_one_pool_take_turns_in_it():
    source, last = step(Source(20).on_loop, pool="p"), step(total, pool="p", inputs={"numbers": "double"})
    result = await run([source, dataclass_with_pool(doubled("plain")), last], limits=Limits(pools={"p": 1}))
    assert result["total"] == 2 * sum(range(20))


def dataclass_with_pool(made: Any) -> Any:
    return step(made, pool="p")


async def test_a_diamond_of_streams_that_are_read_one_after_the_other_does_not_stand_still():
    async def join(numbers: AsyncIterator[list[int]], double: AsyncIterator[list[int]]) -> list[int]:
        one = [each async for batch in double for each in batch]
        return one + [each async for batch in numbers for each in batch]

    result = await run([Source(50).on_loop, doubled("async"), join])
    assert result["join"] == [2 * each for each in range(50)] + list(range(50))


@KINDS
@pytest.mark.parametrize("middle", ["async", "plain"])
@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=1, threads=1)])
async def test_a_diamond_whose_other_side_has_not_begun_does_not_stand_still(kind: str, middle: str, limits: Limits):
    async def join(one: AsyncIterator[list[int]], other: AsyncIterator[list[int]]) -> list[int]:
        return [each async for batch in one for each in batch] + [each async for batch in other for each in batch]

    one, other = step(doubled(kind), name="one"), step(doubled(middle), name="other")
    result = await run([Source(50).of(middle), one, other, join], limits=limits)
    assert result["join"] == [2 * each for each in range(50)] * 2


@pytest.mark.parametrize("buffer", range(1, 7))
async def test_a_thread_that_waits_until_there_is_room_for_several_batches_does_not_stand_still(buffer: int):
    async def double(numbers: AsyncIterator[list[int]]) -> AsyncIterator[list[int]]:
        async for batch in numbers:
            await asyncio.sleep(0.01)  # the other reader waits by then
            yield [2 * each for each in batch]

    async def join(double: AsyncIterator[list[int]], numbers: AsyncIterator[list[int]]) -> list[int]:
        first = await anext(double)
        rest = [each async for batch in numbers for each in batch]
        return first + rest + [each async for batch in double for each in batch]

    result = await run([Source(50).in_thread, step(double, buffer=buffer), join])
    assert result["join"] == [0, *range(50), *(2 * each for each in range(1, 50))]


@KINDS
async def test_a_step_of_a_diamond_may_map_over_batches(kind: str):
    @step(map_over="numbers")
    async def mapped(numbers: list[int]) -> list[int]:
        return [2 * each for each in numbers]

    def in_thread(mapped: Iterator[list[int]], numbers: Iterator[list[int]]) -> Iterator[list[int]]:
        yield from mapped
        yield from numbers

    async def last(mapped: AsyncIterator[list[int]], chained: AsyncIterator[list[int]]) -> list[int]:
        return [each async for batch in chained for each in batch]

    for _ in range(20):
        result = await run([Source(20).of(kind), mapped, step(in_thread, name="chained", buffer=9), last])
        assert result["last"] == [2 * each for each in range(20)] + list(range(20))


async def test_readers_of_two_sources_that_need_the_whole_of_the_other_one_do_not_stand_still():
    def source(name: str) -> Any:
        return step(Source(20).on_loop, name=name)

    def count(double: list[Any]) -> int:
        return len(double)

    async def read(numbers: AsyncIterator[list[int]], count: int) -> int:
        return count + len([batch async for batch in numbers])

    sides = [
        side
        for mine, other in (("a", "b"), ("b", "a"))
        for side in (
            source(mine),
            step(doubled("async"), name=f"double_{mine}", inputs={"numbers": mine}),
            step(count, name=f"count_{mine}", inputs={"double": f"double_{mine}"}),
            step(read, name=f"read_{mine}", inputs={"numbers": mine, "count": f"count_{other}"}),
        )
    ]
    result = await run(sides)
    assert (result["read_a"], result["read_b"]) == (40, 40)


async def test_one_step_may_read_a_stream_twice_over():
    async def twice(numbers: AsyncIterator[list[int]], again: AsyncIterator[list[int]]) -> list[int]:
        first = [each async for batch in numbers for each in batch]
        return first + [each async for batch in again for each in batch]

    result = await run([Source(30).on_loop, step(twice, inputs={"again": "numbers"})])
    assert result["twice"] == [*range(30), *range(30)]


async def test_a_reader_that_also_needs_the_whole_reads_the_batches_when_all_are_there():
    def count(numbers: list[Any]) -> int:
        return len(numbers)

    async def share(numbers: AsyncIterator[list[int]], count: int) -> list[float]:
        return [batch[0] / count async for batch in numbers]

    assert (await run([Source(10).on_loop, count, share]))["share"] == [each / 10 for each in range(10)]


async def test_a_reader_that_waits_for_another_reader_does_not_hold_it_back():
    async def check(numbers: AsyncIterator[list[int]]) -> int:
        return len([batch async for batch in numbers])

    async def load(double: AsyncIterator[list[int]], check: int) -> int:
        return check + len([batch async for batch in double])

    assert (await run([Source(30).on_loop, doubled("async"), check, load]))["load"] == 60


async def test_after_means_after_the_end():
    source = Source(10)

    async def later(numbers: AsyncIterator[list[int]]) -> int:
        assert source.closed
        return len([batch async for batch in numbers])

    assert (await run([source.on_loop, step(later, after=["numbers"])]))["later"] == 10


async def test_an_iterator_of_batches_also_goes_through_a_list_and_a_frame():
    async def read(numbers: AsyncIterator[Any]) -> list[Any]:
        return [batch async for batch in numbers]

    def read_in_thread(numbers: Iterator[Any]) -> list[Any]:
        return list(numbers)

    result = await run([read, read_in_thread], {"numbers": [[1], [2]]})
    assert result["read"] == result["read_in_thread"] == [[1], [2]]
    result = await run([Source(3).on_loop, read], {"numbers": [[7]]})
    assert result["read"] == [[7]]
    frame = pd.DataFrame({"n": [1]})
    assert len((await run([read], {"numbers": frame}))["read"]) == 1


async def test_a_parameter_with_a_default_does_without_a_stream_that_was_not_wanted():
    async def read(numbers: AsyncIterator[Any] | None = None) -> bool:
        return numbers is None

    source = Source()
    result = await run([step(source.on_loop, when=lambda: False), read])
    assert result["read"] is True
    assert result.steps["numbers"].status is Status.SKIPPED
    assert not source.calls


# -- bounds -----------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("buffer", [None, 1, 2, 7])
async def test_no_more_batches_are_alive_than_the_buffer_holds(kind: str, buffer: int | None):
    class Batch:
        pass

    alive: weakref.WeakSet[Batch] = weakref.WeakSet()
    most = 0

    def batch() -> Batch:
        made = Batch()
        alive.add(made)
        return made

    async def on_loop() -> AsyncIterator[Batch]:
        for _ in range(50):
            yield batch()

    def in_thread() -> Iterator[Batch]:
        for _ in range(50):
            yield batch()

    async def read(batches: AsyncIterator[Batch]) -> int:
        nonlocal most
        count = 0
        async for each in batches:
            for _ in range(5):
                await asyncio.sleep(0)
            most = max(most, len(alive))
            del each
            count += 1
        return count

    made = step(on_loop if kind == "async" else in_thread, name="batches", buffer=buffer)
    assert (await run([made, read]))["read"] == 50
    assert most <= (buffer or 4)


async def test_the_slowest_reader_sets_the_pace():
    source, ahead = Source(40), 0

    async def slow(numbers: AsyncIterator[list[int]]) -> int:
        nonlocal ahead
        seen = 0
        async for _ in numbers:
            seen += 1
            for _ in range(20):
                await asyncio.sleep(0)
            ahead = max(ahead, len(source.made) - seen)
        return seen

    result = await run([source.on_loop, slow, total, total_in_thread])
    assert result["slow"] == 40
    assert result["total"] == result["total_in_thread"] == sum(range(40))
    assert ahead <= 4


@pytest.mark.parametrize("buffer", [0, -1, 1.5, True, "4"])
def test_a_buffer_is_a_whole_number_from_1_on(buffer: Any):
    with pytest.raises(OptionError, match="buffer="):
        step(Source().on_loop, buffer=buffer)


# -- readers that stop early, fail, or do what they should not --------------------------------------------


@KINDS
@pytest.mark.parametrize("count", [20, 10**9])
async def test_a_stream_that_nobody_reads_any_more_is_closed(kind: str, count: int):
    source = Source(count)

    async def first(numbers: AsyncIterator[list[int]]) -> list[int]:
        async for batch in numbers:
            return batch
        return []

    result = await run([source.of(kind), first])
    assert result["first"] == [0]
    assert source.closed == 1
    assert len(source.made) <= 6
    assert result.steps["numbers"].status is Status.SUCCEEDED


async def test_a_source_that_waits_is_interrupted_when_nobody_reads_any_more():
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    result = await run([numbers, doubled_of("first"), first])
    assert result["first"] == 1
    assert result.ok
    assert closed == [True]


def doubled_of(after: str) -> Any:
    async def last(**_: Any) -> None:
        return None

    return step(last, after=[after])


async def test_a_reader_that_says_that_it_needs_no_more_sets_others_free():
    source, left, go_on = Source(30), asyncio.Event(), asyncio.Event()

    async def early(numbers: AsyncGenerator[list[int], None]) -> str:
        await anext(numbers)
        await numbers.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(numbers)
        left.set()
        await go_on.wait()
        return "early"

    async def patient(numbers: AsyncIterator[list[int]]) -> int:
        await left.wait()
        count = len([batch async for batch in numbers])
        go_on.set()
        return count

    result = await run([source.on_loop, early, patient])
    assert (result["early"], result["patient"]) == ("early", 30)


@KINDS
async def test_a_reader_that_fails_leaves_the_others_alone(kind: str):
    source = Source(30)

    async def bad(numbers: AsyncIterator[list[int]]) -> None:
        await anext(numbers)
        raise ValueError("bad")

    result = await run([source.of(kind), bad, total], on_error="continue")
    assert list(result.failures) == ["bad"]
    assert result["total"] == sum(range(30))
    assert result.steps["numbers"].status is Status.SUCCEEDED
    assert source.closed == 1


@KINDS
async def test_a_source_whose_only_reader_failed_is_closed_and_has_not_failed(kind: str):
    source = Source(10**9)

    async def bad(numbers: AsyncIterator[list[int]]) -> None:
        await anext(numbers)
        raise ValueError("bad")

    result = await run([source.of(kind), bad], on_error="continue")
    assert list(result.failures) == ["bad"]
    assert result.steps["numbers"].status is Status.SUCCEEDED
    assert source.closed == 1


async def test_a_reader_that_never_asks_means_that_the_source_is_not_called():
    source = Source()

    async def idle(numbers: AsyncIterator[list[int]]) -> int:
        return 7

    result = await run([source.on_loop, idle])
    assert result["idle"] == 7
    assert source.calls == 0
    assert (result.steps["numbers"].status, result.steps["numbers"].skipped_because) == (Status.SKIPPED, "idle")


async def test_a_source_that_others_wait_for_is_called_though_nobody_asks():
    source = Source(30)

    async def idle(numbers: AsyncIterator[list[int]]) -> int:
        return 7

    async def later() -> int:
        return 8

    result = await run([source.on_loop, idle, step(later, after=["numbers"])])
    assert len(source.made) == 30
    assert result["later"] == 8


async def test_batches_cannot_be_read_after_the_step_has_ended():
    kept: list[Any] = []

    async def keep(numbers: AsyncIterator[list[int]]) -> int:
        kept.append(numbers)
        return (await anext(numbers))[0]

    async def after(keep: int) -> None:
        with pytest.raises(BatchesGone, match="only while step 'keep' runs"):
            await anext(kept[0])

    assert (await run([Source().on_loop, keep, after])).ok
    with pytest.raises(BatchesGone):
        await anext(kept[0])


async def test_an_iterator_that_is_returned_is_refused():
    async def keep(numbers: AsyncIterator[list[int]]) -> Any:
        return numbers

    with pytest.raises(RunError) as failed:
        await run([Source().on_loop, keep])
    assert isinstance(failed.value.failures["keep"].error, OutputError)


async def test_two_tasks_that_read_one_iterator_share_its_batches():
    async def share(numbers: AsyncIterator[list[int]]) -> list[int]:
        async def part() -> list[int]:
            return [each async for batch in numbers for each in batch]

        parts = await asyncio.gather(part(), part(), part())
        return sorted(each for part in parts for each in part)

    assert (await run([Source(50).on_loop, share]))["share"] == list(range(50))


# -- sources that fail ------------------------------------------------------------------------------------


class Own(BaseException):
    """An exception of the user's that is no `Exception`."""


@KINDS
@READERS
@pytest.mark.parametrize("at", [0, 3, 10])
@pytest.mark.parametrize("on_error", ["raise", "continue"])
@pytest.mark.parametrize("error", [OSError("source"), Own("own"), asyncio.CancelledError()], ids=type)
async def test_a_reader_of_a_source_that_fails_is_skipped_because_of_it(
    kind: str, reader: Any, at: int, on_error: str, error: BaseException
):
    source = Source(fails_at=at, error=error)
    later = step(lambda x: x, name="later", inputs={"x": reader.__name__})
    with pytest.raises(RunError) as failed:
        (await run([source.of(kind), reader, later], on_error=on_error)).raise_for_failures()
    assert list(failed.value.failures) == ["numbers"]
    assert failed.value.failures["numbers"].error is error
    for name in (reader.__name__, "later"):
        record = failed.value.result.steps[name]
        assert (record.status, record.skipped_because) == (Status.SKIPPED, "numbers")
    assert source.closed == 1


async def test_a_reader_that_swallows_the_failure_of_its_source_has_not_succeeded():
    async def stubborn(numbers: AsyncIterator[list[int]]) -> int:
        count = 0
        with contextlib.suppress(Exception):
            async for _ in numbers:
                count += 1
        return count

    result = await run([Source(fails_at=3).on_loop, stubborn], on_error="continue")
    assert result.steps["stubborn"].skipped_because == "numbers"
    assert "stubborn" not in result


async def test_a_reader_that_ended_before_its_source_failed_has_succeeded():
    ended = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await ended.wait()
        raise OSError("late")

    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    async def tell(first: int) -> None:
        ended.set()

    def whole(numbers: Any) -> Any:
        return numbers

    result = await run([numbers, first, tell, whole], on_error="continue")
    assert result["first"] == 1
    assert list(result.failures) == ["numbers"]
    assert result.steps["whole"].skipped_because == "numbers"


@pytest.mark.parametrize("where", ["start", "middle", "finally", "aclose", "ignores", "reader"])
@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("error", [Own, ValueError, asyncio.CancelledError, StopAsyncIteration, StopIteration])
async def test_whatever_a_generator_raises_the_run_ends(where: str, kind: str, error: Any):
    def at(place: str) -> None:
        if place == where:
            raise error("here")

    async def on_loop() -> AsyncIterator[int]:
        at("start")
        try:
            for number in range(100):
                if number == 5:
                    at("middle")
                yield number
        except GeneratorExit:
            at("aclose")
            if where == "ignores":
                yield 1
        finally:
            at("finally")

    def in_thread() -> Iterator[int]:
        at("start")
        try:
            for number in range(100):
                if number == 5:
                    at("middle")
                yield number
        except GeneratorExit:
            at("aclose")
            if where == "ignores":
                yield 1
        finally:
            at("finally")

    async def read(numbers: AsyncIterator[int]) -> int:
        async for number in numbers:
            if number == 8:
                at("reader")
                return number
        return -1

    made = step(on_loop if kind == "async" else in_thread, name="numbers")
    result = await run([made, read], on_error="continue")
    if where == "reader":
        assert list(result.failures) == ["read"]
    elif kind == "plain" and error is asyncio.CancelledError and where in ("finally", "aclose"):
        assert result["read"] == 8  # in a thread that is, or ought to be, cancelled, that is no failure
    else:
        assert list(result.failures) == ["numbers"]
        assert result.steps["read"].status is (Status.SKIPPED if where in ("start", "middle") else Status.SUCCEEDED)


async def test_a_generator_that_swallows_its_closing_ends_well():
    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        except GeneratorExit:
            return

    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    assert (await run([numbers, first])).ok


async def test_a_source_that_swallows_its_interruption_is_closed_all_the_same():
    async def numbers() -> AsyncIterator[int]:
        yield 1
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield 2

    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    result = await run([numbers, first], limits=Limits(grace=0.1))
    assert result.ok


# -- cancelling, time, retries ----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("slow", ["source", "reader"])
async def test_a_run_that_is_cancelled_closes_both_ends(kind: str, slow: str):
    source, is_going = Source(10**9), asyncio.Event()
    closed = []

    async def read(numbers: AsyncIterator[list[int]]) -> None:
        try:
            async for _ in numbers:
                is_going.set()
                if slow == "reader":
                    await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async with Runner() as runner:
        running = await runner.start([source.of(kind), read])
        await is_going.wait()
        async with asyncio.timeout(SECONDS):
            await running.cancel()
        assert running.status is Status.CANCELLED or running.status is Status.FAILED
    assert source.closed == 1
    assert closed == [True]


async def test_the_time_limit_of_a_streaming_step_is_for_each_batch():
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.sleep(SECONDS)
        yield 3

    async def read(numbers: AsyncIterator[int]) -> list[int]:
        seen = []
        async for number in numbers:
            seen.append(number)
            await asyncio.sleep(0.06)
        return seen

    result = await run([step(numbers, timeout=0.05), read], on_error="continue")
    assert isinstance(result.failures["numbers"].error, TimeoutError)
    assert result.steps["read"].skipped_because == "numbers"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_waiting_for_a_batch_takes_no_time_of_a_step_that_makes_others_from_it(kind: str):
    async def numbers() -> AsyncIterator[list[int]]:
        for number in range(3):
            await asyncio.sleep(0.3)
            yield [number]

    last = step(total, inputs={"numbers": "double"})
    result = await run([numbers, step(doubled(kind), timeout=0.25), last])
    assert result["total"] == 6


async def test_a_slow_reader_takes_no_time_of_its_source():
    def numbers() -> Iterator[int]:
        for number in range(8):
            time.sleep(0.01)
            yield number

    async def read(numbers: AsyncIterator[int]) -> int:
        count = 0
        async for _ in numbers:
            count += 1
            await asyncio.sleep(0.2)
        return count

    assert (await run([step(numbers, timeout=1.0), read]))["read"] == 8


@KINDS
async def test_a_source_is_called_again_while_no_batch_was_handed_out(kind: str):
    calls = []

    async def on_loop() -> AsyncIterator[int]:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("not yet")
        yield 1

    def in_thread() -> Iterator[int]:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("not yet")
        yield 1

    async def read(numbers: AsyncIterator[int]) -> list[int]:
        return [number async for number in numbers]

    made = step(on_loop if kind == "async" else in_thread, name="numbers", retry=Retry(attempts=3, wait=0))
    result = await run([made, read])
    assert result["read"] == [1]
    assert result.steps["numbers"].attempts == 3


async def test_a_source_is_not_called_again_after_its_first_batch():
    source = Source(fails_at=2)
    result = await run([step(source.on_loop, retry=Retry(attempts=3, wait=0)), total], on_error="continue")
    assert source.calls == 1
    assert "It had handed out 2 batches" in result.failures["numbers"].note


async def test_a_reader_is_called_again_only_when_it_has_taken_nothing():
    calls: list[str] = []

    async def early(numbers: AsyncIterator[list[int]]) -> int:
        calls.append("early")
        if calls.count("early") == 1:
            raise OSError("early")
        return await total(numbers)

    async def late(numbers: AsyncIterator[list[int]]) -> int:
        calls.append("late")
        await anext(numbers)
        raise OSError("late")

    retry = Retry(attempts=3, wait=0)
    result = await run([Source().on_loop, step(early, retry=retry), step(late, retry=retry)], on_error="continue")
    assert result["early"] == sum(range(20))
    assert calls.count("late") == 1
    assert "It had taken 1 batches as 'numbers'" in result.failures["late"].note


# -- one call a batch -------------------------------------------------------------------------------------


@KINDS
async def test_a_step_can_map_over_batches(kind: str):
    failed = []

    async def clean(batch: list[int]) -> int:
        if batch == [3] and not failed:
            failed.append(batch)
            raise OSError("once")
        await asyncio.sleep(0.001 * (5 - batch[0] % 5))
        return 2 * batch[0]

    async def read(clean: AsyncIterator[int]) -> list[int]:
        return [each async for each in clean]

    steps = [
        Source(20).of(kind),
        step(clean, map_over="batch", inputs={"batch": "numbers"}, retry=Retry(attempts=2, wait=0)),
        read,
    ]
    result = await run(steps, limits=Limits(concurrency=2))
    assert result["read"] == [2 * each for each in range(20)]
    assert result.steps["clean"].batches == 20
    assert (await run(steps[:2]))["clean"] == [2 * each for each in range(20)]


async def test_no_more_elements_are_under_way_than_the_buffer_says():
    inside = most = 0

    async def clean(batch: list[int]) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        return batch[0]

    mapped = step(clean, map_over="batch", inputs={"batch": "numbers"}, buffer=3)
    assert (await run([Source(30).on_loop, mapped]))["clean"] == list(range(30))
    assert most == 3


async def test_a_batch_that_fails_fails_the_mapped_step_and_closes_the_source():
    source = Source(10**9)

    async def clean(batch: list[int]) -> int:
        if batch == [5]:
            raise ValueError("five")
        return batch[0]

    async def read(clean: AsyncIterator[int]) -> list[int]:
        return [each async for each in clean]

    mapped = step(clean, map_over="batch", inputs={"batch": "numbers"})
    result = await run([source.on_loop, mapped, read], on_error="continue")
    assert list(result.failures) == ["clean"]
    assert result.failures["clean"].element == 5
    assert result.steps["read"].skipped_because == "clean"
    assert source.closed == 1


async def test_the_other_batches_of_a_kept_list_are_made_all_the_same():
    async def clean(batch: list[int]) -> int:
        if batch == [2]:
            raise ValueError("two")
        return batch[0]

    mapped = step(clean, map_over="batch", inputs={"batch": "numbers"})
    result = await run([Source(6).on_loop, mapped], on_error="continue")
    assert result.partial["clean"] == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5}


async def test_a_mapped_step_of_a_source_that_fails_is_skipped():
    async def clean(batch: list[int]) -> int:
        return batch[0]

    mapped = step(clean, map_over="batch", inputs={"batch": "numbers"})
    result = await run([Source(fails_at=3).on_loop, mapped], on_error="continue")
    assert list(result.failures) == ["numbers"]
    assert result.steps["clean"].skipped_because == "numbers"


async def test_a_mapped_step_takes_a_list_in_place_of_the_batches():
    async def clean(batch: list[int]) -> int:
        return batch[0]

    mapped = step(clean, map_over="batch", inputs={"batch": "numbers"})
    again = step(clean, name="again", map_over="batch", inputs={"batch": "clean2"})
    pair = step(lambda x: [x], name="clean2", map_over="x", inputs={"x": "clean"})
    result = await run([Source(6).on_loop, mapped, pair, again], {"numbers": [[5], [6]]})
    assert result["again"] == [5, 6]


# -- what is refused --------------------------------------------------------------------------------------


async def _numbers() -> AsyncIterator[int]:
    yield 1


def _numbers_in_thread() -> Iterator[int]:
    yield 1


def _async_in_thread(numbers: AsyncIterator[int]) -> None: ...


async def _plain_on_loop(numbers: Iterator[int]) -> None: ...


def _in_process(numbers: Iterator[int]) -> None: ...


async def _mapped(a: int) -> int:
    return a


async def _cached(numbers: AsyncIterator[int]) -> None: ...


@pytest.mark.parametrize(
    ("steps", "code", "says"),
    [
        ([step(_numbers, run_on="process")], "OA341", "cannot run on 'process'"),
        ([step(_numbers_in_thread, run_on="dask")], "OA341", "cannot run on 'dask'"),
        ([step(_numbers, outputs=("a", "b"))], "OA342", "declares 2 outputs"),
        ([step(lambda: [1], name="a"), step(_numbers, map_over="a", inputs={"a": "a"})], "OA343", "map over"),
        ([step(_numbers, name="numbers"), _async_in_thread], "OA344", "takes 'numbers' as an Iterator"),
        ([step(_numbers, name="numbers"), _plain_on_loop], "OA344", "takes 'numbers' as an AsyncIterator"),
        ([step(_numbers, name="numbers"), step(_in_process, run_on="process")], "OA344", "cannot go to 'process'"),
        ([step(_numbers, name="numbers"), step(_cached, cache=True)], "OA345", "cannot be cached"),
        (
            [step(_numbers, name="a"), step(_mapped, map_over="a", name="numbers"), _async_in_thread],
            "OA344",
            "takes 'numbers' as an Iterator",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(steps: Any, code: str, says: str):
    with pytest.raises(GraphError, match=says) as refused:
        Pipeline(steps)
    assert code in [fault.code for fault in refused.value.faults]


# -- resources, events ------------------------------------------------------------------------------------


async def test_a_resource_stays_open_until_the_last_batch():
    log: list[Any] = []

    @resource
    async def db() -> AsyncIterator[list[int]]:
        yield [1, 2, 3]
        log.append("closed")

    async def numbers(db: list[int]) -> AsyncIterator[list[int]]:
        for each in db:
            await asyncio.sleep(0)
            log.append(each)
            yield [each]

    assert (await run([db, numbers, total]))["total"] == 6
    assert log == [1, 2, 3, "closed"]


async def test_observers_hear_of_batches_and_rows(heard: Recorder):
    await run([Source(3).on_loop, total], observers=[heard])
    first = next(event for event in heard if isinstance(event, StepStreamed))
    assert (first.step, first.batches, first.rows) == ("numbers", 1, 1)


async def test_a_plain_generator_stays_in_one_thread_and_one_context():
    threads = set()

    def numbers() -> Iterator[list[int]]:
        for number in range(20):
            threads.add(threading.get_ident())
            yield [number]

    def other(numbers: Iterator[list[int]]) -> int:
        return total_in_thread(numbers)

    await run([numbers, other, total_in_thread], limits=Limits(threads=2))
    assert len(threads) == 1


# -- the caller as a reader -------------------------------------------------------------------------------


@KINDS
async def test_a_pipeline_streams_what_a_target_makes(kind: str):
    source = Source(20)
    pipeline = Pipeline([source.of(kind), doubled("async")])
    async with asyncio.timeout(SECONDS):
        assert [batch async for batch in pipeline.stream(target="double")] == [[2 * each] for each in range(20)]


async def test_a_pipeline_streams_elements_and_single_values_too():
    async def plus(number: int) -> int:
        return number + 1

    pipeline = Pipeline([step(plus, map_over="number"), step(lambda plus: sum(plus), name="sum")], inputs=["number"])
    async with asyncio.timeout(SECONDS):
        assert [each async for each in pipeline.stream({"number": [1, 2]}, target=plus)] == [2, 3]
        assert [each async for each in pipeline.stream({"number": [1, 2]}, target="sum")] == [5]


@KINDS
async def test_leaving_the_loop_early_cancels_the_run(kind: str):
    source = Source(10**9)
    pipeline = Pipeline([source.of(kind), doubled("plain")])
    async with contextlib.aclosing(pipeline.stream(target="double")) as batches:
        async for batch in batches:
            if batch == [4]:
                break
    assert source.closed == 1
    assert len(source.made) < 20


async def test_a_failure_reaches_the_caller_after_what_was_made():
    pipeline = Pipeline([Source(fails_at=2).on_loop])
    for on_error in ("raise", "continue"):
        batches = pipeline.stream(target="numbers", on_error=on_error)
        with pytest.raises(RunError) as failed:
            [batch async for batch in batches]
        assert list(failed.value.failures) == ["numbers"]


async def test_the_caller_sets_the_pace():
    source = Source(100)
    async for batch in Pipeline([source.on_loop]).stream(target="numbers"):
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(source.made) <= batch[0] + 6


async def test_a_target_that_is_none_is_refused():
    pipeline = Pipeline([Source().on_loop])
    with pytest.raises(GraphError, match="Did you mean 'numbers'"):
        async for _ in pipeline.stream(target="numbrs"):
            pass
    with pytest.raises(TypeError, match="targets"):
        async for _ in pipeline.stream(target="numbers", targets=["numbers"]):
            pass


async def test_a_step_may_stream_another_pipeline_with_one_slot():
    inner = Pipeline([Source(10).on_loop, doubled("async")])

    async with Runner(limits=Limits(concurrency=1)) as runner:

        async def outer() -> AsyncIterator[list[int]]:
            async with contextlib.aclosing(runner.stream(inner, target="double")) as batches:
                async for batch in batches:
                    yield batch

        async with asyncio.timeout(SECONDS):
            result = await runner.run([outer, step(total, inputs={"numbers": "outer"})])
    assert result["total"] == 2 * sum(range(10))


# -- caches and journals ----------------------------------------------------------------------------------


async def test_a_kept_stream_is_cached_with_its_batches(tmp_path: Path):
    calls = []

    def frames(count: int) -> Iterator[pd.DataFrame]:
        for number in range(count):
            yield pd.DataFrame({"n": [number]})

    async def read(frames: AsyncIterator[pd.DataFrame]) -> int:
        calls.append("read")
        return len([frame async for frame in frames])

    def rows(frames: pd.DataFrame) -> int:
        return len(frames)

    for status in (Status.SUCCEEDED, Status.CACHED):
        result = await run([frames, read, rows], {"count": 3}, cache=tmp_path)
        assert result.steps["frames"].status is status
        assert (result["read"], result["rows"], len(result["frames"])) == (3, 3, 3)
        assert (result.steps["frames"].batches, result.steps["frames"].rows) == (3, 3)
    assert len(calls) == 2


async def test_batches_that_pass_by_are_not_cached_but_what_is_mapped_over_them_is(tmp_path: Path):
    def frames(count: int) -> Iterator[list[int]]:
        for number in range(count):
            yield [number]

    def clean(batch: list[int]) -> int:
        return batch[0] + 1

    steps = [frames, step(clean, map_over="batch", inputs={"batch": "frames"})]
    for status in (Status.SUCCEEDED, Status.CACHED):
        result = await run(steps, {"count": 3}, cache=tmp_path)
        assert result.steps["frames"].status is Status.SUCCEEDED
        assert result.steps["clean"].status is status
        assert result["clean"] == [1, 2, 3]


class Broken:
    """A pipeline of which one step fails in the first run."""

    def __init__(self, *, kept: bool) -> None:
        self.source = Source(10)
        self.is_broken = True
        self.loaded: list[list[int]] = []
        self.kept = kept

    @property
    def steps(self) -> list[Any]:
        async def numbers() -> AsyncIterator[list[int]]:
            self.source.calls += 1
            for number in range(10):
                yield [number]

        async def load(double: AsyncIterator[list[int]]) -> int:
            async for batch in double:
                self.loaded.append(batch)
            return len(self.loaded)

        async def last(load: int) -> int:
            if self.is_broken:
                raise OSError("broken")
            return load

        def whole(numbers: list[Any]) -> int:
            return len(numbers)

        return [numbers, doubled("async"), load, last, *([whole] if self.kept else [])]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_reader_that_is_committed_does_not_read_again_when_the_run_is_resumed(tmp_path: Path, kept: bool):
    broken = Broken(kept=kept)
    with pytest.raises(RunError):
        await run(broken.steps, run_id="r", journal=tmp_path)
    broken.is_broken = False
    result = await run(broken.steps, run_id="r", journal=tmp_path, resume=True)
    assert result["last"] == 10
    assert broken.loaded == [[2 * each] for each in range(10)]
    assert {name: result.steps[name].status for name in ("numbers", "double", "load", "last")} == {
        "numbers": Status.RESUMED,
        "double": Status.RESUMED,
        "load": Status.RESUMED,
        "last": Status.SUCCEEDED,
    }
    assert broken.source.calls == 1


async def test_a_reader_that_failed_reads_from_the_first_batch_when_the_run_is_resumed(tmp_path: Path):
    seen: list[list[int]] = []
    source = Source(10)
    is_broken = True

    async def load(numbers: AsyncIterator[list[int]]) -> int:
        seen.clear()
        async for batch in numbers:
            seen.append(batch)
            if is_broken and batch == [5]:
                raise OSError("broken")
        return len(seen)

    async def other(numbers: AsyncIterator[list[int]]) -> int:
        return len([batch async for batch in numbers])

    steps = [source.on_loop, load, other]
    result = await run(steps, run_id="r", journal=tmp_path, on_error="continue")
    assert list(result.failures) == ["load"]
    is_broken = False
    result = await run(steps, run_id="r", journal=tmp_path, resume=True)
    assert seen == [[number] for number in range(10)]
    assert (result["load"], result["other"]) == (10, 10)
    assert result.steps["other"].status is Status.RESUMED


async def test_elements_that_are_committed_are_not_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    monkeypatch.setenv("FAILS", "6")

    def clean(batch: list[int]) -> int:
        if os.environ["FAILS"] == str(batch[0]):
            raise OSError("broken")
        calls.append(batch[0])
        return batch[0]

    steps = [Source(10).on_loop, step(clean, map_over="batch", inputs={"batch": "numbers"})]
    await run(steps, run_id="r", journal=tmp_path, on_error="continue")
    monkeypatch.setenv("FAILS", "")
    result = await run(steps, run_id="r", journal=tmp_path, resume=True)
    assert result["clean"] == list(range(10))
    assert sorted(calls) == list(range(10))


async def test_a_source_with_other_code_is_read_again_when_the_run_is_resumed(tmp_path: Path):
    async def broken(total: int) -> int:
        raise OSError("broken")

    def made(count: int) -> Any:
        async def numbers() -> AsyncIterator[list[int]]:
            for number in range(count):
                yield [number]

        return numbers

    with pytest.raises(RunError):
        await run([made(3), total, broken], run_id="r", journal=tmp_path)
    result = await run([made(4), total], run_id="r", journal=tmp_path, resume=True)
    assert result["total"] == 6


async def test_nothing_of_a_run_is_kept_alive():
    class Batch:
        pass

    alive: weakref.WeakSet[Batch] = weakref.WeakSet()

    async def batches() -> AsyncIterator[Batch]:
        for _ in range(20):
            batch = Batch()
            alive.add(batch)
            yield batch

    async def first(batches: AsyncIterator[Batch]) -> None:
        await anext(batches)

    def check(made: Callable[[], Any]) -> None:
        gc.collect()
        assert not alive

    await run([batches, first])
    check(lambda: None)


async def test_batches_can_be_mapped_over_in_worker_processes():
    mapped = step(len, map_over="obj", inputs={"obj": "numbers"}, run_on="process")
    async with asyncio.timeout(3 * SECONDS):
        assert (await run_pipeline([Source(3).on_loop, mapped]))["len"] == [1, 1, 1]


async def test_a_plain_generator_may_run_on_the_loop():
    source = Source(20)
    result = await run([step(source.in_thread, run_on="loop"), total])
    assert result["total"] == sum(range(20))
    assert source.closed == 1


async def test_hundreds_of_streams_at_once_with_few_slots():
    async def one(number: int) -> None:
        source, blocking = Source(7), Source(7)
        steps = [
            source.on_loop,
            doubled("plain"),
            step(total, inputs={"numbers": "double"}),
            step(blocking.in_thread, name="others"),
            step(total_in_thread, inputs={"numbers": "others"}),
        ]
        result = await runner.run(steps)
        assert (result["total"], result["total_in_thread"]) == (42, 21)

    async with Runner(limits=Limits(concurrency=3, threads=2)) as runner, asyncio.timeout(3 * SECONDS):
        await asyncio.gather(*map(one, range(100)))


@KINDS
async def test_a_streaming_step_can_be_slowed_and_made_to_fail_in_tests(kind: str):
    source = Source(5)
    pipeline = Pipeline([source.of(kind), total])
    assert (await run(slowed(pipeline, {"numbers": 0.001})))["total"] == 10
    assert source.closed == 1
    with pytest.raises(RunError) as failed:
        await run(failing(pipeline, {"numbers": OSError("down")}))
    assert list(failed.value.failures) == ["numbers"]


async def test_a_run_whose_time_is_over_closes_both_ends():
    source, blocking = Source(10**9), Source(10**9)
    steps = [
        source.on_loop,
        total,
        step(blocking.in_thread, name="others"),
        step(total_in_thread, inputs={"numbers": "others"}),
    ]
    with pytest.raises(DeadlineError):
        await run(steps, timeout=0.1)
    assert (source.closed, blocking.closed) == (source.calls, blocking.calls)
