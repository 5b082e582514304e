"""A mapping that is made when somebody looks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LazyMapping(Mapping[K, V]):
    """
    A mapping that is made the first time that somebody looks, and stays as it is then. Pickling makes it too.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Mapping[K, V]]) -> None:
        self._make: Callable[[], Mapping[K, V]] | None = make

    @functools.cached_property
    def _made(self) -> Mapping[K, V]:
        assert self._make is not None
        made, self._make = self._make(), None
        return made

    def __getitem__(self, key: K) -> V:
        return self._made[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return repr(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self._made),)
