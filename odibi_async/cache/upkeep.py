"""Removing what is old, too much, or damaged; figures on the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from odibi_async.cache.entries import Listed, Removed
from odibi_async.cache.rows import Rows
from odibi_async.errors import CacheUnavailable
from odibi_async.store.store import Store

GRACE: Final = 60.0
"""Seconds after its last use for which nothing is pruned, whether or not a lease protects it."""


def figures(listed: list[Listed], abouts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    counted = [(about["hits"], about["misses"]) for about in abouts]
    hits, misses = (sum(each) for each in zip((0, 0), *counted, strict=True))
    sizes = _files(listed)
    return {
        "entries": len(listed),
        "bytes": sum(sizes.values()),
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / (hits + misses) if hits + misses else 0.0,
    }


def _with_blobs(listed: Listed, used: Mapping[str, float]) -> Listed:
    """The times of the files are up to date; those in the index are what the processes have told it so far."""
    return replace(listed, used_at=max(listed.used_at, *(used.get(name, 0.0) for name in _files([listed])), 0.0))


def _files(listed: Iterable[Listed]) -> dict[str, int]:
    """The files that entries need, by name, with their bytes."""
    return {name: size for each in listed for kept in each.entry.kept for name, size in kept.files.items()}


def _too_many(listed: list[Listed], limit: int, safe: float) -> set[str]:
    """Keys of the least recently used entries without which the rest fits the limit; none used since `safe`."""
    needed = Counter(name for each in listed for kept in each.entry.kept for name in kept.files)
    sizes = _files(listed)
    total = sum(sizes.values())
    keys = set()
    for each in sorted(listed, key=lambda each: each.used_at):
        if total <= limit or each.used_at >= safe:
            break
        keys.add(each.entry.key)
        for name in (name for kept in each.entry.kept for name in kept.files):
            needed[name] -= 1
            total -= 0 if needed[name] else sizes[name]
    return keys


def pruned(rows: Rows, store: Store, ttl: float | None, size_limit: int) -> Removed:
    """
    Removes the entries that are older than the cache's `ttl`, then the least recently used ones until the rest fits
    the `size_limit`, and the files that no entry needs. What a living run may be reading stays.

    While the index cannot be read and written to, everything stays: it alone tells what is needed.
    """
    used = {name: used_at for name, _, used_at in store.blobs()}
    try:
        listed = [_with_blobs(each, used) for each in rows.listed()]
    except CacheUnavailable:
        return Removed()
    safe = min(store.leased_since(), time.time() - GRACE)
    old = {each.entry.key for each in listed if rows.is_expired(each.entry, ttl)}
    listed = [each for each in listed if each.entry.key not in old]
    old |= _too_many(listed, size_limit, safe)
    if rows.forget(sorted(old)) < len(old):
        return Removed()
    needed = set(_files(each for each in listed if each.entry.key not in old))
    return removed(store, len(old), safe, needed)


def verified(rows: Rows, store: Store) -> Removed:
    """Reads everything, and removes what is damaged."""
    said: list[str] = []
    count = size = 0
    for blob, length, _ in store.blobs():
        if not store.is_sound(blob) and store.discard(blob):
            said.append(f"blob {blob[:12]}: its bytes are not those that were written.")
            count, size = count + 1, size + length
    try:
        before, listed = len(rows.keys()), rows.listed()
    except CacheUnavailable:
        before, listed = 0, []
    lost = [each.entry for each in listed if not all(map(store.has, each.entry.kept))]
    said += [f"an entry of step {entry.step!r}: one of its files is missing." for entry in lost]
    said += ["an entry: its row in the index is not what was written."] * (before - len(listed))
    rows.forget([entry.key for entry in lost])
    return Removed(entries=before - len(listed) + len(lost), blobs=count, bytes=size, damaged=tuple(said))


def removed(store: Store, entries: int, safe: float, needed: set[str]) -> Removed:
    """Removes the files that are not needed and were not used since `safe`."""
    count, size = store.unneeded(needed, safe)
    return Removed(entries=entries, blobs=count, bytes=size)
