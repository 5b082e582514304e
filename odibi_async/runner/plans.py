"""From what a run is given to the graph that it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from odibi_async.building import Functions, Nodes, Planned, graph_of
from odibi_async.errors import OptionError, shortened
from odibi_async.graph.graph import Graph
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.options import Caching, Steps


class Plan(NamedTuple):
    """
    What a run is to do.

    Attributes:
        planned: The steps, checked.
        caching: The cache that their configuration names.
    """

    planned: Planned
    caching: Caching

    @property
    def graph(self) -> Graph:
        """The graph of the steps."""
        return self.planned.graph

    @property
    def name(self) -> str:
        """What a journal calls the pipeline: its name, else those of the steps that no other waits for."""
        graph = self.graph
        return self.planned.name or shortened([n.name for n in graph.nodes if not graph.downstream[n.index]], 3)


async def plan(
    steps: Steps, inputs: Mapping[str, Any] | None, functions: Functions | None, nodes: Nodes | None
) -> Plan:
    """The graph of the steps, or of those in a configuration, which is read in a worker thread."""
    if isinstance(steps, Planned):
        if functions is not None or nodes is not None:
            raise OptionError("A Pipeline has its functions and nodes already: give them to Pipeline(...).")
        return Plan(steps, None)
    if not isinstance(steps, Iterable | str | os.PathLike):
        raise OptionError(f"steps={steps!r}: a list of steps is needed, also for a single one.")
    if isinstance(steps, str | os.PathLike):
        document, path = await in_a_thread(_loaded, steps)
        graph = graph_of(document.steps, inputs or (), functions, nodes)
        return Plan(Planned(graph, os.path.basename(path), path), document.cache)
    return Plan(Planned(graph_of(steps, inputs or (), functions, nodes)), None)


def _loaded(path: str | os.PathLike[str]) -> tuple[Any, str]:
    from odibi_async.config import load_document  # loads pydantic

    return load_document(path), os.path.abspath(path)
