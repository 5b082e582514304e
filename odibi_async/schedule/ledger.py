"""Where the records of schedules are: in a journal, which servers share, or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import anyio
import anyio.to_thread

from odibi_async.errors import Damaged, RecordDamaged
from odibi_async.journal.backend import Hold, MarkChange, RunRow
from odibi_async.schedule.records import Record, record_of

T = TypeVar("T")
PREFIX: Final = "schedule "
"""What the names of marks begin with."""
TOGETHER: Final = 200
"""How many records are written in one commit."""
THREADS: Final = 4
"""How many may ask the journal at a time."""

Edit = Callable[[Record], Record | None]
"""Makes a record of another one, or `None` where nothing is to be changed. Called again where others came first."""


class Marks(Protocol):
    """The part of a journal's `Backend` that is used here."""

    def run(self, run_id: str) -> RunRow | None: ...
    def mark(self, name: str) -> str | None: ...
    def marks(self, prefix: str) -> dict[str, str]: ...
    def replace_marks(self, changes: Sequence[MarkChange]) -> list[bool]: ...
    def hold(self, name: str) -> Hold | None: ...


class Asked:
    """
    One who asks for a record to be edited.

    Attributes:
        name: The schedule.
        edit: The edit.
        record: What is kept then.
        is_edited: Whether that is what the edit made.
        must_look: Whether what was kept when one looked last is not enough.
        error: Why nothing was done.
        future: Done when all that is known.
    """

    def __init__(self, name: str, edit: Edit) -> None:
        self.name = name
        self.edit = edit
        self.record = Record()
        self.is_edited = False
        self.must_look = False
        self.error: Exception | None = None
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def outcome(self) -> tuple[Record, bool]:
        if self.error is not None:
            raise self.error
        return self.record, self.is_edited


class Ledger:
    """
    The records of schedules.

    Each is a text that a server replaces only if it is still the one that it knows: so of several that claim the
    same firing, one does.

    Args:
        marks: What keeps the texts of all servers; `None` for the memory of this one.
    """

    def __init__(self, marks: Marks | None) -> None:
        self._marks: Marks = _Memory() if marks is None else marks
        self._is_quick = marks is None
        self._limiter: anyio.CapacityLimiter | None = None
        self._texts: dict[str, str | None] = {}
        self._alone = asyncio.Lock()
        self._waiting: list[Asked] = []
        self._writing: asyncio.Task[None] | None = None

    async def names(self) -> list[str]:
        """The names of all schedules of which something is kept."""
        return sorted(name.removeprefix(PREFIX) for name in await self._do(self._marks.marks, PREFIX))

    async def load(self, names: Iterable[str]) -> None:
        """
        Looks at what is kept of some schedules; `known` gives it.

        Raises:
            JournalUnavailable: The journal cannot be read.
        """
        async with self._alone:
            await self._do(self._load, names)

    async def amend(self, name: str, edit: Edit) -> tuple[Record, bool]:
        """
        What is kept of a schedule, and whether the edit made it so.

        Those who ask while something is being written are written together when that is done.

        Raises:
            JournalUnavailable: The journal cannot be read or written.
            RecordDamaged: What it has is not what was written.
        """
        asked = Asked(name, edit)
        if self._is_quick:
            self._write([asked])
            return asked.outcome()
        self._waiting.append(asked)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await asked.future
        return asked.outcome()

    async def settled(self) -> None:
        """Returns when all that was asked is written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write_together(self._next_batch())
        finally:
            self._writing = None

    def _next_batch(self) -> list[Asked]:
        """Those who are written together: the first who asks for each schedule."""
        batch: dict[str, Asked] = {}
        for asked in self._waiting:
            if len(batch) == TOGETHER:
                break
            batch.setdefault(asked.name, asked)
        taken = set(batch.values())
        self._waiting = [asked for asked in self._waiting if asked not in taken]
        return list(batch.values())

    async def _write_together(self, batch: Sequence[Asked]) -> None:
        try:
            async with self._alone:
                await self._do(self._write, batch)
        except BaseException:  # the loop ends
            for asked in batch:
                asked.future.cancel()
            raise
        for asked in batch:
            if not asked.future.done():
                asked.future.set_result(None)

    def known(self, name: str) -> Record:
        """
        What was kept of a schedule when this server looked last.

        Raises:
            RecordDamaged: It is not what was written.
        """
        return _sound(name, self._texts.get(name))

    async def hold(self, name: str) -> Hold | None:
        """A lock that dies with this process; `None` where another has it."""
        return await self._do(self._marks.hold, PREFIX + name)

    async def release(self, hold: Hold) -> None:
        """Gives a lock back."""
        await self._do(hold.release)

    async def has_run(self, run_id: str) -> bool:
        """Whether a run has begun."""
        return await self._do(self._marks.run, run_id) is not None

    def _load(self, names: Iterable[str]) -> None:
        found = self._marks.marks(PREFIX)
        self._texts = {name: found.get(PREFIX + name) for name in names}

    def _write(self, batch: Sequence[Asked]) -> None:
        """Does what is asked, of different schedules, in as few commits as others allow. Raises nothing of its own."""
        left = list(batch)
        try:
            while left:
                changes = [(asked, change) for asked in left if (change := self._change(asked)) is not None]
                done = self._marks.replace_marks([change for _, change in changes]) if changes else []
                left = []
                for (asked, change), is_done in zip(changes, done, strict=True):
                    if is_done:
                        self._texts[asked.name] = change.new
                    else:  # others have changed it
                        asked.must_look = True
                        left.append(asked)
        except Exception as error:  # the journal's; whoever asked gets it
            for asked in left:
                asked.error = error

    def _change(self, asked: Asked) -> MarkChange | None:
        """What is to be written for one who asks; `None` when that is answered."""
        name = asked.name
        while True:
            is_fresh = asked.must_look or name not in self._texts
            text = self._texts[name] = self._marks.mark(PREFIX + name) if is_fresh else self._texts[name]
            try:
                record = _sound(name, text)
                edited = asked.edit(record)
            except RecordDamaged as error:
                asked.error = error
                return None
            if edited is not None:
                asked.record, asked.is_edited = edited, True
                written = edited.to_text(name)
                return None if written == text else MarkChange(PREFIX + name, text, written)
            if is_fresh:
                asked.record, asked.is_edited = record, False
                return None
            asked.must_look = True  # others may have changed it

    async def _do(self, call: Callable[..., T], *args: object) -> T:
        if self._is_quick:
            return call(*args)
        self._limiter = self._limiter or anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(call, *args, limiter=self._limiter)


def _sound(name: str, text: str | None) -> Record:
    try:
        return record_of(name, text)
    except (Damaged, ValueError, TypeError, KeyError) as error:
        raise RecordDamaged(name) from error


class _Memory:
    """What keeps the records of a server that has no journal."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def run(self, run_id: str) -> RunRow | None:
        return None

    def mark(self, name: str) -> str | None:
        return self._texts.get(name)

    def marks(self, prefix: str) -> dict[str, str]:
        return {name: text for name, text in self._texts.items() if name.startswith(prefix)}

    def replace_marks(self, changes: Sequence[MarkChange]) -> list[bool]:
        self._texts.update({name: new for name, _, new in changes if new is not None})
        return [True] * len(changes)  # nobody else writes here

    def hold(self, name: str) -> Hold | None:
        return _Nothing()


class _Nothing:
    def release(self) -> None: ...
