"""TOML, with the line and the key path of everything in it."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from odibi_async.config.formats.source import MAX_DEPTH, Keys, Source, spelled
from odibi_async.errors import ConfigError, Fault


class TomlSource(Source):
    """A source that knows the line of each `[table]` and each `key = value`."""

    def __init__(self, name: str, value: Any, text: str) -> None:
        super().__init__(name, value)
        self._text = text

    @functools.cached_property
    def _lines(self) -> dict[tuple[Any, ...], int]:
        return dict(_lines_of(self._text))

    def place(self, keys: Keys, of_key: bool = False) -> str:
        around = (tuple(keys[:length]) for length in range(len(keys), 0, -1))
        line = next((self._lines[path] for path in around if path in self._lines), 1)
        return f"{line}: {spelled(keys)}" if keys else str(line)


def read(text: str, name: str) -> TomlSource:
    """
    Raises:
        ConfigError: The text is no TOML.
    """
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place, problem = _told(str(error), text)
        raise ConfigError([Fault(name, place, problem, "OA101")]) from None
    except RecursionError:
        raise ConfigError([Fault(name, "", _TOO_DEEP, "OA107")]) from None
    except ValueError:  # the library hands on what int() raises
        raise ConfigError([Fault(name, "", "there is a number with too many digits.", "OA107")]) from None
    source = TomlSource(name, value, text)
    source.faults += [source.fault("OA107", keys, message) for keys, message in _refused(value)]
    if any(fault.message == _TOO_DEEP for fault in source.faults):
        raise ConfigError(source.faults)
    return source


_TOO_DEEP = f"arrays and tables are nested more than {MAX_DEPTH} deep."


def _told(message: str, text: str) -> tuple[str, str]:
    """The place and the problem that an error of the library tells of in one text."""
    problem, _, where = message.removesuffix(")").rpartition(" (at ")
    found = re.fullmatch("line ([0-9]+), column ([0-9]+)", where)
    place = f"{found[1]}:{found[2]}" if found else str(text.count("\n") + 1)
    return place, f"{problem[0].lower()}{problem[1:]}."


def _refused(value: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """The values that TOML knows and a configuration does not."""
    left: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while left:
        keys, value = left.pop()
        if isinstance(value, dict | list):
            if len(keys) > MAX_DEPTH:
                yield keys[:1], _TOO_DEEP
                continue
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            left += [((*keys, key), each) for key, each in inner if isinstance(each, dict | list | float)]
        elif isinstance(value, float) and not math.isfinite(value):
            yield keys, f"{value} is not a finite number."


_key_part = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\]|\\.)*")|'([^']*)')[ \t]*(\.?)""").match
_piece = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*'|\#[^\n]*|[\[{]|[\]}]|\n|[^"'\#\[\]{}\n]+''',
    re.DOTALL,
).match


def _lines_of(text: str) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The path and the line of each table and each key of a text that is known to be TOML."""
    counts: dict[tuple[Any, ...], int] = {}
    table: tuple[Any, ...] = ()
    at, line, after_line = 0, 1, 0
    while at < len(text):
        line += text.count("\n", after_line, at)
        after_line = at
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _end_of_statement(text, at)
        elif text[at] == "[":
            is_array = text.startswith("[[", at)
            names, end = _key(text, at + 1 + is_array)
            table = _indexed(names, counts, is_array)
            yield table, line
            at = _end_of_statement(text, end + 1 + is_array)
        else:
            names, end = _key(text, at)
            yield from ((table + names[:length], line) for length in range(1, len(names) + 1))
            at = _end_of_statement(text, end)


def _key(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The parts of a dotted key, and where it ends."""
    names: list[str] = []
    while True:
        part = _key_part(text, at)
        if part is None:
            return tuple(names), at + 1
        bare, quoted, literal, dot = part.groups()
        names.append(bare or (tomllib.loads(f"x={quoted}")["x"] if quoted else literal))
        at = part.end()
        if not dot:
            return tuple(names), at


def _indexed(names: tuple[str, ...], counts: dict[tuple[Any, ...], int], is_array: bool) -> tuple[Any, ...]:
    """The path of a table, with the index of the last element of each array of tables on the way."""
    path: tuple[Any, ...] = ()
    for name in names[:-1]:
        path += (name,)
        if path in counts:
            path += (counts[path] - 1,)
    path += names[-1:]
    if is_array:
        counts[path] = counts.get(path, 0) + 1
        path += (counts[path] - 1,)
    return path


def _end_of_statement(text: str, at: int) -> int:
    """The end of the line on which the value that is begun ends."""
    depth = 0
    while at < len(text):
        piece = _piece(text, at)
        found = piece[0] if piece else text[at]
        if found == "\n" and depth == 0:
            break
        depth += (found in ("[", "{")) - (found in ("]", "}"))
        at += len(found)
    return at
