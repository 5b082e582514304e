"""What can be wrong between bound steps: circles, types that never fit, inputs that nobody reads."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from types import FunctionType
from typing import Any

from odibi_async.errors import did_you_mean
from odibi_async.graph.binding import Binder
from odibi_async.graph.faults import Faults
from odibi_async.graph.hints import can_fit, hints_of
from odibi_async.graph.node import OUTSIDE, Node


def ordered(
    nodes: Sequence[Node], upstream: Sequence[Sequence[int]], downstream: Sequence[Sequence[int]], faults: Faults
) -> tuple[Sequence[int], list[str]]:
    """
    The places in topological order, the declaration's order where it is free (Kahn's algorithm over
    a heap, CACM 5(11), 1962), and the names along a circle, if there is one, which is a fault.
    """
    if all([not waits or max(waits) < index for index, waits in enumerate(upstream)]):  # noqa: C419 (twice as fast)
        return range(len(nodes)), []
    unmet = [len(waits) for waits in upstream]
    ready = [index for index, count in enumerate(unmet) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for other in downstream[index]:
            unmet[other] -= 1
            if not unmet[other]:
                heapq.heappush(ready, other)
    if len(order) == len(nodes):
        return order, []
    circle = _circle(nodes, upstream, unmet)
    message = "Steps wait for each other in a circle: " + " -> ".join(node.name for node in circle)
    faults.add("OA202", message, circle[0].step)
    return order, [node.name for node in circle]


def _circle(nodes: Sequence[Node], upstream: Sequence[Sequence[int]], unmet: Sequence[int]) -> list[Node]:
    """Walks upstream among the steps that can never start, until one comes again."""
    walk: dict[int, None] = {}
    index = next(index for index, count in enumerate(unmet) if count)
    while index not in walk:
        walk[index] = None
        index = next(other for other in upstream[index] if unmet[other])
    circle = list(walk)[list(walk).index(index) :]
    return [nodes[place] for place in (index, *reversed(circle))]


def check_read(
    given: Sequence[str],
    nodes: Sequence[Node],
    ids: Mapping[str, int],
    producers: Sequence[int],
    known: Collection[str],
    faults: Faults,
) -> None:
    """Finds names of inputs that no step reads; `known` are those that are read, for a hint."""
    if not given:
        return
    read = {dataset for node in nodes for dataset in node.reads}
    for name in given:
        if isinstance(name, str) and producers[ids[name]] == OUTSIDE and ids[name] not in read:
            hint = did_you_mean(name, known)
            faults.add("OA404", f"Input {name!r} is given, but no step reads it or makes it.{hint}")


def check_places(nodes: Sequence[Node], producers: Sequence[int], hidden: Collection[int], faults: Faults) -> None:
    """Finds steps of executors that read what cannot leave this process: an engine's context, a resource."""
    for node in nodes:
        if node.executor is None:
            continue
        for dataset in node.reads:
            maker = None if producers[dataset] == OUTSIDE else nodes[producers[dataset]]
            if dataset in hidden:
                what = "takes the context of an engine"
            elif maker is not None and maker.is_resource:
                what = f"reads the resource {maker.name!r}"
            else:
                continue
            message = f"Step {node.name!r} {what}, which stays in this process, so it cannot run on {node.executor!r}."
            faults.add("OA210", message, node.step, "run_on")


def annotated_among(nodes: Sequence[Node]) -> dict[int, Any]:
    """The functions of steps that have annotations, by identity."""
    return {id(fn): fn for fn in {id(node.call.fn): node.call.fn for node in nodes}.values() if _is_annotated(fn)}


def check_types(
    nodes: Sequence[Node], producers: Sequence[int], binder: Binder, annotated: Mapping[int, Any], faults: Faults
) -> None:
    """Finds edges whose two annotations exclude each other; each pair of functions is looked at once."""
    if not annotated:
        return
    makers: list[Any] = [None] * len(producers)
    for node in nodes:
        if node.single and node.maps is None and not node.is_resource:  # of others it is not that of what they make
            makers[node.outputs[0]] = annotated.get(id(node.call.fn))
    fitting: set[tuple[Any, ...]] = set()
    for node in nodes:
        call = node.call
        if id(call.fn) not in annotated:
            continue
        like = (id(call.fn), *[id(makers[dataset]) for dataset in call.reads])
        if like in fitting:
            continue
        misfits = [
            (binding.parameter, binding.dataset, misfit)
            for binding in binder.bindings_of(call)
            if binding.dataset is not None and binding.parameter != node.maps
            if (misfit := _misfit(makers[binding.dataset], call.fn, binding.parameter)) is not None
        ]
        if call.reads and not misfits:
            fitting.add(like)
        for parameter, dataset, (made, taken) in misfits:
            maker = nodes[producers[dataset]].name
            message = f"Step {node.name!r} takes {parameter!r} as {taken}, but step {maker!r} makes {made}."
            faults.add("OA211", message, node.step, "inputs", parameter)


def _is_annotated(fn: Any) -> bool:
    return not isinstance(fn, FunctionType) or bool(fn.__annotations__)


def _misfit(maker: Any, reader: Any, parameter: str) -> tuple[str, str] | None:
    """What one function makes and another one takes, if no value can be both."""
    if maker is None:
        return None
    made, taken = hints_of(maker).get("return", Any), hints_of(reader).get(parameter, Any)
    return None if can_fit(made, taken) else (_spelled(made), _spelled(taken))


def _spelled(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
