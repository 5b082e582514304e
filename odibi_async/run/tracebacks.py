"""Errors without the frames of the engine, which hold the data of a whole run."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_OURS = ("odibi_async.run.", "odibi_async.executors.", "odibi_async.cache.")
_calling: set[CodeType] = set()


def calls_users_code(function: F) -> F:
    """Marks a function that calls what a user gave: what stands above that call in a traceback is the engine's."""
    _calling.add(function.__code__)
    return function


def freed(error: BaseException) -> BaseException:
    """
    The error itself, which keeps nothing of the run any more: its traceback begins in the user's code.

    The error is anybody's object: it is changed by the descriptors of `BaseException`, never by its own methods.
    """
    first: TracebackType | None = _TRACEBACK.__get__(error)
    entry = first
    while entry is not None:
        if entry.tb_frame.f_code in _calling:
            first = entry.tb_next
        entry = entry.tb_next
    while first is not None and str(first.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        first = first.tb_next
    _TRACEBACK.__set__(error, first)
    if first is None:  # raised by the engine: what it was handling at that moment is of no use to others
        _CONTEXT.__set__(error, None)
    return error
