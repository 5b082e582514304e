"""What local code has added to the classes of libraries, or put in the place of what they had."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

PATCHED: Final = {
    "pandas": """
        pandas.DataFrame pandas.Series pandas.Index pandas.MultiIndex pandas.DatetimeIndex pandas.Categorical
        pandas.Timestamp pandas.Timedelta pandas.Interval pandas.api.typing.DataFrameGroupBy
        pandas.api.typing.SeriesGroupBy pandas.api.typing.Resampler pandas.api.typing.Rolling
        pandas.api.typing.Expanding
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


def patches(
    attributes: frozenset[str], is_local: Callable[[str], bool], named: Iterable[type] = ()
) -> Iterator[types.FunctionType | type]:
    """
    The functions and accessors of local code that libraries' classes have, by a name that code uses or as operators.

    Args:
        attributes: The names that the code takes of whatever.
        is_local: Whether a module belongs to no library.
        named: The libraries' classes that the code names itself.
    """
    known = [cls for library in PATCHED if library in sys.modules for cls in _patched(library)]
    of_named = [base for cls in named for base in cls.__mro__[:-1]]
    wanted = attributes | OPERATORS
    for cls in dict.fromkeys([*known, *of_named]):
        members = vars(cls)
        for name in sorted(wanted & members.keys()):
            member: Any = getattr(members[name], "_accessor", members[name])
            if isinstance(member, types.FunctionType | type) and _is_added(home := home_of(member)) and is_local(home):
                yield member


def _is_added(home: str) -> bool:
    """Whether a module is not one of pandas', which nearly all are: asking this first takes a tenth of the time."""
    return not home.startswith("pandas.")


@functools.cache
def _patched(library: str) -> list[type]:
    """The classes of a library in `PATCHED` that there are."""
    found = []
    for path in PATCHED[library].split():
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(module), name, None)
        if isinstance(cls, type):
            found.append(cls)
    return found


def home_of(value: types.FunctionType | type) -> str:
    """The module that a function or class was written in."""
    return str(value.__globals__.get("__name__") if isinstance(value, types.FunctionType) else value.__module__)
