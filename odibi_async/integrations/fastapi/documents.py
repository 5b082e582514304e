"""What a service answers, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """A member of a request that is wrong."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """Why a request was not done (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str | None = None
    errors: list[FieldProblem] | None = None


class InputDocument(BaseModel):
    """Something that a run may be given."""

    name: str
    type: str
    required: bool
    default: Any = None
    json_schema: dict[str, Any] = Field(alias="schema")


class PipelineDocument(BaseModel):
    """A pipeline."""

    name: str
    description: str
    inputs: list[InputDocument]
    links: dict[str, str]


class PipelinesDocument(BaseModel):
    """The pipelines of a service."""

    pipelines: list[PipelineDocument]


class GraphStep(BaseModel):
    """A step of a graph."""

    name: str
    layer: str
    kind: str
    needs: list[str]


class Graph(BaseModel):
    """The graph of a pipeline."""

    steps: list[GraphStep]


class DescribedPipeline(PipelineDocument):
    """A pipeline, with its graph and the JSON Schema of what it is given."""

    json_schema: dict[str, Any] = Field(alias="schema")
    outputs: list[str]
    targets: list[str]
    graph: Graph


class StepDocument(BaseModel):
    """What became of a step."""

    name: str
    status: str
    attempts: int
    started_at: str | None
    queue_seconds: float | None
    run_seconds: float | None
    rows: int | None
    error: str | None
    skipped_because: str | None
    cache: str | None


class RunSummary(BaseModel):
    """A run."""

    id: str
    pipeline: str
    status: str
    started_at: str | None
    finished_at: str | None
    error: str | None
    links: dict[str, str]


class RunDocument(RunSummary):
    """A run, with its steps."""

    inputs: dict[str, Any] | None = None
    steps: list[StepDocument]


class AcceptedDocument(BaseModel):
    """A run that was begun."""

    id: str
    status: str
    links: dict[str, str]


class Omitted(BaseModel):
    """A dataset that is not in the answer itself."""

    reason: str
    href: str


class EndedDocument(AcceptedDocument):
    """A run that is over, and what it made."""

    outputs: dict[str, Any]
    omitted: dict[str, Omitted]
    error: str | None


class RunsDocument(BaseModel):
    """Runs, the newest first."""

    runs: list[RunSummary]
    next: str | None


class FiringDocument(BaseModel):
    """The last run of a schedule."""

    run_id: str
    scheduled_at: str
    finished_at: str
    status: str
    error: str | None


class ScheduleDocument(BaseModel):
    """How a schedule stands."""

    name: str
    pipeline: str
    trigger: str
    state: str
    paused: bool
    next: str | None
    running: list[str]
    error: str | None
    last: FiringDocument | None


class SchedulesDocument(BaseModel):
    """The schedules of a service; `leading` tells whether this worker fires them."""

    schedules: list[ScheduleDocument]
    leading: bool


class FiredDocument(BaseModel):
    """The runs of a firing; none where it was skipped."""

    runs: list[str]


class StreamDocument(BaseModel):
    """How a stream stands in this worker."""

    name: str
    status: str
    batches: int
    rows: int
    lag_seconds: float | None
    rate: float
    watermark: Any
    pending: int | None
    late: int
    poisoned: int
    error: str | None


class StreamsDocument(BaseModel):
    """The streams of a service."""

    streams: list[StreamDocument]


class AsideDocument(BaseModel):
    """A batch that was set aside."""

    run: str
    batch: str
    attempts: int
    error: str
    set_aside_at: str


class AsidesDocument(BaseModel):
    """The batches that a stream has set aside, the oldest first."""

    batches: list[AsideDocument]


class ReplayedDocument(BaseModel):
    """The runs of batches that were set aside and have succeeded now."""

    runs: list[str]


class PutDocument(BaseModel):
    """An event that was put into a queue; `committed` when its batch has succeeded, or was set aside."""

    committed: bool
