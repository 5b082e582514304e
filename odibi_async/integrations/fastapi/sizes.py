"""How much memory a dataset takes, about."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any, Final

LOOKED_AT: Final = 100
"""Elements of a list or a mapping that the others are judged by."""


def bytes_of(value: Any) -> int:
    """Bytes that a value takes, about: of frames and arrays what they say, of lists judged by their first elements."""
    try:
        return _bytes_of(value, 3)
    except Exception:  # of the value's own code: what cannot be measured is no reason to lose a run
        return object.__sizeof__(value)


def _bytes_of(value: Any, depth: int) -> int:
    usage = getattr(value, "memory_usage", None)
    if callable(usage):
        found = usage()
        return int(found if isinstance(found, int) else found.sum()) + _objects_of(value)
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    if depth and isinstance(value, list | tuple | set | dict):
        elements = list(islice(value.items() if isinstance(value, dict) else value, LOOKED_AT))
        inside = sum(_bytes_of(each, depth - 1) for each in elements)
        return sys.getsizeof(value) + inside * len(value) // max(1, len(elements))
    return sys.getsizeof(value)


def _objects_of(frame: Any) -> int:
    """What the objects in a frame's columns take, which it counts as the places where they stand."""
    kinds = getattr(frame, "dtypes", None)
    if type(frame).__name__ != "DataFrame" or kinds is None:
        return 0
    looked_at = frame.iloc[:LOOKED_AT, [place for place, kind in enumerate(kinds) if str(kind) == "object"]]
    inside = sum(sys.getsizeof(each) for column in looked_at.to_numpy() for each in column)
    return inside * len(frame) // max(1, len(looked_at))
