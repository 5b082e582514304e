"""The journal: which runs there were, what became of their steps, and where what they made is kept."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from blake3 import blake3

from odibi_async.errors import Damaged, JournalUnavailable, OptionError, RunUnknown
from odibi_async.journal.backend import Backend, RunRow
from odibi_async.journal.postgres import PostgresBackend
from odibi_async.journal.records import RunRecord, StepRecord, run_of, step_of
from odibi_async.journal.sqlite import SqliteBackend
from odibi_async.journal.writer import Writer
from odibi_async.result import Status
from odibi_async.store.store import Store

GRACE: Final = 60.0
"""Seconds after its last use for which no file is removed, whether or not a lease protects it."""
SET_ASIDE: Final = "set aside/"
"""How the names of marks begin that keep a run from being pruned: its id follows."""


class Journal:
    """
    Records runs, so that one that was killed or failed goes on where it was.

    Making one touches no disk. Everything here blocks, and is safe to call from several threads; any number of
    processes may share a journal.

    Args:
        where: A directory, or the URL of a PostgreSQL database (`postgresql://...`, extra `postgres`).
        keep_last: How many runs of each pipeline are kept, by the pipeline's exact name; `None` for all.
        store: The directory for what steps make, where there is no cache. `None` for a directory of the journal's
            own: in its directory, or in the user's data directory.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        keep_last: int | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> None:
        self.keep_last = None if keep_last is None else _count(keep_last, 1)
        self.backend, own = _parts(where)
        self.store = Store(own if store is None else store)
        self.writer = Writer(self.backend)

    def __repr__(self) -> str:
        return f"<Journal {self.backend.name}>"

    # -- what there is ---------------------------------------------------------------------------------

    def runs(self, pipeline: str | None = None) -> list[RunRecord]:
        """
        All runs, or those of one pipeline, the newest first. One whose process died is `interrupted`.

        Raises:
            JournalUnavailable: The journal cannot be read.
        """
        return [self.now(record) for row, record in self.rows(pipeline) if record is not None]

    def run(self, run_id: str) -> RunRecord:
        """
        One run.

        Raises:
            RunUnknown: The journal has no run with this id.
            JournalUnavailable: The journal cannot be read.
        """
        return self.now(self.found(run_id)[1])

    def steps(self, run_id: str) -> list[StepRecord]:
        """
        What became of the steps of a run so far, and of the elements of mapped steps. Damaged rows are left out.

        Raises:
            RunUnknown: The journal has no run with this id.
            JournalUnavailable: The journal cannot be read.
        """
        row, _ = self.found(run_id)
        return [record for record in self.records(row) if isinstance(record, StepRecord)]

    def inputs(self, run_id: str) -> Mapping[str, Any]:
        """
        What a run was given when it began, as far as that is kept.

        Raises:
            RunUnknown: The journal has no run with this id.
            JournalUnavailable: The journal cannot be read.
        """
        record = self.found(run_id)[1]
        store, found = self.store_at(record.store), {}
        for name, given in record.inputs.items():
            with contextlib.suppress(Damaged):  # it is to be given again
                if given.kept is not None:
                    found[name] = store.load(given.kept)
        return found

    def seconds(self, pipeline: str) -> Mapping[str, float]:
        """How long the steps of a pipeline took in the runs that were recorded, by name; the last run counts most."""
        return self.backend.seconds(pipeline)

    def last(self, pipeline: str) -> RunRecord | None:
        """The last run of a pipeline."""
        return next(iter(self.runs(pipeline)), None)

    # -- upkeep ----------------------------------------------------------------------------------------

    def prune(self, keep_last: int | None = None) -> list[str]:
        """
        Removes the runs of each pipeline but the last ones, with what only they need. Runs that are alive stay.

        Args:
            keep_last: How many stay; `None` for what the journal was made with.

        Returns:
            The ids of the runs that were removed.
        """
        keep = self.keep_last if keep_last is None else keep_last
        if keep is None:
            raise OptionError("prune: keep_last= is needed, here or where the journal is made.")
        keep = _count(keep, 0)
        counts: dict[str, int] = {}
        old = []
        for row, record in self.rows():
            counts[row.pipeline] = counts.get(row.pipeline, 0) + 1
            if counts[row.pipeline] > keep:
                old.append((row, record))
        return self._forget(self._not_aside(old))

    def forget(self, *run_ids: str) -> list[str]:
        """
        Removes runs, with what only they need. Runs that are alive stay.

        Raises:
            RunUnknown: The journal has no run with one of these ids.
        """
        return self._forget([self.found(run_id) for run_id in run_ids])

    def close(self) -> None:
        """Closes the files. The next call opens them again."""
        self.backend.close()
        self.store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for runs --------------------------------------------------------------------------------------

    def found(self, run_id: str) -> tuple[RunRow, RunRecord]:
        """The row of a run, and what it says."""
        row = self.backend.run(run_id)
        if row is None:
            raise RunUnknown(run_id, [each.run_id for each in self.backend.runs()])
        record = _read(row)
        if record is None:
            raise JournalUnavailable(self.backend.name, f"its row of run {run_id!r} is not what was written.")
        return row, record

    def records(self, row: RunRow) -> list[StepRecord | tuple[str, int | None]]:
        """What it has of the steps of a run; of a damaged row, only whose it was."""
        found: list[StepRecord | tuple[str, int | None]] = []
        for each in self.backend.steps(row.number):
            element = None if each.element < 0 else each.element
            try:
                found.append(step_of(row.run_id, each.step, element, each.text))
            except (Damaged, ValueError, TypeError):
                found.append((each.step, element))
        return found

    def pin_of(self, run_id: str) -> str:
        """Under which name the store pins what a run needs."""
        return blake3(f"{self.backend.identity()}\0{run_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def place_of(self, store: Store) -> str:
        """How a run's record names a store: one that lies in the journal's directory moves with it."""
        where, home = store.directory.absolute(), self.backend.home
        return str(where.relative_to(home) if home and where.is_relative_to(home) else where)

    def store_at(self, place: str) -> Store:
        """The store that a run's record names."""
        where = Path(self.backend.home) / place
        return self.store if not place or where == self.store.directory.absolute() else Store(where)

    def home_of(self, store: Store) -> str:
        """Where this journal is, for pins in a store; empty where the store cannot outlive it."""
        return self.backend.home if os.path.isabs(self.place_of(store)) else ""

    def prune_after(self, pipeline: str) -> None:
        """Removes the older runs of a pipeline, when one has ended."""
        if self.keep_last is not None:
            self._forget(self._not_aside(self.rows(pipeline)[self.keep_last :]))

    # -- for those who list runs -----------------------------------------------------------------------

    def rows(
        self, pipeline: str | None = None, *, before: int | None = None, most: int | None = None
    ) -> list[tuple[RunRow, RunRecord | None]]:
        """
        The rows of runs and what they say, the newest first; `None` for what is damaged. See also `now`.

        Args:
            pipeline: Of which pipeline; `None` for all.
            before: Only those with lower numbers.
            most: How many; `None` for all.
        """
        return [(row, _read(row)) for row in self.backend.runs(pipeline, before=before, most=most)]

    def now(self, record: RunRecord) -> RunRecord:
        """A run that says that it is running is so only while somebody shows that it is alive."""
        if record.status is not Status.RUNNING:
            return record
        hold = self.backend.hold(record.run_id)
        if hold is None:
            return record
        try:  # it may have ended since its row was read
            row = self.backend.run(record.run_id)
        finally:
            hold.release()
        last = (None if row is None else _read(row)) or record
        return replace(last, status=Status.INTERRUPTED) if last.status is Status.RUNNING else last

    # -- within ----------------------------------------------------------------------------------------

    def _not_aside(self, old: Sequence[tuple[RunRow, RunRecord | None]]) -> list[tuple[RunRow, RunRecord | None]]:
        """The runs that may be pruned: all but those that are set aside, to be run again one day."""
        return [each for each in old if self.backend.mark(SET_ASIDE + each[0].run_id) is None]

    def _forget(self, old: Sequence[tuple[RunRow, RunRecord | None]]) -> list[str]:
        gone, stores = [], {self.store.directory: self.store}
        for row, record in old:
            hold = self.backend.hold(row.run_id)
            if hold is None:
                continue
            try:
                self.backend.forget([row.number])
                store = self.store if record is None else self.store_at(record.store)
                stores.setdefault(store.directory, store).pins.remove(self.pin_of(row.run_id))
                gone.append(row.run_id)
            finally:
                hold.release()
        if gone:  # what lies in the store of a cache, the cache prunes
            self.store.unneeded((), min(self.store.leased_since(), time.time() - GRACE))
        return gone


def _count(keep_last: Any, least: int) -> int:
    if type(keep_last) is not int or keep_last < least:
        raise OptionError(f"keep_last={keep_last!r}: a number of runs from {least} is needed, or None for all.")
    return keep_last


def _parts(where: Any) -> tuple[Backend, Path]:
    """What keeps the rows, and the directory for what steps make. Touches no disk."""
    if not isinstance(where, str | os.PathLike):
        raise OptionError(f"Journal({where!r}): a directory or a URL is needed.")
    text = os.fspath(where)
    if not text or "\0" in text:
        raise OptionError(f"Journal({where!r}): a directory or a URL is needed, which holds no NUL.")
    if "://" not in text:
        return SqliteBackend(Path(text)), Path(text) / "store"
    if not text.startswith(("postgresql://", "postgres://")):
        raise OptionError(f"Journal({text.split('://')[0]}://...): a directory or a postgresql:// URL is needed.")
    try:
        urlsplit(text)
    except ValueError as error:
        raise OptionError(f"Journal: its URL cannot be read: {error}.") from error
    from platformdirs import user_data_path

    return PostgresBackend(text), user_data_path("odibi_async", appauthor=False) / "store"


def _read(row: RunRow) -> RunRecord | None:
    """What a row says; `None` where it is damaged."""
    try:
        return run_of(row.run_id, row.text)
    except (Damaged, ValueError, TypeError, KeyError):
        return None
