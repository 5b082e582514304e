"""The contexts of engines, made when a run needs them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import anyio

from odibi_async.abc import FrameEngine
from odibi_async.dataset import engine_of
from odibi_async.engines import asked_engine, create_engine_context
from odibi_async.executors.threads import Threads
from odibi_async.graph.graph import Graph
from odibi_async.graph.node import Node
from odibi_async.graph.select import Selection
from odibi_async.limits import Limits, usable_cpus
from odibi_async.run.crossing import Crossing
from odibi_async.runner.aside import in_a_thread


class Engines:
    """The engines' contexts that a runner makes within its limits when a run needs them, one of a kind."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._contexts: dict[str, Any] = {}
        self._making: dict[str, asyncio.Task[Any]] = {}

    async def context(self, name: str | None, preferred: Any) -> Any:
        """
        The context for steps of one engine.

        Args:
            name: What the steps say; `None` where they leave it to the run.
            preferred: What the run says: the name of an engine, a context, or `None`.
        """
        if preferred is not None and not isinstance(preferred, str) and name in (None, preferred.name):
            return preferred
        if name is None:
            name = preferred or "pandas"
        while name not in self._contexts:
            making = self._making.get(name)
            if making is None:
                making = self._making[name] = asyncio.create_task(self._make(name))
            await asyncio.shield(making)
        return self._contexts[name]

    async def crossing(
        self, graph: Graph, selection: Selection, preferred: Any, elsewhere: Callable[[], Threads]
    ) -> Crossing | None:
        """
        What brings frames to the engines of the steps; `None` where all of them can only be frames of pandas.

        Args:
            graph: What is run.
            selection: The part of it.
            preferred: See `context`.
            elsewhere: Gives the threads of steps whose engine works outside of this process.
        """
        named = {index: _engine_name(graph, graph.nodes[index], preferred) for index in selection.nodes}
        names = {name for name in named.values() if name is not None}
        if names <= {"pandas"} and "pyspark" not in sys.modules:
            return None
        contexts = {name: await self.context(name, preferred) for name in sorted(names)}
        found = {index: contexts[name] for index, name in named.items() if name is not None}
        engines = {index: each for index, each in found.items() if isinstance(each, FrameEngine)}
        if not engines:
            return None
        threads = elsewhere() if any(each.works_elsewhere for each in engines.values()) else None
        return Crossing(graph, selection.nodes, engines, _engine_of_frame, threads)

    async def _make(self, name: str) -> None:
        try:
            self._contexts[name] = await in_a_thread(self._new_context, name)
        finally:
            del self._making[name]

    def _new_context(self, name: str) -> Any:
        if name == "spark":
            return create_engine_context(name, stop=False)  # its frames are lazy, and outlive the run
        limits = self._limits
        threads = limits.threads or usable_cpus()
        return create_engine_context(
            name, threads=threads, memory_limit=limits.memory, temp_directory=limits.temp_directory
        )

    async def close(self) -> None:
        """Closes them; a run that comes later gets others."""
        contexts, self._contexts = self._contexts, {}
        for context in contexts.values():
            with anyio.CancelScope(shield=True):
                await in_a_thread(context.close)


def _engine_name(graph: Graph, node: Node, preferred: Any) -> str | None:
    """The engine of a step: its own, that of the run, or that of configured steps; `None` for a step that has none."""
    asked = asked_engine(node.step.engine)
    if asked is not None:
        return asked
    if preferred is not None:
        return preferred if isinstance(preferred, str) else str(preferred.name)
    return "pandas" if any(dataset in graph.hidden for dataset in node.call.datasets) else None


def _engine_of_frame(frame: Any) -> FrameEngine:
    """An engine for frames that a function brought along: they know their session."""
    kind = engine_of(frame)
    return create_engine_context(kind, **({"session": frame.sparkSession} if kind == "spark" else {}))
