"""What a dataset's value is to the engine: whether it is a frame, and what each reader of it gets."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import sys
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final[Any] = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""Stands for a dataset that is not there: not made yet, not made at all, or dropped."""


@dataclass(frozen=True, slots=True)
class EngineOf:
    """
    Stands among a step's params for the context of an engine, which each run brings.

    Attributes:
        name: Which engine; `None` for the one that the run prefers.
    """

    name: str | None


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What the engine knows of one class of values.

    Attributes:
        copied: Gives a reader a copy of its own, cheap enough to take each time.
        rows: Counts the rows, where that is free.
        engine: The engine whose frame (or series) it is; empty for all else.
        refused: Why no dataset can be such a value; empty where one can.
    """

    copied: Callable[[Any], Any] = lambda value: value
    rows: Callable[[Any], int] | None = None
    engine: str = ""
    refused: str = ""


class _Kinds(dict[type, Kind | None]):
    """
    Class -> its kind; `None` for values that are passed on unchanged.

    What was found out is kept for classes that live as long as their modules; others would be kept alive by that.
    """

    def __missing__(self, cls: type) -> Kind | None:
        kind = _kind_of(cls)
        if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls:
            self[cls] = kind
        return kind


NOBODY_AWAITS: Final = "which nobody awaits: await it in an async function."
ONLY_ONCE: Final = "which only one reader could go through, and once: make a list of it."


def _kind_of(cls: type) -> Kind | None:
    if cls in _COPIED:
        return Kind(copied=copy.copy)
    if (cls.__module__, cls.__name__) == ("numpy", "ndarray"):
        return Kind(copied=lambda array: array.copy(order="K") if array.flags.writeable else array)
    if issubclass(cls, (Coroutine, asyncio.Future, concurrent.futures.Future)):
        return Kind(refused=NOBODY_AWAITS)
    if issubclass(cls, (Generator, AsyncGenerator)) or _is_used_up(cls):
        return Kind(refused=ONLY_ONCE)
    names = {(base.__module__.partition(".")[0], base.__name__) for base in cls.__mro__}
    if any(base.__module__ == "pyspark.sql.dataframe" and base.__name__ == "DataFrame" for base in cls.__mro__):
        return Kind(engine="spark")  # it never changes, and counting its rows would be a job
    if names.isdisjoint((("pandas", "DataFrame"), ("pandas", "Series"))):
        return None
    deep = int(sys.modules["pandas"].__version__.split(".")[0]) < 3
    return Kind(copied=lambda frame: frame.copy(deep=deep), rows=len, engine="pandas")


KINDS: Final = _Kinds()
_COPIED: Final = (dict, list, set, bytearray, OrderedDict, defaultdict, Counter, deque)


def _is_used_up(cls: type) -> bool:
    """Whether going through a value uses it up. Files and cursors are what their reader makes of them."""
    is_iterator = hasattr(cls, "__next__") or hasattr(cls, "__anext__")
    return is_iterator and not any(hasattr(cls, name) for name in ("__exit__", "__aexit__", "fetchone"))


class Handle(ABC):
    """Stands in the table of datasets for a value that is not in memory, until somebody reads it."""

    __slots__ = ()

    @property
    @abstractmethod
    def rows(self) -> int | None:
        """How many rows it has; `None` where that is not known, or makes no sense."""

    @property
    def digest(self) -> str | None:
        """The digest of its content; `None` where that is not known."""
        return None

    @property
    def by_path(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """
        A function, and what it is given, that loads the value on any machine; `None` where there is none. Both pickle.

        The function raises `Damaged` when the value is not there.
        """
        return None

    @property
    def live(self) -> Handle | None:
        """Another handle of the same value, in somebody's memory."""
        return None

    def not_there(self) -> None:  # noqa: B027 - most lie at no path
        """Hears that somebody could not load it by its path."""

    @property
    def is_lost(self) -> bool:
        """Whether the value is known to be gone, so that its step has to be called again. Must not block."""
        return False

    @abstractmethod
    async def load(self) -> Any:
        """
        The value itself.

        Raises:
            DataLost: It is gone.
        """


class HandleList(Handle):
    """Stands for the list that a mapped step makes, of which some elements are not in memory."""

    __slots__ = ("elements",)

    def __init__(self, elements: list[Any]) -> None:
        self.elements = elements

    @property
    def rows(self) -> int | None:
        return None

    @property
    def is_lost(self) -> bool:
        return any(isinstance(each, Handle) and each.is_lost for each in self.elements)

    async def load(self) -> list[Any]:
        return [await each.load() if isinstance(each, Handle) else each for each in self.elements]


def is_frame(value: Any) -> bool:
    """Whether a value is a frame or a series of an engine."""
    return bool(engine_of(value))


def engine_of(value: Any) -> str:
    """The name of the engine whose frame a value is; empty for all else."""
    kind = KINDS[type(value)]
    return "" if kind is None else kind.engine


def reader_copy(value: Any) -> Any:
    """
    The value as one reader gets it: what the reader does to it, no other reader sees.

    A frame or series is copied shallowly, which pandas 3 isolates by copy-on-write (13 us whatever the
    size); older versions copy the data. An array is copied, unless it is read-only. A dict, list, set, bytearray or
    one of `collections` is copied; what is nested in it is shared. All else is passed on unchanged.
    """
    kind = KINDS[type(value)]
    return value if kind is None else kind.copied(value)
