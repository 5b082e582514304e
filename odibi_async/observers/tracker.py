"""The tracker: what each step of a run did and what it made of its data, on record."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from time import time
from typing import Any, Literal

from odibi_async.errors import OptionError, did_you_mean
from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepOutline, StepRetrying, StepStarted
from odibi_async.files import location, replaced
from odibi_async.observers import story
from odibi_async.observers.snapshot import Snapshot, schema_diff, text_of
from odibi_async.result import Status, StepResult
from odibi_async.secret import Secret, masked

State = Literal["pending", "success", "failed", "retry"]


class Tracker:
    """
    An observer that keeps the record of its runs: `run_pipeline(steps, observers=[tracker])`.

    It may listen to any number of runs, also at the same time. What it tells is told of one of them: of the one
    that began last, unless another is named. Of the data it keeps the first rows, looked at when the run is
    over (up to 1 ms a frame, however many rows; 50 ms for 20,000 columns); of datasets that the run has dropped
    by then, as `targets` asks for, it keeps nothing. The texts of secrets among the params of steps and among the
    datasets show nowhere.

    Args:
        keep_last: Runs whose records are kept, those that are not over not counted.
    """

    def __init__(self, keep_last: int = 10) -> None:
        if keep_last < 1:
            raise OptionError(f"Tracker(keep_last={keep_last!r}): a whole number from 1 on is needed.")
        self._keep_last = keep_last
        self._runs: dict[str, _Run] = {}
        self._count = itertools.count(1)
        self._no_run = _Run("", time(), 0, {})

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            steps = {name: _StepRecord(event.graph[name]) for name in event.steps}
            self._runs[event.run_id] = _Run(event.run_id, event.at, next(self._count), steps)
        elif (run := self._runs.get(event.run_id)) is not None:
            run.hear(event)
            if isinstance(event, RunFinished):
                self._forget()

    def _forget(self) -> None:
        over = [run_id for run_id, run in self._runs.items() if run.status is not Status.RUNNING]
        for run_id in over[: -self._keep_last]:
            del self._runs[run_id]

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the runs on record, in the order in which they began."""
        return tuple(self._runs)

    def export_lineage(self, run_id: str | None = None) -> dict[str, Any]:
        """
        The record of a run, in nothing but what JSON knows; times are ISO 8601, in UTC.

        Args:
            run_id: The run; `None` for the one that began last. Where there was none yet, there are no steps.

        Returns:
            `pipeline_id` (the run's id), `start_time`, `steps` in topological order, and `summary`. A step has
            `step_name, layer, start_time, end_time, duration_ms, before_snapshot, after_snapshot, schema_diff,
            row_delta, state, error_message, iteration` (which of the tracker's runs it was, from 1) and
            `checkpoint_id` (`None`: there are no checkpoints). Where a step read or made several datasets, the
            snapshot is of the first frame among them, and its `metadata` names the others. A step that was
            skipped or cancelled is still `pending`; its `error_message` says why.
        """
        return self._run(run_id).told()

    def save(self, path: str | os.PathLike[str], run_id: str | None = None) -> None:
        """Writes the record of a run (see `export_lineage`) as JSON: a whole file, or none."""
        text = json.dumps(self.export_lineage(run_id), indent=2, ensure_ascii=False, allow_nan=False)
        _write(path, text.encode("utf-8", "backslashreplace"))  # what UTF-8 cannot say, JSON can: "\udc80"

    def export_to_story(
        self,
        story_dir: str | os.PathLike[str] = "stories",
        explanations: Mapping[str, Any] | None = None,
        dag_builder: story.Drawable | None = None,
        *,
        run_id: str | None = None,
    ) -> str:
        """
        Writes the story of a run as a page of HTML.

        Args:
            story_dir: The folder for it; made if it is not there.
            explanations: Step -> what to say about it: a text, or a mapping (or a dataclass) of headings, such
                as purpose, details, formulas, result, to texts, lists or mappings.
            dag_builder: The pipeline, for the drawing in the story.
            run_id: The run; `None` for the one that began last.

        Returns:
            The path of the page.
        """
        run = self._run(run_id)
        page = story.page(run.told(), run.upstream, explanations or {}, dag_builder, run.secrets)
        path = os.path.join(story_dir, f"story_{run.run_id}.html")
        return _write(path, page.encode("utf-8", "xmlcharrefreplace"))

    def _run(self, run_id: str | None) -> _Run:
        if run_id is None:
            return next(reversed(self._runs.values()), self._no_run)
        if run_id not in self._runs:
            raise OptionError(f"There is no run {run_id!r} on record.{did_you_mean(run_id, self._runs)}")
        return self._runs[run_id]


def _write(path: str | os.PathLike[str], content: bytes) -> str:
    place = location(path, None)
    with replaced(place, None) as file:
        file.write(content)
    return str(place)


@dataclass(slots=True)
class _StepRecord:
    """
    What is known of a step so far.

    Attributes:
        began: Seconds since the epoch; `None` before.
        ended: Likewise.
        message: What it raised, or why it did not come to its end.
        before: Each dataset that it read and the run still had at its end.
        after: Each dataset that it made, likewise.
    """

    outline: StepOutline
    state: State = "pending"
    began: float | None = None
    ended: float | None = None
    message: str | None = None
    before: Sequence[Snapshot] = ()
    after: Sequence[Snapshot] = ()

    def end(self, result: StepResult) -> None:
        self.began = result.at
        self.ended = None if result.at is None else result.at + result.run_seconds
        self.state = "pending"
        if result.is_done:
            self.state = "success"
        elif result.error is not None:
            self.state = "failed"
            self.message = f"{type(result.error).__name__}: {text_of(result.error)}".removesuffix(": ")
        elif result.skipped_because == result.name:
            self.message = "skipped: its when= was false"
        elif result.skipped_because is not None:
            self.message = f"skipped because of {result.skipped_because!r}"
        else:
            self.message = str(result.status)

    def told(self, name: str, iteration: int, secrets: Collection[str]) -> dict[str, Any]:
        began, ended = _time(self.began), _time(self.ended)
        before, after = _told(self.before, began, secrets), _told(self.after, ended, secrets)
        diff, delta = _compared(before, after)
        return {
            "step_name": name,
            "layer": self.outline.layer,
            "start_time": began,
            "end_time": ended,
            "duration_ms": None if self.began is None or self.ended is None else (self.ended - self.began) * 1e3,
            "before_snapshot": before,
            "after_snapshot": after,
            "schema_diff": diff,
            "row_delta": delta,
            "state": self.state,
            "error_message": None if self.message is None else masked(self.message, secrets),
            "iteration": iteration,
            "checkpoint_id": None,
        }


class _Run:
    """The record of a run, from its beginning on."""

    def __init__(self, run_id: str, began: float, iteration: int, steps: dict[str, _StepRecord]) -> None:
        self.run_id = run_id
        self.status = Status.RUNNING
        self.secrets = {secret.reveal() for record in steps.values() for secret in record.outline.secrets}
        self._steps = steps
        self._iteration = iteration
        self._began = self._heard = began

    @property
    def upstream(self) -> dict[str, tuple[str, ...]]:
        """The steps that each of its steps waits for."""
        return {name: record.outline.upstream for name, record in self._steps.items()}

    def hear(self, event: Event) -> None:
        self._heard = event.at
        match event:
            case StepStarted():
                self._steps[event.step].began = event.at
            case StepRetrying():
                self._steps[event.step].state = "retry"
            case StepFinished():
                self._steps[event.step].end(event.result)
            case RunFinished():
                self.status = event.status
                self._look_at(event.result.outputs)

    def _look_at(self, datasets: Mapping[str, Any]) -> None:
        """
        Takes the snapshots, one a dataset. At the end of the run they show what each step read and made, since
        every reader has a dataset to itself.
        """
        self.secrets.update(value.reveal() for value in datasets.values() if isinstance(value, Secret))
        taken = {name: Snapshot.of(name, value) for name, value in datasets.items()}
        for record in self._steps.values():
            if record.state == "success" or record.began is not None:
                record.before = [taken[name] for name in record.outline.reads if name in taken]
                record.after = [taken[name] for name in record.outline.makes if name in taken]

    def told(self) -> dict[str, Any]:
        steps = [record.told(name, self._iteration, self.secrets) for name, record in self._steps.items()]
        states = Counter(record.state for record in self._steps.values())
        return {
            "pipeline_id": self.run_id,
            "start_time": _time(self._began),
            "steps": steps,
            "summary": {
                "status": str(self.status),
                "total_steps": len(steps),
                "success_count": states["success"],
                "failed_count": states["failed"],
                "pending_count": states["pending"] + states["retry"],
                "success_rate": 100 * states["success"] / max(1, len(steps)),
                "total_duration_ms": (self._heard - self._began) * 1e3,
            },
        }


def _told(snapshots: Sequence[Snapshot], at: str | None, secrets: Collection[str]) -> dict[str, Any] | None:
    """The snapshot of the first frame, or of the first dataset of any kind, with the names of the others."""
    if not snapshots:
        return None
    shown = next((snapshot for snapshot in snapshots if snapshot.row_count is not None), snapshots[0])
    return shown.told(at, [other.dataset for other in snapshots if other is not shown], secrets)


def _compared(before: Any, after: Any) -> tuple[dict[str, Any] | None, int | None]:
    """How the columns and the number of rows changed; `None` where there are not two frames to compare."""
    if not before or not after or before["row_count"] is None or after["row_count"] is None:
        return None, None
    return schema_diff(before, after), after["row_count"] - before["row_count"]


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
