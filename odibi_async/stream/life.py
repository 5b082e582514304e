"""The life of a stream: look, run a batch, commit the position behind it, look again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import anyio

from odibi_async.errors import ExtraMissing, OptionError, PositionDamaged, SourceFailed, StreamAlive, in_a_line
from odibi_async.events import RowsLate, StreamLagged, StreamStarted
from odibi_async.secret import masked_urls
from odibi_async.stream.batches import Batches, Patience
from odibi_async.stream.ledger import Ledger
from odibi_async.stream.source import Batch, Found, Late, Source
from odibi_async.stream.telling import StreamTelling
from odibi_async.stream.values import from_json
from odibi_async.stream.waiting import Controls, Told, raced, whole

HELD: Final = 1.0
"""Seconds after which a stream that waits for another of its name looks again."""


class _LookFailed(Exception):
    """A source raised; the cause is its error."""


class LedgerMemory:
    """What the source of a stream remembers, without blocking the loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def get(self, key: str) -> str | None:
        return await whole(self._ledger.get, key)

    async def items(self) -> dict[str, str]:
        return await whole(self._ledger.items)


class Life:
    """
    One life of a stream, from holding its name to letting go of it.

    Args:
        source: Where batches come from.
        ledger: What is committed.
        batches: What becomes of them.
        telling: Who hears of it.
        controls: What it was told to do.
        patience: What it does about what fails.

    Attributes:
        is_idle: Whether it waits for its source.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        batches: Batches,
        telling: StreamTelling,
        controls: Controls,
        patience: Patience,
    ) -> None:
        self.is_idle = False
        self._source = source
        self._ledger = ledger
        self._batches = batches
        self._telling = telling
        self._controls = controls
        self._patience = patience

    async def run(self) -> None:
        """
        Runs batches until there will be no more, or until it is told to end.

        Raises:
            StreamError: It cannot go on.
            JournalError: The journal cannot be used.
        """
        try:
            if not await self._enter():
                return
            self._telling.tell(StreamStarted)
            if await self._controls.may_go_on():
                await self._batches.take_up()
            try:
                await self._source.open()
                await self._keep_looking()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._source.close()
        finally:
            await whole(self._ledger.leave)

    async def _enter(self) -> bool:
        """Holds the stream; whether it was not told to stop before it could."""
        while not self._controls.is_stopping:
            try:
                await whole(self._ledger.enter)
                return True
            except StreamAlive:
                if self._patience.when_held == "error":
                    raise
                await self._wait(HELD)
        return False

    # -- looks -----------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        failed = 0
        while True:
            try:
                if not await self._look_once():
                    return
                failed = 0
            except _LookFailed as look:
                error = look.__cause__
                assert isinstance(error, Exception)
                failed += 1
                if isinstance(error, PositionDamaged):
                    raise PositionDamaged(self._ledger.stream, error.reason) from error
                if failed >= self._patience.attempts or isinstance(error, OptionError | ExtraMissing):
                    raise SourceFailed(self._ledger.stream, masked_urls(in_a_line(error)), failed) from error
                await self._retreat(error, self._patience.pause(failed))

    async def _look_once(self) -> bool:
        """Runs what there is, and waits until there may be more; whether there may."""
        is_last = self._controls.is_draining
        if not await self._look():
            return False
        if not is_last:
            return await self._news()
        if (wait := self._batches.retry_wait) is None:
            return False
        await self._wait(wait)  # what could not be read is to be read now, or to be set aside
        return True

    async def _retreat(self, error: Exception, wait: float) -> None:
        """Waits after the source has failed."""
        watermark = self._ledger.state.watermark
        self._telling.tell(StreamLagged, from_json(watermark), self._telling.lag(watermark), error, wait)
        await self._wait(wait)

    async def _look(self) -> bool:
        """Runs what there is now; whether it was not told to stop."""
        self._batches.begin_look()
        looking = self._source.batches(self._ledger.state.position, LedgerMemory(self._ledger))
        try:
            while await self._controls.may_go_on():
                found = await self._found(looking)
                if found is None:
                    return not self._controls.is_stopping
                self.is_idle = False
                if isinstance(found, Late):
                    await self._note_late(found)
                elif not await self._batches.take(found):
                    return False
            return False
        finally:
            if (close := getattr(looking, "aclose", None)) is not None:
                await close()

    async def _found(self, batches: AsyncIterator[Found]) -> Found | None:
        """What the source has next; `None` at the end, or when it is not waited for any more."""
        try:
            return await self._controls.unless(lambda: self._controls.is_stopping, _next(batches))
        except Told:
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _LookFailed from RuntimeError("it raised CancelledError by itself")
        except Exception as error:
            raise _LookFailed from error

    async def _news(self) -> bool:
        """Waits until the source may have more; whether another look is to be taken."""
        watermark, controls = self._ledger.state.watermark, self._controls
        self._telling.tell(StreamLagged, from_json(watermark), self._telling.lag(watermark))
        self.is_idle = True
        try:
            return await controls.unless(lambda: controls.is_stopping or controls.is_draining, self._changed())
        except Told:
            return not controls.is_stopping
        except Exception as error:
            raise _LookFailed from error
        finally:
            self.is_idle = False

    async def _changed(self) -> bool:
        """Waits for the source, but no longer than what could not be read is to wait; whether there may be more."""
        wait = self._batches.retry_wait
        if wait is None:
            return await self._source.changed()
        await raced(self._source.changed(), asyncio.sleep(wait))
        return True

    async def _note_late(self, late: Late) -> None:
        await whole(self._ledger.move, late.position)
        self._batches.counts.late += late.rows
        self._telling.tell(RowsLate, late.rows, late.before)

    async def _wait(self, seconds: float) -> None:
        """Waits, unless it is told to stop."""
        await self._controls.unless_stopping(asyncio.sleep(seconds))


async def _next(batches: AsyncIterator[Found]) -> Found | None:
    found = await anext(batches, None)
    if found is None or (isinstance(found, Batch | Late) and isinstance(found.position, str)):
        return found
    raise OptionError(f"it gave {type(found).__name__!r}: a Batch or a Late is needed, whose position is a text.")
