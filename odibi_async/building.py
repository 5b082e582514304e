"""Steps, plain functions and pipelines, made into the graph that is run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from odibi_async.abc import NodeType
from odibi_async.errors import GraphFault
from odibi_async.graph.graph import Graph
from odibi_async.steps import Step

Functions: TypeAlias = Mapping[str, Callable[..., Any]]
Nodes: TypeAlias = Mapping[str, NodeType]


class Planned:
    """
    What was checked once and has a graph: the base of `Pipeline`.

    Attributes:
        graph: Its steps and who waits for whom.
        name: What a journal calls it; empty for the names of its last steps.
        source: The configuration file that it was read from; empty where there is none.
    """

    __slots__ = ("graph", "name", "source")

    def __init__(self, graph: Graph, name: str = "", source: str = "") -> None:
        self.graph = graph
        self.name = name
        self.source = source


def graph_of(
    steps: Iterable[Any], inputs: Iterable[str] = (), functions: Functions | None = None, nodes: Nodes | None = None
) -> Graph:
    """
    The graph of steps, plain functions and pipelines, in any order.

    Args:
        steps: The steps; of a pipeline among them, its own.
        inputs: The names of the datasets that are given from outside.
        functions: Name -> function, for configured steps of type function and for their `when`.
        nodes: Layer -> what makes the callables of its configured steps.

    Raises:
        GraphError: With all the faults that there are, each with what would have been right.
    """
    unfolded, faults = list(_unfolded(steps)), list[GraphFault]()
    if any([isinstance(each, Step) and each.is_configured for each in unfolded]):  # noqa: C419 (twice as fast)
        from odibi_async.config.compiler import compiled  # 3 ms to import, for those who have a configuration

        unfolded, faults = compiled(unfolded, functions, nodes)
    with _without_collections():
        return Graph(unfolded, inputs, faults)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """A block that makes many objects and no garbage: looking through them for cycles takes a third of its time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _unfolded(steps: Iterable[Any]) -> Iterable[Any]:
    """The steps, with those of a pipeline in its place."""
    for each in steps:
        if isinstance(each, Planned):
            yield from each.graph.steps
        else:
            yield each
