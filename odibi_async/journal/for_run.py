"""The journal as one run uses it: what is committed of its steps, and what they commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from odibi_async.errors import JournalUnavailable, OdibiError, RunAlive, RunExists
from odibi_async.fingerprint.functions import Undigestible, combined, digest_of, is_mutable
from odibi_async.graph.graph import Graph
from odibi_async.graph.select import Selection
from odibi_async.journal.backend import GLANCE, GLANCES, RunRow
from odibi_async.journal.journal import Journal
from odibi_async.journal.records import GivenInput, RunRecord, StepRecord
from odibi_async.journal.writer import AT_ONCE, Job, Told, step_row
from odibi_async.result import Status
from odibi_async.store.kept import Kept
from odibi_async.store.store import Store

SMALL: Final = (bool, int, float, type(None))
"""Values of these types are digested and kept within microseconds."""
SHORT: Final = 1024
"""Texts and bytes up to this length as well."""
REMEMBERED: Final = 4096
"""How many small values are remembered with where they are: many steps make the same."""

Place = tuple[str, int | None]
"""The name of a step, and which element of it."""


def is_small(value: Any) -> bool:
    """Whether a value is digested and kept within microseconds."""
    return type(value) in SMALL or (type(value) in (str, bytes) and len(value) <= SHORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    What a run asks of its journal.

    Attributes:
        journal: The journal.
        run_id: The run.
        resume: Whether it is one that the journal knows.
        pipeline: The name of its pipeline.
        source: The configuration file that it was read from; empty where there is none.
        store: Where what its steps make is kept.
    """

    journal: Journal
    run_id: str
    resume: bool
    pipeline: str
    source: str
    store: Store


class RunJournal:
    """
    The part of a journal that is about one run. Blocking, but for `put`.

    Args:
        asked: What is asked.
        graph: What is run.
        selection: The part of it that is run.
        given: Dataset -> value, for those that come from outside.

    Attributes:
        store: Where what the steps make is kept.
        committed: What was committed before this run was resumed.
        damaged: The steps and elements whose rows cannot be read.
        digests: The digests of what was given from outside, by dataset.
        trouble: Why nothing can be written any more; `None` while all is well.
    """

    def __init__(self, asked: Asked, graph: Graph, selection: Selection, given: Mapping[str, Any]) -> None:
        self.store = asked.store
        self.committed: dict[Place, StepRecord] = {}
        self.damaged: set[Place] = set()
        self.digests: dict[int, str] = {}
        self.trouble: JournalUnavailable | None = None
        self._asked = asked
        self._journal = asked.journal
        self._graph = graph
        self._selection = selection
        self._given = given
        self._row: RunRow | None = None
        self._record: RunRecord | None = None
        self._pin = ""
        self._held = ExitStack()
        self._smalls: dict[tuple[type, Any], Kept] = {}

    # -- its life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """
        Shows that the run is alive, and commits its row, or reads what is committed of it.

        Raises:
            RunExists: There is a run of this name, and it is not to be resumed.
            RunUnknown: There is none, and it is to be.
            RunAlive: It is running elsewhere.
            JournalUnavailable: The journal cannot be read or written.
        """
        journal, run_id = self._journal, self._asked.run_id
        try:  # rows of several runs share a commit: one that cannot be written would fail them all
            "".join(self._graph.names).encode()
        except UnicodeError as error:
            raise JournalUnavailable(journal.backend.name, f"a name cannot be written: {error}.") from error
        if self._asked.resume:
            journal.found(run_id)
        elif journal.backend.run(run_id) is not None:
            raise RunExists(run_id)
        hold = journal.backend.hold(run_id)
        for _ in range(GLANCES):  # who lists runs looks for a moment whether they are alive
            if hold is None:
                time.sleep(GLANCE)
                hold = journal.backend.hold(run_id)
        if hold is None:
            raise self._alive()
        self._held.callback(hold.release)
        journal.writer.enter()
        self._held.callback(journal.writer.leave)
        self._pin = journal.pin_of(run_id)
        try:
            if self._asked.resume:
                self._take_up()
            self._held.callback(self.store.lease().out)
            self._begin()
        except OSError as error:
            raise self._unavailable(error) from error

    def _alive(self) -> RunAlive:
        try:
            record = self._journal.found(self._asked.run_id)[1]
        except OdibiError:  # it has begun this moment
            return RunAlive(self._asked.run_id, "", 0)
        return RunAlive(record.run_id, record.host, record.pid)

    def _take_up(self) -> None:
        """Reads what is committed."""
        self._journal.backend.check()
        row, record = self._journal.found(self._asked.run_id)
        for found in self._journal.records(row):
            if isinstance(found, StepRecord):
                self.committed[found.step, found.element] = found
            else:
                self.damaged.add(found)
        self._row, self._record = row, record
        if record.store and record.store != self._journal.place_of(self.store):
            self.store = self._journal.store_at(record.store)

    def _begin(self) -> None:
        """Commits the run's row."""
        inputs, blobs = self._inputs()
        if blobs:
            self._pinned(blobs)
        about = self._asked
        record = RunRecord(
            run_id=about.run_id,
            pipeline=about.pipeline,
            source=about.source,
            digest=combined(dict.fromkeys((*self._graph.names, *self._graph.datasets), "")),
            started_at=time.time(),
            steps=len(self._selection.nodes),
            store=self._journal.place_of(self.store),
            inputs=inputs,
            targets=self._targets(),
        )
        if self._record is not None and self._row is not None:
            record = replace(record, started_at=self._record.started_at, resumed=self._record.resumed + 1)
            self._rewrite(self._row, record)
        else:
            text = record.to_text()
            backend = self._journal.backend
            number = backend.begin(about.run_id, about.pipeline, text)
            if number is None:
                raise RunExists(about.run_id)
            self._row = RunRow(number=number, run_id=about.run_id, pipeline=about.pipeline, text=text)
        self._record = record

    def _targets(self) -> tuple[str, ...] | None:
        kept = self._selection.kept
        return None if kept is None else tuple([self._graph.datasets[dataset] for dataset in sorted(kept)])

    def _rewrite(self, row: RunRow, record: RunRecord) -> None:
        self._journal.backend.rewrite(row.number, record.to_text())

    def _inputs(self) -> tuple[dict[str, GivenInput], list[str]]:
        """What was given from outside, and the files that hold it."""
        inputs, blobs = {}, []
        for name, value in self._given.items():
            dataset = self._graph.ids[name]
            if dataset in self._graph.hidden:
                continue
            digest, kept = None, None
            try:
                digest = self.digests[dataset] = digest_of(value, name=f"the input {name!r}", ordered=True)
                kept = self.store.keep(value, digest, durable=True)
            except (Undigestible, OdibiError):  # it is to be given again
                pass
            if kept is not None and kept.inline is None:
                blobs.append(kept.blob)
            inputs[name] = GivenInput(digest=digest, kept=kept)
        return inputs, blobs

    def close(self, status: Status, steps: Iterable[StepRecord], error: str, seconds: Mapping[str, float]) -> None:
        """
        Commits how the run and its other steps ended, and lets others resume it. To be called again if it raised.

        Args:
            status: How the run ended.
            steps: The steps that have no row yet.
            error: What went wrong, in a line.
            seconds: How long steps took.
        """
        with self._held:
            if self._row is None or self._record is None or self.trouble is not None:
                return
            row, journal = self._row, self._journal
            journal.writer.flush()
            rows = [step_row(row.number, row.run_id, each) for each in steps]
            for start in range(0, len(rows), AT_ONCE):
                journal.backend.write(rows[start : start + AT_ONCE])
            self._rewrite(row, replace(self._record, status=status, ended_at=time.time(), error=error))
            if seconds:
                journal.backend.learn(row.pipeline, seconds)
        self._journal.prune_after(self._asked.pipeline)

    # -- steps -----------------------------------------------------------------------------------------

    def put(self, record: StepRecord, told: Told) -> asyncio.Future[None]:
        """Commits a step; the future is done when that is so. On the loop's thread."""
        assert self._row is not None
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal.writer.put(Job(self._row.number, self._row.run_id, record, committed, told))
        return committed

    def keep(self, names: Sequence[str], made: Sequence[Any], handles: Mapping[int, Kept]) -> tuple[Kept, ...]:
        """
        Keeps what a step made, so that it outlasts a loss of power, and pins it.

        Args:
            names: What the datasets are called.
            made: One value a dataset.
            handles: Place -> where it lies in this store already.

        Raises:
            Undigestible: One has no content to identify it by.
            OdibiError: One cannot be kept.
            JournalUnavailable: The disk is full, ...
        """
        try:
            kept = []
            for place, (name, value) in enumerate(zip(names, made, strict=True)):
                if place in handles:
                    self.store.sync(handles[place])
                    kept.append(handles[place])
                else:
                    kept.append(self._kept(name, value))
            blobs = [each.blob for each in kept if each.inline is None]
            if blobs:
                self._pinned(blobs)
        except OSError as error:
            raise self._unavailable(error) from error
        return tuple(kept)

    def _kept(self, name: str, value: Any) -> Kept:
        digest = digest_of(value, name=f"the output {name!r}", ordered=True)
        for _ in range(2):  # a fault of the moment
            try:
                kept = self.store.keep(value, digest, durable=True)
                break
            except OSError:
                continue
        else:
            kept = self.store.keep(value, digest, durable=True)
        if is_mutable(value) and digest_of(value, name=name, ordered=True) != digest:
            raise Undigestible(f"the output {name!r}", "changed while it was kept")
        return kept

    def _pinned(self, blobs: Sequence[str]) -> None:
        self.store.pins.add(self._pin, self._journal.home_of(self.store), blobs)

    def small(self, made: Sequence[Any]) -> tuple[Kept, ...] | None:
        """What `keep` gives, where that takes microseconds; else `None`."""
        if not all(map(is_small, made)):
            return None
        try:
            return tuple([self._small(value) for value in made])
        except (Undigestible, OdibiError):
            return None

    def _small(self, value: Any) -> Kept:
        known = (type(value), value)
        kept = self._smalls.get(known)
        if kept is None or value == 0:  # of floats there are two zeros
            kept = self.store.keep(value, digest_of(value, ordered=True))
            if len(self._smalls) < REMEMBERED:
                self._smalls[known] = kept
        return kept

    def has(self, kept: Kept) -> bool:
        """Whether a value lies in this store already; not the files of an engine, which nobody else can read."""
        return not kept.parts and (kept.inline is not None or self.store.has(kept))

    def sound(self, record: StepRecord) -> bool:
        """Whether all that a committed step made is as it was; its files are read."""
        try:
            return all(map(self._is_sound, record.kept or ()))
        except (OSError, Undigestible, OdibiError):
            return False

    def _is_sound(self, kept: Kept) -> bool:
        if not self.store.has(kept):
            return False
        if not self.store.mentions(kept, b"Path"):
            return True
        return digest_of(self.store.load(kept), ordered=True) == kept.digest  # the files that the paths lead to count

    def load(self, kept: Kept) -> Any:
        """
        Raises:
            Damaged: It is missing, or not what was kept.
        """
        return self.store.load(kept)

    def _unavailable(self, error: OSError) -> JournalUnavailable:
        text = error.strerror or str(error)
        return JournalUnavailable(self._journal.backend.name, f"{text} ({self.store.directory}).")
