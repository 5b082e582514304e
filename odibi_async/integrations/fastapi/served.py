"""A pipeline as a service offers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from odibi_async.building import Planned
from odibi_async.durations import seconds_of
from odibi_async.graph.node import OUTSIDE
from odibi_async.integrations.fastapi.inputs import RequestModel, named
from odibi_async.integrations.fastapi.problems import ServiceError
from odibi_async.runner.options import RunOptions

Overlap = Literal["allow", "forbid"]
Given = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
RESERVED: Final = frozenset(("pipelines", "runs", "schedules", "streams", "queues", "events"))
"""First parts of paths that mean something else."""
OWN: Final = frozenset(("run_id", "resume", "targets", "timeout", "journal", "functions", "nodes"))
"""Options that the service sets, or that no pipeline takes."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    A pipeline, and how a service runs it.

    Attributes:
        pipeline: The pipeline.
        given: Inputs that the service gives, and no request may: a mapping, or a function that makes one for each run.
        overlap: Whether a run may begin while another one of the pipeline is not over: `"forbid"` answers 409.
        timeout: Seconds that a run may take; a request may ask for less.
        description: What a reader should know of it.
        options: What else `run_pipeline` takes: `{"on_error": "continue", "retry": Retry(...)}`.
    """

    pipeline: Planned = field(kw_only=False)
    given: Given = field(default_factory=dict)
    overlap: Overlap = "allow"
    timeout: float | None = None
    description: str = ""
    options: RunOptions = field(default_factory=lambda: RunOptions())


class Offer:
    """
    A pipeline that was checked for being served.

    Args:
        name: What requests and the journal call it.
        served: The pipeline, and how it is run.

    Attributes:
        planned: The pipeline, under this name.
        asks: What requests may ask of it.
        outputs: The datasets that no other step reads.
        targets: The datasets that it makes.
        busy: How many of its runs this process has begun and not ended.

    Raises:
        ServiceError: It cannot be served so.
    """

    def __init__(self, name: str, served: Served) -> None:
        _check(name, served)
        graph = served.pipeline.graph
        self.name = name
        self.served = served
        self.planned = Planned(graph, name, served.pipeline.source)
        read = {dataset for node in graph.nodes for dataset in node.reads}
        made = [place for place, maker in enumerate(graph.producers) if maker != OUTSIDE and self._is_data(maker)]
        self.targets = tuple(graph.datasets[place] for place in made)
        self.outputs = tuple(graph.datasets[place] for place in made if place not in read)
        self.asks = RequestModel(name, graph.inputs, self._known(), self.targets, served.timeout)
        self.busy = 0

    def _is_data(self, maker: int) -> bool:
        return not self.served.pipeline.graph.nodes[maker].is_resource

    def _known(self) -> tuple[str, ...]:
        """The inputs that the service gives; a function is called once to find out."""
        given = self.given()
        if unknown := [each for each in given if each not in self.served.pipeline.graph.ids]:
            raise ServiceError(f"Served(given=...): pipeline {self.name!r} has no dataset {unknown[0]!r}.")
        return tuple(given)

    def given(self) -> Mapping[str, Any]:
        """What the service gives a run."""
        given = self.served.given
        return given() if callable(given) else given

    def describe(self) -> dict[str, Any]:
        """What readers of a list see of it."""
        return {"name": self.name, "description": self.served.description, "inputs": self.inputs()}

    def inputs(self) -> list[dict[str, Any]]:
        """What requests may give, one document an input."""
        found = []
        for name, each in self.asks.inputs.items():
            about = {"name": name, "type": named(each.input.type), "required": each.input.required}
            default = {"default": each.schema["default"]} if "default" in each.schema else {}
            found.append({**about, **default, "schema": each.schema})
        return found

    def steps(self) -> list[dict[str, Any]]:
        """Its graph, one document a step."""
        graph = self.served.pipeline.graph
        return [
            {
                "name": node.name,
                "layer": node.step.layer,
                "kind": _kind(node),
                "needs": [graph.nodes[other].name for other in graph.upstream[node.index]],
            }
            for node in (graph.nodes[index] for index in graph.order)
        ]


def _kind(node: Any) -> str:
    if node.is_resource:
        return "resource"
    return "mapped" if node.maps is not None else "step"


def _check(name: Any, served: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ServiceError(
            f"Pipeline {name!r}: a name of letters, digits, '.', '_', '~' and '-' is needed, for its path."
        )
    if name in RESERVED:
        raise ServiceError(f"A pipeline cannot be called {name!r}: that path is used for something else.")
    if not isinstance(served.pipeline, Planned):
        raise ServiceError(f"{name!r}: {served.pipeline!r} is no Pipeline. Make one: Pipeline(steps).")
    if served.overlap not in get_args(Overlap):
        raise ServiceError(f'{name!r}: overlap={served.overlap!r}: "allow" or "forbid" is needed.')
    if wrong := OWN & served.options.keys():
        raise ServiceError(f"{name!r}: options={{{min(wrong)!r}: ...}} is not for Served(...) to say.")
    seconds_of(f"Served: {name}: timeout", served.timeout, above_zero=True)
