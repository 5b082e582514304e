"""What a run knows of datasets that lie in the store, and asks the cache about; `for_run.py` gives the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from odibi_async.cache.cache import Entry
from odibi_async.store.store import Kept


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


class Stored:
    """
    Stands for a dataset that lies in the store, until somebody reads it.

    Attributes:
        entry: What the cache has of the step that made it.
        place: Its place among the step's outputs.
        again: Makes them anew, for when it is found damaged.
        lock: Held by the reader that loads it.
    """

    __slots__ = ("again", "entry", "lock", "place")

    def __init__(self, entry: Entry, place: int, again: Again) -> None:
        self.entry = entry
        self.place = place
        self.again = again
        self.lock = asyncio.Lock()

    @property
    def kept(self) -> Kept:
        """What the store knows of it."""
        return self.entry.kept[self.place]


class StoredList:
    """Stands for the list that a mapped step makes, of which some elements lie in the store."""

    __slots__ = ("elements",)

    def __init__(self, elements: list[Any]) -> None:
        self.elements = elements


LYING: Final = (Stored, StoredList)


def listed_or_stored(elements: Sequence[Any]) -> list[Any] | StoredList:
    """The dataset of a mapped step."""
    listed = list(elements)
    return StoredList(listed) if any(isinstance(element, Stored) for element in listed) else listed


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
