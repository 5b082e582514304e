"""The values of a configuration and their places: what every format is read into."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from odibi_async.errors import ConfigError, Fault, did_you_mean

MAX_DEPTH = 100
"""How deeply lists and mappings may be nested."""

Keys = Sequence[Any]
"""The keys and indices that lead to a value: `("steps", 2, "engine")`."""


class Packing(NamedTuple):
    """
    What is wrong with how an entry is packed.

    Attributes:
        keys: What leads to it within its step.
    """

    code: str
    keys: Keys
    message: str


class Source:
    """
    The values of a configuration: plain mappings, lists, texts and numbers.

    Each format has a subclass that knows how to name its places.

    Attributes:
        name: What its faults call it.
        value: The list of steps, or the mapping that holds it.
        faults: What was found wrong while it was read.
    """

    def __init__(self, name: str, value: Any, faults: Sequence[Fault] = ()) -> None:
        self.name = name
        self.value = value
        self.faults = list(faults)

    def place(self, keys: Keys, of_key: bool = False) -> str:
        """Where a value stands, or (`of_key`) its key; the nearest thing around it when it is not there."""
        return spelled(keys)

    def unpacked(self, index: int, entries: dict[str, Any]) -> tuple[dict[str, Any], list[Packing]]:
        """The entries of a step without any packing (JSON in cells), and what is wrong with that."""
        return entries, []

    def fault(self, code: str, keys: Keys, message: str, of_key: bool = False) -> Fault:
        return Fault(self.name, self.place(keys, of_key), message, code)


class Lines:
    """Turns offsets in a text into `line:column`, both from 1."""

    def __init__(self, text: str) -> None:
        self._ends = [match.end() for match in re.finditer("\n", text)]

    def place(self, offset: int) -> str:
        line = bisect.bisect_right(self._ends, offset)
        start = self._ends[line - 1] if line else 0
        return f"{line + 1}:{offset - start + 1}"


Spots = Mapping[int, Sequence[int]]
"""The id of a list -> the offset of each element; that of a mapping -> the offsets of each key and its value."""


class TextSource(Source):
    """
    A source that knows the line and the column of everything.

    Args:
        spots: See `Spots`.
        lines: Those of its text.
    """

    def __init__(self, name: str, value: Any, faults: Sequence[Fault], spots: Spots, lines: Lines) -> None:
        super().__init__(name, value, faults)
        self._spots = spots
        self._lines = lines

    def place(self, keys: Keys, of_key: bool = False) -> str:
        value, offset = self.value, 0
        for key in keys:
            spots = self._spots.get(id(value), ())
            if isinstance(value, dict) and key in value:
                at = 2 * list(value).index(key)
                offset = spots[at if of_key and key is keys[-1] else at + 1]
            elif isinstance(value, list):
                offset = spots[key]
            else:
                break
            value = value[key]
        return self._lines.place(offset)


def forget(mapping: dict[Any, Any], spots: list[int], key: Any) -> None:
    """Removes a key from a mapping and from its spots: it appears again further on."""
    at = 2 * list(mapping).index(key)
    del mapping[key], spots[at : at + 2]


def spelled(keys: Keys) -> str:
    """Keys as one would write them: `steps[2].params.path`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def text_of(path: Path) -> str:
    """
    The text of a UTF-8 file; a byte order mark is left out.

    Raises:
        ConfigError: There is no such file, it cannot be read, or it holds other bytes.
    """
    check_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([Fault(str(path), "", f"the file cannot be read: {error.strerror}.", "OA401")]) from error
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8. Save the file as UTF-8."
        raise ConfigError([Fault(str(path), "", wrong, "OA101")]) from None


def check_file(path: Path) -> None:
    """
    Raises:
        ConfigError: There is no file of this name; it offers names that are near.
    """
    try:
        if path.is_file():
            return
        message = f"there is no such file.{_near(path)}"
        if path.is_symlink():
            message = f"it is a link to {os.readlink(path)!r}, where nothing is."
        if path.exists():
            message = f"it is {'a folder' if path.is_dir() else 'a device or a pipe'}, not a file."
    except OSError as error:  # a name too long, a folder that is not ours
        message = f"the file cannot be read: {error.strerror}."
    raise ConfigError([Fault(str(path), "", message, "OA401")])


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))
    except (OSError, ValueError):
        return f" There is no folder {str(path.parent)!r} either."
