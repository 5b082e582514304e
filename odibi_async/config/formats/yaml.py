"""
YAML with the meanings of version 1.2 (its core schema), with the line and column of everything in it.

The events come from the C parser; what they mean is decided here, since the library knows the meanings of
version 1.1 only, where `no` is false and `12:30` is 750.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from odibi_async.config.formats.source import MAX_DEPTH, Lines, TextSource, forget
from odibi_async.errors import ConfigError, Fault

MAX_REPEATED = 100_000
"""How many values aliases may repeat in all: ten lines of them can expand to billions."""


TAB = "a tab stands here: YAML is indented with spaces."


def read(text: str, name: str) -> TextSource:
    """
    Raises:
        ConfigError: The text is no YAML, or more than one document.
    """
    lines = Lines(text)
    composer = _Composer()
    value, fatal = None, []
    try:
        value = composer.document(_events(text))
    except yaml.YAMLError as error:
        error, composer = _own(error, text, composer)
        offset = _offset_of(error, text)
        fatal = [(offset, TAB if text[offset : offset + 1] == "\t" else _problem_of(error), "OA101")]
    faults = [Fault(name, lines.place(offset), message, code) for offset, message, code in [*composer.faults, *fatal]]
    if fatal:
        raise ConfigError(faults)
    return TextSource(name, value, faults, composer.spots, lines)


def _events(text: str) -> Iterable[Any]:
    return yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _own(error: yaml.YAMLError, text: str, composer: _Composer) -> tuple[yaml.YAMLError, _Composer]:
    """
    What is wrong with the text before the place where the parser gave up, said by us, if that is its depth.

    The parser has limits of its own (libyaml 0.2.6: 1,000 levels) and reads ahead, so it may stop before it tells of
    what already lies too deep.
    """
    before = _Composer()
    try:
        before.document(_events(text[: _offset_of(error, text)]))
    except _TooDeep as deep:
        return deep, before
    except yaml.YAMLError:  # it is cut off, of course
        pass
    return error, composer


def _offset_of(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError):
        mark: Any = error.problem_mark or error.context_mark
        if error.context_mark and int(mark.index) >= len(text.rstrip()):  # what was never closed: where it was opened
            mark = error.context_mark
        return int(mark.index)
    before = text.encode()[: getattr(error, "position", 0)]  # the C parser counts bytes
    return len(before.decode(errors="ignore"))


def _problem_of(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        parts = [part for part in (error.context, error.problem) if part]
        return f"{': '.join(parts)}."
    return f"{getattr(error, 'reason', error)}."


_TAG = "tag:yaml.org,2002:"
_NO_KEY = object()


class _TooDeep(yaml.MarkedYAMLError):
    """More levels than anybody writes."""


class _Composer:
    """Plain values from events; without recursion, so no depth can exhaust the stack."""

    def __init__(self) -> None:
        self.spots: dict[int, list[int]] = {}
        self.faults: list[tuple[int, str, str]] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._repeated = 0

    def document(self, events: Iterable[Any]) -> Any:
        root: list[Any] = []
        holder: Any = root
        holders: list[tuple[Any, list[int], str | None, int]] = []
        spots: list[int] = []
        key: Any = _NO_KEY
        for event in events:
            kind = event.__class__
            if kind is MappingEndEvent or kind is SequenceEndEvent:
                ended = holder
                holder, spots, anchor, before = holders.pop()
                if anchor is not None:
                    self._anchors[anchor] = (ended, self._count - before)
                continue
            if kind is DocumentStartEvent and root:
                raise _wrong(event, "a second document begins here; a configuration is one document")
            if kind not in _begins:
                continue
            before = self._count
            value = _begins[kind](self, event)
            if holder.__class__ is list:
                holder.append(value)
            elif key is _NO_KEY:
                key = self._key(event, value, holder, spots)
                spots.append(event.start_mark.index)
                continue
            else:
                holder[key] = value
                key = _NO_KEY
            spots.append(event.start_mark.index)
            if kind is MappingStartEvent or kind is SequenceStartEvent:
                holders.append((holder, spots, event.anchor, before))
                holder = value
                spots = self.spots[id(value)] = []
                if len(holders) > MAX_DEPTH:
                    problem = f"lists and mappings are nested more than {MAX_DEPTH} deep"
                    raise _TooDeep(problem=problem, problem_mark=event.start_mark)
        return root[0] if root else None

    def _key(self, event: Any, key: Any, holder: dict[Any, Any], spots: list[int]) -> Any:
        if key.__class__ in (dict, list):
            raise _wrong(event, "a list or a mapping cannot be a key")
        if key in holder:
            self._fault(event, f"{key!r} appears twice in the same mapping.", "OA106")
            forget(holder, spots, key)
        if key == "<<" and event.__class__ is ScalarEvent and event.implicit[0]:
            self._fault(event, "'<<' merges mappings in YAML 1.1 only: put what the steps share under 'defaults'.")
        return key

    def _mapping(self, event: Any) -> dict[Any, Any]:
        self._count += 1
        self._check_tag(event, "map")
        return {}

    def _list(self, event: Any) -> list[Any]:
        self._count += 1
        self._check_tag(event, "seq")
        return []

    def _check_tag(self, event: Any, own: str) -> None:
        if event.tag not in (None, "!", _TAG + own):
            self._fault(event, f"tag {event.tag!r} is not one of YAML's own.")

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise _wrong(event, f"'*{event.anchor}' refers to nothing defined before it")
        value, count = self._anchors[event.anchor]
        self._count += count
        self._repeated += count
        if self._repeated > MAX_REPEATED:
            raise _wrong(event, f"aliases repeat more than {MAX_REPEATED:,} values")
        return value

    def _scalar(self, event: Any) -> Any:
        self._count += 1
        value = event.value
        if event.tag is None:
            if event.implicit[0] and value[:1] in _FIRST_LETTERS:
                value = self._meaning(event)
        elif event.tag not in ("!", _TAG + "str"):
            value = self._tagged(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        return value

    def _tagged(self, event: Any) -> Any:
        kind = _kinds.get(event.tag.removeprefix(_TAG))
        if kind is None or not event.tag.startswith(_TAG):
            self._fault(event, f"tag {event.tag!r} is not one of YAML's own.")
            return event.value
        value = self._meaning(event)
        if kind is float and value.__class__ is int:
            return float(value)
        if value.__class__ is not kind:
            self._fault(event, f"{event.value!r} is not what its tag says.")
        return value

    def _meaning(self, event: Any) -> Any:
        """The value of a plain scalar by the core schema (YAML 1.2.2, 10.3.2); most are texts."""
        text = event.value
        if text in _words:
            return _words[text]
        try:
            if _int(text):
                return int(text)
            if _other_int(text):
                return int(text, 0)
            if _float(text):
                value = float(text)
                if math.isinf(value):
                    self._fault(event, f"{text} is not a finite number.")
                return value
        except ValueError:  # more than 4,300 digits
            self._fault(event, "this number has too many digits.")
        if _no_number(text):
            self._fault(event, f"{text} is not a finite number.")
        return text

    def _fault(self, event: Any, message: str, code: str = "OA107") -> None:
        self.faults.append((event.start_mark.index, message, code))


_begins: dict[type, Callable[[_Composer, Any], Any]] = {
    ScalarEvent: _Composer._scalar,
    AliasEvent: _Composer._alias,
    MappingStartEvent: _Composer._mapping,
    SequenceStartEvent: _Composer._list,
}
_kinds: dict[str, type] = {"null": type(None), "bool": bool, "int": int, "float": float}
_words = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_FIRST_LETTERS = "~nNtTfF+-.0123456789"
"""What begins a plain scalar that may be something else than a text; an empty one is null."""
_int = re.compile("[-+]?[0-9]+").fullmatch
_other_int = re.compile("0o[0-7]+|0x[0-9a-fA-F]+").fullmatch
_float = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?").fullmatch
_no_number = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)").fullmatch


def _wrong(event: Any, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
