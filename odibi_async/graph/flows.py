"""
Which steps make batches, and which take them while they are made.

A reader that *follows* a streaming step starts at its first batch, and holds it back when it is slower. It must not
hold back what it waits for itself: a reader that also needs the end of a step that may be waiting for it reads the
batches when all are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from odibi_async.graph.faults import Faults
from odibi_async.graph.hints import iterators_of
from odibi_async.graph.node import OUTSIDE, Binding, Call, Node

Bindings = Callable[[Call], Sequence[Binding]]


def find_flows(
    nodes: Sequence[Node],
    order: Iterable[int],
    upstream: Sequence[Sequence[int]],
    producers: Sequence[int],
    bindings_of: Bindings,
    annotated: Mapping[int, Any],
    faults: Faults,
    *,
    has_generators: bool,
) -> None:
    """
    Marks the steps that make batches, the parameters that get iterators of them, and who follows whom.

    Args:
        nodes: The steps, bound.
        order: Their places in topological order.
        upstream: The steps that each step waits for.
        producers: The maker of each dataset.
        bindings_of: Gives the bindings of a call.
        annotated: The functions that have annotations, by identity.
        faults: Gets what cannot be.
        has_generators: Whether any function is one of a generator.
    """
    kinds = {key: found for key, fn in annotated.items() if (found := iterators_of(fn))}
    yields = has_generators and any(node.is_stream for node in nodes)
    if yields:
        for node in nodes:
            if node.is_stream:
                _check_stream(node, faults)
    if kinds:
        for node in nodes:
            if id(node.call.fn) in kinds and not node.is_resource:
                found = kinds[id(node.call.fn)]
                _find_iterators(node, found, bindings_of(node.call), faults)
    if yields:
        _find_followers(nodes, order, upstream, producers)
        for node in nodes:
            if id(node.call.fn) in kinds and not node.is_resource:
                _check_iterators(node, kinds[id(node.call.fn)], nodes, producers, bindings_of(node.call), faults)


def _check_stream(node: Node, faults: Faults) -> None:
    """Finds what a step that yields batches cannot be."""
    step = node.step
    if node.executor is not None:
        message = (
            f"Step {node.name!r} yields batches, which its readers get while it runs, so it cannot run on "
            f"{node.executor!r}: leave out run_on, and it runs on the loop or in a thread of this process."
        )
        faults.add("OA341", message, step, "run_on")
    if step.outputs and len(node.outputs) != 1:
        message = f"Step {node.name!r} yields batches of one dataset, but declares {len(node.outputs)} outputs."
        faults.add("OA342", message, step, "outputs")
    if node.maps is not None:
        message = (
            f"Step {node.name!r} yields batches, so it cannot map over {node.maps!r}: take an AsyncIterator of them "
            "and yield from it, or return one result a batch."
        )
        faults.add("OA343", message, step, "map_over")


def _find_iterators(node: Node, kinds: Mapping[str, str], bindings: Sequence[Binding], faults: Faults) -> None:
    """Notes which parameters get iterators; they are bound by name from then on."""
    read = [b.parameter for b in bindings if b.dataset is not None and b.parameter != node.maps]
    iterates = [parameter for parameter in read if kinds.get(parameter) == _fitting(node)]
    if not iterates:
        return
    if node.step.cache:
        message = (
            f"Step {node.name!r} takes {iterates[0]!r} batch by batch, so nothing can be looked up before it has read "
            "them: it cannot be cached. Cache what it maps over, or the step that makes the batches."
        )
        faults.add("OA345", message, node.step, "cache")
    node.iterates = tuple(iterates)
    node.call.reads, node.call.bindings = (), tuple(bindings)
    node.plain = node.runs_plain = False


def _fitting(node: Node) -> str:
    """The kind of iterator that a step can go through; empty for none."""
    if node.executor is not None:
        return ""
    return "plain" if node.in_thread else "async" if node.call.is_async else ""


def _check_iterators(
    node: Node,
    kinds: Mapping[str, str],
    nodes: Sequence[Node],
    producers: Sequence[int],
    bindings: Sequence[Binding],
    faults: Faults,
) -> None:
    """Finds parameters that ask for batches of a streaming step in a way that the step cannot take."""
    for parameter, _, dataset, _ in bindings:
        if dataset is None or parameter == node.maps or producers[dataset] == OUTSIDE:
            continue
        kind = kinds.get(parameter)
        if kind is not None and kind != _fitting(node) and nodes[producers[dataset]].is_stream:
            faults.add("OA344", _misfit(node, parameter, kind), node.step, "inputs", parameter)


def _misfit(node: Node, parameter: str, kind: str) -> str:
    taken = "an AsyncIterator" if kind == "async" else "an Iterator"
    if node.executor is not None:
        return (
            f"Step {node.name!r} takes {parameter!r} as {taken} of batches, which cannot go to {node.executor!r}: take "
            "the list of them, or leave out run_on."
        )
    if kind == "async":
        return f"Step {node.name!r} is blocking, so it takes {parameter!r} as an Iterator, not as {taken}."
    return f"Step {node.name!r} runs on the loop, so it takes {parameter!r} as an AsyncIterator, not as {taken}."


def _find_followers(
    nodes: Sequence[Node], order: Iterable[int], upstream: Sequence[Sequence[int]], producers: Sequence[int]
) -> None:
    """Finds who follows whom, from the sources down: what is mapped over batches makes batches itself."""
    order = list(order)
    for index in order:
        node = nodes[index]
        follows = {p: d for p, d in _candidates(node) if producers[d] != OUTSIDE and nodes[producers[d]].is_stream}
        whole = _read_whole(node, follows)
        _settle(node, {p: d for p, d in follows.items() if d not in whole and not _is_after(node, nodes[producers[d]])})
    groups = _groups(nodes, producers)
    above: dict[int, frozenset[int]] = {}
    starts: dict[int, frozenset[int]] = {}
    for index in order:
        node = nodes[index]
        _settle(node, {p: d for p, d in node.follows.items() if nodes[producers[d]].is_stream})
        makers = {producers[dataset] for dataset in node.follows.values()}
        above[index] = frozenset(upstream[index]).union(*[above[other] for other in upstream[index]])
        ends = [other for other in upstream[index] if other not in makers]
        starts[index] = frozenset(ends).union(*[starts[maker] for maker in makers])
        needed = starts[index].union(*[above[other] for other in starts[index]])
        if makers and any(groups[other] == groups[index] for other in needed):
            _settle(node, {})
            starts[index] = frozenset(upstream[index])
    for node in nodes:
        if node.streams_from is not None and nodes[node.streams_from].is_stream:
            node.streams_from = None


def _is_after(node: Node, maker: Node) -> bool:
    return maker.name in node.step.after


def _settle(node: Node, follows: Mapping[str, int]) -> None:
    """Notes what a step follows. One that is mapped makes batches itself when it maps over some as they are made."""
    if node.maps is not None and not node.call.yields:
        follows = follows if node.single else {}
        node.is_stream = bool(follows)
    node.follows = follows


def _candidates(node: Node) -> list[tuple[str, int]]:
    """The parameters that may get batches as they are made, with what they read."""
    taken = (node.maps,) if node.maps is not None else node.iterates
    found = [(b.parameter, b.dataset) for b in node.call.bindings if b.parameter in taken and b.dataset is not None]
    return [] if node.executor is not None and node.maps is None else found


def _read_whole(node: Node, follows: Mapping[str, int]) -> set[int]:
    """The datasets that a step reads otherwise than batch by batch."""
    read = [b.dataset for b in node.call.bindings if b.parameter not in follows]
    return {dataset for dataset in (*read, *(node.when.datasets if node.when else ())) if dataset is not None}


def _groups(nodes: Sequence[Node], producers: Sequence[int]) -> list[int]:
    """For each step, a number that it shares with those that it can hold back or be held back by, over any steps."""
    groups = list(range(len(nodes)))

    def root(index: int) -> int:
        while groups[index] != index:
            groups[index] = groups[groups[index]]
            index = groups[index]
        return index

    for node in nodes:
        for dataset in node.follows.values():
            groups[root(node.index)] = root(producers[dataset])
    return [root(index) for index in range(len(nodes))]
