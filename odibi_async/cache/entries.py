"""What the cache has of a step, and of its own upkeep."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from odibi_async.errors import Damaged
from odibi_async.store.kept import Kept


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
        is_shared: Whether the datasets are in the directory that machines share.
    """

    key: str
    step: str
    kept: tuple[Kept, ...]
    tags: tuple[str, ...] = ()
    stored_at: float = field(default_factory=time.time)
    cost: float = 0.0
    is_shared: bool = False


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
        return sum(kept.bytes for kept in self.entry.kept)


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


def entry_text(entry: Entry) -> str:
    members = {name: getattr(entry, name) for name in ("step", "tags", "stored_at", "cost")}
    return json.dumps(members | {"kept": [kept.to_json() for kept in entry.kept]})


def entry_of(key: str, text: str, *, is_shared: bool = False) -> Entry:
    try:
        members = json.loads(text) | {"is_shared": is_shared}
        kept = tuple(map(Kept.from_json, members["kept"]))
        entry = Entry(**members | {"key": key, "kept": kept, "tags": tuple(members["tags"])})
    except (ValueError, TypeError, KeyError):
        raise Damaged("its row in the index cannot be read.") from None
    if not isinstance(entry.step, str) or not {type(entry.stored_at), type(entry.cost)} <= {int, float}:
        raise Damaged("its row in the index cannot be read.")
    return entry
