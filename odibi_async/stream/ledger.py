"""What a journal knows of a stream: its position, the open batch, what its source remembers, what is set aside."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import quote

from odibi_async.errors import BatchUnknown, PositionDamaged, StreamAlive, StreamOvertaken
from odibi_async.journal.backend import Hold
from odibi_async.journal.journal import SET_ASIDE, Journal

FORMAT: Final = 1
GLANCES: Final = 10
GLANCE: Final = 0.02
"""How often, and after how many seconds, a stream that seems alive is looked at again: it may just have died."""
DIGITS: Final = 20
"""Hex digits of a batch's digest in the id of its run."""
AT_ONCE: Final = 64
"""How many runs of batches are forgotten together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """
    A batch whose run has begun, and whose position is not committed.

    Attributes:
        run_id: Its run.
        label, rows: What messages say of it.
        position, watermark, remember, forget: What is committed with it; see `Batch`.
        failed: How many attempts have failed.
    """

    run_id: str
    label: str
    rows: int | None
    position: str
    watermark: Any
    remember: Mapping[str, str]
    forget: tuple[str, ...]
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """
    What the journal says of a stream.

    Attributes:
        position: Where its source goes on; `None` for the beginning.
        watermark: How far it has come.
        batches: How many batches were committed.
        rows: How many rows they had.
        epoch: How often it was begun anew.
        open: The batch that it is at.
    """

    position: str | None = None
    watermark: Any = None
    batches: int = 0
    rows: int = 0
    epoch: int = 0
    open: Open | None = None

    def to_text(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """
    A batch that failed as often as it may.

    Attributes:
        run_id: Its run, which has its data if any of it began.
        stream: The name of the stream.
        batch: What it is: a file, rows up to a watermark, ...
        rows: How many rows it has, where that is known.
        error: What the last attempt raised, in a line.
        attempts: How often it was tried.
        at: When it was set aside, in seconds since the epoch.
        remembered: What its source remembers of it.
        was_read: Whether its data could be read.
    """

    run_id: str
    stream: str
    batch: str
    rows: int | None
    error: str
    attempts: int
    at: float
    remembered: tuple[str, ...] = ()
    was_read: bool = True

    @property
    def time(self) -> datetime:
        """When it was set aside (UTC)."""
        return datetime.fromtimestamp(self.at, timezone.utc)


class Ledger:
    """
    What a journal knows of one stream. Blocking; one call at a time.

    Args:
        journal: The journal.
        stream: The name of the stream.
        pipeline: What the journal calls its pipeline.
        keep_last: How many runs of finished batches stay in the journal.
    """

    def __init__(self, journal: Journal, stream: str, pipeline: str, keep_last: int) -> None:
        self.journal = journal
        self.stream = stream
        self.state = State()
        self._pipeline = pipeline
        self._keep_last = keep_last
        self._text: str | None = None
        self._hold: Hold | None = None
        self._done: deque[str] = deque()
        self._releasing = threading.Lock()
        root = f"stream/{quote(stream, safe='')}/"
        self._name, self._memory = f"{root}state", f"{root}memory/"

    # -- its life --------------------------------------------------------------------------------------

    def enter(self, *, anew: bool = False) -> None:
        """
        Holds the stream, and reads what is committed of it.

        Args:
            anew: Whether that is to be forgotten anyway, so that it may be damaged.

        Raises:
            StreamAlive: Another holds it.
            PositionDamaged: What is there cannot be read.
            JournalUnavailable: The journal cannot be read.
        """
        backend = self.journal.backend
        for glance in range(GLANCES):
            self._hold = backend.hold(self._name)
            if self._hold is not None:
                break
            time.sleep(GLANCE if glance + 1 < GLANCES else 0)
        else:
            raise StreamAlive(self.stream, backend.name)
        try:
            self.journal.writer.enter()
            self._read(anew)
        except BaseException:
            self.leave()
            raise

    def _read(self, anew: bool) -> None:
        backend = self.journal.backend
        self._text = backend.mark(self._name)
        try:
            self.state = State() if self._text is None else self._parsed(self._text)
        except PositionDamaged:
            if not anew:
                raise
            self.state = State(epoch=int(time.time()))  # higher than any that was counted
        aside = {each.run_id for each in self.set_aside()}
        ours = re.compile(rf"{re.escape(self.stream)}-(\d+\.)?[0-9a-f]{{{DIGITS}}}")
        runs = [row.run_id for row in backend.runs(self._pipeline) if ours.fullmatch(row.run_id)]
        is_open = self.state.open and self.state.open.run_id
        self._done.extend(run for run in reversed(runs) if run not in aside and run != is_open)

    def _parsed(self, text: str) -> State:
        try:
            members = json.loads(text)
            if members.pop("format") != FORMAT:
                raise PositionDamaged(self.stream, "another version of odibi_async wrote it.")
            opened = members.pop("open")
            if opened is not None:
                opened = Open(**{**opened, "forget": tuple(opened["forget"])})
            return State(**members, open=opened)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PositionDamaged(self.stream, f"it is not what was written ({text[:80]}).") from error

    def leave(self) -> None:
        """Lets others have the stream. Any number of times."""
        with self._releasing:
            hold, self._hold = self._hold, None
        if hold is not None:
            with contextlib.suppress(RuntimeError):
                self.journal.writer.leave()
            hold.release()

    # -- batches ---------------------------------------------------------------------------------------

    def run_id(self, digest: str) -> str:
        """What the run of a batch is called."""
        epoch = f"{self.state.epoch}." if self.state.epoch else ""
        return f"{self.stream}-{epoch}{digest[:DIGITS]}"

    def begin(self, batch: Open) -> None:
        """Commits that a batch is open, or how often it has failed."""
        self._replace(replace(self.state, open=batch))

    def abandon(self) -> None:
        """Commits that no batch is open: nothing of it has run, or its source is to give it again."""
        self._replace(replace(self.state, open=None))

    def commit(self, batch: Open) -> None:
        """Commits the position behind a batch that succeeded."""
        if batch.failed:  # it may have been about to be set aside when a process died
            self._mark(SET_ASIDE + batch.run_id, None)
        self._settle(batch, done=True)
        self._done.append(batch.run_id)
        if len(self._done) >= self._keep_last + AT_ONCE:
            self._forget_old()

    def put_aside(self, batch: Open, error: str, *, was_read: bool) -> None:
        """Sets a batch aside, and commits the position behind it."""
        aside = SetAside(
            run_id=batch.run_id,
            stream=self.stream,
            batch=batch.label,
            rows=batch.rows,
            error=error,
            attempts=batch.failed,
            at=time.time(),
            remembered=tuple(batch.remember),
            was_read=was_read,
        )
        self._mark(SET_ASIDE + batch.run_id, json.dumps(asdict(aside)))
        self._settle(batch, done=False)

    def move(self, position: str) -> None:
        """Commits a position without a batch."""
        self._replace(replace(self.state, position=position))

    def restart(self) -> None:
        """Forgets the position and all that the source remembers: the stream begins anew, with runs of new names."""
        for key in self.items():
            self._mark(self._memory + key, None)
        self._replace(State(epoch=self.state.epoch + 1))

    def _settle(self, batch: Open, *, done: bool) -> None:
        for key, text in batch.remember.items():  # done again by the next process if this one dies before the position
            self._mark(self._memory + key, text)
        for key in batch.forget:
            self._mark(self._memory + key, None)
        state = replace(self.state, position=batch.position, watermark=batch.watermark, open=None)
        if done:
            state = replace(state, batches=state.batches + 1, rows=state.rows + (batch.rows or 0))
        self._replace(state)

    def _replace(self, state: State) -> None:
        """Commits what is said of the stream, if nobody else did meanwhile."""
        text = state.to_text()
        if self._hold is None or not self.journal.backend.replace_mark(self._name, self._text, text):
            raise StreamOvertaken(self.stream)
        self.state, self._text = state, text

    def _mark(self, name: str, text: str | None) -> None:
        """Replaces a mark that only the one who holds the stream writes."""
        backend = self.journal.backend
        if text is not None and backend.replace_mark(name, None, text):
            return
        while not backend.replace_mark(name, backend.mark(name), text):
            pass

    def _forget_old(self) -> None:
        """Removes the runs of batches that are too old to be kept."""
        old = [self._done.popleft() for _ in range(len(self._done) - self._keep_last)]
        there = [run for run in old if self.journal.backend.run(run) is not None]
        self.journal.forget(*there)

    # -- what there is ---------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """What the source remembers under a key."""
        return self.journal.backend.mark(self._memory + key)

    def items(self) -> dict[str, str]:
        """All that the source remembers."""
        return {
            name.removeprefix(self._memory): text for name, text in self.journal.backend.marks(self._memory).items()
        }

    def given(self, run_id: str) -> tuple[bool, Mapping[str, Any]]:
        """Whether the journal has a run, and what it was given, as far as that is kept."""
        if self.journal.backend.run(run_id) is None:
            return False, {}
        return True, self.journal.inputs(run_id)

    def set_aside(self) -> list[SetAside]:
        """The batches that are set aside, the oldest first."""
        texts = self.journal.backend.marks(f"{SET_ASIDE}{self.stream}-").values()
        found = [_aside(text) for text in texts]
        return sorted((each for each in found if each.stream == self.stream), key=lambda each: each.at)

    def aside(self, run_id: str) -> SetAside:
        """
        A batch that is set aside.

        Raises:
            BatchUnknown: There is none of this name.
        """
        text = self.journal.backend.mark(SET_ASIDE + run_id)
        if text is None or _aside(text).stream != self.stream:
            there = ", ".join(each.run_id for each in self.set_aside()) or "none"
            raise BatchUnknown(self.stream, run_id, f"it is not set aside. Set aside: {there}.")
        return _aside(text)

    def take_back(self, aside: SetAside) -> None:
        """Removes a batch from those that are set aside; one that was never read, the source finds again."""
        if not aside.was_read:
            for key in aside.remembered:
                self._mark(self._memory + key, None)
        self._mark(SET_ASIDE + aside.run_id, None)


def _aside(text: str) -> SetAside:
    members = json.loads(text)
    return SetAside(**{**members, "remembered": tuple(members["remembered"])})
