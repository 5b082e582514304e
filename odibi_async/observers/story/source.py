"""What a step calls, as text."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Final

LONGEST: Final = 20_000
"""Letters of a source that are shown."""


def source_of(value: Any) -> str:
    """The query, the place or the code of what a step calls; empty where there is none to show."""
    query = getattr(value, "value", None)
    if isinstance(query, str):
        return query[:LONGEST]
    if dataclasses.is_dataclass(value):
        return ""
    try:
        return inspect.getsource(_function(value))[:LONGEST]
    except (OSError, TypeError):
        return ""


def _function(value: Any) -> Callable[..., Any]:
    while hasattr(value, "func") or hasattr(value, "__wrapped__"):
        value = getattr(value, "func", None) or value.__wrapped__
    found: Callable[..., Any] = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    return found
