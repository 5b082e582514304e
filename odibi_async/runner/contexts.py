"""The contexts of engines, made when a run needs them."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from odibi_async.engines import create_engine_context
from odibi_async.limits import Limits, usable_cpus
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

    async def _make(self, name: str) -> None:
        try:
            self._contexts[name] = await in_a_thread(self._new_context, name)
        finally:
            del self._making[name]

    def _new_context(self, name: str) -> Any:
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
