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
