"""Texts that are passed on but never shown."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator
from types import MappingProxyType, NoneType
from typing import Any, Final

MASK = "**********"
SHORTEST: Final = 8
"""Letters that a line of a secret has at least if it is masked by itself: a brace or a blank is no secret."""
_PASSWORD: Final = re.compile(r"(?<=://)[^/?#\s@]*:[^/?#\s]*(?=@)")
_PLAIN: Final = (str, int, float, bytes, NoneType)
"""What is no secret and contains none."""


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
    """The texts of the secrets in a value, and in the dicts, lists and tuples that it consists of."""
    ahead, seen = [value], set[int]()
    while ahead:
        each = ahead.pop()
        if isinstance(each, Secret):
            yield each.reveal()
        elif isinstance(each, dict | MappingProxyType | list | tuple) and id(each) not in seen:
            seen.add(id(each))  # it may contain itself
            entries = dict(each).values() if isinstance(each, dict | MappingProxyType) else each
            ahead.extend(entry for entry in entries if not isinstance(entry, _PLAIN))


def given_secrets(values: Iterable[Any]) -> tuple[Secret, ...]:
    """The secrets among the inputs of a run."""
    return tuple(Secret(text) for value in values for text in secrets_in(value))


def masked(text: str, secrets: Collection[str]) -> str:
    """
    The text with `**********` for each of the secrets in it, also where it is spelled as in a URL, in JSON or in a
    `repr`. A longer one goes before those that it contains. Of a secret of several lines, such as a key, each line
    is one too, since texts are cut to lines and indented.
    """
    if not secrets:
        return text
    for spelled in sorted({each for secret in secrets for each in _spellings(secret)}, key=len, reverse=True):
        text = text.replace(spelled, MASK)
    return text


def redacted(text: str, secrets: Collection[str]) -> str:
    """The text without secrets, and without the names and passwords of who logs in by a URL."""
    return masked_urls(masked(text, secrets))


def masked_urls(text: str) -> str:
    """The text with `**********` for the name and the password in each URL."""
    return _PASSWORD.sub(MASK, text) if "://" in text else text


@functools.lru_cache(maxsize=256)
def _spellings(secret: str) -> frozenset[str]:
    import json
    from urllib.parse import quote, quote_plus

    lines = {line.strip() for line in secret.splitlines()}
    found = {secret, secret.strip(), *(line for line in lines if len(line) >= SHORTEST)}
    for each in tuple(found):
        found |= {quote(each, safe="", errors="replace"), quote_plus(each, errors="replace")}
        found |= {quote(each, errors="replace"), json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1]}
        found |= {repr(each)[1:-1], ascii(each)[1:-1], repr(each.encode("utf-8", "surrogatepass"))[2:-1]}
    return frozenset(found - {""})
