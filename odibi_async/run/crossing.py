"""The engines of a run's steps: what each step gets of a frame of another engine, and what goes around its call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from odibi_async.abc import FrameEngine, FrameKeeper
from odibi_async.dataset import ABSENT, engine_of
from odibi_async.executors.threads import Threads
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import Node
from odibi_async.run.tracebacks import calls_users_code


class Crossing:
    """
    Brings frames to the engine of the step that reads them. Each dataset crosses once for all readers of an engine.

    Args:
        graph: What is run.
        nodes: The steps that are run.
        engines: Step -> its engine, for those that have one.
        made: Makes an engine for frames of a kind that no step has, of one of them.
        elsewhere: Where calls are made whose work is done outside of this process; `None` for the run's threads.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Iterable[int],
        engines: Mapping[int, FrameEngine],
        made: Callable[[Any], FrameEngine],
        elsewhere: Threads | None,
    ) -> None:
        self._graph = graph
        self._engines = engines
        self._made = made
        self._elsewhere = elsewhere
        self._known = {engine.name: engine for engine in engines.values()}
        self._readers = Counter(
            (d, engines[i].name) for i in nodes if i in engines for d in graph.nodes[i].call.datasets
        )
        self._locks: dict[tuple[int, str], threading.Lock] = {key: threading.Lock() for key in self._readers}
        self._crossed: dict[tuple[int, str], Any] = {}

    @property
    def keeper(self) -> FrameKeeper | None:
        """The engine whose frames only it can write and read, if a step has one."""
        return next((each for each in self._known.values() if isinstance(each, FrameKeeper)), None)

    def concerns(self, node: Node) -> bool:
        """Whether a step has an engine."""
        return node.index in self._engines

    def threads_of(self, node: Node) -> Threads | None:
        """Where a step is called, if not in the run's threads."""
        engine = self._engines.get(node.index)
        return self._elsewhere if engine is not None and engine.works_elsewhere else None

    @calls_users_code
    def call(self, node: Node, values: Mapping[int, Any] | Sequence[Any], instead: Mapping[str, Any]) -> Any:
        """Calls a blocking step with frames of its engine. In a worker thread."""
        with self.around(node):
            values, instead = self.crossed(node, values, instead)
            args, kwargs = node.call.arguments(values, instead)
            return node.call.fn(*args, **kwargs)

    def around(self, node: Node) -> AbstractContextManager[object]:
        """What the step's engine wants around what is done for it."""
        return self._engines[node.index].around(node.name)

    def crossed(
        self, node: Node, values: Mapping[int, Any] | Sequence[Any], instead: Mapping[str, Any]
    ) -> tuple[Mapping[int, Any], Mapping[str, Any]]:
        """
        What a step reads, as frames of its engine. Blocks.

        Raises:
            CrossingError: One cannot cross as it is.
        """
        engine = self._engines[node.index]
        mine = {dataset: self._of_engine(engine, node, dataset, values[dataset]) for dataset in node.call.datasets}
        return mine, {name: self._brought(engine, each, _what(name, node)) for name, each in instead.items()}

    def _of_engine(self, engine: FrameEngine, node: Node, dataset: int, value: Any) -> Any:
        if value is ABSENT or engine_of(value) in ("", engine.name):
            return value
        key = (dataset, engine.name)
        with self._locks[key]:
            found = self._crossed.get(key, ABSENT)
            if found is ABSENT:
                found = self._brought(engine, value, _what(self._graph.datasets[dataset], node))
            self._readers[key] -= 1
            if self._readers[key] > 0:
                self._crossed[key] = found
            else:
                self._crossed.pop(key, None)
        return found

    def _brought(self, engine: FrameEngine, value: Any, what: str) -> Any:
        kind = engine_of(value)
        if kind in ("", engine.name):
            return value
        source = self._known.get(kind)
        if source is None:
            source = self._known[kind] = self._made(value)
        return engine.from_arrow(source.to_arrow(value, what), what)


def _what(dataset: str, node: Node) -> str:
    return f"the input {dataset!r} of step {node.name!r}"
