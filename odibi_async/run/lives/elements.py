"""The elements of a mapped step while it runs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

from odibi_async.dataset import ABSENT
from odibi_async.errors import MapOverError
from odibi_async.result import CacheUse

AT_ONCE = 256
"""How many element tasks are made before the loop comes round."""


class ElementFailed(Exception):
    """
    An element of a mapped step failed; inside the engine only.

    Attributes:
        index: Which one, counted from 0.
        error: What it raised.
    """

    def __init__(self, index: int, error: BaseException) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


class UpstreamFailed(Exception):
    """The mapped step whose elements are taken one by one ended without making them all."""


def listed(step: str, parameter: str, value: Any) -> Sequence[Any]:
    """
    The value, if it can be mapped over.

    Raises:
        MapOverError: It is no list or tuple.
    """
    if not isinstance(value, list | tuple | range):
        raise MapOverError(step, parameter, type(value).__name__)
    return value


class Elements:
    """
    What the elements of one mapped step have made so far, for the step itself and for those that follow it.

    Args:
        total: How many there are.
        grace: Seconds that cancelled elements have before they are cancelled again.

    Attributes:
        done: How many are.
        uses: What the cache did for those that it was asked about.
    """

    def __init__(self, total: int, grace: float) -> None:
        self.done = 0
        self.uses: dict[int, CacheUse] = {}
        self._results: list[Any] = [ABSENT] * total
        self._grace = grace
        self._failure: ElementFailed | UpstreamFailed | None = None
        self._over = asyncio.Event()
        self._awaited: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if not total:
            self._over.set()

    def __len__(self) -> int:
        return len(self._results)

    def made(self, index: int, result: Sequence[Any]) -> None:
        """An element is done."""
        self._results[index] = result
        self.done += 1
        if index in self._awaited:
            self._awaited.pop(index).set()
        if self.done == len(self._results):
            self._over.set()

    def failed(self, index: int, error: BaseException) -> None:
        """An element failed; the first to do so decides."""
        if self._failure is None:
            self._failure = error if isinstance(error, UpstreamFailed) else ElementFailed(index, error)
        self._over.set()

    @property
    def use(self) -> CacheUse | None:
        """What the cache did for all of them together."""
        if not self.uses:
            return None
        misses = {index: use.reason for index, use in sorted(self.uses.items()) if not use.hit}
        if not misses:
            return CacheUse(hit=True)
        first = next(iter(misses))
        return CacheUse(hit=False, reason=f"{len(misses)} of {len(self)} elements, such as {first}: {misses[first]}")

    def close(self) -> None:
        """The step has ended: what is not there now will never be."""
        for event in self._awaited.values():
            event.set()
        self._awaited.clear()

    async def item(self, index: int) -> Any:
        """
        What an element made, as soon as it is there.

        Raises:
            UpstreamFailed: The step ended without it.
        """
        if self._results[index] is ABSENT:
            await self._awaited.setdefault(index, asyncio.Event()).wait()
        if self._results[index] is ABSENT:
            raise UpstreamFailed
        return self._results[index][0]

    async def all(self, start: Callable[[int], asyncio.Task[None]]) -> list[Any]:
        """
        Starts each element and waits for all of them; when one fails, the others are cancelled.

        Raises:
            ElementFailed: The first failure, when all the others have ended.
            UpstreamFailed: Likewise.
        """
        try:
            for index in range(len(self._results)):
                task = start(index)
                self._tasks.add(task)
                task.add_done_callback(functools.partial(self._ended, index))
                if index % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
                if self._failure is not None:
                    break
            await self._over.wait()
        finally:
            await self._end()
        if self._failure is not None:
            raise self._failure
        return self._results

    def _ended(self, index: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._results[index] is ABSENT:  # its task was cancelled before its first turn
            self.failed(index, asyncio.CancelledError())

    async def _end(self) -> None:
        """Cancels what still runs, again after each grace and each cancellation of its own, until all has ended."""
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            try:
                await asyncio.wait(self._tasks, timeout=self._grace)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
