"""What a journal knows of a run, as a record that a story is told from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odibi_async.errors import Damaged
from odibi_async.events import StepOutline
from odibi_async.journal.journal import Journal
from odibi_async.journal.records import StepRecord
from odibi_async.observers.record import Raised, RunRecord
from odibi_async.observers.snapshot import Snapshots
from odibi_async.result import StepResult
from odibi_async.store.store import Store

LARGEST: Final = 50_000_000
"""Bytes of a frame that is read for its first rows."""


def told(journal: Journal, run_id: str, graph: Mapping[str, StepOutline], again: str = "") -> RunRecord:
    """
    The record of a run. Blocks.

    Args:
        journal: Knows the run.
        run_id: The run.
        graph: What its steps are, as far as that is known; a step that is not is drawn by itself.
        again: What to do to resume it.

    Raises:
        RunUnknown: The journal has no run with this id.
        JournalUnavailable: The journal cannot be read.
    """
    run, rows = journal.run(run_id), [each for each in journal.steps(run_id) if each.element is None]
    names = [*graph, *(row.step for row in rows if row.step not in graph)]
    record = RunRecord(run_id, run.started_at, {name: graph.get(name) or _alone(name) for name in names})
    record.status = run.status
    record.again = again
    ended = [run.started_at, *((row.started_at or 0.0) + row.seconds for row in rows)]
    record.heard = max(ended) if run.ended_at is None else run.ended_at
    store = journal.store_at(run.store)
    for row in rows:
        step = record.steps[row.step]
        step.end(_result(row))
        step.raised = Raised.said(row.error) if row.error else None
        _look(record.snapshots, store, step.outline, row)
    return record


def _alone(name: str) -> StepOutline:
    return StepOutline(layer="transform", upstream=(), reads=(), makes=(name,))


def _result(row: StepRecord) -> StepResult:
    return StepResult(
        name=row.step,
        status=row.status,
        attempts=row.attempts,
        run_seconds=row.seconds,
        at=row.started_at,
        rows=row.row_count,
        skipped_because=row.note.removeprefix("because of ") if row.note.startswith("because of ") else None,
    )


def _look(snapshots: Snapshots, store: Store, outline: StepOutline, row: StepRecord) -> None:
    """Looks at the frames that a step made, where they are still there and not too large."""
    for dataset, kept in zip(outline.makes, row.kept or (), strict=False):
        if kept.kind == "frame" and kept.size <= LARGEST:
            try:
                snapshots.take(dataset, store.load(kept))
            except Damaged:
                continue
