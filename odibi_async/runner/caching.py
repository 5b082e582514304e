"""What a runner has to do with caches: which one a run uses, and what their runs share."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from odibi_async.abc import FrameKeeper
from odibi_async.graph.graph import Graph
from odibi_async.run.composition import Inside
from odibi_async.run.layers import Guest
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.options import Caching, check_cache
from odibi_async.store import Store

if TYPE_CHECKING:
    from odibi_async.cache.for_run import Caches


class Cached(NamedTuple):
    """What makes a cache's layer of a run, and the store of that cache."""

    layer: Callable[[Inside], Guest]
    store: Store


class Remembering:
    """
    The caches of a runner.

    Args:
        own: The cache of runs that name no other.
        grace: Seconds that a cancelled run waits for an answer.
    """

    def __init__(self, own: Caching, grace: float) -> None:
        self._own = check_cache(own)
        self._grace = grace
        self._caches: Caches | None = None

    def asked(self, *caching: Caching) -> Caching:
        """The first that is given, else the runner's own."""
        return check_cache(next((each for each in (*caching, self._own) if each is not None), None))

    async def cached(self, caching: Caching, graph: Graph, keeper: FrameKeeper | None) -> Cached | None:
        """A run with this cache. Whoever has none never loads what they need."""
        if caching is None or caching is False:
            return None
        if self._caches is None:  # those who have a cache wait 50 ms, once
            await in_a_thread(importlib.import_module, "odibi_async.cache.layer")
        from odibi_async.cache.for_run import Caches
        from odibi_async.cache.layer import CacheLayer

        self._caches = self._caches or Caches(self._grace)
        cache = self._caches.for_run(caching, graph, keeper)
        return Cached(functools.partial(CacheLayer, cache), cache.store)

    def leave(self) -> None:
        """Forgets what belongs to another loop."""
        self._caches = None

    async def close(self) -> None:
        """Closes those that are open."""
        if self._caches is not None:
            await self._caches.close()
