"""What local code has added to the classes of libraries, or put in the place of what they had."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

from odibi_async.fingerprint.libraries import PYTHON, library_of

PATCHED: Final = {
    "pandas": """
        pandas.DataFrame pandas.Series pandas.Index pandas.MultiIndex pandas.RangeIndex pandas.DatetimeIndex
        pandas.TimedeltaIndex pandas.PeriodIndex pandas.CategoricalIndex pandas.IntervalIndex pandas.Categorical
        pandas.Timestamp pandas.Timedelta pandas.Period pandas.Interval pandas.api.typing.DataFrameGroupBy
        pandas.api.typing.SeriesGroupBy pandas.api.typing.Resampler pandas.api.typing.Rolling
        pandas.api.typing.Expanding pandas.api.typing.ExponentialMovingWindow pandas.api.typing.Window
        pandas.core.indexing._LocIndexer pandas.core.indexing._iLocIndexer pandas.core.indexing._AtIndexer
        pandas.core.indexing._iAtIndexer pandas.core.strings.accessor.StringMethods
        pandas.core.indexes.accessors.DatetimeProperties pandas.core.indexes.accessors.TimedeltaProperties
        pandas.core.indexes.accessors.PeriodProperties pandas.core.arrays.categorical.CategoricalAccessor
    """,
    "polars": "polars.DataFrame polars.LazyFrame polars.Series polars.Expr",
}
"""Library -> the classes of what flows between steps, which local code likes to add methods to."""
_REFLECTED = "add sub mul truediv floordiv mod pow and or xor matmul"
_HOOKS = "getitem setitem len iter contains bool getattr call"
OPERATORS: Final = frozenset(
    [f"__{name}__" for name in (*dir(operator), *_HOOKS.split()) if not name.startswith("_")]
    + [f"__r{name}__" for name in _REFLECTED.split()]
)
"""Methods that code calls without their names."""


Added = Mapping[str, Sequence[tuple[type, Any]]]
"""Name -> the classes that have a member of that name which is not their library's own, and that member."""


def added() -> Added:
    """What the classes in `PATCHED`, and those that they derive from, have at the moment beside their own."""
    found: dict[str, list[tuple[type, Any]]] = {}
    for library in PATCHED:
        for cls in _patched(library) if library in sys.modules else ():
            for name, member in _added_to(cls):
                found.setdefault(name, []).append((cls, member))
    return found


def patches(
    wanted: Set[str], added: Added, is_local: Callable[[str], bool], named: Iterable[type] = ()
) -> Iterator[tuple[type, str, Any]]:
    """
    The members of libraries' classes that are local code, by a name that code uses or as operators.

    Args:
        wanted: The names that the code takes of whatever, or has in a text.
        added: See above.
        is_local: Whether a module belongs to no library.
        named: The libraries' classes that the code names itself.
    """
    names = wanted | OPERATORS
    members = [(cls, name, member) for name in sorted(names & added.keys()) for cls, member in added[name]]
    for base in dict.fromkeys(base for cls in named for base in cls.__mro__[:-1]):
        members += [(base, name, member) for name, member in _added_to(base) if name in names]
    for cls, name, member in members:
        inner = _inner(member)
        if not (home := home_of(inner)).startswith("pandas.") and is_local(home):
            yield cls, name, inner if isinstance(inner, types.FunctionType | type) else member


def _added_to(cls: type) -> list[tuple[str, Any]]:
    """The members of a class whose code is of another library or of none; looked at again when one is changed."""
    members = list(vars(cls).values())
    known, found = _SEEN.get(cls, ((), []))
    if len(known) != len(members) or not all(map(operator.is_, known, members)):
        homes = ((name, member, home_of(_inner(member))) for name, member in vars(cls).items())
        own = cls.__module__.partition(".")[0]
        found = [(name, member) for name, member, home in homes if library_of(home) not in (own, PYTHON)]
        _SEEN[cls] = members, found
    return found


_SEEN: Final[dict[type, tuple[Sequence[Any], list[tuple[str, Any]]]]] = {}


@functools.cache
def _patched(library: str) -> list[type]:
    """The classes of a library in `PATCHED` that there are, and those that they derive from."""
    found: dict[type, None] = {}
    for path in PATCHED[library].split():
        module, _, name = path.rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name, None)
        except ImportError:
            continue  # of another version
        if isinstance(cls, type):
            found |= dict.fromkeys(cls.__mro__[:-1])
    return [cls for cls in found if not cls.__flags__ & _UNCHANGEABLE]


_UNCHANGEABLE: Final = 1 << 8
"""The flag of classes that nobody can add to."""


def _inner(member: Any) -> Any:
    """The function or class that a member of a class is made of, if it is."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, functools.cached_property | functools.partialmethod):
        return member.func
    return vars(member).get("_accessor", member) if type(member).__name__ == "Accessor" else member


def home_of(value: Any) -> str:
    """The module that a function, a class, or the class of any other value was written in."""
    if isinstance(value, types.FunctionType):
        return str(value.__globals__.get("__name__"))
    module = getattr(value, "__module__", None)
    return str(module if isinstance(module, str) else type(value).__module__)
