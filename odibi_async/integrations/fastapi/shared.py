"""What the workers of a service share: their journal, and marks in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import anyio.to_thread
from blake3 import blake3

from odibi_async.journal.backend import Hold
from odibi_async.journal.journal import Journal
from odibi_async.journal.records import RunRecord, StepRecord

T = TypeVar("T")
THREADS: Final = 4
"""Requests that ask the journal at a time."""
SCANNED: Final = 500
"""Runs that are looked at for one page of a list."""
CANCEL: Final = "service/cancel/"
KEY: Final = "service/key/"
SWEEPS: Final = 3_600.0
"""Seconds between two looks for keys that are too old."""


class Recorded(NamedTuple):
    """
    A run as the journal has it.

    Attributes:
        record: The run.
        steps: What became of its steps so far.
    """

    record: RunRecord
    steps: list[StepRecord]


class Found(NamedTuple):
    """
    A page of a list of runs.

    Attributes:
        runs: The runs, the newest first, each with its number.
        next: The number below which the next page begins; `None` where there is none.
    """

    runs: list[tuple[int, RunRecord]]
    next: int | None


class Shared:
    """
    A journal, asked in threads of its own.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._swept = 0.0

    async def ask(self, call: Callable[..., T], *args: Any) -> T:
        """What a call that blocks returns."""
        return await anyio.to_thread.run_sync(call, *args, limiter=self._limiter)

    # -- runs ------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunRecord | None:
        """A run; `None` where the journal does not have it."""
        return await self.ask(self._run, run_id)

    def _run(self, run_id: str) -> RunRecord | None:
        return None if self.journal.backend.run(run_id) is None else self.journal.run(run_id)

    async def recorded(self, run_id: str) -> Recorded | None:
        """A run with its steps."""
        return await self.ask(self._recorded, run_id)

    def _recorded(self, run_id: str) -> Recorded | None:
        record = self._run(run_id)
        if record is None:
            return None
        return Recorded(record, [each for each in self.journal.steps(run_id) if each.element is None])

    async def page(self, pipelines: frozenset[str], status: str | None, most: int, before: int | None) -> Found:
        """Some runs of these pipelines, the newest first."""
        return await self.ask(self._page, pipelines, status, most, before)

    def _page(self, pipelines: frozenset[str], status: str | None, most: int, before: int | None) -> Found:
        found: list[tuple[int, RunRecord]] = []
        only = next(iter(pipelines)) if len(pipelines) == 1 else None
        rows = self.journal.rows(only, before=before, most=SCANNED)
        for row, record in rows:
            if record is None or row.pipeline not in pipelines:
                continue
            now = self.journal.now(record)
            if status is not None and now.status != status:
                continue
            found.append((row.number, now))
            if len(found) == most:
                return Found(found, row.number)
        return Found(found, rows[-1][0].number if len(rows) == SCANNED else None)

    # -- cancelling ------------------------------------------------------------------------------------

    async def ask_to_cancel(self, run_id: str) -> None:
        """Asks whoever runs it to cancel a run."""
        await self.ask(self._mark, CANCEL + run_id, str(time.time()))

    async def asked_to_cancel(self) -> frozenset[str]:
        """The runs that are to be cancelled."""
        marks = await self.ask(self.journal.backend.marks, CANCEL)
        return frozenset(name.removeprefix(CANCEL) for name in marks)

    async def forget_cancel(self, run_id: str) -> None:
        """It is cancelled, over, or begins anew."""
        await self.ask(self._mark, CANCEL + run_id, None)

    def _mark(self, name: str, text: str | None) -> None:
        backend = self.journal.backend
        while (old := backend.mark(name)) != text and not backend.replace_mark(name, old, text):
            pass

    # -- one at a time ---------------------------------------------------------------------------------

    async def hold(self, name: str) -> Hold | None:
        """Shows that this process does something that is done once at a time; `None` where another one does it."""
        return await self.ask(self.journal.backend.hold, f"service/{name}")

    async def release(self, hold: Hold) -> None:
        """Lets others do it."""
        with anyio.CancelScope(shield=True):
            await self.ask(hold.release)

    # -- keys ------------------------------------------------------------------------------------------

    async def claim(self, key: str, digest: str, run_id: str, kept: float) -> tuple[str, str, bool]:
        """
        Notes which run a key of a request stands for, unless it is known.

        Args:
            key: The key.
            digest: Of what is asked for.
            run_id: The run.
            kept: Seconds that a key is remembered.

        Returns:
            The digest and the run of this key, this request's own or those of an earlier one, and whether that run
            has begun.
        """
        return await self.ask(self._claim, _name_of(key), digest, run_id, kept)

    def _claim(self, name: str, digest: str, run_id: str, kept: float) -> tuple[str, str, bool]:
        backend, now = self.journal.backend, time.time()
        if now - self._swept > SWEEPS:
            self._swept = now
            for other, said in backend.marks(KEY).items():
                if (claim := _claim_of(said)) is None or now - claim.at > kept:
                    backend.replace_mark(other, said, None)
        while True:
            old = backend.mark(name)
            known = None if old is None else _claim_of(old)
            if known is not None and now - known.at <= kept:
                return known.digest, known.run_id, known.has_begun
            if backend.replace_mark(name, old, json.dumps([digest, run_id, now])):
                return digest, run_id, False

    async def begun(self, key: str, run_id: str) -> None:
        """The run of a key has begun: it is never to begin again, not even when the journal has forgotten it."""
        await self.ask(self._begun, _name_of(key), run_id)

    def _begun(self, name: str, run_id: str) -> None:
        old = self.journal.backend.mark(name)
        if old is not None and (known := _claim_of(old)) is not None and known.run_id == run_id:
            self.journal.backend.replace_mark(name, old, json.dumps([known.digest, run_id, known.at, True]))

    async def unclaim(self, key: str, run_id: str) -> None:
        """Nothing was begun: the key may be used again."""
        with anyio.CancelScope(shield=True):
            await self.ask(self._unclaim, _name_of(key), run_id)

    def _unclaim(self, name: str, run_id: str) -> None:
        old = self.journal.backend.mark(name)
        if old is not None and (known := _claim_of(old)) is not None and known.run_id == run_id:
            self.journal.backend.replace_mark(name, old, None)


def _name_of(key: str) -> str:
    return KEY + blake3(key.encode("utf-8", "surrogatepass")).hexdigest()


class _Claim(NamedTuple):
    digest: str
    run_id: str
    at: float
    has_begun: bool


def _claim_of(text: str) -> _Claim | None:
    try:
        digest, run_id, at, *begun = json.loads(text)
        return _Claim(str(digest), str(run_id), float(at), bool(begun))
    except (ValueError, TypeError):
        return None
