"""The commands about a journal: which runs there were, what became of them, and how one goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from odibi_async.cli.answer import Answer, Problem, Refused
from odibi_async.cli.output import table
from odibi_async.errors import shortened
from odibi_async.journal import Journal, RunRecord
from odibi_async.journal.records import StepRecord, as_data
from odibi_async.result import seconds_text

LAST = "last"
"""Stands for the last run of a pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """
    A run that is to be resumed.

    Attributes:
        run_id: Its id.
        inputs: What it was given when it began, as far as that is kept.
    """

    run_id: str
    inputs: Mapping[str, Any]


@contextmanager
def opened(where: str) -> Iterator[Journal]:
    """
    A journal that is there.

    Raises:
        Refused: There is none.
    """
    if "://" not in where and not (Path(where) / "journal.db").is_file():
        raise Refused(Problem(code="OA413", message=f"there is no journal in {where!r}."))
    with Journal(where) as journal:
        yield journal


def resumption(where: str, run_id: str, pipeline: str) -> Resumption:
    """
    The run that is to be resumed.

    Raises:
        Refused: The journal has no run of this pipeline.
        RunUnknown: It has no run of this name.
    """
    with opened(where) as journal:
        if run_id == LAST:
            last = journal.last(pipeline)
            if last is None:
                others = shortened(sorted({run.pipeline for run in journal.runs()})) or "no other either"
                message = f"the journal has no run of {pipeline!r}. Runs of: {others}."
                raise Refused(Problem(code="OA412", message=message))
            run_id = last.run_id
        return Resumption(run_id=run_id, inputs=journal.inputs(run_id))


def source(where: str, run_id: str) -> str:
    """
    The configuration that a run was read from.

    Raises:
        Refused: It was read from none.
    """
    with opened(where) as journal:
        record = journal.run(run_id)
    if not record.source:
        message = f"run {run_id!r} was not read from a file: it is resumed by the program that began it."
        raise Refused(Problem(code="OA412", message=message))
    return record.source


def runs(where: str, pipeline: str | None) -> Answer:
    with opened(where) as journal:
        found = journal.runs(pipeline)
    rows = [("RUN", "PIPELINE", "STATUS", "BEGAN", "TOOK", "STEPS", "RESUMED"), *map(_run_row, found)]
    return Answer(text=table(rows), data={"runs": [as_data(run) for run in found]})


def shown(where: str, run_id: str) -> Answer:
    with opened(where) as journal:
        run, steps = journal.run(run_id), journal.steps(run_id)
        usual = journal.seconds(run.pipeline)
    about = [
        ("run", run.run_id),
        ("pipeline", run.pipeline),
        ("status", str(run.status)),
        ("began", _time(run.started_at)),
        ("took", "" if run.seconds is None else seconds_text(run.seconds)),
        ("on", f"{run.host}, process {run.pid}"),
        *([("error", run.error)] if run.error else []),
        *([("resume with", f"odibi-async runs resume {run.run_id} --journal {where}")] if _is_open(run) else []),
    ]
    rows = [("STEP", "STATUS", "ATTEMPTS", "TOOK", "USUALLY", ""), *(_step_row(each, usual) for each in steps)]
    data = {"run": as_data(run), "steps": [as_data(step) for step in steps], "usually": dict(usual)}
    return Answer(text=f"{table(about)}\n\n{table(rows)}", data=data)


def pruned(where: str, keep_last: int) -> Answer:
    with opened(where) as journal:
        gone = journal.prune(keep_last)
    text = "\n".join((f"removed: {len(gone):,} run{'' if len(gone) == 1 else 's'}", *gone))
    return Answer(text=text, data={"removed": gone})


def _is_open(run: RunRecord) -> bool:
    return bool(run.source) and run.status in ("failed", "cancelled", "interrupted")


def _run_row(run: RunRecord) -> tuple[str, ...]:
    took = "" if run.seconds is None else seconds_text(run.seconds)
    resumed = f"{run.resumed}" if run.resumed else ""
    return run.run_id, run.pipeline, str(run.status), _time(run.started_at), took, f"{run.steps:,}", resumed


def _step_row(step: StepRecord, usual: Mapping[str, float]) -> tuple[str, ...]:
    name = step.step if step.element is None else f"{step.step}[{step.element}]"
    usually = seconds_text(usual[step.step]) if step.step in usual and step.element is None else ""
    attempts = f"{step.attempts}" if step.attempts else ""
    return name, str(step.status), attempts, seconds_text(step.seconds), usually, step.error or step.note


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"
