"""The cache: what a step gave before, found by what its result depends on."""

from odibi_async.cache.cache import Cache
from odibi_async.cache.entries import Entry, Listed, Miss, Removed

__all__ = ["Cache", "Entry", "Listed", "Miss", "Removed"]
