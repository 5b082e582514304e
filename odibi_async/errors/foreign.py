"""Errors of anybody: what they say, in whole or in a line, and what stands for one that does not pickle."""

from __future__ import annotations

import os
import re
import weakref


class ErrorStandIn(Exception):
    """
    Stands for an error that does not survive pickling.

    Attributes:
        name: The name of its class.
        text: What it said.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return self.text


def portable(error: BaseException) -> BaseException:
    """The error itself, or a substitute where it does not survive pickling."""
    import pickle  # 5 ms to import, for those who pickle

    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an error is anybody's object: pickling it may raise anything
        pass
    return ErrorStandIn(type(error).__name__, text_of(error))


def in_a_line(error: BaseException) -> str:
    """The class of an error and the first line of its message; of a group, also those of the errors in it."""
    text = text_of(error)
    name = error.name if isinstance(error, ErrorStandIn) else type(error).__name__
    lines = text.splitlines()
    if len(lines) > 1 and lines[1].startswith(": "):  # of an error in Java, the first line only names the call
        lines = [_of_java(text)]
    line = f"{name}: {lines[0]}" if text else name
    if isinstance(error, BaseExceptionGroup):
        line += f" [{'; '.join(map(in_a_line, leaves(error)[:MOST_LEAVES]))}]"
    return line


def _of_java(text: str) -> str:
    """What an error in Java says, and what it came from in the end; waiting for that is not worth telling."""
    parts = re.split(r"^(?:: |Caused by: )", text, flags=re.MULTILINE)[1:]
    said = [" ".join(re.split(r"\n\t|\nDriver stacktrace", part)[0].split()) for part in parts]
    said = [each for each in said if not each.endswith("Exception thrown in awaitResult:")] or said
    return said[0] if said[-1] == said[0] else f"{said[0]} Caused by: {said[-1]}"


MOST_LEAVES = 5
"""How many errors of a group a line names."""


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it, that are no groups; else the error itself."""
    found, ahead = [], [error]
    while ahead:
        each = ahead.pop()
        if isinstance(each, BaseExceptionGroup):
            ahead.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found


_KEPT: dict[int, tuple[weakref.ref[BaseException], str]] = {}


def keep_text(error: BaseException) -> None:
    """
    Keeps what an error says now, for those who ask for its text later.

    For errors that have to ask another process for it, as those of Spark do: the event loop is not to wait for that.
    """
    if not type(error).__weakrefoffset__:  # Python's own errors, whose text is at hand
        return
    place, text = id(error), text_of(error)
    _KEPT[place] = weakref.ref(error, lambda _: _KEPT.pop(place, None)), text


def text_of(error: BaseException) -> str:
    """The text of an error. It may be anybody's class: whatever is wrong with it, there is a text."""
    kept = _KEPT.get(id(error))
    if kept is not None and kept[0]() is error:
        return kept[1]
    try:
        return str(error).strip()
    except BaseException:
        return "(what it says of itself cannot be shown)"


def raised_at(error: BaseException) -> str:
    """The line of the step's own file that raised an error, in parentheses with a space before; empty if unknown."""
    at, line = error.__traceback__, 0
    file = "" if at is None else at.tb_frame.f_code.co_filename
    while at is not None:
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == file else line
        at = at.tb_next
    return f" ({os.path.basename(file)}, line {line})" if file else ""
