"""The rows that were taken and may be read once more: those within the declared lateness."""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from odibi_async.stream.values import from_json, to_json

DIGITS: Final = 24
"""Hex digits of a row's digest: among a million rows, two are taken for one with a probability of 1e-17."""


class Window:
    """
    What was taken, from a value of the watermark column on.

    Args:
        known: Key -> text, as `text` made them.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._entries: list[tuple[Any, str]] = []
        self._counts: Counter[str] = Counter()
        self._last: dict[str, Any] = {}
        for key, text in known.items():
            self.add(key, [(from_json(value), digest) for value, digests in json.loads(text) for digest in digests])

    def add(self, key: str, entries: Sequence[tuple[Any, str]]) -> None:
        """Adds the rows of a batch."""
        if not entries:
            return
        self._last[key] = max(value for value, _ in entries)
        self._counts.update(digest for _, digest in entries)
        self._entries.extend(entries)
        self._entries.sort()  # runs that are sorted already are merged

    def drop_before(self, low: Any) -> int:
        """Forgets the rows before a value; how many they were."""
        count = bisect.bisect_left(self._entries, (low,))
        for _, digest in self._entries[:count]:
            self._counts[digest] -= 1
            if not self._counts[digest]:
                del self._counts[digest]
        del self._entries[:count]
        for key in self.outdated(low):
            del self._last[key]
        return count

    def outdated(self, low: Any) -> tuple[str, ...]:
        """The keys of batches all of whose rows are before a value."""
        return tuple(key for key, last in self._last.items() if last < low)

    def count_from(self, low: Any) -> int:
        """How many rows are at a value or behind it; all of them for `None`."""
        return len(self._entries) - (0 if low is None else bisect.bisect_left(self._entries, (low,)))

    def count_before(self, low: Any) -> int:
        """How many rows are before a value."""
        return len(self._entries) - self.count_from(low)

    def new(self, digests: Iterable[str]) -> list[int]:
        """Of rows that were read, the places of those that were not taken: of equal rows, so many as there are more."""
        seen: Counter[str] = Counter()
        found = []
        for place, digest in enumerate(digests):
            seen[digest] += 1
            if seen[digest] > self._counts.get(digest, 0):
                found.append(place)
        return found


def text_of(entries: Iterable[tuple[Any, str]]) -> str:
    """What is to be remembered of rows, for `Window`."""
    by_value: dict[Any, list[str]] = {}
    for value, digest in entries:
        by_value.setdefault(value, []).append(digest)
    return json.dumps([[to_json(value), digests] for value, digests in by_value.items()], separators=(",", ":"))
