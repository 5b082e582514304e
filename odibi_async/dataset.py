"""What a dataset's value is to the engine: whether it is a frame, and what each reader of it gets."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final[Any] = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""Stands for a dataset that is not there: not made yet, not made at all, or dropped."""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What the engine knows of one class of values.

    Attributes:
        copied: Gives a reader a copy of its own, cheap enough to take each time.
        rows: Counts the rows; `None` where there are none.
    """

    copied: Callable[[Any], Any]
    rows: Callable[[Any], int] | None = None


def kind_of(value: Any) -> Kind | None:
    """What is known of the class of this value; `None` for those that are handed on as they are."""
    cls = type(value)
    try:
        return _kinds[cls]
    except KeyError:
        kind = _kinds[cls] = _pandas_kind(cls)
        return kind


def reader_copy(value: Any) -> Any:
    """
    The value as one reader gets it: what the reader does to it, no other reader sees.

    A frame or series is copied shallowly, which pandas 3 isolates by copy-on-write (13 us whatever the
    size); older versions copy the data. A dict, list, set or bytearray is copied; what is nested in it is
    shared. All else is handed on as it is.
    """
    kind = kind_of(value)
    return value if kind is None else kind.copied(value)


def rows_of(value: Any) -> int | None:
    """The number of rows of a frame or a series, else `None`."""
    kind = kind_of(value)
    return None if kind is None or kind.rows is None else kind.rows(value)


_plain = Kind(copied=copy.copy)
_kinds: dict[type, Kind | None] = dict.fromkeys((dict, list, set, bytearray), _plain)
_kinds |= dict.fromkeys((type(None), bool, int, float, str, bytes, tuple))


def _pandas_kind(cls: type) -> Kind | None:
    """The kind of a pandas frame or series, or of a subclass; pandas itself is never imported for it."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not issubclass(cls, (pandas.DataFrame, pandas.Series)):
        return None
    deep = int(pandas.__version__.split(".")[0]) < 3
    return Kind(copied=lambda frame: frame.copy(deep=deep), rows=len)
