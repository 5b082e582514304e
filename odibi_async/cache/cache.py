"""
The cache: what a step gave before, found by the step's key. A hit always equals a recompute.

A key is the digest of all that a step's result depends on; `fingerprint.py` makes it. Here a key leads to an `Entry`,
which says where each dataset of the step is (`store.py`). What is damaged is a miss with a reason, never an exception
and never a wrong value.

Everything here blocks, and is safe to call from several threads; any number of processes may share a directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from odibi_async.errors import CacheUnavailable, Damaged, OptionError
from odibi_async.secret import Secret
from odibi_async.store.store import Beacon, Kept, Store, file_lock, try_lock

if TYPE_CHECKING:
    import filelock

    from odibi_async.cache.index import Index

GRACE: Final = 60.0
"""Seconds after its last use for which nothing is pruned, whether or not a lease protects it."""

SHARED: Final = 60.0
"""Seconds for which runs that begin join the lease of the first of them: each lease is an open file."""

FLUSHED: Final = 60.0
"""Seconds between two times that hits and misses are written to the index."""

_UNITS: Final = {
    "": 1,
    **{f"{letter}{i}": (1024 if i else 1000) ** n for n, letter in enumerate("KMGT", 1) for i in ("", "I")},
}

_USE: Final = {"hits": 0, "used_at": 0.0}
_STEP: Final[dict[str, Any]] = {"step": "", "parts": {}, "reason": "", "at": 0.0, "hits": 0, "misses": 0}
_WRITTEN: Final = {"bytes": 0}
"""Members of the rows that count and explain, of which nothing is known yet."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    What a step gave.

    Attributes:
        key: Digest of all that the result depends on.
        step: Name of the step.
        kept: Where each dataset is, in the order of the step's outputs.
        tags: The step's tags.
        stored_at: When, in seconds since the epoch.
        cost: Seconds that the step took.
    """

    key: str
    step: str
    kept: tuple[Kept, ...]
    tags: tuple[str, ...] = ()
    stored_at: float = field(default_factory=time.time)
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Miss:
    """
    Nothing is found.

    Attributes:
        reason: `new`, `expired`, `damaged: ...`, or why the cache cannot be used.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """
    An entry, and how it is used.

    Attributes:
        entry: The entry.
        hits: How often it was found.
        used_at: When it was last found or stored, in seconds since the epoch.
    """

    entry: Entry
    hits: int
    used_at: float

    @property
    def size(self) -> int:
        """Bytes of its datasets."""
        return sum(kept.size for kept in self.entry.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """
    What was removed.

    Attributes:
        entries: Entries.
        blobs: Files.
        bytes: Bytes of these files.
        damaged: A sentence on each entry or file that was removed because it was damaged.
    """

    entries: int = 0
    blobs: int = 0
    bytes: int = 0
    damaged: tuple[str, ...] = ()


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
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        size_limit: int | str = "10GB",
        ttl: float | None = None,
        pickle: Literal["never", "signed"] = "never",
        secret: Secret | str | bytes | None = None,
    ) -> None:
        _check_ttl(ttl)
        self.directory = _users_directory() if directory is None else Path(directory)
        self.size_limit = _bytes_of(size_limit)
        self.ttl = ttl
        self.store = Store(self.directory, pickle=pickle, secret=secret)
        self._lock = threading.Lock()
        self._opened: Index | None = None
        self._leasing = threading.Lock()
        self._lease: _Lease | None = None
        self._uses = _Uses()
        self._flush_at = time.monotonic() + FLUSHED

    @property
    def trouble(self) -> str | None:
        """Why the index could not be used, or what was lost; `None` when all is well."""
        return None if self._opened is None else self._opened.trouble

    # What a run does

    def lookup(self, key: str, ttl: float | None = None, *, step: str | None = None) -> Entry | Miss:
        """
        The entry of a key, whose datasets are there with their lengths; their bytes are checked on loading.

        Args:
            key: Digest of all that the step's result depends on.
            ttl: Seconds for which the entry is good; `None` for the cache's own.
            step: Name of the step, under which a miss is counted.
        """
        found = self._found(key, self.ttl if ttl is None else ttl)
        if isinstance(found, Entry):
            self._count(_Uses(entries={key: (1, time.time())}, hits=Counter((found.step,))))
        elif step is not None:
            self._count(_Uses(misses=Counter((step,))))
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
        try:
            return self.store.load(entry.kept[position])
        except Damaged:
            self._forget([entry.key])
            raise

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
        """
        index = self._index()
        with index.transaction():
            index.put(_entry_row(entry.key), _entry_text(entry))
            about = self._about(entry.step)
            index.put(
                _step_row(entry.step),
                json.dumps(about | {"parts": dict(parts), "reason": reason, "at": entry.stored_at}),
            )
        self._count(_Uses(written=sum(kept.size for kept in entry.kept)))

    def why(self, step: str, parts: Mapping[str, str]) -> str:
        """What differs between these parts and the last that were recorded for the step, in a few words."""
        try:
            last = self._about(step)["parts"]
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
        about = next((each for each in _told(self._abouts) if each["step"] == step and each["parts"]), None)
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
                    lease = self._lease = _Lease(self.store.lease(), self._leasing)
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
        if uses == _Uses():
            return
        try:
            written = self._add(uses)
        except CacheUnavailable:
            self._count(uses)
            return
        if written > self.size_limit / 20:
            self.prune()

    def close(self) -> None:
        """Flushes, and closes the files. The next call opens them again."""
        self.flush()
        with self._lock:
            index, self._opened = self._opened, None
        if index is not None:
            index.close()
        self.store.close()

    # What its owner does

    def stats(self) -> dict[str, Any]:
        """
        Figures on all that the directory holds.

        `entries`, `bytes`, `hits`, `misses`, `hit_rate` (0 to 1), and `steps`: name -> the same of one step.
        """
        listed = self.entries()
        abouts = {about["step"]: about for about in _told(self._abouts) if about["step"]}
        steps: dict[str, dict[str, Any]] = {}
        for name in sorted({*abouts, *(each.entry.step for each in listed)}):
            own = [each for each in listed if each.entry.step == name]
            steps[name] = _figures(own, [abouts.get(name, _STEP)])
        return _figures(listed, abouts.values()) | {"steps": steps}

    def entries(self) -> list[Listed]:
        """All sound entries, the most recently used first."""
        self.flush()
        return sorted(_told(self._listed), key=lambda each: each.used_at, reverse=True)

    def invalidate(self, *, step: str | None = None, key: str | None = None, tag: str | None = None) -> int:
        """Forgets the entries that fit all that is given; their number. Their files go with the next `prune`."""
        if step is None and key is None and tag is None:
            raise OptionError("invalidate: step=, key= or tag= is needed; clear() forgets everything.")

        def fits(entry: Entry) -> bool:
            named = step in (None, entry.step) and key in (None, entry.key)
            return named and (tag is None or tag in entry.tags)

        return self._forget([each.entry.key for each in self.entries() if fits(each.entry)])

    def clear(self) -> Removed:
        """Forgets everything, and removes every file that no living run may be reading."""
        self._take_uses()
        try:
            keys = self._keys()
            self._index().clear()
        except CacheUnavailable:
            return Removed()
        return self._removed(len(keys), self.store.leased_since(), needed=set())

    def prune(self) -> Removed:
        """
        Removes the entries that are older than the cache's `ttl`, then the least recently used ones until the rest fits
        the `size_limit`, and the files that no entry needs. What a living run may be reading stays.

        While the index cannot be read and written to, everything stays: it alone tells what is needed.
        """
        self.flush()
        used = {name: used_at for name, _, used_at in self.store.blobs()}
        try:
            listed = [_with_blobs(each, used) for each in self._listed()]
        except CacheUnavailable:
            return Removed()
        safe = min(self.store.leased_since(), time.time() - GRACE)
        old = {each.entry.key for each in listed if self._is_expired(each.entry, self.ttl)}
        listed = [each for each in listed if each.entry.key not in old]
        old |= _too_many(listed, self.size_limit, safe)
        if self._forget(sorted(old)) < len(old):
            return Removed()
        needed = {kept.blob for each in listed if each.entry.key not in old for kept in each.entry.kept}
        return self._removed(len(old), safe, needed)

    def verify(self) -> Removed:
        """Reads everything, and removes what is damaged."""
        said: list[str] = []
        count = size = 0
        for blob, length, _ in self.store.blobs():
            if not self.store.is_sound(blob) and self.store.discard(blob):
                said.append(f"blob {blob[:12]}: its bytes are not those that were written.")
                count, size = count + 1, size + length
        try:
            before, listed = len(self._keys()), self._listed()
        except CacheUnavailable:
            before, listed = 0, []
        lost = [each.entry for each in listed if not all(map(self.store.has, each.entry.kept))]
        said += [f"an entry of step {entry.step!r}: one of its files is missing." for entry in lost]
        said += ["an entry: its row in the index is not what was written."] * (before - len(listed))
        self._forget([entry.key for entry in lost])
        return Removed(entries=before - len(listed) + len(lost), blobs=count, bytes=size, damaged=tuple(said))

    # Rows

    def _index(self) -> Index:
        with self._lock:
            if self._opened is None:
                from odibi_async.cache.index import DiskIndex

                self._opened = DiskIndex(self.directory / "index")
            return self._opened

    def _found(self, key: str, ttl: float | None) -> Entry | Miss:
        try:
            text = self._index().get(_entry_row(key))
            if text is None:
                return Miss("new")
            entry = _entry_of(key, text)
            if self._is_expired(entry, ttl):
                return Miss("expired")
            if not all(map(self.store.has, entry.kept)):
                raise Damaged("one of its files is missing, or has another length.")
        except Damaged as error:
            self._forget([key])
            return Miss(f"damaged: {error}")
        except CacheUnavailable as error:
            return Miss(str(error))
        return entry

    @staticmethod
    def _is_expired(entry: Entry, ttl: float | None) -> bool:
        """Also what was stored in the future: by a clock that was wrong, so that its age is not known."""
        return ttl is not None and not 0 <= time.time() - entry.stored_at < ttl

    def _forget(self, keys: list[str]) -> int:
        """Forgets entries and their hits in one transaction; their number, 0 when the index cannot be written to."""
        index = self._index()
        try:
            with index.transaction():
                for key in keys:
                    index.remove(_entry_row(key))
                    index.remove(_use_row(key))
        except CacheUnavailable:
            return 0
        return len(keys)

    def _listed(self) -> list[Listed]:
        """The sound entries; those that are not are forgotten."""
        found = []
        for key in self._keys():
            try:
                text = self._index().get(_entry_row(key))
                if text is not None:
                    found.append(self._with_use(_entry_of(key, text)))
            except Damaged:
                self._forget([key])
        return found

    def _keys(self) -> list[str]:
        return [name.removeprefix("entry/") for name in self._index().names("entry/")]

    def _with_use(self, entry: Entry) -> Listed:
        use = self._members(_use_row(entry.key), _USE)
        return Listed(entry=entry, hits=use["hits"], used_at=max(entry.stored_at, use["used_at"]))

    def _about(self, step: str) -> dict[str, Any]:
        """What is known of a step: its last parts, its hits and misses."""
        return self._members(_step_row(step), _STEP) | {"step": step}

    def _abouts(self) -> list[dict[str, Any]]:
        return [self._members(name, _STEP) for name in self._index().names("step/")]

    def _members(self, name: str, otherwise: Mapping[str, Any]) -> dict[str, Any]:
        """
        The members of a row that counts or explains.

        Without a sound row, or where a member is of another type, they are those of `otherwise`.
        """
        try:
            found = json.loads(self._index().get(name) or "{}")
        except (Damaged, ValueError):
            found = {}
        if not isinstance(found, dict):
            found = {}
        return {
            each: found[each] if type(found.get(each)) is type(value) else value for each, value in otherwise.items()
        }

    def _count(self, uses: _Uses) -> None:
        with self._lock:
            self._uses.add(uses)

    def _take_uses(self) -> _Uses:
        with self._lock:
            uses, self._uses = self._uses, _Uses()
            self._flush_at = time.monotonic() + FLUSHED
        return uses

    def _add(self, uses: _Uses) -> int:
        """Adds to the rows; the bytes that all processes wrote since the last prune."""
        index = self._index()
        with index.transaction():
            for key, (hits, used_at) in uses.entries.items():
                hits += self._members(_use_row(key), _USE)["hits"]
                index.put(_use_row(key), json.dumps({"hits": hits, "used_at": used_at}))
            for step in {*uses.hits, *uses.misses}:
                about = self._about(step)
                about |= {"hits": about["hits"] + uses.hits[step], "misses": about["misses"] + uses.misses[step]}
                index.put(_step_row(step), json.dumps(about))
            written: int = self._members("written", _WRITTEN)["bytes"] + uses.written
            index.put("written", json.dumps({"bytes": 0 if written > self.size_limit / 20 else written}))
        return written

    def _removed(self, entries: int, safe: float, needed: set[str]) -> Removed:
        """Removes the files that are not needed and were not used since `safe`."""
        count = size = 0
        for blob, length, used_at in self.store.blobs():
            if blob not in needed and used_at < safe and self.store.discard(blob):
                count, size = count + 1, size + length
        return Removed(entries=entries, blobs=count, bytes=size)


def _told(ask: Callable[[], list[T]]) -> list[T]:
    """What the index tells; nothing when it cannot be used, and `trouble` says why."""
    try:
        return ask()
    except CacheUnavailable:
        return []


class Flight:
    """
    A lock between processes that dies with its holder: whoever has it computes, the others look again when it is free.

    Both methods block for some 100 us. Where there can be no lock, everybody has it: computing twice is no error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: filelock.BaseFileLock | None = None

    def try_acquire(self) -> bool:
        """Whether it is held from now on; asked again only while it is not."""
        try:
            os.makedirs(self._path.parent, 0o700, exist_ok=True)
            self._lock = file_lock(self._path)
            return try_lock(self._lock)
        except OSError:
            self._lock = None
            return True

    def release(self) -> None:
        """Lets another have it. The file is removed while locked: who had opened it finds it gone, and asks again."""
        lock, self._lock = self._lock, None
        if lock is not None and lock.is_locked:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            lock.release()


@dataclass(slots=True, eq=False)
class _Lease:
    """
    A lease that several runs may hold.

    Attributes:
        beacon: Tells other processes of it.
        lock: Held while the holders are counted.
        holders: How many there are; after the last one the beacon is out.
        joined_until: When the last may join, on the monotonic clock.
    """

    beacon: Beacon
    lock: threading.Lock
    holders: int = 0
    joined_until: float = field(default_factory=lambda: time.monotonic() + SHARED)

    def __enter__(self) -> _Lease:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.holders -= 1
            if not self.holders:
                self.beacon.out()


@dataclass(slots=True)
class _Uses:
    """
    What was found, missed and written since the index was told last.

    Attributes:
        entries: Key -> hits, and the time of the last one.
        hits: Name of a step -> hits.
        misses: Name of a step -> misses.
        written: Bytes of the datasets that were recorded.
    """

    entries: dict[str, tuple[int, float]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    written: int = 0

    def add(self, others: _Uses) -> None:
        for key, (hits, used_at) in others.entries.items():
            own, own_used_at = self.entries.get(key, (0, 0.0))
            self.entries[key] = own + hits, max(own_used_at, used_at)
        self.hits += others.hits
        self.misses += others.misses
        self.written += others.written


def _entry_row(key: str) -> str:
    return f"entry/{key}"


def _use_row(key: str) -> str:
    return f"use/{key}"


def _step_row(step: str) -> str:
    """Names of steps may be any text; names of rows may not."""
    from blake3 import blake3

    return f"step/{blake3(step.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _entry_text(entry: Entry) -> str:
    members = {name: getattr(entry, name) for name in ("step", "tags", "stored_at", "cost")}
    return json.dumps(members | {"kept": [kept.to_json() for kept in entry.kept]})


def _entry_of(key: str, text: str) -> Entry:
    try:
        members = json.loads(text)
        kept = tuple(map(Kept.from_json, members["kept"]))
        entry = Entry(**members | {"key": key, "kept": kept, "tags": tuple(members["tags"])})
    except (ValueError, TypeError, KeyError):
        raise Damaged("its row in the index cannot be read.") from None
    if not isinstance(entry.step, str) or not {type(entry.stored_at), type(entry.cost)} <= {int, float}:
        raise Damaged("its row in the index cannot be read.")
    return entry


def _said(names: list[str], one: str, several: str) -> str:
    """`the param 'limit' changed`; of more than three names the rest are counted."""
    if not names:
        return ""
    told = list(names if len(names) <= 3 else names[:2])
    if len(names) > 3:
        told.append(f"{len(names) - 2} more")
    *first, last = told
    return f"{', '.join(first)} and {last} {several}" if first else f"{last} {one}"


def _figures(listed: list[Listed], abouts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    counted = [(about["hits"], about["misses"]) for about in abouts]
    hits, misses = (sum(each) for each in zip((0, 0), *counted, strict=True))
    sizes = {kept.blob: kept.size for each in listed for kept in each.entry.kept}
    return {
        "entries": len(listed),
        "bytes": sum(sizes.values()),
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / (hits + misses) if hits + misses else 0.0,
    }


def _with_blobs(listed: Listed, used: Mapping[str, float]) -> Listed:
    """The times of the files are up to date; those in the index are what the processes have told it so far."""
    return replace(listed, used_at=max(listed.used_at, *(used.get(kept.blob, 0.0) for kept in listed.entry.kept), 0.0))


def _too_many(listed: list[Listed], limit: int, safe: float) -> set[str]:
    """Keys of the least recently used entries without which the rest fits the limit; none used since `safe`."""
    needed = Counter(kept.blob for each in listed for kept in each.entry.kept)
    sizes = {kept.blob: kept.size for each in listed for kept in each.entry.kept}
    total = sum(sizes.values())
    keys = set()
    for each in sorted(listed, key=lambda each: each.used_at):
        if total <= limit or each.used_at >= safe:
            break
        keys.add(each.entry.key)
        for kept in each.entry.kept:
            needed[kept.blob] -= 1
            total -= 0 if needed[kept.blob] else kept.size
    return keys


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
