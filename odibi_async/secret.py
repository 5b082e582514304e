"""Texts that are passed on but never shown."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

MASK = "**********"


class Secret:
    """
    A text that shows as `**********` wherever it is printed, logged or formatted.

    Two secrets are equal when their texts are; a secret never equals a plain text. Pickling keeps the text.

    Args:
        text: What is to be kept; `reveal()` gives it back.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # 2 ms to import, with hashlib

        return hmac.compare_digest(self._bytes(), other._bytes())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._text,)

    def _bytes(self) -> bytes:
        return self._text.encode("utf-8", "surrogatepass")


def secrets_in(value: Any) -> Iterator[str]:
    """The texts of the secrets in a value, and in the mappings, lists and tuples that it consists of."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from secrets_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from secrets_in(each)


def masked(text: str, secrets: Collection[str]) -> str:
    """The text with `**********` for each of the secrets in it; a longer one goes before those that it contains."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
