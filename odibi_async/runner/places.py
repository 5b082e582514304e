"""The executors of a runner's steps, opened when a run needs them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterable, Mapping

import anyio

from odibi_async.abc import Executor
from odibi_async.limits import Limits
from odibi_async.runner.aside import in_a_thread


class Executors:
    """
    The executors that a runner has opened in one event loop, worker processes among them.

    Args:
        limits: How many worker processes there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: Executor | None = None
        self._opened: dict[int, Executor] = {}
        self._opening: asyncio.Lock | None = None

    async def opened(self, names: Iterable[str], given: Mapping[str, Executor]) -> dict[str, Executor]:
        """Those with these names, each of them open. What is given wins over worker processes of our own."""
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            executors = {name: given[name] if name in given else await self._processes() for name in names}
            for executor in executors.values():
                if id(executor) not in self._opened:
                    await executor.open()
                    self._opened[id(executor)] = executor
        return executors

    async def _processes(self) -> Executor:
        if self._process is None:
            process = await in_a_thread(importlib.import_module, "odibi_async.executors.process")
            limits = self._limits
            self._process = process.ProcessExecutor(
                limits.processes, grace=limits.grace, directory=limits.temp_directory
            )
        return self._process

    async def close(self) -> None:
        """Closes them; a run that comes later opens them again."""
        opened, self._opened = self._opened, {}
        for executor in opened.values():
            with anyio.CancelScope(shield=True):
                await executor.close()
