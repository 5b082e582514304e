"""The part of a graph that one run is to do."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from odibi_async.graph.node import OUTSIDE, Node


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The part of a graph that one run is to do.

    Attributes:
        nodes: The places of its steps, in topological order.
        upstream: The steps that each step waits for.
        unmet: How many steps each step waits for; a step that is not to run waits for ever.
        downstream: The steps that wait for each step.
        uses: How many steps read each dataset, where some are dropped after their last reader.
        kept: The datasets that are not dropped after their last reader; `None` for all.
        passing: The steps whose batches only pass through to those that follow them: no dataset is made of them.
    """

    nodes: Sequence[int]
    upstream: Sequence[Sequence[int]]
    unmet: Sequence[int]
    downstream: Sequence[Sequence[int]]
    uses: Sequence[int]
    kept: frozenset[int] | None
    passing: frozenset[int] = frozenset()


def selected(
    nodes: Sequence[Node],
    order: Sequence[int],
    upstream: Sequence[Sequence[int]],
    downstream: Sequence[Sequence[int]],
    chosen: Sequence[bool],
    kept: Collection[int] | None,
    datasets: int,
    passing: frozenset[int] = frozenset(),
) -> Selection:
    """The part of a graph that has the chosen steps, and keeps some of its datasets (`None`: all)."""
    places = order if all(chosen) else [index for index in order if chosen[index]]
    unmet = list(map(len, upstream))
    if len(places) < len(nodes):
        unmet = [count if chosen[index] else sys.maxsize for index, count in enumerate(unmet)]
    uses = [0] * datasets
    if kept is not None:
        for index in places:
            for dataset in nodes[index].reads:
                uses[dataset] += 1
    return Selection(places, upstream, unmet, downstream, uses, None if kept is None else frozenset(kept), passing)


def ancestors(
    nodes: Sequence[Node],
    producers: Sequence[int],
    upstream: Sequence[Sequence[int]],
    outside: frozenset[int],
    targets: Sequence[int] | None,
    ends: Sequence[int],
) -> list[bool]:
    """Which steps are needed: a step whose every dataset is given is not, unless another waits for it."""
    if targets is None and not outside:
        return [True] * len(nodes)
    if targets is None:
        needed = [i for i, node in enumerate(nodes) if not (node.outputs and outside.issuperset(node.outputs))]
    else:
        needed = [producers[dataset] for dataset in targets if dataset not in outside] + [*ends]
    chosen = [False] * len(nodes)
    while needed:
        index = needed.pop()
        if index != OUTSIDE and not chosen[index]:
            chosen[index] = True
            needed.extend(upstream[index])
    return chosen


def reversed_edges(upstream: Sequence[Sequence[int]]) -> list[list[int]]:
    """The steps that wait for each step, from those that each waits for."""
    downstream: list[list[int]] = [[] for _ in upstream]
    for index, waits in enumerate(upstream):
        for other in waits:
            downstream[other].append(index)
    return downstream
