"""
Runs and steps as run events of OpenLineage, as its published schema has them (https://openlineage.io/spec/2-0-2).

The events are plain dicts, so that no client is needed: the official one takes a quarter of a second to import and
brings two HTTP libraries.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from odibi_async.errors import OptionError, text_of
from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepOutline, StepStarted
from odibi_async.observers.redaction import Redaction
from odibi_async.observers.snapshot import Snapshot
from odibi_async.result import Status
from odibi_async.steps import is_async

Emit = Callable[[dict[str, Any]], object]
PRODUCER: Final = "urn:python:odibi_async"
_SPEC: Final = "https://openlineage.io/spec/"
_EVENT: Final = f"{_SPEC}2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS: Final = {
    "ColumnLineageDatasetFacet": "1-2-0",
    "ErrorMessageRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "ParentRunFacet": "1-2-0",
    "SchemaDatasetFacet": "1-2-0",
}
"""Each facet that is used, in the version of its schema."""
_ENDS: Final = {
    Status.SUCCEEDED: "COMPLETE",
    Status.CACHED: "COMPLETE",
    Status.FAILED: "FAIL",
    Status.CANCELLED: "ABORT",
}
_RUN_IDS: Final = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)


class OpenLineage:
    """
    An observer that tells of runs in OpenLineage: `observers=[OpenLineage(events.append)]`.

    A run is a job's run with one a step in it. The event that ends a run names each dataset that the run still has,
    with its columns and types. The texts of secrets among the params of steps and the inputs of the run show nowhere.

    Args:
        emit: Takes each event, ready for JSON. Called on the loop's thread; it must not block.
        job: What the pipeline is called.
        namespace: What its jobs and datasets belong to.
        columns: Whether to tell which columns come from which: a column is taken to come from those of the same name
            in what its step read. That is a guess, and each says so.

    Raises:
        OptionError: `emit` cannot be called, or is async.
    """

    def __init__(
        self, emit: Emit, *, job: str = "pipeline", namespace: str = "odibi_async", columns: bool = False
    ) -> None:
        if not callable(emit) or is_async(emit):
            raise OptionError(f"OpenLineage(emit): a plain callable that takes an event is needed; {emit!r} is not.")
        self._emit = emit
        self._job = job
        self._namespace = namespace
        self._columns = columns
        self._runs: dict[str, _Run] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            run = self._runs[event.run_id] = _Run(event, self._job, self._namespace, self._columns)
        elif event.run_id not in self._runs:  # it listens since the middle of the run
            return
        else:
            run = self._runs[event.run_id]
        if isinstance(event, RunFinished):
            del self._runs[event.run_id]
        told = run.told(event)
        if told is not None:
            self._emit(told)


class _Run:
    """A run as OpenLineage sees it."""

    def __init__(self, started: RunStarted, job: str, namespace: str, columns: bool) -> None:
        self._started = started
        self._graph = started.graph
        self._job = job
        self._namespace = namespace
        self._columns = columns
        self._redaction = Redaction(started)
        self._began: set[str] = set()

    def told(self, event: Event) -> dict[str, Any] | None:
        """What is said of an event; `None` for nothing."""
        match event:
            case RunStarted():
                return self._event("START", event, None, inputs=map(self._dataset, self._given()))
            case StepStarted():
                self._began.add(event.step)
                outline = self._graph[event.step]
                return self._event("START", event, event.step, inputs=map(self._dataset, outline.reads))
            case StepFinished():
                return self._end_of_step(event)
            case RunFinished():
                return self._end(event)
        return None

    def _end_of_step(self, event: StepFinished) -> dict[str, Any] | None:
        record, outline = event.result, self._graph[event.step]
        end = _ENDS.get(record.status)
        if end is None or (event.step not in self._began and not record.is_done):
            return None
        made = [self._dataset(name) for name in outline.makes] if record.is_done else []
        if record.rows is not None and len(made) == 1:
            facet = _facet("OutputStatisticsOutputDatasetFacet", rowCount=record.rows)
            made[0]["outputFacets"] = {"outputStatistics": facet}
        about = self._event(end, event, event.step, inputs=map(self._dataset, outline.reads), outputs=made)
        if record.error is not None:
            self._blame(about, text_of(record.error))
        return about

    def _end(self, event: RunFinished) -> dict[str, Any]:
        datasets = event.result.outputs
        seen = {name: Snapshot.of(name, value) for name, value in datasets.items()}
        makers = {name: self._graph[step] for step in self._started.steps for name in self._graph[step].makes}
        made = [self._described(name, seen, outline) for name, outline in makers.items() if name in seen]
        given = [self._described(name, seen) for name in self._given()]
        about = self._event(_ENDS[event.status], event, None, inputs=given, outputs=made)
        if event.status is Status.FAILED:
            failed = ", ".join(event.result.failures) or "it ran out of time, or could not begin"
            self._blame(about, f"failed: {failed}")
        return about

    def _given(self) -> list[str]:
        """What the steps read and none of them makes."""
        outlines = [self._graph[step] for step in self._started.steps]
        made = {name for outline in outlines for name in outline.makes}
        read = dict.fromkeys(name for outline in outlines for name in outline.reads)
        return [name for name in read if name not in made]

    # -- the parts of an event -------------------------------------------------------------------------

    def _event(
        self,
        kind: str,
        event: Event,
        step: str | None,
        *,
        inputs: Iterable[dict[str, Any]],
        outputs: Iterable[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        run = {"runId": _uuid(event.run_id), "facets": {}}
        job: dict[str, Any] = {"namespace": self._namespace, "name": self._job}
        if step is not None:
            parent = _facet("ParentRunFacet", run={"runId": run["runId"]}, job=job)
            run = {"runId": _uuid(event.run_id, step), "facets": {"parent": parent}}
            job = {**job, "name": f"{self._job}.{step}"}
        kinds = {"processingType": "BATCH", "integration": "ODIBI_ASYNC", "jobType": "STEP" if step else "PIPELINE"}
        return {
            "eventType": kind,
            "eventTime": event.time.isoformat(),
            "producer": PRODUCER,
            "schemaURL": _EVENT,
            "run": run,
            "job": {**job, "facets": {"jobType": _facet("JobTypeJobFacet", **kinds)}},
            "inputs": list(inputs),
            "outputs": list(outputs),
        }

    def _blame(self, about: dict[str, Any], message: str) -> None:
        facet = _facet("ErrorMessageRunFacet", message=self._redaction(message), programmingLanguage="PYTHON")
        about["run"]["facets"]["errorMessage"] = facet

    def _dataset(self, name: str) -> dict[str, Any]:
        return {"namespace": self._namespace, "name": f"{self._job}.{name}"}

    def _described(self, name: str, seen: Mapping[str, Snapshot], maker: StepOutline | None = None) -> dict[str, Any]:
        """A dataset with what is known of its columns."""
        about, snapshot = self._dataset(name), seen.get(name)
        if snapshot is None or snapshot.row_count is None:
            return about
        columns = self._labels(snapshot)
        fields = [{"name": column, "type": kind} for column, kind in zip(columns, snapshot.types, strict=True)]
        about["facets"] = {"schema": _facet("SchemaDatasetFacet", fields=fields)}
        if self._columns and maker is not None:
            read = {other: set(self._labels(seen[other])) for other in maker.reads if other in seen}
            if found := {column: sources for column in columns if (sources := self._sources(column, read))}:
                about["facets"]["columnLineage"] = _facet("ColumnLineageDatasetFacet", fields=found)
        return about

    def _labels(self, snapshot: Snapshot) -> list[str]:
        return [self._redaction(str(label)) for label in snapshot.columns]

    def _sources(self, column: str, read: Mapping[str, Collection[str]]) -> dict[str, Any] | None:
        """The columns of the same name in what a step read."""
        guess = {"type": "INDIRECT", "description": "a column of the same name in what the step read"}
        sources = [
            {**self._dataset(name), "field": column, "transformations": [guess]}
            for name, columns in read.items()
            if column in columns
        ]
        return {"inputFields": sources} if sources else None


def _facet(kind: str, **fields: Any) -> dict[str, Any]:
    schema = f"{_SPEC}facets/{_FACETS[kind]}/{kind}.json#/$defs/{kind}"
    return {"_producer": PRODUCER, "_schemaURL": schema, **fields}


def _uuid(*names: str) -> str:
    """The id of a run, or of a step of it: the same whoever asks."""
    return str(uuid.uuid5(_RUN_IDS, "\0".join(names)))
