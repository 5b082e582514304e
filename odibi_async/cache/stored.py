"""Stored datasets as a run knows them, and what it asks the cache about (see `for_run.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odibi_async.cache.entries import Entry
from odibi_async.dataset import Handle
from odibi_async.store.kept import Kept
from odibi_async.store.shared import load_from


class Uncached(Exception):
    """A step cannot be looked up, or what it made cannot be kept; the text says why."""


class Again:
    """
    Makes anew what a step had made, when some of it is found damaged: all its outputs, and once, so that they fit.

    Attributes:
        step: Name of the step.
        made: One value a dataset; `None` before that.
    """

    __slots__ = ("_lock", "_make", "made", "step")

    def __init__(self, step: str, make: Callable[[], Coroutine[Any, Any, Sequence[Any]]]) -> None:
        self.step = step
        self.made: Sequence[Any] | None = None
        self._make = make
        self._lock = asyncio.Lock()

    async def __call__(self) -> Sequence[Any]:
        async with self._lock:
            if self.made is None:
                self.made = await self._make()
            return self.made


class Stored(Handle):
    """
    Stands for a stored dataset until somebody reads it.

    Attributes:
        entry: What the cache has of the step that made it.
        place: Its place among the step's outputs.
        dataset: Which dataset it is; `None` for an element of one.
        again: Makes them anew, for when it is found damaged.
        directory: The shared directory that it is in; `None` where it is not in one.
        fresh: Another handle of it: what its step made on a cluster just now, and is there still.
    """

    __slots__ = ("_is_missed", "_load", "again", "dataset", "directory", "entry", "fresh", "place")

    def __init__(
        self,
        entry: Entry,
        place: int,
        dataset: int | None,
        again: Again,
        load: Callable[[Stored], Awaitable[Any]],
        directory: str | None = None,
    ) -> None:
        self.entry = entry
        self.place = place
        self.dataset = dataset
        self.again = again
        self._load = load
        self.directory = directory
        self.fresh: Handle | None = None
        self._is_missed = False

    @property
    def by_path(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        if self.directory is None:
            return None
        return load_from, (self.directory, self.kept)

    @property
    def live(self) -> Handle | None:
        return self.fresh

    def not_there(self) -> None:
        self._is_missed = True

    @property
    def is_lost(self) -> bool:
        return self._is_missed

    @property
    def kept(self) -> Kept:
        """What the store knows of it."""
        return self.entry.kept[self.place]

    @property
    def rows(self) -> int | None:
        return self.kept.rows

    @property
    def digest(self) -> str:
        return self.kept.digest

    async def load(self) -> Any:
        """The value itself; of what is damaged, by calling its step."""
        return await self._load(self)


@dataclass(frozen=True, slots=True)
class Question:
    """
    What a run asks the cache about a step, or about an element of one.

    Attributes:
        key: The digest of all its parts.
        parts: What the result depends on, in words -> its digest.
        ttl: Seconds that the answer may be old; `None` for any age.
    """

    key: str
    parts: Mapping[str, str]
    ttl: float | None
