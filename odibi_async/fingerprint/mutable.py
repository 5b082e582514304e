"""Whether whoever is given a value could change it in place."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import sys
import types
import zoneinfo
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, Final

from odibi_async.dataset import engine_of
from odibi_async.fingerprint.encoding import CONTENTS, ROWS, Undigestible, module_of
from odibi_async.fingerprint.values import state_of
from odibi_async.secret import Secret

IMMUTABLE: Final = (set(CONTENTS) - {bytearray}) | {
    datetime.datetime,
    datetime.time,
    datetime.timezone,
    zoneinfo.ZoneInfo,
    Secret,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
}
"""Exact types whose values never change; those of functions, classes and modules nobody is expected to change."""


def is_mutable(value: Any) -> bool:
    """
    Whether a function that got the value could change it in place, so that its digest would change.

    Frames count as immutable from pandas 3 on, as long as no cell of theirs is mutable: whoever is handed a
    shallow copy writes to a copy of the data.
    """
    return next(mutables_in(value), None) is not None


def mutables_in(value: Any) -> Iterator[Any]:
    """All that could be changed in place of a value, itself included, outermost first."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) in IMMUTABLE or id(value) in seen:
            continue
        seen.add(id(value))
        inner = _inside(value)
        if inner is None:
            yield value
            inner = _held_by(value)
        waiting += inner


def _inside(value: Any) -> Iterable[Any] | None:
    """What an immutable value holds; `None` for a mutable one."""
    cls = type(value)
    if issubclass(cls, Path):  # the file counts, which others may write
        return None
    if issubclass(cls, type | enum.Enum | PurePath):
        return ()
    if cls in (tuple, frozenset, slice):
        return (value.start, value.stop, value.step) if cls is slice else value
    params = vars(cls).get("__dataclass_params__")  # its own: what derives from a frozen class need not be
    if params is not None and params.frozen:
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    library = module_of(cls).partition(".")[0]
    if library == "pyarrow" or engine_of(value) == "spark":
        return ()
    if library == "numpy":
        return () if isinstance(value, sys.modules["numpy"].generic) and value.dtype.kind != "V" else None
    if library == "pandas":
        return _inside_pandas(value)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple(value)
    return None


def _held_by(value: Any) -> Iterable[Any]:
    """What a mutable value holds that may be mutable, too."""
    held: list[Any] = []
    if isinstance(value, dict):
        held = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | deque):
        held = list(value)
    elif module_of(type(value)) == "numpy":
        held = value.reshape(-1).tolist() if value.dtype.kind == "O" else []
    with contextlib.suppress(Undigestible):  # what hides its attributes has no digest, and is not asked about further
        held += [each for _, each in state_of(value)]
    return [each for each in held if type(each) not in IMMUTABLE]


def _inside_pandas(value: Any) -> Iterable[Any] | None:
    import pandas as pd

    from odibi_async.fingerprint.frames import COPIES_ON_WRITE, objects_in

    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return _unlike(objects_in(value)) if COPIES_ON_WRITE or isinstance(value, pd.Index) else None
    return None if isinstance(value, pd.api.extensions.ExtensionArray) else ()


def _unlike(columns: Iterable[Any]) -> Iterable[Any]:
    """The cells that are not plainly immutable; a chunk at a time, so that other threads run on."""
    for column in columns:
        for start in range(0, len(column), ROWS):
            chunk = column[start : start + ROWS].tolist()
            if not IMMUTABLE.issuperset(map(type, chunk)):
                yield from (cell for cell in chunk if type(cell) not in IMMUTABLE)
