"""The lineage of a run in the keys of ODIBI CORE: what each step read and made, and what that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Literal

from odibi_async.observers.record import RunRecord, StepRecord
from odibi_async.observers.snapshot import Snapshot, schema_diff
from odibi_async.secret import redacted

State = Literal["pending", "success", "failed", "retry"]


def lineage(record: RunRecord, iteration: int) -> dict[str, Any]:
    """
    The record of a run, in nothing but what JSON knows.

    Args:
        record: The run.
        iteration: Which of the tracker's runs it was, from 1.
    """
    steps = [_told(record, name, step, iteration) for name, step in record.steps.items()]
    states = Counter(step["state"] for step in steps)
    return {
        "pipeline_id": record.run_id,
        "start_time": iso(record.began),
        "steps": steps,
        "summary": {
            "status": str(record.status),
            "total_steps": len(steps),
            "success_count": states["success"],
            "failed_count": states["failed"],
            "pending_count": states["pending"] + states["retry"],
            "success_rate": 100 * states["success"] / max(1, len(steps)),
            "total_duration_ms": record.seconds * 1e3,
        },
    }


def _told(record: RunRecord, name: str, step: StepRecord, iteration: int) -> dict[str, Any]:
    began, ended = iso(step.began), iso(step.ended)
    seen = step.began is not None or (step.result is not None and step.result.is_done)
    before = _shown(record, step.outline.reads if seen else (), began)
    after = _shown(record, step.outline.makes if seen else (), ended)
    diff, delta = compared(before, after)
    said = message_of(step)
    return {
        "step_name": name,
        "layer": step.outline.layer,
        "start_time": began,
        "end_time": ended,
        "duration_ms": None if step.began is None or step.ended is None else (step.ended - step.began) * 1e3,
        "before_snapshot": before,
        "after_snapshot": after,
        "schema_diff": diff,
        "row_delta": delta,
        "state": state_of(step),
        "error_message": said and redacted(said, record.secrets),
        "iteration": iteration,
        "checkpoint_id": None,
    }


def state_of(step: StepRecord) -> State:
    """How far a step has come, in the words of ODIBI CORE."""
    if step.result is None:
        return "retry" if step.retries else "pending"
    if step.result.is_done:
        return "success"
    return "failed" if step.raised is not None else "pending"


def message_of(step: StepRecord) -> str | None:
    """What a step raised, or why it did not come to its end; `None` where there is nothing to say."""
    result = step.result
    if result is None or result.is_done:
        return None
    if step.raised is not None:
        return step.raised.text
    if result.skipped_because == result.name:
        return "skipped: its when= was false"
    return str(result.status) if result.skipped_because is None else f"skipped because of {result.skipped_because!r}"


def _shown(record: RunRecord, datasets: Sequence[str], at: str | None) -> dict[str, Any] | None:
    """The snapshot of the first frame, or of the first dataset of any kind, with the names of the others."""
    found = [snapshot for snapshot in map(record.snapshots.get, datasets) if snapshot is not None]
    if not found:
        return None
    shown = next((snapshot for snapshot in found if is_of_frame(snapshot)), found[0])
    return shown.told(at, [other.dataset for other in found if other is not shown], record.secrets)


def is_of_frame(snapshot: Snapshot) -> bool:
    """Whether a snapshot is one of a frame."""
    return snapshot.row_count is not None or len(snapshot.columns) > 0


def compared(before: Any, after: Any) -> tuple[dict[str, Any] | None, int | None]:
    """How the columns and the number of rows changed; `None` where there are not two frames to compare."""
    if not before or not after or not (before["schema"] or before["row_count"] is not None):
        return None, None
    if not (after["schema"] or after["row_count"] is not None):
        return None, None
    counts = before["row_count"], after["row_count"]
    return schema_diff(before, after), None if None in counts else counts[1] - counts[0]


def iso(at: float | None) -> str | None:
    """A moment as ISO 8601, in UTC."""
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
