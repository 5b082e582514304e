"""Where the code of a task stands, seen from another thread."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, Final

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


def standing(thread: int, task: asyncio.Task[Any]) -> tuple[str, int]:
    """
    The file and the line where a task that runs in a thread stands: in the user's code, not in a library that it calls.

    Where no code of the user's is under way, the outermost line of the library that the engine called.
    """
    found = [(frame.f_code, frame.f_lineno or 0) for frame in _frames(thread, task)]
    called = [each for each in found if not _is_engine(each[0])] or found
    own = next((each for each in called if not _is_library(each[0].co_filename)), None)
    code, line = own or (called[-1] if called else (_nowhere, 0))
    return code.co_filename, line


def _frames(thread: int, task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task, the innermost first; those that called the event loop are none of its."""
    frame = sys._current_frames().get(thread)
    outermost = getattr(task.get_coro(), "cr_frame", None)
    while frame is not None:
        yield frame
        frame = None if frame is outermost else frame.f_back


def _is_engine(code: CodeType) -> bool:
    return os.path.abspath(code.co_filename).startswith(_package())


def _is_library(file: str) -> bool:
    if file.startswith("<frozen"):
        return True
    path = os.path.abspath(file)
    return path.startswith(_standard()) or not _INSTALLED.isdisjoint(path.split(os.sep))


@functools.cache
def _package() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(sys.modules[_ENGINE].__file__ or "")), "")


@functools.cache
def _standard() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(os.path.join(paths[name], "") for name in ("stdlib", "platstdlib"))


_nowhere = compile("", "<unknown>", "exec")
