"""Streams: each batch is a run, and its position is committed behind it."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from odibi_async import Journal, Pipeline, Runner, Secret, current_step, step
from odibi_async.errors import (
    BatchFailed,
    BatchUnknown,
    GraphError,
    JournalUnavailable,
    OptionError,
    PositionDamaged,
    RunError,
    RunnerClosed,
    SourceFailed,
    StreamAlive,
    StreamError,
    StreamOvertaken,
)
from odibi_async.events import (
    BatchFinished,
    BatchRetrying,
    BatchSetAside,
    BatchStarted,
    RowsLate,
    RunStarted,
    StepFinished,
    StreamEvent,
    StreamFinished,
    StreamLagged,
    StreamStarted,
)
from odibi_async.result import Status
from odibi_async.stream import Batch, Late, Memory, Polled, Polling, Queue, QueueClosed, run_stream, stream_source
from odibi_async.stream.files import Files
from odibi_async.stream.ledger import Ledger
from odibi_async.stream.rows import Rows
from odibi_async.testing import Recorder, failpoint, virtual_clock


class Numbers:
    """A source of lists of numbers; its position is how many lists there were."""

    def __init__(self, *lists: list[int]) -> None:
        self.lists = list(lists)
        self.is_over = True
        self.asked: list[str | None] = []
        self.closed = 0
        self.trouble: list[BaseException] = []

    async def open(self) -> None: ...

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
        self.asked.append(position)
        done = int(position or 0)
        while done < len(self.lists):
            if self.trouble:
                raise self.trouble.pop(0)
            done += 1
            yield Batch(data=self.lists[done - 1], position=str(done), label=f"list {done}")

    async def changed(self) -> bool:
        if not self.is_over:
            await asyncio.sleep(10)
        return not self.is_over

    async def close(self) -> None:
        self.closed += 1


class Sink:
    """A pipeline that remembers what it was given, by the key of the step."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.rows: dict[str, list[int]] = {}
        self.poison: Callable[[list[int]], object] = lambda batch: None

    @property
    def pipeline(self) -> Pipeline:
        async def total(batch: list[int]) -> int:
            return sum(batch)

        async def save(total: int, batch: list[int]) -> None:
            self.calls.append(batch)
            self.poison(batch)
            self.rows[current_step().idempotency_key] = batch

        return Pipeline([total, save], ["batch"], name="sums")

    @property
    def saved(self) -> list[int]:
        return [number for batch in self.rows.values() for number in batch]


@pytest.fixture
def sink() -> Sink:
    return Sink()


def stream_of(sink: Sink, source: Any, folder: Path, **options: Any) -> Any:
    return run_stream(sink.pipeline, source, into="batch", journal=folder / "journal", **{"wait": 0.001, **options})


# -- positions ---------------------------------------------------------------------------------------------


async def test_each_batch_is_a_run_and_the_next_start_goes_on_behind_the_last(tmp_path: Path, sink: Sink):
    source = Numbers([1, 2], [3], [4, 5])
    await stream_of(sink, source, tmp_path)
    assert sink.calls == [[1, 2], [3], [4, 5]]
    source.lists.append([6])
    await stream_of(sink, source, tmp_path)
    assert sink.calls == [[1, 2], [3], [4, 5], [6]]
    assert source.asked == [None, "3"]
    assert source.closed == 2


async def test_a_stream_tells_of_its_batches(tmp_path: Path, sink: Sink, heard: Recorder):
    await stream_of(sink, Numbers([1, 2], [3]), tmp_path, observers=[heard])
    told = [event for event in heard if isinstance(event, StreamEvent)]
    kinds = [StreamStarted, BatchStarted, BatchFinished, BatchStarted, BatchFinished, StreamLagged, StreamFinished]
    assert [type(event) for event in told] == kinds
    assert [event.seq for event in told] == list(range(7))
    assert {event.stream for event in told} == {"sums"}
    first = heard.of(BatchFinished)[0]
    assert (first.batch, first.rows, first.attempt) == ("list 1", 2, 1)
    assert first.run_id == heard.of(RunStarted)[0].run_id
    assert heard.of(StreamFinished)[0].status is Status.SUCCEEDED


async def test_the_same_batch_at_the_same_place_has_the_same_run_and_another_has_another(tmp_path: Path):
    ids = []
    for place, lists in enumerate(([[1], [1]], [[1], [1]], [[2], [1]])):
        heard = Recorder()
        await stream_of(Sink(), Numbers(*lists), tmp_path / str(place), observers=[heard])
        ids.append([event.run_id for event in heard.of(BatchStarted)])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    assert ids[2][0] not in ids[0]
    assert ids[2][1] == ids[0][1]


async def test_a_batch_whose_run_was_cut_short_goes_on_with_its_own_data(tmp_path: Path, sink: Sink):
    source, begun, calls = Numbers([1], [2]), asyncio.Event(), []

    async def first(batch: list[int]) -> int:
        calls.append(batch)
        return batch[0]

    async def second(first: int) -> None:
        if first == 1 and not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        sink.rows[current_step().idempotency_key] = [first]

    pipeline = Pipeline([first, second], ["batch"], name="two")
    stream = run_stream(pipeline, source, into="batch", journal=tmp_path)
    async with stream:
        await begun.wait()
        await stream.cancel()
    assert stream.status == "cancelled"
    source.lists[0] = [99]  # the source would give something else now
    heard = Recorder()
    await run_stream(pipeline, source, into="batch", journal=tmp_path, observers=[heard])
    assert calls == [[1], [2]]
    assert sink.saved == [1, 2]
    assert heard.of(BatchStarted)[0].resumed
    assert heard.of(StepFinished, step="first")[0].status is Status.RESUMED


async def test_data_that_the_journal_cannot_keep_is_given_again_by_the_source(tmp_path: Path):
    lock, calls = threading.Lock(), []

    class Locks(Numbers):
        async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
            if position is None:
                yield Batch(data=lock, position="1", label="a lock")

    async def once(batch: Any) -> None:
        calls.append((batch, current_step().idempotency_key))
        if len(calls) == 1:
            raise asyncio.CancelledError

    for _ in range(2):
        stream = run_stream([once], Locks(), into="batch", journal=tmp_path, attempts=1, on_poison="stop")
        if not calls:
            with pytest.raises((BatchFailed, StreamError)):
                await stream
        else:
            await stream
    assert [each[0] for each in calls] == [lock, lock]
    assert calls[0][1] == calls[1][1]


@pytest.mark.parametrize("moment", ["before commit", "after commit"])
async def test_wherever_the_journal_fails_nothing_is_lost_and_nothing_done_twice(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("odibi_async.journal.sqlite.PAUSES", ())
    failures = 0
    for nth in range(1, 40):
        sink, folder, count = Sink(), tmp_path / str(nth), iter(range(1, 1000))

        def fail(nth: int = nth, count: Iterator[int] = count) -> None:
            if next(count) == nth:
                raise OSError(errno.ENOSPC, "No space left on device")

        with failpoint(moment, fail):
            try:
                await stream_of(sink, Numbers([1], [2]), folder)
            except JournalUnavailable:
                failures += 1
        before = len(sink.calls)
        await stream_of(sink, Numbers([1], [2]), folder)
        assert sorted(sink.saved) == [1, 2]
        assert len(sink.calls) <= 3
        if next(count) < nth:
            assert before == 2
            break
    else:
        raise AssertionError("the end was never reached")
    assert failures > 5


async def test_a_stream_begun_anew_takes_everything_again(tmp_path: Path, sink: Sink):
    stream = stream_of(sink, Numbers([1], [2]), tmp_path)
    await stream
    await stream_of(sink, Numbers([1], [2]), tmp_path).restart()
    await stream_of(sink, Numbers([1], [2]), tmp_path)
    assert sink.calls == [[1], [2], [1], [2]]
    assert len(sink.rows) == 4


# -- who holds a stream ------------------------------------------------------------------------------------


async def test_a_second_stream_of_the_same_name_is_refused(tmp_path: Path, sink: Sink):
    source = Numbers([1])
    source.is_over = False
    async with stream_of(sink, source, tmp_path) as first:
        await _until(lambda: first.status == "idle")
        with pytest.raises(StreamAlive, match="Stream 'sums' is running already") as raised:
            await stream_of(sink, Numbers(), tmp_path)
        assert raised.value.code == "OA361"
        await stream_of(sink, Numbers([7]), tmp_path, name="another")
    await stream_of(sink, Numbers([1], [2]), tmp_path)
    assert sink.calls == [[1], [7], [2]]


async def test_a_second_stream_may_wait_for_the_end_of_the_first(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("odibi_async.stream.life.HELD", 0.01)
    source = Numbers([1])
    source.is_over = False
    async with stream_of(sink, source, tmp_path) as first:
        await _until(lambda: first.status == "idle")
        async with stream_of(sink, Numbers([1], [2]), tmp_path, when_held="wait") as second:
            await asyncio.sleep(0.05)
            assert sink.calls == [[1]]
            await first.stop()
            await second
    assert sink.calls == [[1], [2]]


async def test_a_stream_that_waits_for_another_can_be_stopped(tmp_path: Path, sink: Sink):
    source = Numbers([1])
    source.is_over = False
    async with stream_of(sink, source, tmp_path) as first:
        await _until(lambda: first.status == "idle")
        async with stream_of(sink, Numbers([2]), tmp_path, when_held="wait") as second:
            await second.stop()
    assert sink.calls == [[1]]


async def test_a_position_that_another_process_has_moved_is_not_overwritten(tmp_path: Path, sink: Sink):
    journal = Journal(tmp_path / "journal")
    backend, name = journal.backend, "stream/sums/state"

    def overtaken(batch: list[int]) -> None:
        sink.calls.append(batch)
        if batch == [2]:
            there = backend.mark(name)
            assert there is not None
            backend.replace_mark(name, there, json.dumps({**json.loads(there), "position": "77", "open": None}))

    with pytest.raises(StreamOvertaken):
        await run_stream([overtaken], Numbers([1], [2], [3]), into="batch", journal=journal, name="sums")
    text = await asyncio.to_thread(backend.mark, name)
    assert json.loads(text or "")["position"] == "77"
    assert sink.calls == [[1], [2]]
    await asyncio.to_thread(journal.close)


async def _awaited(make: Callable[..., Any], *args: Any) -> None:
    await make(*args)


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"format": 1}', '{"format": 99, "open": null}'])
async def test_a_damaged_position_is_an_error_and_stays_as_it_is(tmp_path: Path, sink: Sink, text: str):
    journal = Journal(tmp_path / "journal")
    await asyncio.to_thread(journal.backend.replace_mark, "stream/sums/state", None, text)
    with pytest.raises(PositionDamaged, match="'sums'"):
        await stream_of(sink, Numbers([1]), tmp_path)
    assert await asyncio.to_thread(journal.backend.mark, "stream/sums/state") == text
    assert sink.calls == []
    await stream_of(sink, Numbers([1]), tmp_path).restart()
    await stream_of(sink, Numbers([1]), tmp_path)
    assert sink.calls == [[1]]
    await asyncio.to_thread(journal.close)


async def test_the_position_of_another_kind_of_source_is_an_error(tmp_path: Path, sink: Sink):
    await stream_of(sink, Numbers([1]), tmp_path)
    with pytest.raises(PositionDamaged, match="'sums'"):
        await stream_of(sink, Polling(lambda: None, 1), tmp_path)


# -- batches that fail -------------------------------------------------------------------------------------


def unlucky(batch: list[int]) -> None:
    if 13 in batch:
        raise ValueError("13 brings bad luck")


async def test_a_poisoned_batch_is_set_aside_with_its_error_and_the_stream_goes_on(
    tmp_path: Path, sink: Sink, heard: Recorder
):
    sink.poison = unlucky
    stream = stream_of(sink, Numbers([1], [13, 14], [2]), tmp_path, observers=[heard])
    await stream
    assert sink.calls == [[1], [13, 14], [13, 14], [13, 14], [2]]
    [aside] = await stream.set_aside()
    assert (aside.batch, aside.rows, aside.attempts) == ("list 2", 2, 3)
    assert aside.error == "ValueError: 13 brings bad luck"
    assert aside.time <= datetime.now(timezone.utc)
    assert [event.attempt for event in heard.of(BatchRetrying)] == [1, 2]
    assert [event.wait for event in heard.of(BatchRetrying)] == [0.001, 0.002]
    assert heard.of(BatchSetAside)[0].run_id == aside.run_id
    assert heard.of(StepFinished, step="total", status=Status.RESUMED)  # what is committed is not called again
    assert stream.progress.set_aside == 1
    assert stream.progress.batches == 2


async def test_what_is_set_aside_can_be_replayed(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    await stream_of(sink, Numbers([1], [13], [2]), tmp_path, attempts=1)
    stream = stream_of(sink, Numbers(), tmp_path)
    [aside] = await stream.set_aside()
    with pytest.raises(RunError):
        await stream.replay(aside.run_id)
    assert await stream.set_aside() == [aside]
    sink.poison = lambda batch: None
    [result] = (await stream.replay()).values()
    assert result is not None
    assert result.steps["total"].status is Status.RESUMED
    assert sorted(sink.saved) == [1, 2, 13]
    assert await stream.set_aside() == []
    with pytest.raises(BatchUnknown, match="it is not set aside"):
        await stream.replay(aside.run_id)


async def test_what_is_set_aside_is_not_replayed_as_another_input(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    await stream_of(sink, Numbers([13]), tmp_path, attempts=1)

    async def save(rows: list[int]) -> None: ...

    renamed = run_stream([save], Numbers(), into="rows", journal=tmp_path / "journal", name="sums")
    with pytest.raises(BatchUnknown, match="does not have its data as 'rows', but as 'batch'"):
        await renamed.replay()
    assert len(await renamed.set_aside()) == 1


async def test_what_is_set_aside_is_replayed_while_the_stream_runs(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    source = Numbers([13])
    source.is_over = False
    async with stream_of(sink, source, tmp_path, attempts=1) as stream:
        await _until(lambda: stream.status == "idle")
        sink.poison = lambda batch: None
        assert len(await stream.replay()) == 1
    assert sink.saved == [13]


async def test_what_is_set_aside_is_not_pruned(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    journal = Journal(tmp_path / "journal", keep_last=1)
    lists = [[13], *([number] for number in range(20, 30))]
    await run_stream(sink.pipeline, Numbers(*lists), into="batch", journal=journal, attempts=1)
    await asyncio.to_thread(journal.prune, 1)
    sink.poison = lambda batch: None
    await run_stream(sink.pipeline, Numbers(), into="batch", journal=journal).replay()
    assert 13 in sink.saved
    await asyncio.to_thread(journal.close)


async def test_a_stream_may_stop_at_a_poisoned_batch_and_begins_with_it_when_it_is_started_again(
    tmp_path: Path, sink: Sink
):
    sink.poison = unlucky
    source = Numbers([1], [13], [2])
    for _ in range(2):
        sink.calls.clear()
        with pytest.raises(BatchFailed, match=r"batch 'list 2' \(run sums-\w+\) failed 2 times") as raised:
            await stream_of(sink, source, tmp_path, on_poison="stop", attempts=2)
        assert isinstance(raised.value.__cause__, RunError)
        assert raised.value.code == "OA363"
        assert sink.calls[-2:] == [[13], [13]]
    sink.poison = lambda batch: None
    await stream_of(sink, source, tmp_path, on_poison="stop")
    assert sorted(sink.saved) == [1, 2, 13]


async def test_a_time_limit_of_a_run_is_a_failure_of_its_batch(tmp_path: Path):
    async def slow(batch: list[int]) -> None:
        if batch == [1]:
            await asyncio.Event().wait()

    stream = run_stream([slow], Numbers([1], [2]), into="batch", journal=tmp_path, attempts=1, timeout=0.05)
    await stream
    assert stream.progress.batches == 1
    assert "did not end within" in (await stream.set_aside())[0].error


async def test_on_error_continue_does_not_hide_a_failure(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    stream = stream_of(sink, Numbers([13]), tmp_path, attempts=1, on_error="continue")
    await stream
    assert len(await stream.set_aside()) == 1


async def test_the_errors_of_what_is_set_aside_hold_no_secrets(tmp_path: Path):
    async def login(batch: list[int], password: Secret) -> None:
        raise ValueError(f"wrong password {password.reveal()}")

    given = {"password": Secret("hunter2")}
    stream = run_stream([login], Numbers([1]), into="batch", inputs=given, journal=tmp_path, attempts=1)
    await stream
    assert (await stream.set_aside())[0].error == "ValueError: wrong password **********"


async def test_a_fault_in_the_pipeline_is_no_fault_of_a_batch(tmp_path: Path):
    async def lonely(batch: list[int], missing: int) -> None: ...

    with pytest.raises(GraphError, match="missing"):
        await run_stream([lonely], Numbers([1]), into="batch", journal=tmp_path)


# -- sources that fail -------------------------------------------------------------------------------------


async def test_a_source_that_fails_is_tried_again_from_the_committed_position(
    tmp_path: Path, sink: Sink, heard: Recorder
):
    source = Numbers([1], [2])
    source.trouble = [OSError("first"), OSError("second")]
    await stream_of(sink, source, tmp_path, observers=[heard])
    assert sink.calls == [[1], [2]]
    assert [str(event.error) for event in heard.of(StreamLagged) if event.error] == ["first", "second"]


async def test_a_source_that_goes_on_failing_ends_the_stream(tmp_path: Path, sink: Sink):
    source = Numbers([1])
    source.trouble = [OSError(f"no. {number}") for number in range(9)]
    with pytest.raises(SourceFailed, match=r"failed 3 times in a row: OSError: no\. 2") as raised:
        await stream_of(sink, source, tmp_path)
    assert isinstance(raised.value.__cause__, OSError)
    assert source.closed == 1
    assert sink.calls == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no": "batch"}, "it gave 'dict': a Batch or a Late is needed"),
        (Batch(data=[1], position=1), "whose position is a text"),  # type: ignore[arg-type]
        (asyncio.CancelledError(), "it raised CancelledError by itself"),
        (StopAsyncIteration(), "StopAsyncIteration"),
    ],
)
async def test_a_source_that_gives_nonsense_fails(tmp_path: Path, sink: Sink, given: Any, message: str):
    class Odd(Numbers):
        async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
            if isinstance(given, BaseException):
                raise given
            yield given

    with pytest.raises(SourceFailed, match=message):
        await stream_of(sink, Odd(), tmp_path)


async def test_a_source_that_minds_being_closed_does_no_harm(tmp_path: Path, sink: Sink):
    class Sticky(Numbers):
        async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
            try:
                yield Batch(data=[1], position="1")
            finally:
                raise KeyError("closed")

    stream = stream_of(sink, Sticky(), tmp_path)
    sink.poison = lambda batch: stream._controls.tell(stopping=True)
    with pytest.raises((KeyError, SourceFailed)):
        await stream
    await stream_of(sink, Numbers([1], [2]), tmp_path)
    assert sink.calls == [[1], [2]]


async def test_200_streams_can_be_cancelled_at_once(tmp_path: Path, sink: Sink):
    async with Runner(journal=tmp_path) as runner:
        streams = [
            run_stream(sink.pipeline, Numbers([1], [2], [3]), into="batch", runner=runner, name=f"n{number}")
            for number in range(200)
        ]
        for stream in streams:
            stream.start()
        await _until(lambda: bool(sink.calls))
        await asyncio.gather(*(stream.cancel() for stream in streams))
    assert {str(stream.status) for stream in streams} <= {"cancelled", "finished"}


@pytest.mark.parametrize("part", ["open", "changed", "close"])
async def test_whatever_part_of_a_source_raises_the_stream_ends_and_lets_go(tmp_path: Path, sink: Sink, part: str):
    class Broken(Numbers):
        pass

    async def breaks(self: Any) -> bool:
        raise LookupError(part)

    setattr(Broken, part, breaks)
    with pytest.raises((LookupError, SourceFailed), match=part):
        await stream_of(sink, Broken([1]), tmp_path)
    await stream_of(sink, Numbers([1]), tmp_path)
    assert sink.calls == [[1]]


# -- handles -----------------------------------------------------------------------------------------------


async def test_a_paused_stream_begins_no_batch(tmp_path: Path, sink: Sink):
    stream = stream_of(sink, Numbers([1], [2], [3]), tmp_path)
    sink.poison = lambda batch: stream.pause() if batch == [1] else None
    async with stream:
        await _until(lambda: stream.progress.batches == 1)
        await asyncio.sleep(0.05)
        assert stream.status == "paused"
        assert sink.calls == [[1]]
        stream.resume()
        await stream
    assert sink.calls == [[1], [2], [3]]


async def test_stop_finishes_the_batch_that_runs(tmp_path: Path, sink: Sink):
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow(batch: list[int]) -> None:
        begun.set()
        await gate.wait()
        sink.calls.append(batch)

    async with run_stream([slow], Numbers([1], [2]), into="batch", journal=tmp_path, name="s") as stream:
        await begun.wait()
        stopping = asyncio.create_task(stream.stop())
        await asyncio.sleep(0)
        assert stream.status == "stopping"
        gate.set()
        await stopping
    assert stream.status == "finished"
    assert sink.calls == [[1]]
    await run_stream([slow], Numbers([1], [2]), into="batch", journal=tmp_path, name="s")
    assert sink.calls == [[1], [2]]


async def test_stop_with_a_grace_cancels_a_batch_that_takes_too_long(tmp_path: Path, sink: Sink):
    async def hangs(batch: list[int]) -> None:
        sink.calls.append(batch)
        if len(sink.calls) == 1:
            await asyncio.Event().wait()

    async with run_stream([hangs], Numbers([1]), into="batch", journal=tmp_path) as stream:
        await _until(lambda: bool(sink.calls))
        await stream.stop(grace=0.01)
    await run_stream([hangs], Numbers([1]), into="batch", journal=tmp_path)
    assert sink.calls == [[1], [1]]


@pytest.mark.parametrize("is_paused", [False, True])
async def test_drain_takes_what_is_there_and_ends(tmp_path: Path, sink: Sink, is_paused: bool):
    source = Numbers([1], [2])
    source.is_over = False
    async with stream_of(sink, source, tmp_path) as stream:
        await _until(lambda: stream.status == "idle")
        source.lists += [[3], [4]]
        if is_paused:
            stream.pause()
        await stream.drain()
    assert sink.calls == [[1], [2], [3], [4]]
    assert stream.status == "finished"


async def test_a_stream_can_be_iterated_and_waits_for_who_does(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    found = []
    async with stream_of(sink, Numbers([1, 2], [13], [3], [4], [5]), tmp_path, attempts=1) as stream:
        async for batch in stream:
            found.append((batch.batch, batch.status, batch.result["total"] if batch.result else batch.error))
            await asyncio.sleep(0.05)  # the next one begins when it is asked for
            assert len(sink.calls) == len(found)
            if len(found) == 3:
                break
    assert [each[:2] for each in found] == [("list 1", "succeeded"), ("list 2", "failed"), ("list 3", "succeeded")]
    assert found[0][2] == 3
    assert isinstance(found[1][2], RunError)


async def test_all_who_iterate_over_a_stream_get_each_batch(tmp_path: Path, sink: Sink):
    stream = stream_of(sink, Numbers(*([number] for number in range(5))), tmp_path)

    async def taken(count: int) -> list[str]:
        found = []
        async for batch in stream:
            found.append(batch.batch)
            assert len(sink.calls) == len(found)
            if len(found) == count:
                break
        return found

    async with asyncio.timeout(20):
        every, some = await asyncio.gather(taken(5), taken(2))
    assert every == [f"list {number}" for number in range(1, 6)]
    assert some == every[:2]


async def test_who_stops_iterating_does_not_hold_the_stream_up(tmp_path: Path, sink: Sink):
    async with stream_of(sink, Numbers(*([number] for number in range(8))), tmp_path) as stream:
        async for _ in stream:
            break
        await asyncio.wait_for(_wait_for(stream), 20)
    assert len(sink.calls) == 8


async def test_a_batch_that_was_about_to_be_set_aside_and_succeeds_is_not_listed(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    stream = stream_of(sink, Numbers([13]), tmp_path, attempts=2)

    def full(*_: object, **__: object) -> None:
        raise JournalUnavailable("journal", "the disk is full.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_settle", full)
        with pytest.raises(JournalUnavailable):
            await stream
    assert len(await stream.set_aside()) == 1
    sink.poison = lambda batch: None
    await stream_of(sink, Numbers([13]), tmp_path, attempts=2)
    assert await stream.set_aside() == []
    assert sink.saved == [13]


async def test_who_iterates_hears_how_the_stream_ended(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    with pytest.raises(BatchFailed):
        async for _ in stream_of(sink, Numbers([1], [13]), tmp_path, attempts=1, on_poison="stop"):
            pass


async def test_a_failed_stream_is_not_left_without_its_error(tmp_path: Path, sink: Sink):
    sink.poison = unlucky
    with pytest.raises(BatchFailed):
        async with stream_of(sink, Numbers([13]), tmp_path, attempts=1, on_poison="stop") as stream:
            await _until(lambda: stream.status == "failed")


async def test_nothing_happens_before_a_stream_is_started(tmp_path: Path, sink: Sink):
    stream = stream_of(sink, Numbers([1]), tmp_path)
    assert stream.status == "new"
    await asyncio.sleep(0.01)
    assert not await asyncio.to_thread((tmp_path / "journal").exists)
    await stream.stop()
    assert sink.calls == []


async def test_who_waits_for_a_stream_cancels_it_only_if_it_is_theirs(tmp_path: Path, sink: Sink):
    source = Numbers([1])
    source.is_over = False
    own = asyncio.ensure_future(_awaited(stream_of, sink, source, tmp_path))
    await _until(lambda: bool(sink.rows))
    own.cancel()
    with pytest.raises(asyncio.CancelledError):
        await own
    async with stream_of(sink, source, tmp_path) as stream:
        waiter = asyncio.ensure_future(_wait_for(stream))
        await _until(lambda: stream.status == "idle")
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert stream.status == "idle"


async def _wait_for(stream: Any) -> None:
    await stream


async def test_a_stream_cancelled_at_any_moment_lets_go_and_loses_nothing(tmp_path: Path):
    """Cancels after each number of turns of the loop in turn; the next start finishes."""
    is_over, turns = False, 0
    while not is_over:
        turns = turns * 4 // 3 + 1
        sink, folder = Sink(), tmp_path / str(turns)
        task = asyncio.ensure_future(_awaited(stream_of, sink, Numbers([1], [2]), folder))
        for _ in range(turns):
            await asyncio.sleep(0)
            if task.done():
                break
        is_over = task.done()
        task.cancel()
        await asyncio.wait([task])
        await stream_of(sink, Numbers([1], [2]), folder)
        assert sorted(sink.saved) == [1, 2]


async def test_a_runner_that_closes_ends_its_streams_and_the_batch_stays_open(tmp_path: Path, sink: Sink):
    begun = asyncio.Event()

    async def hangs(batch: list[int]) -> None:
        sink.calls.append(batch)
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()

    async with Runner(journal=tmp_path) as runner:
        stream = run_stream([hangs], Numbers([1]), into="batch", runner=runner, attempts=5)
        stream.start()
        await begun.wait()
    with pytest.raises((RunnerClosed, RunError)):
        await stream
    await run_stream([hangs], Numbers([1]), into="batch", journal=tmp_path)
    assert sink.calls == [[1], [1]]


async def test_a_runner_of_ones_own_stays_open(tmp_path: Path, sink: Sink):
    heard = Recorder()
    async with Runner(journal=tmp_path, observers=[heard]) as runner:
        for name in ("a", "b"):
            await run_stream(sink.pipeline, Numbers([1]), into="batch", runner=runner, name=name)
        await runner.run([step(lambda: 1, name="one")])
    assert [event.stream for event in heard.of(BatchFinished)] == ["a", "b"]


async def test_many_streams_run_at_once_on_one_journal(tmp_path: Path):
    sinks = [Sink() for _ in range(20)]
    streams = [stream_of(each, Numbers([1], [2], [3]), tmp_path, name=f"n{i}") for i, each in enumerate(sinks)]
    await asyncio.gather(*map(_wait_for, streams))
    assert all(each.calls == [[1], [2], [3]] for each in sinks)


@pytest.mark.parametrize("error", [KeyError("odd"), BaseExceptionGroup("odd", [ValueError()])])
async def test_odd_errors_of_steps_are_failures_of_their_batch(tmp_path: Path, sink: Sink, error: BaseException):
    def odd(batch: list[int]) -> None:
        if batch == [1]:
            raise error

    sink.poison = odd
    stream = stream_of(sink, Numbers([1], [2]), tmp_path, attempts=2)
    await stream
    assert len(await stream.set_aside()) == 1
    assert sink.saved == [2]


async def test_an_observer_that_raises_is_dropped(tmp_path: Path, sink: Sink):
    def raises(event: object) -> None:
        raise ValueError

    await stream_of(sink, Numbers([1], [2]), tmp_path, observers=[raises])
    assert sink.calls == [[1], [2]]


# -- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"into": "bach"}, "Did you mean 'batch'"),
        ({"attempts": 0}, "attempts=0"),
        ({"wait": -1}, "wait=-1"),
        ({"on_poison": "ignore"}, "on_poison='ignore'"),
        ({"when_held": "steal"}, "when_held='steal'"),
        ({"keep_last": None}, "keep_last=None"),
        ({"name": " "}, "name=' '"),
        ({"journal": None}, "A journal is needed"),
        ({"source": [1, 2]}, "a Source is needed"),
    ],
)
async def test_options_that_cannot_be_are_refused(tmp_path: Path, sink: Sink, options: Any, message: str):
    given = {"into": "batch", "journal": tmp_path, "source": Numbers([1]), **options}
    with pytest.raises(OptionError, match=message):
        await run_stream(sink.pipeline, given.pop("source"), **given)


async def test_unknown_options_are_refused(tmp_path: Path, sink: Sink):
    with pytest.raises(TypeError, match=r"run_stream has no option 'targts'\. Did you mean 'targets'"):
        run_stream(sink.pipeline, Numbers(), into="batch", journal=tmp_path, targts=["total"])
    with pytest.raises(TypeError, match="run_id"):
        run_stream(sink.pipeline, Numbers(), into="batch", journal=tmp_path, run_id="x")


async def test_runs_take_the_options_of_runs(tmp_path: Path, sink: Sink):
    async with stream_of(sink, Numbers([1]), tmp_path, targets=["total"]) as stream:
        [batch] = [each async for each in stream]
    assert list(batch.result.outputs) == ["total"]
    assert sink.calls == []


# -- retention ---------------------------------------------------------------------------------------------


async def test_the_journal_keeps_the_last_runs_of_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("odibi_async.stream.ledger.AT_ONCE", 4)

    async def nothing(batch: list[int]) -> None: ...

    pipeline = Pipeline([nothing], ["batch"], name="nothing")
    lists = [[number] for number in range(30)]
    await run_stream(pipeline, Numbers(*lists), into="batch", journal=tmp_path, keep_last=10)
    await run_stream(pipeline, Numbers(*lists, [30]), into="batch", journal=tmp_path, keep_last=10)
    journal = Journal(tmp_path)
    runs = await asyncio.to_thread(journal.runs)
    assert 10 <= len(runs) <= 10 + 4
    await asyncio.to_thread(journal.close)


async def test_a_stream_does_not_prune_the_runs_of_one_whose_name_begins_like_its_own(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("odibi_async.stream.ledger.AT_ONCE", 4)
    for name in ("a-b", "a"):
        lists = [[number] for number in range(3 if name == "a-b" else 12)]
        await run_stream(sink.pipeline, Numbers(*lists), into="batch", journal=tmp_path, keep_last=1, name=name)
    journal = Journal(tmp_path)
    runs = [run.run_id for run in await asyncio.to_thread(journal.runs)]
    assert sum(run.startswith("a-b-") for run in runs) == 3
    await asyncio.to_thread(journal.close)


def test_memory_stays_flat_over_very_many_batches(tmp_path: Path):
    """On a simulated clock: a batch a minute."""

    async def nothing(batch: int) -> None: ...

    async def hours() -> list[int]:
        counts, done = [], 0
        pipeline = Pipeline([nothing], ["batch"], name="nothing")
        stream = run_stream(pipeline, Polling(lambda: 1, 60), into="batch", journal=tmp_path, keep_last=5)
        async with stream:
            async for _ in stream:
                done += 1
                if done in (50, 150):
                    gc.collect()
                    counts.append(len(gc.get_objects()))
                if done == 150:
                    break
        return counts

    with virtual_clock() as clock:
        before, after = clock.run(hours())
        assert clock.time >= 149 * 60
    assert after - before < 300


# -- queues ------------------------------------------------------------------------------------------------


async def test_events_of_a_queue_come_in_batches(tmp_path: Path, sink: Sink):
    queue = Queue(batch_size=3)
    for number in range(7):
        await queue.put(number)
    queue.finish()
    await stream_of(sink, queue, tmp_path)
    assert sink.calls == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(QueueClosed):
        await queue.put(8)


async def test_a_queue_may_give_its_events_one_by_one(tmp_path: Path):
    found, queue = [], Queue(batch_size=None)
    for event in ({"id": 1}, {"id": 1}):
        queue.put_nowait(event)
    queue.finish()

    async def keep(event: dict[str, int]) -> None:
        found.append(event)

    await run_stream([keep], queue, into="event", journal=tmp_path)
    assert found == [{"id": 1}, {"id": 1}]


async def test_who_puts_into_a_full_queue_waits(tmp_path: Path, sink: Sink):
    queue = Queue(maxsize=2, batch_size=1)
    await queue.put(1)
    await queue.put(2)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(3)
    third = asyncio.ensure_future(queue.put(3))
    await asyncio.sleep(0.01)
    assert not third.done()
    async with stream_of(sink, queue, tmp_path) as stream:
        await third
        queue.finish()
        await stream
    assert sink.calls == [[1], [2], [3]]


async def test_who_delivers_waits_until_the_batch_is_committed(tmp_path: Path, sink: Sink):
    queue = Queue()
    sink.poison = unlucky
    async with stream_of(sink, queue, tmp_path, attempts=1) as stream:
        await queue.deliver(1)
        assert stream.progress.position == "1"
        await queue.deliver(13)
        assert stream.progress.set_aside == 1
        stream.pause()
        late = asyncio.ensure_future(queue.deliver(2))
        await asyncio.sleep(0.01)
        assert not late.done()
    queue.finish()
    await stream_of(sink, queue, tmp_path)
    await late
    assert sink.saved == [1, 2]


async def test_who_delivers_is_told_also_when_the_stream_stops_right_then(tmp_path: Path, sink: Sink):
    queue = Queue()
    stream = stream_of(sink, queue, tmp_path)
    stops = []
    sink.poison = lambda batch: stops.append(asyncio.ensure_future(stream.stop()))
    async with stream:
        await asyncio.wait_for(queue.deliver(1), 10)
    await asyncio.gather(*stops)


async def test_an_event_whose_batch_was_resumed_is_not_taken_again_from_its_queue(tmp_path: Path, sink: Sink):
    queue, begun = Queue(batch_size=1), asyncio.Event()

    def cut(batch: list[int]) -> None:
        if not begun.is_set():
            begun.set()
            raise ValueError

    sink.poison = cut
    await queue.put(1)
    await queue.put(2)
    async with stream_of(sink, queue, tmp_path, wait=60) as stream:
        await begun.wait()
        await _until(lambda: len(sink.calls) == 1)
    queue.finish()
    await stream_of(sink, queue, tmp_path)
    assert sink.saved == [1, 2]
    assert len(queue) == 0
    del stream


# -- polling -----------------------------------------------------------------------------------------------


def test_a_function_is_polled_at_its_interval(tmp_path: Path):
    times: list[float] = []

    async def poll() -> list[float] | None:
        times.append(asyncio.get_running_loop().time())
        return None if len(times) == 2 else [times[-1]]

    found = []

    async def keep(batch: list[float]) -> None:
        found.append(batch)

    async def main() -> None:
        async with run_stream([keep], Polling(poll, 30), into="batch", journal=tmp_path) as stream:
            async for _ in stream:
                if len(found) == 3:
                    break

    with virtual_clock() as clock:
        clock.run(main())
    assert len(times) == 4
    assert all(later - time >= 30 for time, later in itertools.pairwise(times))
    assert len(found) == 3


async def test_a_polled_function_goes_on_where_its_last_committed_batch_ended(tmp_path: Path, sink: Sink):
    pages, asked = {None: (1, 10, True), 10: (2, 20, False), 20: (3, 30, False)}, []

    def page(since: int | None) -> Polled | None:
        asked.append(since)
        if since not in pages:
            return None
        number, position, more = pages[since]
        return Polled([number], position, more)

    stream = stream_of(sink, Polling(page, 1), tmp_path)
    await stream.drain()
    assert sink.calls == [[1], [2]]
    await stream_of(sink, Polling(page, 1), tmp_path).drain()
    assert sink.calls == [[1], [2], [3]]
    assert asked == [None, 10, 20]


def _asked(*, page: list[int] | None) -> list[int] | None:
    return page


@pytest.mark.parametrize("fn", [functools.partial(_asked, page=[1]), functools.partial(dict, page=[1])])
async def test_a_polled_function_is_given_no_position_that_it_cannot_take(tmp_path: Path, fn: Any):
    taken = []

    async def keep(batch: Any) -> None:
        taken.append(batch)

    async for _ in run_stream([keep], Polling(fn, 30), into="batch", journal=tmp_path):
        break
    assert taken == [fn()]


async def test_a_polled_function_that_raises_is_an_error_and_never_no_data(tmp_path: Path, sink: Sink):
    def down() -> None:
        raise ConnectionError("the service is down")

    with pytest.raises(SourceFailed, match="the service is down"):
        await stream_of(sink, Polling(down, 1), tmp_path)


async def test_stop_does_not_wait_for_a_source_that_hangs(tmp_path: Path, sink: Sink):
    begun = asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with stream_of(sink, Polling(hangs, 1), tmp_path) as stream:
        await begun.wait()
        await stream.stop()
    assert stream.status == "finished"


# -- lag, rate and watermark -------------------------------------------------------------------------------


def test_lag_is_told_by_the_clock_that_is_given(tmp_path: Path):
    now, heard = datetime(2024, 1, 1, 12, tzinfo=timezone.utc), Recorder()
    marks = [now - timedelta(hours=2), now - timedelta(hours=1), now + timedelta(hours=1)]
    polls = iter([Polled([1], place, True, mark) for place, mark in enumerate(marks)])

    async def keep(batch: list[int]) -> None: ...

    async def main() -> None:
        stream = run_stream(
            [keep],
            Polling(lambda: next(polls, None), 60),
            into="batch",
            journal=tmp_path,
            observers=[heard],
            now=lambda: now.timestamp(),
        )
        await stream.drain()

    with virtual_clock() as clock:
        clock.run(main())
    assert [event.lag for event in heard.of(BatchFinished)] == [7200, 3600, -3600]
    assert [event.watermark for event in heard.of(BatchFinished)] == marks
    assert all(event.rate >= 0 for event in heard.of(BatchFinished))


async def test_late_rows_are_told_of_once(tmp_path: Path, sink: Sink, heard: Recorder):
    class Laggard(Numbers):
        async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Batch | Late]:
            if position is None:
                yield Late(rows=3, before=7, position="seen")

    stream = stream_of(sink, Laggard(), tmp_path, observers=[heard])
    await stream
    await stream_of(sink, Laggard(), tmp_path, observers=[heard])
    assert [(event.rows, event.before) for event in heard.of(RowsLate)] == [(3, 7)]
    assert stream.progress.late == 3


# -- the predecessor's options -----------------------------------------------------------------------------


def test_the_predecessors_options_make_sources(tmp_path: Path):
    assert isinstance(stream_source("file_watch", tmp_path, file_pattern="*.csv", interval_seconds=5), Files)
    rows = stream_source("incremental", tmp_path / "a.csv", watermark_column="id", batch_size=10, format="csv")
    assert isinstance(rows, Rows)
    assert isinstance(stream_source("event"), Queue)
    assert isinstance(stream_source("interval", tmp_path / "a.csv", read_options={"sep": ";"}), Polling)
    with pytest.raises(OptionError, match="Did you mean 'file_watch'"):
        stream_source("file_wach", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="source_path= is needed"):
        stream_source("interval")
    with pytest.raises(OptionError, match="watermark_column= is needed"):
        stream_source("incremental", tmp_path)


async def test_the_mode_interval_reads_everything_each_time(tmp_path: Path):
    await asyncio.to_thread((tmp_path / "a.csv").write_text, "a;b\n1;2\n")
    found: list[pd.DataFrame] = []

    def keep(batch: pd.DataFrame) -> None:
        found.append(batch)

    for _ in range(2):
        source = stream_source("interval", tmp_path / "a.csv", read_options={"sep": ";"})
        await run_stream([keep], source, into="batch", journal=tmp_path / "journal").drain()
    assert [frame.to_dict("records") for frame in found] == [[{"a": 1, "b": 2}]] * 2


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
