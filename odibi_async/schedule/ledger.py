"""Where the records of schedules are: in a journal, which servers share, or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

import anyio
import anyio.to_thread

from odibi_async.errors import Damaged, RecordDamaged
from odibi_async.journal.backend import Hold, RunRow
from odibi_async.schedule.records import Record, record_of

T = TypeVar("T")
PREFIX: Final = "schedule "
"""What the names of marks begin with."""
THREADS: Final = 4
"""How many may ask the journal at a time."""

Edit = Callable[[Record], Record | None]
"""Makes a record of another one, or `None` where nothing is to be changed. Called again where others came first."""


class Marks(Protocol):
    """The part of a journal's `Backend` that is used here."""

    def run(self, run_id: str) -> RunRow | None: ...
    def mark(self, name: str) -> str | None: ...
    def marks(self, prefix: str) -> dict[str, str]: ...
    def replace_mark(self, name: str, old: str | None, new: str | None) -> bool: ...
    def hold(self, name: str) -> Hold | None: ...


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

    async def load(self, names: Iterable[str]) -> dict[str, Record | RecordDamaged]:
        """What is kept of some schedules."""
        found = await self._do(self._marks.marks, PREFIX)
        self._texts = {name: found.get(PREFIX + name) for name in names}
        return {name: _read(name, text) for name, text in self._texts.items()}

    async def amend(self, name: str, edit: Edit) -> tuple[Record, bool]:
        """
        What is kept of a schedule, and whether the edit made it so.

        Raises:
            JournalUnavailable: The journal cannot be read or written.
            RecordDamaged: What it has is not what was written.
        """
        return await self._do(self._amend, name, edit)

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

    def _amend(self, name: str, edit: Edit) -> tuple[Record, bool]:
        is_fresh = name not in self._texts
        text = self._marks.mark(PREFIX + name) if is_fresh else self._texts[name]
        while True:
            record = _sound(name, text)
            edited = edit(record)
            if edited is not None:
                written = edited.to_text(name)
                if written == text or self._marks.replace_mark(PREFIX + name, text, written):
                    self._texts[name] = written
                    return edited, True
            elif is_fresh:
                self._texts[name] = text
                return record, False
            text, is_fresh = self._marks.mark(PREFIX + name), True  # others have changed it, or may have

    async def _do(self, call: Callable[..., T], *args: object) -> T:
        if self._is_quick:
            return call(*args)
        self._limiter = self._limiter or anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(call, *args, limiter=self._limiter)


def _read(name: str, text: str | None) -> Record | RecordDamaged:
    try:
        return _sound(name, text)
    except RecordDamaged as error:
        return error


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

    def replace_mark(self, name: str, old: str | None, new: str | None) -> bool:
        if self._texts.get(name) != old:
            return False
        if new is not None:
            self._texts[name] = new
        return True

    def hold(self, name: str) -> Hold | None:
        return _Nothing()


class _Nothing:
    def release(self) -> None: ...
