"""The tracker: what each step of a run did and what it made of its data, on record."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from odibi_async.errors import OptionError, did_you_mean
from odibi_async.events import Event, RunFinished, RunStarted
from odibi_async.observers.lineage import lineage
from odibi_async.observers.record import RunRecord
from odibi_async.observers.snapshot import Look, Snapshots
from odibi_async.observers.story import name_of_page, tell_story, write_whole
from odibi_async.place import PLACE, Place
from odibi_async.result import Status


class _StepLogs(logging.Handler):
    """
    Notes what the code of steps logs, whatever logger it uses.

    Args:
        runs: The runs on record.
    """

    def __init__(self, runs: Mapping[str, _Run]) -> None:
        super().__init__()
        self._runs = runs

    def emit(self, record: logging.LogRecord) -> None:
        """Takes in a record that a step has logged."""
        place = PLACE.get()
        run = None if place is None else self._runs.get(place.run_id)
        if place is not None and run is not None and place.step in run.record.steps:
            try:
                line = f"{record.levelname} {record.name}: {record.getMessage()}"
            except Exception:  # the arguments are anybody's, and may not fit the message
                line = f"{record.levelname} {record.name}: {record.msg}"
            run.record.steps[place.step].log.append(line)
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._is_alone(record.name):
            last.handle(record)

    def _is_alone(self, logger: str) -> bool:
        """Whether nobody has set up logging: then the library would print the record, if we did not listen."""
        found: logging.Logger | None = logging.getLogger(logger)
        while found is not None:
            if any(not isinstance(handler, _StepLogs) for handler in found.handlers):
                return False
            found = found.parent
        return next((each for each in logging.getLogger().handlers if isinstance(each, _StepLogs)), self) is self


@dataclass(frozen=True, slots=True)
class _Run:
    """A run on record, and which of the tracker's runs it was, from 1."""

    record: RunRecord
    iteration: int


class Tracker:
    """
    An observer that keeps the record of its runs: `run_pipeline(steps, observers=[tracker])`.

    It may listen to any number of runs, also at the same time. What it tells is told of one of them: of the one
    that began last, unless another is named. Of each frame it keeps the columns, the number of rows and the first five,
    looked at in a thread when the step that made it has ended; rows of Spark frames are never counted. While it listens
    to a run it keeps the last lines that each step logs, through a handler of the root logger (so set up logging before
    the run). The texts of secrets among the params of steps and among the datasets show nowhere.

    Args:
        keep_last: Runs whose records are kept, those that are not over not counted.
        samples: Whether rows are kept; else no cell of any frame is.
        mask: Patterns of columns whose cells are not kept, in any case of letters: `("*email*", "iban")`.
    """

    def __init__(self, keep_last: int = 10, *, samples: bool = True, mask: Sequence[str] = ()) -> None:
        if not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 1:
            raise OptionError(f"Tracker(keep_last={keep_last!r}): a whole number from 1 on is needed.")
        if not isinstance(mask, Iterable) or not all(isinstance(pattern, str) for pattern in mask):
            raise OptionError(f"Tracker(mask={mask!r}): a list of patterns is needed.")
        self._keep_last = keep_last
        self._look = Look(samples=samples, mask=(mask,) if isinstance(mask, str) else tuple(mask))
        self._runs: dict[str, _Run] = {}
        self._count = itertools.count(1)
        self._logs = _StepLogs(self._runs)
        self._no_run = _Run(RunRecord("", time(), {}), 0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            record = RunRecord.started(event, Snapshots(self._look))
            self._runs[event.run_id] = _Run(record, next(self._count))
            logging.getLogger().addHandler(self._logs)
        elif (run := self._runs.get(event.run_id)) is not None:
            run.record.hear(event)
            if isinstance(event, RunFinished):
                self._forget()
                if all(each.record.status is not Status.RUNNING for each in self._runs.values()):
                    logging.getLogger().removeHandler(self._logs)

    def entering(self, place: Place) -> None:
        """Notes the thread that a step is called in."""
        run = self._runs.get(place.run_id)
        if run is not None and place.step in run.record.steps:
            run.record.steps[place.step].thread = threading.current_thread().name

    def _forget(self) -> None:
        over = [run_id for run_id, run in self._runs.items() if run.record.status is not Status.RUNNING]
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
        run = self._run(run_id)
        return lineage(run.record, run.iteration)

    def save(self, path: str | os.PathLike[str], run_id: str | None = None) -> None:
        """Writes the record of a run (see `export_lineage`) as JSON: a whole file, or none."""
        text = json.dumps(self.export_lineage(run_id), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(path, text.encode("utf-8", "backslashreplace"))  # what UTF-8 cannot say, JSON can: "\udc80"

    def tell(
        self,
        path: str | os.PathLike[str],
        explanations: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        again: str = "",
    ) -> str:
        """
        Writes the story of a run to a file: one page of HTML that needs nothing but itself.

        Args:
            path: The file; its folder is made if it is not there.
            explanations: See `export_to_story`.
            run_id: The run; `None` for the one that began last.
            again: What resumes the run, if it is in a journal: a command that the page shows where it did not succeed.

        Returns:
            The path in full.
        """
        record = self._run(run_id).record
        record.again = again
        return tell_story(record, path, explanations)

    def export_to_story(
        self,
        story_dir: str | os.PathLike[str] = "stories",
        explanations: Mapping[str, Any] | None = None,
        dag_builder: object = None,
        *,
        run_id: str | None = None,
    ) -> str:
        """
        Writes the story of a run as a page of HTML.

        Args:
            story_dir: The folder for it; made if it is not there.
            explanations: Step -> what to say about it: a text, or a mapping (or a dataclass) of headings, such
                as purpose, details, formulas, result, to texts, lists or mappings.
            dag_builder: Not needed: the record knows the graph. ODIBI CORE asked for it.
            run_id: The run; `None` for the one that began last.

        Returns:
            The path of the page.
        """
        found = self._run(run_id).record.run_id
        return self.tell(os.path.join(story_dir, name_of_page(found)), explanations, run_id=run_id)

    def _run(self, run_id: str | None) -> _Run:
        if run_id is None:
            return next(reversed(self._runs.values()), self._no_run)
        if run_id not in self._runs:
            raise OptionError(f"There is no run {run_id!r} on record.{did_you_mean(run_id, self._runs)}")
        return self._runs[run_id]
