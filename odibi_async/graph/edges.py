"""Which step waits for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from odibi_async.errors import did_you_mean
from odibi_async.graph.faults import Faults
from odibi_async.graph.node import OUTSIDE, Node


def edges_of(
    nodes: Sequence[Node], names: Mapping[str, int], producers: Sequence[int], faults: Faults
) -> list[tuple[int, ...]]:
    """
    The steps that each step waits for: those that make what it reads, and those that its `after` names.

    Args:
        nodes: The steps, bound.
        names: The place of each step.
        producers: The maker of each dataset.
        faults: Gets those of `after`.
    """
    edges: list[tuple[int, ...]] = []
    places_agree = producers == list(range(len(producers)))  # each step makes one dataset, and none is from outside
    for node in nodes:
        reads = node.reads
        if node.step.after:
            edges.append(_with_after(node, names, producers, faults))
        elif places_agree:
            edges.append(reads)
        elif len(reads) == 1:
            producer = producers[reads[0]]
            edges.append(() if producer == OUTSIDE else (producer,))
        elif not reads:
            edges.append(())
        else:
            waits = tuple([producers[dataset] for dataset in reads])
            if OUTSIDE in waits or len(set(waits)) < len(waits):
                waits = tuple(dict.fromkeys([producer for producer in waits if producer != OUTSIDE]))
            edges.append(waits)
    return edges


def _with_after(node: Node, names: Mapping[str, int], producers: Sequence[int], faults: Faults) -> tuple[int, ...]:
    waits = dict.fromkeys([producers[dataset] for dataset in node.reads])
    waits.pop(OUTSIDE, None)
    for name in node.step.after:
        if name in names:
            waits[names[name]] = None
        else:
            message = f"Step {node.name!r} is to run after {name!r}, which is not a step.{did_you_mean(name, names)}"
            faults.add("OA206", message, node.step, "after", node.step.after.index(name))
    return tuple(waits)


def edges_without(
    outside: frozenset[int], nodes: Sequence[Node], names: Mapping[str, int], producers: Sequence[int]
) -> list[tuple[int, ...]]:
    """The steps that each step waits for when some datasets come from outside, though steps make them."""
    edges = []
    for node in nodes:
        waits = dict.fromkeys([producers[dataset] for dataset in node.reads if dataset not in outside])
        waits.pop(OUTSIDE, None)
        waits.update(dict.fromkeys([names[name] for name in node.step.after]))
        edges.append(tuple(waits))
    return edges


def find_streams_and_resources(
    nodes: Sequence[Node], upstream: Sequence[Sequence[int]], producers: Sequence[int]
) -> None:
    """Marks mapped steps that read nothing of another mapped step but its elements, and readers of resources."""
    unusual = [node for node in nodes if node.is_resource or node.maps is not None]
    if not unusual:
        return
    resources = {node.index for node in unusual if node.is_resource}
    mapped = {node.index for node in unusual if node.maps is not None and node.single}
    for node, waits in zip(nodes, upstream, strict=True):
        node.resources = tuple(other for other in waits if other in resources)
        node.runs_plain = node.runs_plain and not node.resources  # a resource has to hear of its readers' ends
        if node.maps is None:
            continue
        dataset = next((b.dataset for b in node.call.bindings if b.parameter == node.maps), None)
        if dataset is None:
            continue
        maker = producers[dataset]
        calls = (node.call,) if node.when is None else (node.call, node.when)
        reads = [place for call in calls for place in call.datasets]
        if maker in mapped and reads.count(dataset) == 1 and nodes[maker].name not in node.step.after:
            node.streams_from = maker
