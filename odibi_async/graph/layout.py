"""
A layered layout of a graph, from left to right.

Layers by longest path, crossings reduced by barycenters, places by averaging neighbours: the method of Sugiyama,
Tagawa and Toda (IEEE Trans. SMC 11(2), 1981), in its simplest form.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SWEEPS: Final = 6
"""How often the order within the layers is improved, to and fro."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """
    Where everything is, in units of one layer (to the right) and one row (down).

    Attributes:
        places: The place of each node.
        ways: Edge (from, to) -> the points that it goes through, both ends included.
        layers: How many layers there are.
        rows: How many rows the fullest part takes.
    """

    places: Mapping[int, Point]
    ways: Mapping[tuple[int, int], Sequence[Point]]
    layers: int
    rows: float


def laid_out(upstream: Sequence[Iterable[int]]) -> Layout:
    """
    The layout of a graph without cycles.

    Args:
        upstream: Node -> the nodes that it waits for.
    """
    depth = depths(upstream)
    board = _Board()
    for node, layer in enumerate(depth):
        board.add(node, layer)
    ways: dict[tuple[int, int], list[int]] = {}
    for node, waits in enumerate(upstream):
        for other in waits:
            ways[other, node] = board.connect(other, node, depth[other], depth[node])
    rows = board.arranged()
    places = {place: (float(layer), rows[place]) for layer, column in enumerate(board.columns) for place in column}
    top = min((row for _, row in places.values()), default=0.0)
    places = {place: (layer, row - top) for place, (layer, row) in places.items()}
    return Layout(
        places={node: places[node] for node in range(len(depth))},
        ways={edge: [places[place] for place in points] for edge, points in ways.items()},
        layers=len(board.columns),
        rows=max((row for _, row in places.values()), default=0.0) + 1,
    )


def depths(upstream: Sequence[Iterable[int]]) -> list[int]:
    """The number of nodes on the longest way to each node."""
    waits = [tuple(each) for each in upstream]
    below: list[list[int]] = [[] for _ in waits]
    unmet = [len(each) for each in waits]
    for node, others in enumerate(waits):
        for other in others:
            below[other].append(node)
    depth = [0] * len(waits)
    ready = [node for node, count in enumerate(unmet) if not count]
    for node in ready:  # grows as it goes
        for other in below[node]:
            depth[other] = max(depth[other], depth[node] + 1)
            unmet[other] -= 1
            if not unmet[other]:
                ready.append(other)
    return depth


@dataclass(slots=True)
class _Board:
    """
    The layers with what stands in them: nodes, and bends of edges that cross a layer.

    Attributes:
        columns: Layer -> what stands in it, from the top down.
        before: Each of them -> its neighbours in the layer to the left.
        after: Likewise to the right.
    """

    columns: list[list[int]] = field(default_factory=list)
    before: dict[int, list[int]] = field(default_factory=dict)
    after: dict[int, list[int]] = field(default_factory=dict)
    _bends: int = 0

    def add(self, place: int, layer: int) -> None:
        while len(self.columns) <= layer:
            self.columns.append([])
        self.columns[layer].append(place)
        self.before[place], self.after[place] = [], []

    def connect(self, start: int, end: int, first: int, last: int) -> list[int]:
        """Adds an edge with a bend in each layer that it crosses; all its points."""
        points = [start]
        for layer in range(first + 1, last):
            self._bends += 1
            self.add(-self._bends, layer)
            points.append(-self._bends)
        points.append(end)
        for left, right in itertools.pairwise(points):
            self.after[left].append(right)
            self.before[right].append(left)
        return points

    def arranged(self) -> dict[int, float]:
        """The row of everything."""
        for sweep in range(SWEEPS):
            self._sort(forward=sweep % 2 == 0)
        rows = {place: float(row) for column in self.columns for row, place in enumerate(column)}
        for sweep in range(SWEEPS):
            self._align(rows, forward=sweep % 2 == 0)
        return rows

    def _sort(self, forward: bool) -> None:
        """Sorts each layer by where its neighbours in the layer before (or behind) are on average."""
        columns = self.columns if forward else self.columns[::-1]
        beside = self.before if forward else self.after
        for fixed, column in itertools.pairwise(columns):
            row = {place: number for number, place in enumerate(fixed)}
            now = {place: number for number, place in enumerate(column)}
            column.sort(key=lambda place: _mean([row[other] for other in beside[place]], now[place]))

    def _align(self, rows: dict[int, float], forward: bool) -> None:
        """Moves everything towards its neighbours, without changing the order and a row apart."""
        for column in self.columns if forward else self.columns[::-1]:
            wanted = [_mean([rows[o] for o in (*self.before[p], *self.after[p])], rows[p]) for p in column]
            rows.update(zip(column, _apart(wanted), strict=True))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wanted: Sequence[float]) -> list[float]:
    """
    The rows closest to the wanted ones (by least squares) that are in order and at least one apart.

    Pool adjacent violators: blocks whose means are out of order are merged.
    """
    blocks: list[tuple[float, int]] = []
    for number, row in enumerate(wanted):
        total, size = row - number, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / size:
            more, count = blocks.pop()
            total, size = total + more, size + count
        blocks.append((total, size))
    means = [total / size for total, size in blocks for _ in range(size)]
    return [mean + number for number, mean in enumerate(means)]
