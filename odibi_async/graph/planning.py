"""How long a pipeline would take with so many workers, from how long its steps took before."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Final

from odibi_async.errors import OptionError, shortened
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import OUTSIDE

CLOSE: Final = 1.05
"""How much longer than its longest chain a pipeline may take and still be said to be limited by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """
    What a run would come to.

    Attributes:
        workers: How many steps run at a time.
        seconds: From the first start to the last end.
        utilisation: The share of the workers' time in which they work.
        peak_bytes: The most that datasets take at a time, each from its making to the end of its last reader.
        moved_bytes: What is read by other workers than the one that made it, once a worker.
        chain: The steps along the chain that takes longest.
        chain_seconds: How long it takes: no number of workers does it faster.
        limited_by: `"the longest chain"`, or `"workers"`, of which more would help.
    """

    workers: int
    seconds: float
    utilisation: float
    peak_bytes: int
    moved_bytes: int
    chain: tuple[str, ...]
    chain_seconds: float
    limited_by: str

    def __str__(self) -> str:
        return (
            f"{self.seconds:,.1f} s with {self.workers:,} workers, which are busy {self.utilisation:.0%} of it; "
            f"at most {self.peak_bytes / 2**20:,.1f} MB at a time, {self.moved_bytes / 2**20:,.1f} MB moved; "
            f"limited by {self.limited_by} ({self.chain_seconds:,.1f} s: {shortened(self.chain)})"
        )


def estimated(
    graph: Graph, seconds: Mapping[str, float | Sequence[float]], workers: int, sizes: Mapping[str, int]
) -> Estimate:
    """
    Simulates a run: of the steps that are ready, the one with the longest way still below it goes first, to the
    worker that made most of what it reads, if that one is free. The elements of a mapped step run side by side.

    Args:
        graph: The steps.
        seconds: Step -> how long it takes; of a mapped step, how long each element takes.
        workers: How many steps and elements run at a time.
        sizes: Dataset -> bytes; 0 for those that are not there.

    Raises:
        OptionError: A step has no duration, there is no worker, or a number is none that could be measured.
    """
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise OptionError(f"workers={workers!r}: a whole number from 1 on is needed.")
    unknown = [node.name for node in graph.nodes if node.name not in seconds]
    if unknown:
        raise OptionError(f"The history knows no duration of {shortened(unknown)}.")
    took = [_parts(node.name, seconds[node.name]) for node in graph.nodes]
    for name, size in sizes.items():
        if not _is_amount(size):
            raise OptionError(f"sizes: dataset {name!r} has {size!r} bytes; a number from 0 on is needed.")
    ways = _ways(graph, took)
    simulation = _Simulation(graph, took, ways, [sizes.get(name, 0) for name in graph.datasets])
    ended = simulation.run(workers)
    longest = max(ways)
    return Estimate(
        workers=workers,
        seconds=ended,
        utilisation=sum(map(sum, took)) / (workers * ended) if ended else 0.0,
        peak_bytes=simulation.peak,
        moved_bytes=simulation.moved,
        chain=tuple(_chain(graph, ways)),
        chain_seconds=longest,
        limited_by="the longest chain" if ended <= CLOSE * longest else "workers",
    )


def _parts(step: str, seconds: float | Sequence[float]) -> Sequence[float]:
    """How long each call takes; a mapped step without elements takes one that is over at once."""
    parts = seconds if isinstance(seconds, Sequence) and not isinstance(seconds, str) else (seconds,)
    for each in parts:
        if not _is_amount(each):
            raise OptionError(f"The history says {each!r} of step {step!r}; seconds, a number from 0 on, are needed.")
    return parts if len(parts) else (0.0,)


def _is_amount(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def _ways(graph: Graph, took: Sequence[Sequence[float]]) -> list[float]:
    """The seconds of the longest way from the start of each step to the end of the run."""
    ways = [max(parts) for parts in took]
    for index in reversed(graph.order):
        ways[index] += max((ways[other] for other in graph.downstream[index]), default=0.0)
    return ways


def _chain(graph: Graph, ways: Sequence[float]) -> list[str]:
    index = max(range(len(ways)), key=ways.__getitem__)
    names = [graph.nodes[index].name]
    while graph.downstream[index]:
        index = max(graph.downstream[index], key=ways.__getitem__)
        names.append(graph.nodes[index].name)
    return names


class _Simulation:
    """The state of a simulated run."""

    def __init__(
        self, graph: Graph, took: Sequence[Sequence[float]], ways: Sequence[float], sizes: Sequence[int]
    ) -> None:
        self.peak = self.moved = 0
        self._graph = graph
        self._took = took
        self._ways = ways
        self._sizes = sizes
        self._lacking = [len(parts) for parts in took]
        self._callers: dict[int, set[int]] = {}
        self._places: list[set[int]] = [set() for _ in sizes]
        self._readers = [0] * len(sizes)
        self._held = 0
        for node in graph.nodes:
            for dataset in node.reads:
                self._readers[dataset] += 1

    def run(self, workers: int) -> float:
        """When the last step ends."""
        graph, unmet = self._graph, [len(waits) for waits in self._graph.upstream]
        ready: list[tuple[float, int, int]] = []
        for index, count in enumerate(unmet):
            if not count:
                self._release(index, ready)
        free = dict.fromkeys(range(min(workers, sum(map(len, self._took)))))
        running: list[tuple[float, int, int]] = []
        now = 0.0
        while ready or running:
            while ready and free:
                _, index, part = heapq.heappop(ready)
                worker = self._best(index, free)
                del free[worker]
                self._start(index, worker)
                heapq.heappush(running, (now + self._took[index][part], index, worker))
            now, index, worker = heapq.heappop(running)
            free[worker] = None
            if not self._is_over(index, worker):
                continue
            for other in graph.downstream[index]:
                unmet[other] -= 1
                if not unmet[other]:
                    self._release(other, ready)
        return now

    def _release(self, index: int, ready: list[tuple[float, int, int]]) -> None:
        for part in range(len(self._took[index])):
            heapq.heappush(ready, (-self._ways[index], index, part))

    def _best(self, index: int, free: Mapping[int, None]) -> int:
        """The free worker that has the largest input of a step, else any."""
        for dataset in sorted(self._graph.nodes[index].reads, key=self._sizes.__getitem__, reverse=True):
            for worker in self._places[dataset]:
                if worker in free:
                    return worker
        return next(iter(free))

    def _start(self, index: int, worker: int) -> None:
        for dataset in self._graph.nodes[index].reads:
            if self._graph.producers[dataset] != OUTSIDE and worker not in self._places[dataset]:
                self._places[dataset].add(worker)
                self.moved += self._sizes[dataset]

    def _is_over(self, index: int, worker: int) -> bool:
        """Whether the call that has ended was the last one of its step; then what it made is there."""
        callers = self._callers.setdefault(index, set())
        callers.add(worker)
        self._lacking[index] -= 1
        if self._lacking[index]:
            return False
        del self._callers[index]
        node = self._graph.nodes[index]
        for dataset in node.outputs:
            if len(callers) == 1:  # elements here and there are nowhere together
                self._places[dataset] |= callers
            self._held += self._sizes[dataset]
        self.peak = max(self.peak, self._held)
        for dataset in node.reads:
            self._readers[dataset] -= 1
            if not self._readers[dataset] and self._graph.producers[dataset] != OUTSIDE:
                self._held -= self._sizes[dataset]
                self._places[dataset].clear()
        return True
