"""
The cache: what a step gave before, found by the step's key. A hit always equals a recompute.

A key is the digest of all that a step's result depends on; `fingerprint.py` makes it. Here a key leads to an `Entry`,
which says where each dataset of the step is (`store.py`). What is damaged is a miss with a reason, never an exception
and never a wrong value.

Everything here blocks, and is safe to call from several threads; any number of processes may share a directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from odibi_async.cache.entries import Entry, Listed, Miss, Removed
from odibi_async.cache.leases import Flight, Lease
from odibi_async.cache.rows import STEP, Rows
from odibi_async.cache.shared import Shared
from odibi_async.cache.upkeep import figures, pruned, removed, verified
from odibi_async.cache.uses import Uses
from odibi_async.errors import CacheUnavailable, Damaged, OptionError
from odibi_async.secret import Secret
from odibi_async.store.kept import Kept
from odibi_async.store.store import Store

FLUSHED: Final = 60.0
"""Seconds between two times that hits and misses are written to the index."""

_UNITS: Final = {
    "": 1,
    **{f"{letter}{i}": (1024 if i else 1000) ** n for n, letter in enumerate("KMGT", 1) for i in ("", "I")},
}


T = TypeVar("T")


class Cache:
    """
    Keeps what steps gave, in a directory.

    Making one touches no disk: the directory is made, with mode 0700, when it is needed first. Whoever may write to
    it decides what is found in it, but runs no code by it.

    Args:
        directory: `None` for the user's cache directory.
        size_limit: Bytes, or text such as `"10GB"`, above which the least recently used entries are removed.
        ttl: Seconds for which an entry is good; `None` for ever. A policy's own wins.
        pickle: `"never"`, or `"signed"`: values that no other rule keeps are pickled, and signed with the secret.
        secret: What signs pickles.
        shared: A directory under the same path on the workers of a cluster: what their steps make is kept and found
            there by the workers themselves. The index and the locks stay in `directory`. Nothing there is ever pruned.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        size_limit: int | str = "10GB",
        ttl: float | None = None,
        pickle: Literal["never", "signed"] = "never",
        secret: Secret | str | bytes | None = None,
        shared: str | os.PathLike[str] | None = None,
    ) -> None:
        _check_ttl(ttl)
        self.directory = _users_directory() if directory is None else Path(directory)
        self.size_limit = _bytes_of(size_limit)
        self.ttl = ttl
        self.store = Store(self.directory, pickle=pickle, secret=secret)
        self.shared = None if shared is None else Shared(shared)
        self._lock = threading.Lock()
        self._rows = Rows(self.directory, self.store)
        self._leasing = threading.Lock()
        self._lease: Lease | None = None
        self._uses = Uses()
        self._flush_at = time.monotonic() + FLUSHED

    @property
    def trouble(self) -> str | None:
        """Why the index could not be used, or what was lost; `None` when all is well."""
        return self._rows.trouble

    # What a run does

    def lookup(self, key: str, ttl: float | None = None, *, step: str | None = None) -> Entry | Miss:
        """
        The entry of a key, whose datasets are there with their lengths; their bytes are checked on loading.

        Args:
            key: Digest of all that the step's result depends on.
            ttl: Seconds for which the entry is good; `None` for the cache's own.
            step: Name of the step, under which a miss is counted.
        """
        found = self._rows.found(key, self.ttl if ttl is None else ttl)
        if isinstance(found, Miss) and self.shared is not None:
            there = self.shared.found(key, self.ttl if ttl is None else ttl)
            found = there if isinstance(there, Entry) or found.reason == "new" else found
        if isinstance(found, Entry):
            used = {} if found.is_shared else {key: (1, time.time())}
            self._count(Uses(entries=used, hits=Counter((found.step,))))
        elif step is not None:
            self._count(Uses(misses=Counter((step,))))
        if time.monotonic() > self._flush_at:
            self.flush()
        return found

    def load(self, entry: Entry, position: int = 0) -> Any:
        """
        One of an entry's datasets.

        Args:
            entry: What `lookup` found.
            position: The dataset's place among the step's outputs.

        Raises:
            Damaged: It cannot be had. The entry is forgotten, so that the step can be computed and recorded again.
        """
        return self._believed(entry, self._store_of(entry).load, position)

    def paths(self, entry: Entry, position: int) -> tuple[list[Path], bytes]:
        """
        The files of one of an entry's datasets that its engine wrote, and what is needed to read them.

        Raises:
            Damaged: See `load`.
        """
        return self._believed(entry, self.store.paths, position)

    def _believed(self, entry: Entry, read: Callable[[Kept], T], position: int) -> T:
        try:
            return read(entry.kept[position])
        except Damaged:
            if entry.is_shared and self.shared is not None:
                self.shared.forget(entry.key)
            else:
                self._rows.forget([entry.key])
            raise

    def _store_of(self, entry: Entry) -> Store:
        return self.store if self.shared is None or not entry.is_shared else self.shared.store

    def record(self, entry: Entry, parts: Mapping[str, str], reason: str = "") -> None:
        """
        Keeps an entry whose datasets are in the store.

        Args:
            entry: Replaces what its key had.
            parts: What the key was made of: in words (`the code of clean`, `the param 'limit'`) -> digest. `why`
                compares the next key of this step with them.
            reason: Why it had to be computed, for `explain`.

        Raises:
            CacheUnavailable: The index cannot be written to now.
            OSError: Nor can the shared directory.
        """
        if entry.is_shared and self.shared is not None:
            self.shared.record(entry)
        self._rows.record(entry, parts, reason)
        self._count(Uses(written=0 if entry.is_shared else sum(kept.bytes for kept in entry.kept)))

    def why(self, step: str, parts: Mapping[str, str]) -> str:
        """What differs between these parts and the last that were recorded for the step, in a few words."""
        try:
            last = self._rows.about(step)["parts"]
        except CacheUnavailable as error:
            return str(error)
        if not last:
            return "new step"
        changed = [name for name in parts if name in last and parts[name] != last[name]]
        added = [name for name in parts if name not in last]
        gone = [name for name in last if name not in parts]
        said = [
            _said(changed, "changed", "changed"),
            _said(added, "is new", "are new"),
            _said(gone, "is gone", "are gone"),
        ]
        return ", ".join(filter(None, said)) or "evicted"

    def explain(self, step: str) -> dict[str, Any] | None:
        """
        What is known of a step that was computed with this cache; `None` where it never was.

        Returns:
            `step`; `computed_at`, when that was last, in seconds since the epoch; `reason`, why it was;
            `depends_on`, what its key was made of then, in words; `hits`, `misses` and `entries` (keys).
        """
        self.flush()
        about = next((each for each in _told(self._rows.abouts) if each["step"] == step and each["parts"]), None)
        if about is None:
            return None
        return {
            "step": step,
            "computed_at": about["at"],
            "reason": about["reason"],
            "depends_on": sorted(about["parts"]),
            "hits": about["hits"],
            "misses": about["misses"],
            "entries": [each.entry.key for each in self.entries() if each.entry.step == step],
        }

    def flight(self, key: str) -> Flight:
        """What at most one process holds at a time for this key, while it computes it."""
        return Flight(self.directory / "locks" / f"{key}.lock")

    def lease(self) -> contextlib.AbstractContextManager[object]:
        """
        Protects what is found from now on, until the context ends or its process dies: `prune` and `clear` leave it.

        A run holds one. Where there can be none, because nothing can be written, nothing can be removed either.
        """
        with self._leasing:
            lease = self._lease
            if lease is None or not lease.holders or time.monotonic() > lease.joined_until:
                try:
                    lease = self._lease = Lease(self.store.lease(), self._leasing)
                except OSError:
                    return contextlib.nullcontext()
            lease.holders += 1
            return lease

    def flush(self) -> None:
        """
        Writes hits and misses to the index, and prunes when much was recorded since that was done last.

        Where the index cannot be written to, they are counted on.
        """
        uses = self._take_uses()
        if uses == Uses():
            return
        try:
            written = self._rows.add(uses, self.size_limit / 20)
        except CacheUnavailable:
            self._count(uses)
            return
        if written > self.size_limit / 20:
            self.prune()

    def close(self) -> None:
        """Flushes, and closes the files. The next call opens them again."""
        self.flush()
        self._rows.close()
        self.store.close()

    # What its owner does

    def stats(self) -> dict[str, Any]:
        """
        Figures on all that the directory holds.

        `entries`, `bytes`, `hits`, `misses`, `hit_rate` (0 to 1), and `steps`: name -> the same of one step.
        """
        listed = self.entries()
        abouts = {about["step"]: about for about in _told(self._rows.abouts) if about["step"]}
        steps: dict[str, dict[str, Any]] = {}
        for name in sorted({*abouts, *(each.entry.step for each in listed)}):
            own = [each for each in listed if each.entry.step == name]
            steps[name] = figures(own, [abouts.get(name, STEP)])
        return figures(listed, abouts.values()) | {"steps": steps}

    def entries(self) -> list[Listed]:
        """All sound entries, the most recently used first."""
        self.flush()
        return sorted(_told(self._rows.listed), key=lambda each: each.used_at, reverse=True)

    def invalidate(self, *, step: str | None = None, key: str | None = None, tag: str | None = None) -> int:
        """Forgets the entries that fit all that is given; their number. Their files go with the next `prune`."""
        if step is None and key is None and tag is None:
            raise OptionError("invalidate: step=, key= or tag= is needed; clear() forgets everything.")

        def fits(entry: Entry) -> bool:
            named = step in (None, entry.step) and key in (None, entry.key)
            return named and (tag is None or tag in entry.tags)

        return self._rows.forget([each.entry.key for each in self.entries() if fits(each.entry)])

    def clear(self) -> Removed:
        """Forgets everything, and removes every file that no living run may be reading."""
        self._take_uses()
        try:
            keys = self._rows.keys()
            self._rows.index().clear()
        except CacheUnavailable:
            return Removed()
        return removed(self.store, len(keys), self.store.leased_since(), needed=set())

    def prune(self) -> Removed:
        """
        Removes the entries that are older than the cache's `ttl`, then the least recently used ones until the rest fits
        the `size_limit`, and the files that no entry needs. What a living run may be reading stays.

        While the index cannot be read and written to, everything stays: it alone tells what is needed.
        """
        self.flush()
        return pruned(self._rows, self.store, self.ttl, self.size_limit)

    def verify(self) -> Removed:
        """Reads everything, and removes what is damaged."""
        return verified(self._rows, self.store)

    # Counting

    def _count(self, uses: Uses) -> None:
        with self._lock:
            self._uses.add(uses)

    def _take_uses(self) -> Uses:
        with self._lock:
            uses, self._uses = self._uses, Uses()
            self._flush_at = time.monotonic() + FLUSHED
        return uses


def _told(ask: Callable[[], list[T]]) -> list[T]:
    """What the index tells; nothing when it cannot be used, and `trouble` says why."""
    try:
        return ask()
    except CacheUnavailable:
        return []


def _said(names: list[str], one: str, several: str) -> str:
    """`the param 'limit' changed`; of more than three names the rest are counted."""
    if not names:
        return ""
    told = list(names if len(names) <= 3 else names[:2])
    if len(names) > 3:
        told.append(f"{len(names) - 2} more")
    *first, last = told
    return f"{', '.join(first)} and {last} {several}" if first else f"{last} {one}"


def _check_ttl(ttl: float | None) -> None:
    if ttl is not None and not ttl > 0:
        raise OptionError(f"ttl={ttl!r}: seconds above 0 are needed, or None for ever.")


def _bytes_of(size: int | str) -> int:
    """Bytes; `"10GB"` are 10 to the power of 9 each, `"10GiB"` 2 to the power of 30."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?i?)b", str(size), re.IGNORECASE)
    if found is None or found[2].upper() not in _UNITS:
        raise OptionError(f"size_limit={size!r}: a number of bytes is needed, or text such as '10GB' or '500MB'.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _users_directory() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("odibi_async", appauthor=False)
