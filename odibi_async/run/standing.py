"""Where the code of a task stands, seen from another thread."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NamedTuple

from odibi_async.place import PLACE, Place

_ENGINE: Final = __name__.partition(".")[0]
_INSTALLED: Final = frozenset(("site-packages", "dist-packages"))


def place_of(task: asyncio.Task[Any]) -> Place | None:
    """The call of a step that a task is part of; `None` where it is none."""
    if sys.version_info >= (3, 12):
        context = task.get_context()
    else:  # a task does not tell, but the garbage collector does
        context = next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)
    return None if context is None else context.get(PLACE)


class Line(NamedTuple):
    """A line of code that is under way."""

    file: str
    number: int
    is_engine: bool


@dataclass(slots=True, eq=False)
class Hold:
    """
    A step that holds the loop.

    Attributes:
        step: The name of the step.
        since: When it was first seen to hold it, in seconds of `perf_counter`.
        lines: The lines of its code that were under way, the innermost first.
        until: When it was first seen that it no longer does.
    """

    step: str
    since: float
    lines: Sequence[Line]
    until: float | None = None

    def end(self, at: float) -> float:
        """How many seconds it held the loop, which it no longer does, at the latest at this time."""
        if self.until is None:
            self.until = at
        return self.until - self.since

    @property
    def where(self) -> tuple[str, int]:
        """
        The file and the line where it stood: in the user's code, not in a library that this called.

        Where no code of the user's was under way, the outermost line of the library that the engine called.
        """
        called = [line for line in self.lines if not line.is_engine] or self.lines
        own = next((line for line in called if not _is_library(line.file)), None)
        found = own or (called[-1] if called else Line("<unknown>", 0, True))
        return found.file, found.number


def lines_of(thread: int, task: asyncio.Task[Any]) -> list[Line]:
    """
    The lines of a task that are under way in a thread, the innermost first.

    The thread is not stopped: it goes on when whoever looks at it has had the interpreter's lock for 5 ms
    (`sys.getswitchinterval`), or gives it away.
    """
    return [Line(frame.f_code.co_filename, frame.f_lineno or 0, _is_engine(frame)) for frame in _frames(thread, task)]


def _frames(thread: int, task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task, the innermost first; those that called the event loop are none of its."""
    frame = sys._current_frames().get(thread)
    outermost = getattr(task.get_coro(), "cr_frame", None)
    while frame is not None:
        yield frame
        frame = None if frame is outermost else frame.f_back


def _is_engine(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")  # code that the engine has made has none
    return name is None or name == _ENGINE or str(name).startswith(f"{_ENGINE}.")


def _is_library(file: str) -> bool:
    if file.startswith("<frozen"):
        return True
    path = file if os.path.isabs(file) else os.path.abspath(file)
    return path.startswith(_standard()) or not _INSTALLED.isdisjoint(path.split(os.sep))


@functools.cache
def _standard() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(os.path.join(paths[name], "") for name in ("stdlib", "platstdlib"))
