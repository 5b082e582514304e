"""Streams: pipelines that run once for each batch of a source, and go on where they were."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Generator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from odibi_async.durations import seconds_of
from odibi_async.events import StreamFinished
from odibi_async.result import RunResult, Status
from odibi_async.run.telling import Telling
from odibi_async.stream.asked import Asked, Opened
from odibi_async.stream.batches import Batches, BatchResult, Counts
from odibi_async.stream.ledger import SetAside
from odibi_async.stream.life import Life
from odibi_async.stream.replays import replayed
from odibi_async.stream.telling import StreamTelling
from odibi_async.stream.values import from_json
from odibi_async.stream.waiting import Controls, ended, whole


class StreamStatus(StrEnum):
    """What a stream is doing, or how it ended."""

    NEW = "new"
    RUNNING = "running"
    IDLE = "idle"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    How far a stream has come.

    Attributes:
        position: Where its source goes on, as it is committed; `None` for the beginning.
        watermark: How far the source has come.
        lag: Seconds from the watermark to now, where that is a time.
        batches, rows: What was committed, ever.
        set_aside: Batches set aside since it was started.
        late: Rows found since it was started that came later than the source's bound allows.
        pending: How much more the source knew of at the last batch.
        rate: Rows a second, over the last batches.
    """

    position: str | None
    watermark: Any
    lag: float | None
    batches: int
    rows: int
    set_aside: int
    late: int
    pending: int | None
    rate: float


class Stream:
    """
    A pipeline that runs once for each batch of a source, made by `run_stream`. It can be started once.

        await stream                              # until its source ends, or it is stopped
        async with stream: ...                    # in the background; stopped when the block is left
        async for batch in stream: print(batch)   # each batch when it is done; the next one begins when you ask

    Attributes:
        name: What the journal calls it.
    """

    def __init__(self, asked: Asked) -> None:
        self.name = asked.name or ""
        self._asked = asked
        self._task: asyncio.Task[None] | None = None
        self._results: list[asyncio.Queue[BatchResult]] = []
        self._controls = Controls()
        self._life: Life | None = None
        self._batches: Batches | None = None
        self._opened: Opened | None = None
        self._telling: StreamTelling | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}, {self.status}>"

    # -- what it is doing --------------------------------------------------------------------------------

    @property
    def status(self) -> StreamStatus:
        """What it is doing, or how it ended."""
        task, controls = self._task, self._controls
        if task is None:
            return StreamStatus.NEW
        if task.done():
            if task.cancelled():
                return StreamStatus.CANCELLED
            return StreamStatus.FINISHED if task.exception() is None else StreamStatus.FAILED
        if controls.is_stopping:
            return StreamStatus.STOPPING
        if controls.is_draining:
            return StreamStatus.DRAINING
        if controls.is_paused:
            return StreamStatus.PAUSED
        return StreamStatus.IDLE if self._life is not None and self._life.is_idle else StreamStatus.RUNNING

    @property
    def error(self) -> BaseException | None:
        """What it failed with; `None` where it did not."""
        return self._task.exception() if self._task is not None and self.status is StreamStatus.FAILED else None

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        counts = Counts() if self._batches is None else self._batches.counts
        state, watermark, lag = None, None, None
        if self._opened is not None and self._telling is not None:
            state = self._opened.ledger.state
            watermark, lag = from_json(state.watermark), self._telling.lag(state.watermark)
        return Progress(
            position=None if state is None else state.position,
            watermark=watermark,
            lag=lag,
            batches=0 if state is None else state.batches,
            rows=0 if state is None else state.rows,
            set_aside=counts.set_aside,
            late=counts.late,
            pending=counts.pending,
            rate=counts.rate,
        )

    # -- its life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts it in the background; does nothing if it was."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"odibi_async stream {self.name}")

    async def _run(self) -> None:
        asked, loop = self._asked, asyncio.get_running_loop()
        async with asked.opened() as opened:
            observers = (*opened.runs.runner.observers, *asked.observers)
            self._opened, self.name = opened, opened.ledger.stream
            self._telling = telling = StreamTelling(self.name, Telling("", observers, loop), asked.now, loop.time)
            controls, patience = self._controls, asked.patience
            self._batches = Batches(*opened, telling, controls, patience, self._hand_on)
            self._life = Life(asked.source, opened.ledger, self._batches, telling, controls, patience)
            try:
                await self._life.run()
            except asyncio.CancelledError:
                telling.tell(StreamFinished, Status.CANCELLED, None)
                raise
            except BaseException as error:
                telling.tell(StreamFinished, Status.FAILED, error)
                raise
            telling.tell(StreamFinished, Status.SUCCEEDED, None)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.stop()
        else:
            await self.cancel()

    def __await__(self) -> Generator[Any, None, None]:
        return self._until_end().__await__()

    def _started(self) -> asyncio.Task[None]:
        self.start()
        assert self._task is not None
        return self._task

    async def _until_end(self) -> None:
        is_ours, task = self._task is None, self._started()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if is_ours:  # nobody else knows of it
                await ended(task)
            raise
        self._judge(task)

    async def __aiter__(self) -> AsyncIterator[BatchResult]:
        results: asyncio.Queue[BatchResult] = asyncio.Queue()
        self._results.append(results)
        is_ours, task = self._task is None, self._started()
        try:
            while not (task.done() and results.empty()):
                getting = asyncio.ensure_future(results.get())
                try:
                    await asyncio.wait([task, getting], return_when=asyncio.FIRST_COMPLETED)
                    if getting.done():
                        yield getting.result()
                        results.task_done()  # the next one is asked for
                finally:
                    getting.cancel()
            self._judge(task)
        finally:
            self._results.remove(results)
            with contextlib.suppress(ValueError):  # the stream waits for nobody
                results.task_done()
            if is_ours and not task.done():
                await ended(task)

    def pause(self) -> None:
        """Begins no other batch until `resume` is called; the one that runs is finished."""
        self._controls.tell(paused=True)

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._controls.tell()

    async def drain(self) -> None:
        """
        Takes what the source has now, and waits until that is done and the stream has ended.

        Raises:
            StreamError: The stream cannot go on.
        """
        self._controls.tell(draining=True)
        await self._until_end()

    async def stop(self, grace: float | None = None) -> None:
        """
        Finishes the batch that runs, and waits until the stream has ended.

        Args:
            grace: Seconds after which the batch is cancelled: it stays open, and the next start resumes it. `None` for
                as long as it takes.

        Raises:
            StreamError: The stream had failed, or fails meanwhile.
        """
        seconds_of("grace", grace)
        self._controls.tell(stopping=True)
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=grace)
        if self._task.done():
            self._judge(self._task)
        else:
            await self.cancel()

    def _judge(self, task: asyncio.Task[None]) -> None:
        """Raises what the stream ended with; being told to end is no error."""
        if not (task.cancelled() and self._controls.is_stopping):
            task.result()

    async def cancel(self) -> None:
        """Cancels it with the batch that runs, which stays open, and waits until it has ended."""
        self._controls.tell(stopping=True)
        if self._task is not None and not self._task.done():
            await ended(self._task)

    def _hand_on(self, result: BatchResult) -> Any:
        """What to wait for until all who iterate ask for the next batch; `None` if nobody does."""
        for results in self._results:
            results.put_nowait(result)
        return _asked_for(tuple(self._results)) if self._results else None

    # -- what is set aside -------------------------------------------------------------------------------

    async def set_aside(self) -> Sequence[SetAside]:
        """
        The batches that are set aside, the oldest first; whether or not the stream runs.

        Raises:
            JournalUnavailable: The journal cannot be read.
        """
        async with self._asked.opened() as (ledger, _):
            return await whole(ledger.set_aside)

    async def replay(self, *run_ids: str) -> dict[str, RunResult | None]:
        """
        Runs batches that are set aside once more, whether or not the stream runs. Steps that are committed are not
        called again. What succeeds is no longer set aside.

        Args:
            *run_ids: Which; all of them when none is named.

        Returns:
            Run -> what it made; `None` for a batch that could not be read: the source gives it again, if it has it.

        Raises:
            BatchUnknown: One is not set aside, or its data could not be kept.
            RunError: One failed again, and stays set aside.
        """
        async with self._asked.opened() as (ledger, runs):
            return await replayed(ledger, runs, run_ids)

    async def restart(self) -> None:
        """
        Forgets the position, so that the next start begins with the first batch there is, in runs of new names.

        Raises:
            StreamAlive: It is running.
        """
        async with self._asked.opened() as (ledger, _):
            try:
                await whole(functools.partial(ledger.enter, anew=True))
                await whole(ledger.restart)
            finally:
                await whole(ledger.leave)


async def _asked_for(queues: Sequence[asyncio.Queue[BatchResult]]) -> None:
    """Waits until those who took what was put into queues ask for more."""
    for queue in queues:
        await queue.join()
