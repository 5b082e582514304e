"""Texts that are passed on but never shown."""

from __future__ import annotations

from collections.abc import Iterable

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


def masked(text: str, secrets: Iterable[str]) -> str:
    """The same text with `**********` in place of each secret; give longer ones first where one holds another."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
