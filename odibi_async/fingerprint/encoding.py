"""
Plain values as bytes, and how bytes are hashed.

Every value becomes an encoding that says where it ends: the exact type, then either the content itself (`=`, its
length, the bytes) or, where that is long or made of parts, a BLAKE3 digest of it (`#`, 32 bytes).
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import struct
import uuid
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

from blake3 import blake3

SLICE: Final = 1 << 20
"""Bytes that one call hashes at most, so that no call holds other threads up."""
ROWS: Final = 16_384
"""Cells that are looked at in one go."""
SHORT: Final = 1_024
"""Bytes up to which a content is used as it is instead of its digest."""

Digesting = Generator[tuple[Any, str, Any], bytes, bytes]
"""
Encodes a value made of others: yields each with the place it has (a template and what fills it), is sent its
encoding, and returns its own.
"""


class Undigestible(Exception):  # it is no error: who catches it goes on without a digest
    """
    A value has no content that could be digested.

    Attributes:
        what: Which one, as a path: `params['x']`, `the value, column 'a', row 3`.
        why: What is in the way; with `what` before it, a sentence.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what} {self.why}"


def module_of(cls: type) -> str:
    """The module that a class says it is from; empty when what it says is no text."""
    return cls.__module__ if isinstance(cls.__module__, str) else ""


def type_name(cls: type) -> str:
    """What people call a class: with its module, unless it is a builtin one."""
    module = module_of(cls)
    return cls.__qualname__ if module in ("builtins", "") else f"{module}.{cls.__qualname__}"


def shown(key: Any) -> str:
    """A key or label as a path shows it: plain ones in short, others by their type."""
    if type(key) in (int, float, bool, type(None)):
        return str(key)
    if type(key) is not str:
        return f"a {type_name(type(key))}"
    return repr(key if len(key) <= 60 else key[:59] + "…")


def text(content: str) -> bytes:
    """A text and where it ends."""
    raw = content.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def header(cls: type) -> bytes:
    """The exact type of a value, at the start of its encoding."""
    return text(module_of(cls)) + text(cls.__qualname__)


def feed(hasher: blake3, content: Any) -> None:
    """Hashes bytes, or anything contiguous, a slice at a time."""
    view = memoryview(content)
    if not view.nbytes:
        return
    octets = view.cast("B")
    for start in range(0, len(octets), SLICE):
        hasher.update(octets[start : start + SLICE])


def hashed(parts: Iterable[bytes]) -> bytes:
    """The digest of encodings one after the other; how many there are is for the caller to add."""
    hasher, waiting = blake3(), []
    for part in parts:
        waiting.append(part)
        if len(waiting) == ROWS:
            hasher.update(b"".join(waiting))
            waiting.clear()
    hasher.update(b"".join(waiting))
    return hasher.digest()


def leaf(head: bytes, content: bytes | bytearray) -> bytes:
    """The encoding of a value that is one run of bytes."""
    size = struct.pack("<Q", len(content))
    if len(content) <= SHORT:
        return b"".join((head, b"=", size, content))
    hasher = blake3(size)
    feed(hasher, content)
    return sealed(head, hasher.digest())


def sealed(head: bytes, digest: bytes) -> bytes:
    """The encoding of a value that is represented by its digest."""
    return head + b"#" + digest


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _delta(value: datetime.timedelta) -> bytes:
    return struct.pack("<iii", value.days, value.seconds, value.microseconds)


def _naive(value: Any) -> bytes:
    """The fields of a time without those of its time zone."""
    return f"{value.replace(tzinfo=None).isoformat()} {value.fold}".encode()


def _sequence(numbers: Iterable[int]) -> bytes:
    return b"".join(LEAVES[int](number) for number in numbers)


CONTENTS: Final[dict[type, Callable[[Any], bytes | bytearray]]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    bool: lambda value: b"\1" if value else b"\0",
    int: _integer,
    float: struct.Struct("<d").pack,
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
    bytearray: bytes,
    decimal.Decimal: lambda value: str(value).encode(),
    fractions.Fraction: lambda value: _sequence((value.numerator, value.denominator)),
    datetime.date: lambda value: value.isoformat().encode(),
    datetime.timedelta: _delta,
    uuid.UUID: lambda value: value.bytes,
    range: lambda value: _sequence((value.start, value.stop, value.step)),
}
"""Type -> the bytes of its values: for types whose values are immutable (but for `bytearray`) and whole in them."""


def _encoder(cls: type, content: Callable[[Any], bytes | bytearray]) -> Callable[[Any], bytes]:
    head = header(cls)
    return lambda value: leaf(head, content(value))


LEAVES: Final[dict[type, Callable[[Any], bytes]]] = {cls: _encoder(cls, content) for cls, content in CONTENTS.items()}
"""Exact type -> what encodes its values."""


def moment(value: Any) -> Digesting:
    """A `datetime` or a `time`, with its time zone and fold."""
    zone = yield value.tzinfo, "'s time zone", None
    return leaf(header(type(value)), _naive(value) + zone)
