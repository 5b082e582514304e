"""The elements of a mapped step while it runs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odibi_async.dataset import ABSENT
from odibi_async.errors import MapOverError
from odibi_async.result import CacheUse, Status
from odibi_async.run.cancelling import end_all
from odibi_async.run.supervisor import ElementFailed, UpstreamFailed

AT_ONCE = 256
"""How many element tasks are made before the loop comes round."""


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
        goes_on: Whether the others are made when one fails.

    Attributes:
        done: How many are.
        uses: What the cache did for those that it was asked about.
        ways: How those were found that were not called.
    """

    def __init__(self, total: int, grace: float, *, goes_on: bool) -> None:
        self.done = 0
        self.uses: dict[int, CacheUse] = {}
        self.ways: dict[int, Status] = {}
        self._results: list[Any] = [ABSENT] * total
        self._failures: dict[int, BaseException] = {}
        self._grace = grace
        self._goes_on = goes_on
        self._is_closed = False
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
        self._check()

    def failed(self, index: int, error: BaseException) -> None:
        """An element failed; unless the others go on, that is the end of the step."""
        self._failures[index] = error
        if not self._goes_on or isinstance(error, asyncio.CancelledError):
            self._over.set()
        self._check()

    def _check(self) -> None:
        if self.done + len(self._failures) == len(self._results):
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

    @property
    def found(self) -> Status | None:
        """How all of them were found; `None` if any was called, or there is none."""
        if not self._results or len(self.ways) < len(self._results):
            return None
        return Status.RESUMED if set(self.ways.values()) == {Status.RESUMED} else Status.CACHED

    def close(self) -> None:
        """The step has ended: what is not there now will never be."""
        self._is_closed = True
        for event in self._awaited.values():
            event.set()
        self._awaited.clear()

    async def item(self, index: int) -> Any:
        """
        What an element made, as soon as it is there.

        Raises:
            UpstreamFailed: The step ended without it.
        """
        if self._results[index] is ABSENT and not self._is_closed:
            await self._awaited.setdefault(index, asyncio.Event()).wait()
        if self._results[index] is ABSENT:
            raise UpstreamFailed
        return self._results[index][0]

    async def all(self, start: Callable[[int], asyncio.Task[None]], may_begin: Callable[[], bool]) -> list[Any]:
        """
        Starts each element and waits for all of them; when one fails, the others are cancelled, or awaited.

        Raises:
            ElementFailed: The first that failed, when all the others have ended.
            UpstreamFailed: Likewise.
        """
        try:
            for index in range(len(self._results)):
                if self._over.is_set() or not may_begin():
                    break
                task = start(index)
                self._tasks.add(task)
                task.add_done_callback(functools.partial(self._ended, index))
                if index % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            else:
                await self._over.wait()
        finally:
            await end_all(self._tasks, self._grace)
        if self._failures:
            raise self._failure()
        if self.done < len(self._results):
            raise asyncio.CancelledError
        return self._results

    def _failure(self) -> BaseException:
        index, error = next(iter(self._failures.items()))
        for place, other in self._failures.items():  # a cancellation is at most what another failure led to
            if isinstance(error, asyncio.CancelledError) and not isinstance(other, asyncio.CancelledError):
                index, error = place, other
        if isinstance(error, UpstreamFailed):
            error.made = self._partial()
            return error
        return ElementFailed(index, error, self._partial())

    def _partial(self) -> Mapping[int, Any]:
        """What was made, by element; of a step with several datasets, a tuple."""
        there = {index: made for index, made in enumerate(self._results) if made is not ABSENT}
        return {index: made[0] if len(made) == 1 else tuple(made) for index, made in there.items()}

    def _ended(self, index: int, task: asyncio.Task[None]) -> None:
        if self._results[index] is ABSENT and index not in self._failures:  # cancelled before its first turn
            self.failed(index, asyncio.CancelledError())
