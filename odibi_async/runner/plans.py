"""From what a run is given to the graph that it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odibi_async.building import Functions, Nodes, Planned, graph_of
from odibi_async.errors import OptionError
from odibi_async.graph.graph import Graph
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.options import Caching, Steps
from odibi_async.steps import Step


async def plan(
    steps: Steps, inputs: Mapping[str, Any] | None, functions: Functions | None, nodes: Nodes | None
) -> tuple[Graph, Caching]:
    """
    The graph of the steps, or of those in a configuration, which is read in a worker thread; and the cache that the
    configuration names.
    """
    if isinstance(steps, Planned):
        if functions is not None or nodes is not None:
            raise OptionError("A Pipeline has its functions and nodes already: give them to Pipeline(...).")
        return steps.graph, None
    if not isinstance(steps, Iterable | str | os.PathLike):
        raise OptionError(f"steps={steps!r}: a list of steps is needed, also for a single one.")
    things, caching = await in_a_thread(_loaded, steps) if isinstance(steps, str | os.PathLike) else (steps, None)
    return graph_of(things, inputs or (), functions, nodes), caching


def _loaded(path: str | os.PathLike[str]) -> tuple[Sequence[Step[..., Any, Any]], Caching]:
    from odibi_async.config import load_document  # loads pydantic

    document = load_document(path)
    return document.steps, document.cache
