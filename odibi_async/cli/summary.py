"""The summary of a run."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any, Final

from odibi_async.cli.listeners import step_record
from odibi_async.cli.output import table, without_passwords
from odibi_async.cli.plan import Plan
from odibi_async.dataset import engine_of, is_frame
from odibi_async.pipeline import Pipeline
from odibi_async.result import RunResult, Status, StepResult, notes_of, seconds_text
from odibi_async.steps import Step

LINES: Final = 20
"""Steps that a table shows; those that failed come first, then those that the run was for."""


def text(plan: Plan, result: RunResult) -> str:
    """The headline of a run, and a line for each step: how it ended, what it took, what it made."""
    told = dict(_told(plan, result))
    records = list(result.steps.values())
    if len(records) > LINES:
        records.sort(key=lambda each: (each.is_done, each.status is Status.SKIPPED, each.name not in told))
    shown, more = records[:LINES], len(records) - LINES
    with_status = any(each.status is not Status.SUCCEEDED for each in shown)
    rows = [_row(each, told.get(each.name, ""), with_status) for each in shown]
    lines = [result.headline, *(f"  {line}" for line in table(rows).splitlines() if rows)]
    return "\n".join(lines + ([f"  and {more:,} more, which --json shows"] if more > 0 else []))


def data(plan: Plan, result: RunResult) -> dict[str, Any]:
    """The same for programs."""
    return {
        "configuration": plan.document.source.name,
        "run_id": result.run_id,
        "status": result.status,
        "stats": result.stats(),
        "steps": [step_record(record) for record in result.steps.values()],
        "outputs": {name: _shape(value) for _, name, value in _made(plan, result)},
    }


def last_steps(pipeline: Pipeline) -> list[Step[..., Any, Any]]:
    """The steps that no other step waits for; what the others make is dropped after its last reader."""
    waited_for = {name for names in pipeline.upstream().values() for name in names}
    return [step for step in pipeline.steps if step.name not in waited_for]


def _row(record: StepResult, told: str, with_status: bool) -> tuple[str, ...]:
    took = "" if record.started_at is None else seconds_text(record.run_seconds)
    made = told or ("" if record.rows is None else _counted(record.rows, "row"))
    status = (str(record.status),) if with_status else ()
    return record.name, *status, took, "; ".join(filter(None, (made, notes_of(record))))


def _told(plan: Plan, result: RunResult) -> Iterator[tuple[str, str]]:
    """Step -> what it made for the caller, or wrote."""
    several: dict[str, list[str]] = {}
    for maker, name, value in _made(plan, result):
        shape = _shape(value)
        size = shape.get("value") or f"{_counted(shape['rows'], 'row')}, {_counted(len(shape['columns']), 'column')}"
        several.setdefault(maker, []).append(size if name == maker else f"{name}: {size}")
    yield from ((maker, "; ".join(sizes)) for maker, sizes in several.items())
    for step in plan.document.steps:
        record = result.steps.get(step.name)
        if record is not None and record.is_done and not step.datasets and step.layer in ("store", "publish"):
            yield step.name, f"wrote {without_passwords(str(step.value))}"


def _made(plan: Plan, result: RunResult) -> Iterator[tuple[str, str, Any]]:
    """The datasets that the run was for, each after its step."""
    for step in last_steps(plan.pipeline):
        yield from ((step.name, name, result.outputs[name]) for name in step.datasets if name in result.outputs)


def _shape(value: Any) -> dict[str, Any]:
    """A dataset in the summary: of a frame its size, of a plain value the value."""
    found: dict[str, Any] = {"type": type(value).__name__}
    if is_frame(value):
        columns = [str(name) for name in getattr(value, "columns", ())]
        rows = {} if engine_of(value) == "spark" else {"rows": len(value)}  # which counting would be a job for
        return {**found, **rows, "columns": columns}
    return {**found, "value": reprlib.repr(value)}


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
