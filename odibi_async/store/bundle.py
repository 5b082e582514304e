"""Several runs of bytes as one: plain lines, and the frames and arrays that they refer to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

_ALIGNED: Final = 64
"""Each part begins at a multiple of so many bytes, as arrays and Arrow like it."""


def dump(content: bytes, parts: Iterable[tuple[str, list[Any]]]) -> list[Any]:
    """The bytes of lines and of parts (a kind and its pieces), in pieces that share their memory."""
    pieces: list[Any] = []
    lengths: list[tuple[str, int]] = []
    for kind, content_of_part in (("", [content]), *parts):
        views = [memoryview(piece).cast("B") for piece in content_of_part if len(piece)]
        length = sum(map(len, views))
        lengths.append((kind, length))
        pieces += [*views, bytes(-length % _ALIGNED)]
    table = json.dumps(lengths).encode()
    table += b" " * (-(8 + len(table)) % _ALIGNED)
    return [len(table).to_bytes(8, "little"), table, *pieces]


def parse(data: Any) -> tuple[bytes, list[tuple[str, Any]]]:
    """The lines, and the kind and bytes of each part; they use the memory of `data`."""
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    found: list[tuple[str, Any]] = []
    for kind, length in json.loads(data[8:start].tobytes()):
        found.append((kind, data[start : start + length]))
        start += length + -length % _ALIGNED
    (_, content), *parts = found
    return content.tobytes(), parts
