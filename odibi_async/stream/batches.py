"""What becomes of the batches of a stream: they are run until they succeed, or are set aside."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from odibi_async.errors import BatchFailed, RunCancelled, RunError, in_a_line
from odibi_async.events import BatchFinished, BatchRetrying, BatchSetAside, BatchStarted
from odibi_async.result import RunResult, Status
from odibi_async.secret import masked_urls
from odibi_async.stream.ledger import Ledger, Open
from odibi_async.stream.runs import BatchRuns
from odibi_async.stream.source import Batch, digest_of_batch
from odibi_async.stream.telling import StreamTelling
from odibi_async.stream.values import from_json, to_json
from odibi_async.stream.waiting import Controls, whole

OnPoison: TypeAlias = Literal["skip", "stop"]
WhenHeld: TypeAlias = Literal["error", "wait"]
LONGEST: Final = 60.0
"""Seconds that no wait between attempts exceeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    What a stream does about what fails.

    Attributes:
        attempts: How often a batch is tried, and its source in a row.
        wait: Seconds before the second attempt; doubled before each later one, up to a minute.
        on_poison: What becomes of a stream whose batch has failed so often.
        when_held: What it does while another holds its name.
    """

    attempts: int
    wait: float
    on_poison: OnPoison
    when_held: WhenHeld

    def pause(self, failed: int) -> float:
        """Seconds to wait after so many failures."""
        return min(LONGEST, self.wait * 2.0 ** min(failed - 1, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """
    What became of a batch.

    Attributes:
        run_id: Its run.
        batch: What it is: a file, rows up to a watermark, ...
        rows: How many rows it has.
        status: `succeeded`, or `failed` where it was set aside.
        result: What its run made; `None` where it failed.
        error: What its last attempt raised.
    """

    run_id: str
    batch: str
    rows: int | None
    status: Status
    result: RunResult | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Counts:
    """
    What a stream has done since it was started.

    Attributes:
        batches, rows: What succeeded.
        set_aside: Batches that failed as often as they may.
        late: Rows that came later than the source's bound allows.
        pending: How much more the source knew of at the last batch.
        rate: Rows a second, over the last batches.
    """

    batches: int = 0
    rows: int = 0
    set_aside: int = 0
    late: int = 0
    pending: int | None = None
    rate: float = 0.0


class Batches:
    """
    Runs the batches of a stream, one after another.

    Args:
        ledger: What is committed.
        runs: How batches are run.
        telling: Who hears of it.
        controls: What the stream was told to do.
        patience: What it does about what fails.
        results: Is given what became of each batch, and waits until it is wanted.

    Attributes:
        counts: What was done.
    """

    def __init__(
        self,
        ledger: Ledger,
        runs: BatchRuns,
        telling: StreamTelling,
        controls: Controls,
        patience: Patience,
        results: Callable[[BatchResult], Any],
    ) -> None:
        self.counts = Counts()
        self._ledger = ledger
        self._runs = runs
        self._telling = telling
        self._controls = controls
        self._patience = patience
        self._results = results
        self._last: BatchResult | None = None
        self._unread: dict[str, int] = {}
        self._unread_before: dict[str, int] = {}

    def begin_look(self) -> None:
        """Another look at the source begins: what could not be read in the last one is there again, or gone."""
        self._unread_before, self._unread = self._unread, {}

    @property
    def retry_wait(self) -> float | None:
        """Seconds after which the source is to be looked at again; `None` where all could be read."""
        return self._patience.pause(max(self._unread.values())) if self._unread else None

    async def take_up(self) -> None:
        """Finishes the batch that an earlier life of the stream left open, if its run has begun."""
        batch = self._ledger.state.open
        if batch is None:
            return
        has_begun, given = await whole(self._ledger.given, batch.run_id)
        if not (has_begun and self._runs.into in given):
            await whole(self._ledger.abandon)  # nothing has run, or the source is to give it again
            return
        if batch.failed >= self._patience.attempts:  # it stopped at that, and was started again
            batch = dataclasses.replace(batch, failed=0)
        if await self._try(batch, given[self._runs.into], None, resume=True):
            await self._hand_on()

    async def take(self, batch: Batch) -> bool:
        """Runs a batch; whether its position is committed."""
        digest = digest_of_batch(batch) if batch.content else await whole(digest_of_batch, batch)
        opened = Open(
            run_id=self._ledger.run_id(digest),
            label=batch.label,
            rows=batch.rows,
            position=batch.position,
            watermark=to_json(batch.watermark),
            remember=batch.remember,
            forget=batch.forget,
        )
        self.counts.pending = batch.pending
        if batch.error is not None:
            await self._not_read(opened, batch.error)
            await self._hand_on()
            return True
        await whole(self._ledger.begin, opened)
        is_settled = await self._try(opened, batch.data, batch.pending)
        if is_settled:
            batch.settled()
            await self._hand_on()
        return is_settled

    async def _not_read(self, batch: Open, error: Exception) -> None:
        """What becomes of a batch that could not be read: the source finds it again, so often; then it is set aside."""
        failed = self._unread_before.get(batch.run_id, 0) + 1
        batch = dataclasses.replace(batch, failed=failed)
        if failed < self._patience.attempts:
            self._unread[batch.run_id] = failed
            self._telling.about(BatchRetrying, batch, batch.failed, error, self._patience.pause(failed))
            return
        if self._patience.on_poison == "stop":
            raise self._failed(batch, error) from error
        await self._put_aside(batch, error, masked_urls(in_a_line(error)), was_read=False)

    async def _try(self, batch: Open, data: Any, pending: int | None, resume: bool = False) -> bool:
        """Runs a batch until it succeeds, or has failed as often as it may; whether its position is committed."""
        began = asyncio.get_running_loop().time()
        while True:
            self._telling.about(BatchStarted, batch, batch.failed + 1, resume)
            try:
                result = await self._runs.run(batch.run_id, data, resume)
                break
            except RunCancelled:
                raise
            except RunError as error:
                failure = error
            batch, resume = dataclasses.replace(batch, failed=batch.failed + 1), True
            if batch.failed >= self._patience.attempts:
                await self._poisoned(batch, failure)
                return True
            await whole(self._ledger.begin, batch)
            wait = self._patience.pause(batch.failed)
            self._telling.about(BatchRetrying, batch, batch.failed, failure, wait)
            del failure
            await self._controls.unless_stopping(asyncio.sleep(wait))
            if self._controls.is_stopping:
                return False
        await whole(self._ledger.commit, batch)
        self._count(batch, pending, asyncio.get_running_loop().time() - began)
        self._note(batch, result)
        return True

    def _count(self, batch: Open, pending: int | None, seconds: float) -> None:
        counts, telling = self.counts, self._telling
        counts.batches += 1
        counts.rows += batch.rows or 0
        counts.rate = telling.rate(batch.rows)
        lag = telling.lag(batch.watermark)
        about = (seconds, from_json(batch.watermark), lag, pending, counts.rate)
        telling.about(BatchFinished, batch, batch.failed + 1, *about)

    async def _poisoned(self, batch: Open, error: RunError) -> None:
        if self._patience.on_poison == "stop":
            await whole(self._ledger.begin, batch)
            raise self._failed(batch, error) from error
        await self._put_aside(batch, error, self._runs.line(error), was_read=True)

    async def _put_aside(self, batch: Open, error: Exception, line: str, *, was_read: bool) -> None:
        await whole(lambda: self._ledger.put_aside(batch, line, was_read=was_read))
        self.counts.set_aside += 1
        self._telling.about(BatchSetAside, batch, batch.failed, error)
        self._note(batch, None, error)

    def _failed(self, batch: Open, error: Exception) -> BatchFailed:
        line = self._runs.line(error) if isinstance(error, RunError) else in_a_line(error)
        return BatchFailed(self._ledger.stream, batch.label, batch.run_id, line, batch.failed)

    def _note(self, batch: Open, result: RunResult | None, error: Exception | None = None) -> None:
        self._last = BatchResult(
            run_id=batch.run_id,
            batch=batch.label,
            rows=batch.rows,
            status=Status.SUCCEEDED if error is None else Status.FAILED,
            result=result,
            error=error,
        )

    async def _hand_on(self) -> None:
        """Gives what became of a batch to who iterates over the stream, when they want it."""
        last, self._last = self._last, None
        waiting = None if last is None else self._results(last)
        if waiting is not None:
            await self._controls.unless_stopping(waiting)
