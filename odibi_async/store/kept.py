"""What the store knows of a value that it keeps."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from odibi_async.errors import Damaged
from odibi_async.store.blobs import is_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """
    Where a value is, and what it must look like.

    Attributes:
        digest: Digest of the value's content, as the caller gave it.
        kind: How its bytes are read: `frame`, `series`, `index`, `table`, `npy`, `read-only npy`, `text`, `bytes`,
            `json`, `bundle`, `pickle`; `spark` for files of that engine, of which the inline bytes say the schema.
        blob: BLAKE3 of its bytes, in hex; the name of its file when it has one.
        size: Its bytes.
        inline: The bytes themselves when they are few; `None` when they are a file.
        rows: Rows of a frame, a series or a table; `None` for all else.
        parts: The files of a frame that its engine wrote: BLAKE3 and bytes of each, in order.
    """

    digest: str
    kind: str
    blob: str
    size: int
    inline: bytes | None = None
    rows: int | None = None
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def files(self) -> dict[str, int]:
        """The files that it needs, by name, with their bytes; what is inline counts under its own name."""
        return {self.blob: self.size, **dict(self.parts)}

    @property
    def bytes(self) -> int:
        """Its bytes in all."""
        return self.size + sum(size for _, size in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The members as JSON has them."""
        inline = None if self.inline is None else b64encode(self.inline).decode("ascii")
        return {name: getattr(self, name) for name in self.__slots__} | {"inline": inline}

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Kept:
        """
        What `to_json` gave.

        Raises:
            Damaged: The members are not what `to_json` gives.
        """
        try:
            inline = None if members["inline"] is None else b64decode(members["inline"], validate=True)
            parts = tuple((name, size) for name, size in members.get("parts", ()))
            kept = cls(**members | {"inline": inline, "parts": parts})
        except (TypeError, ValueError, KeyError):
            raise Damaged("its description cannot be read.") from None
        files = ((kept.blob, kept.size), *kept.parts)
        if not (all(is_name(n) and type(s) is int and s >= 0 for n, s in files) and isinstance(kept.digest, str)):
            raise Damaged("its description cannot be read.")
        return kept
