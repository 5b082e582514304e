"""Parts of a pipeline, and pipelines under other names."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from odibi_async.errors import GraphError, GraphFault, did_you_mean
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import OUTSIDE, Binding, Node
from odibi_async.steps import Step


def chosen(graph: Graph, terms: Sequence[str], exclude: Sequence[str] = ()) -> list[int]:
    """
    The places of the steps that any of the terms names, in the order of their declaration.

    Those that any of `exclude` names are left out again; without other terms, of all that there are. The resources
    that the rest reads are always among them, since nobody else could give them.

    Raises:
        GraphError: A term names nothing, there is none, or nothing is left.
    """
    if exclude:
        left = _named(graph, terms or ("*",)) - _named(graph, exclude)
        if not left:
            raise GraphError([GraphFault("OA403", "Nothing is left to run: everything selected is also excluded.")])
    else:
        left = _named(graph, terms)
    ahead = list(left)
    while ahead:
        resources = set(graph.nodes[ahead.pop()].resources) - left
        left |= resources
        ahead.extend(resources)
    return sorted(left)


def _named(graph: Graph, terms: Sequence[str]) -> set[int]:
    places: set[int] = set()
    faults = [] if terms else [GraphFault("OA403", "Nothing is selected: name a step, tag:... or layer:...")]
    for term in terms:
        named = {node.index for node in graph.nodes if _matches(node, term.strip("+"))}
        if not named:
            hint = did_you_mean(term.strip("+"), graph.names)
            faults.append(GraphFault("OA403", f"{term!r} selects no step.{hint}"))
        places |= named
        if term.startswith("+"):
            places |= _reached(named, graph.upstream)
        if term.endswith("+"):
            places |= _reached(named, graph.downstream)
    if faults:
        raise GraphError(faults)
    return places


def _matches(node: Node, term: str) -> bool:
    kind, _, word = term.partition(":")
    if kind == "tag":
        return word in node.step.tags
    if kind == "layer":
        return node.step.layer == word
    return node.name == term or fnmatch.fnmatchcase(node.name, term)


def _reached(places: Iterable[int], edges: Sequence[Sequence[int]]) -> set[int]:
    """All that can be reached from some places along the edges."""
    reached: set[int] = set()
    ahead = list(places)
    while ahead:
        fresh = set(edges[ahead.pop()]) - reached
        reached |= fresh
        ahead.extend(fresh)
    return reached


def cut_loose(steps: Sequence[Step[..., Any, Any]]) -> list[Step[..., Any, Any]]:
    """The steps without those `after=` that name none of them."""
    names = {step.name for step in steps}
    return [
        dataclasses.replace(step, after=tuple(name for name in step.after if name in names)) if step.after else step
        for step in steps
    ]


def inputs_of(graph: Graph, places: Sequence[int]) -> list[str]:
    """The datasets that some steps read and none of them makes, but for those that may be left out."""
    there = set(places)
    reads = (dataset for place in places for dataset in graph.nodes[place].reads)
    needed = dict.fromkeys(dataset for dataset in reads if dataset not in graph.hidden)
    return [
        graph.datasets[dataset]
        for dataset in needed
        if graph.producers[dataset] not in there
        and (graph.producers[dataset] != OUTSIDE or graph.inputs[graph.datasets[dataset]].required)
    ]


def prefixed(graph: Graph, prefix: str) -> list[Step[..., Any, Any]]:
    """The steps of a graph with a text before every name: their own, their datasets', their inputs'."""
    return [_renamed(graph, node, prefix) for node in graph.nodes]


def _renamed(graph: Graph, node: Node, prefix: str) -> Step[..., Any, Any]:
    step = node.step
    return dataclasses.replace(
        step,
        name=prefix + step.name,
        inputs={
            binding.parameter: prefix + graph.datasets[binding.dataset]
            for call in (node.call, node.when)
            if call is not None
            for binding in graph.bindings_of(call)
            if binding.dataset is not None and _is_fixed(graph, binding)
        },
        outputs={name: prefix + dataset for name, dataset in step.outputs.items()},
        after=tuple(prefix + name for name in step.after),
    )


def _is_fixed(graph: Graph, binding: Binding) -> bool:
    """Whether a parameter reads a dataset that is always there; others keep their default under their own name."""
    assert binding.dataset is not None
    if binding.dataset in graph.hidden:
        return False
    if graph.producers[binding.dataset] != OUTSIDE:
        return True
    return graph.inputs[graph.datasets[binding.dataset]].required
