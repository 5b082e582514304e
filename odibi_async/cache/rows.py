"""The rows of the index as objects."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from odibi_async.cache.entries import Entry, Listed, Miss, entry_of, entry_text
from odibi_async.cache.uses import Uses
from odibi_async.errors import CacheUnavailable, Damaged
from odibi_async.store.store import Store

if TYPE_CHECKING:
    from odibi_async.cache.index import Index


_USE: Final = {"hits": 0, "used_at": 0.0}


STEP: Final[dict[str, Any]] = {"step": "", "parts": {}, "reason": "", "at": 0.0, "hits": 0, "misses": 0}


_WRITTEN: Final = {"bytes": 0}
"""Members of the rows that count and explain, of which nothing is known yet."""


class Rows:
    """
    The rows of a cache's index as objects.

    Args:
        directory: That of the cache.
        store: Where the datasets of entries lie.
    """

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self._store = store
        self._lock = threading.Lock()
        self._opened: Index | None = None

    @property
    def trouble(self) -> str | None:
        """Why the index could not be used, or what was lost; `None` when all is well."""
        return None if self._opened is None else self._opened.trouble

    def index(self) -> Index:
        """The index, opened when it is needed first."""
        with self._lock:
            if self._opened is None:
                from odibi_async.cache.index import DiskIndex

                self._opened = DiskIndex(self._directory / "index")
            return self._opened

    def found(self, key: str, ttl: float | None) -> Entry | Miss:
        """The entry of a key, if it is sound and good for so many seconds."""
        try:
            text = self.index().get(_entry_row(key))
            if text is None:
                return Miss("new")
            entry = entry_of(key, text)
            if self.is_expired(entry, ttl):
                return Miss("expired")
            if not all(map(self._store.has, entry.kept)):
                raise Damaged("one of its files is missing, or has another length.")
        except Damaged as error:
            self.forget([key])
            return Miss(f"damaged: {error}")
        except CacheUnavailable as error:
            return Miss(str(error))
        return entry

    @staticmethod
    def is_expired(entry: Entry, ttl: float | None) -> bool:
        """Also what was stored in the future: by a clock that was wrong, so that its age is not known."""
        return ttl is not None and not 0 <= time.time() - entry.stored_at < ttl

    def forget(self, keys: list[str]) -> int:
        """Forgets entries and their hits in one transaction; their number, 0 when the index cannot be written to."""
        index = self.index()
        try:
            with index.transaction():
                for key in keys:
                    index.remove(_entry_row(key))
                    index.remove(_use_row(key))
        except CacheUnavailable:
            return 0
        return len(keys)

    def listed(self) -> list[Listed]:
        """The sound entries; those that are not are forgotten."""
        found = []
        for key in self.keys():
            try:
                text = self.index().get(_entry_row(key))
                if text is not None:
                    found.append(self._with_use(entry_of(key, text)))
            except Damaged:
                self.forget([key])
        return found

    def keys(self) -> list[str]:
        """The keys of all entries."""
        return [name.removeprefix("entry/") for name in self.index().names("entry/")]

    def _with_use(self, entry: Entry) -> Listed:
        use = self._members(_use_row(entry.key), _USE)
        return Listed(entry=entry, hits=use["hits"], used_at=max(entry.stored_at, use["used_at"]))

    def about(self, step: str) -> dict[str, Any]:
        """What is known of a step: its last parts, its hits and misses."""
        return self._members(_step_row(step), STEP) | {"step": step}

    def abouts(self) -> list[dict[str, Any]]:
        """What is known of all steps."""
        return [self._members(name, STEP) for name in self.index().names("step/")]

    def _members(self, name: str, otherwise: Mapping[str, Any]) -> dict[str, Any]:
        """
        The members of a row that counts or explains.

        Without a sound row, or where a member is of another type, they are those of `otherwise`.
        """
        try:
            found = json.loads(self.index().get(name) or "{}")
        except (Damaged, ValueError):
            found = {}
        if not isinstance(found, dict):
            found = {}
        return {
            each: found[each] if type(found.get(each)) is type(value) else value for each, value in otherwise.items()
        }

    def add(self, uses: Uses, most: float) -> int:
        """Adds to the rows; the bytes that all processes wrote since the last prune, counted anew above `most`."""
        index = self.index()
        with index.transaction():
            for key, (hits, used_at) in uses.entries.items():
                hits += self._members(_use_row(key), _USE)["hits"]
                index.put(_use_row(key), json.dumps({"hits": hits, "used_at": used_at}))
            for step in {*uses.hits, *uses.misses}:
                about = self.about(step)
                about |= {"hits": about["hits"] + uses.hits[step], "misses": about["misses"] + uses.misses[step]}
                index.put(_step_row(step), json.dumps(about))
            written: int = self._members("written", _WRITTEN)["bytes"] + uses.written
            index.put("written", json.dumps({"bytes": 0 if written > most else written}))
        return written

    def record(self, entry: Entry, parts: Mapping[str, str], reason: str) -> None:
        """Keeps an entry, unless it lies elsewhere, and what its key was made of."""
        index = self.index()
        with index.transaction():
            if not entry.is_shared:
                index.put(_entry_row(entry.key), entry_text(entry))
            about = self.about(entry.step) | {"parts": dict(parts), "reason": reason, "at": entry.stored_at}
            index.put(_step_row(entry.step), json.dumps(about))

    def close(self) -> None:
        """Closes the index; the next call opens it again."""
        with self._lock:
            index, self._opened = self._opened, None
        if index is not None:
            index.close()


def _entry_row(key: str) -> str:
    return f"entry/{key}"


def _use_row(key: str) -> str:
    return f"use/{key}"


def _step_row(step: str) -> str:
    """Names of steps may be any text; names of rows may not."""
    from blake3 import blake3

    return f"step/{blake3(step.encode('utf-8', 'surrogatepass')).hexdigest()}"
