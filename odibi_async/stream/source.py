"""What a stream reads: batches, each with the position behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from blake3 import blake3

from odibi_async.fingerprint.functions import Undigestible, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    What one run of the pipeline is given.

    Attributes:
        data: The value of the dataset `into`.
        position: Where the source goes on behind it: a text, JSON say, that only the source reads. It is committed when
            the run has succeeded.
        content: A digest of the data; empty for a stream to make one.
        watermark: How far the source has come with it: a time, or anything that JSON can hold.
        label: What messages call it: the path of a file, `rows up to 2024-01-31`.
        pending: How much more the source knows of: files, events; `None` where it cannot tell.
        remember: Key -> text, for the source to find in its `Memory` once the batch is committed.
        forget: Keys that are then no longer needed.
        error: Why it could not be read; there is no data then.
        settled: Is called when it is committed or set aside.
    """

    data: Any = None
    position: str
    content: str = ""
    watermark: Any = None
    label: str = ""
    pending: int | None = None
    remember: Mapping[str, str] = field(default_factory=dict)
    forget: tuple[str, ...] = ()
    error: Exception | None = None
    settled: Callable[[], object] = bool

    @property
    def rows(self) -> int | None:
        """How many rows or elements it has; `None` where it has none."""
        is_text = isinstance(self.data, str | bytes | bytearray | Mapping)
        return len(self.data) if isinstance(self.data, Sized) and not is_text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """
    What came too late for any batch.

    Attributes:
        rows: How many rows.
        before: They are before this value.
        position: Where the source goes on; it is committed, so that they are told of once.
    """

    rows: int
    before: Any
    position: str


Found: TypeAlias = Batch | Late


class Memory(Protocol):
    """What the committed batches of a source told a stream to remember."""

    async def get(self, key: str) -> str | None:
        """The text of a key."""

    async def items(self) -> Mapping[str, str]:
        """All keys, with their texts."""


class Source(Protocol):
    """
    Where batches come from. A stream looks through it, again and again, one look after another.

    When the next batch is asked for, the last one is committed or set aside, unless it had an `error`. When a look is
    closed early, its last batch was not: the next look begins at the same position and gives it again.
    """

    async def open(self) -> None:
        """Called once, before the first look."""

    def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Found]:
        """
        What there is behind a position now; then it ends. `None` for the very beginning.

        What it raises is an error of the source as a whole; one part that cannot be read is a `Batch` with `error`.
        """

    async def changed(self) -> bool:
        """Returns when another look may find more; `False` when none ever will."""

    async def close(self) -> None:
        """Called once, after the last look, also when `open` failed."""


def digest_of_batch(batch: Batch) -> str:
    """A digest of the content of a batch and of its position. Blocks."""
    try:
        content = batch.content or digest_of(batch.data, name="the batch", ordered=True)
    except Undigestible:  # its position tells it from others
        content = ""
    hasher = blake3()
    for part in (batch.position, content):
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big") + data)
    return hasher.hexdigest()
