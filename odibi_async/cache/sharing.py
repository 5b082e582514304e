"""Whether a step's result shares parts with what it read, so that changing one changes the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from odibi_async.fingerprint.mutable import mutables_in


def shares(made: Sequence[Any], read: Iterable[Any]) -> bool:
    """
    Whether something mutable is part of two values that a step made, or of one that it made and one that it read.

    Arrays count by their memory. What the values themselves are does not count: each reader gets a copy of that.
    """
    inner = [[each for each in mutables_in(value) if each is not value] for value in made]
    if not any(inner):
        return False
    groups = [*inner, [each for value in read for each in mutables_in(value)]]
    return _is_in_two(groups) or _overlap(groups)


def _is_in_two(groups: Iterable[Sequence[Any]]) -> bool:
    seen: set[int] = set()
    for group in groups:
        own = set(map(id, group))
        if not seen.isdisjoint(own):
            return True
        seen |= own
    return False


def _overlap(groups: Iterable[Sequence[Any]]) -> bool:
    spans = [(*_span(each), place) for place, group in enumerate(groups) for each in group if _is_array(each)]
    reached, owner = 0, -1
    for start, end, place in sorted(spans):
        if start < reached and place != owner:
            return True
        if end > reached:
            reached, owner = end, place
    return False


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def _span(array: Any) -> tuple[int, int]:
    from odibi_async.store.arrays import span

    return span(array)
