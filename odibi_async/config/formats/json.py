"""JSON (RFC 8259), with the line and column of everything in it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from odibi_async.config.formats.source import MAX_DEPTH, Lines, TextSource, forget
from odibi_async.errors import ConfigError, Fault


def read(text: str, name: str) -> TextSource:
    """
    Raises:
        ConfigError: The text is no JSON.
    """
    lines = Lines(text)
    scan = _Scan(text)
    try:
        value = scan.document()
    except _NoJson as error:
        scan.faults.append((error.offset, error.message, "OA101"))
        value = None
    faults = [Fault(name, lines.place(offset), message, code) for offset, message, code in scan.faults]
    if value is None and faults:
        raise ConfigError(faults)
    return TextSource(name, value, faults, scan.spots, lines)


class _NoJson(Exception):
    def __init__(self, offset: int, message: str) -> None:
        self.offset = offset
        self.message = message


_scan_once = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # NaN and Infinity are numbers to it
_colon = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_space = re.compile(r"[ \t\n\r]*").match
_closing = {dict: "}", list: "]"}
_surrogate = re.compile("[\ud800-\udfff]")


class _Scan:
    """One pass over a text: structure here, texts and numbers by the scanner of the standard library."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spots: dict[int, list[int]] = {}
        self.faults: list[tuple[int, str, str]] = []
        self._may_have_surrogates = "\\ud" in text.lower()

    def document(self) -> Any:
        """The value of the text; without recursion, so no depth can exhaust the stack."""
        text = self.text
        root: list[Any] = []
        holder: Any = root
        holders: list[Any] = []
        spots: list[int] = []
        key = ""
        at = _skipped(text, 0)
        while True:
            start = at
            value, at = self._value(at)
            spots.append(start)
            if holder.__class__ is dict:
                holder[key] = value
            else:
                holder.append(value)
            at = _skipped(text, at)
            if value.__class__ in _closing:
                holders.append((holder, spots))
                holder = value
                spots = self.spots[id(value)] = []
                if len(holders) > MAX_DEPTH:
                    raise _NoJson(start, f"lists and objects are nested more than {MAX_DEPTH} deep.")
                if not text.startswith(_closing[value.__class__], at):
                    if value.__class__ is dict:
                        key, at = self._key(holder, spots, at)
                    continue
            while holder is not root and text.startswith(_closing[holder.__class__], at):
                holder, spots = holders.pop()
                at = _skipped(text, at + 1)
            if holder is root:
                break
            if not text.startswith(",", at):
                raise _NoJson(at, f"',' or {_closing[holder.__class__]!r} is expected{self._found(at)}.")
            at = _skipped(text, at + 1)
            if holder.__class__ is dict:
                key, at = self._key(holder, spots, at)
        if at < len(text):
            raise _NoJson(at, f"the end of the text is expected{self._found(at)}.")
        return root[0]

    def _value(self, at: int) -> tuple[Any, int]:
        """The value that begins at an offset, and where it ends; of a list or an object only the beginning."""
        if self.text.startswith("{", at):
            return {}, at + 1
        if self.text.startswith("[", at):
            return [], at + 1
        return self._scalar(at)

    def _key(self, holder: dict[str, Any], spots: list[int], at: int) -> tuple[str, int]:
        """The key at an offset, and where its value begins."""
        if not self.text.startswith('"', at):
            raise _NoJson(at, f"a name in double quotes is expected{self._found(at)}.")
        key, end = self._scalar(at)
        if key in holder:
            self.faults.append((at, f"{key!r} stands twice in the same object.", "OA106"))
            forget(holder, spots, key)
        spots.append(at)
        colon = _colon(self.text, end)
        if colon is None:
            end = _skipped(self.text, end)
            raise _NoJson(end, f"':' is expected{self._found(end)}.")
        return key, colon.end()

    def _scalar(self, at: int) -> tuple[Any, int]:
        try:
            value, end = _scan_once(self.text, at)
        except StopIteration:
            raise _NoJson(at, f"a value is expected{self._found(at)}.") from None
        except json.JSONDecodeError as error:
            problem = error.msg.removesuffix(" at")
            raise _NoJson(error.pos, f"{problem[0].lower()}{problem[1:]} here.") from None
        except ValueError:  # a whole number of more than 4,300 digits
            raise _NoJson(at, "this number has too many digits.") from None
        if value.__class__ is float and not math.isfinite(value):
            self.faults.append((at, f"{self.text[at:end]} is not a finite number.", "OA107"))
        if self._may_have_surrogates and value.__class__ is str and _surrogate.search(value):
            self.faults.append((at, "the text holds half of a surrogate pair, which is no character.", "OA107"))
        return value, end

    def _found(self, at: int) -> str:
        return f", not {self.text[at]!r}" if at < len(self.text) else ", but the text ends"


def _skipped(text: str, at: int) -> int:
    """Where the white space that begins at an offset ends."""
    return _space(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
