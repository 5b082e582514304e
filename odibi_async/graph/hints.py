"""Whether what one function returns can ever be what another one takes, by their annotations."""

from __future__ import annotations

import abc
import functools
import inspect
import types
import typing
from typing import Any

_numbers = {int: (float, complex), float: (complex,), bool: (float, complex)}


def hints_of(fn: Any) -> dict[str, Any]:
    """The annotations of a callable as types; those that cannot be resolved are left out."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isclass(fn):
        fn = fn.__init__
    elif not inspect.isroutine(fn):
        fn = getattr(fn, "__call__", fn)  # noqa: B004
    try:
        return typing.get_type_hints(fn)
    except Exception:  # an annotation may be any text, and evaluating it may raise anything
        return {}


def can_fit(made: Any, taken: Any) -> bool:
    """
    Whether a value of type `made` may be passed where `taken` is wanted.

    Only what is certain counts as unfit: two concrete classes of which neither is the other's base.
    Type variables, protocols, abstract classes, `Any` and the like fit all; of `list[int]` only the `list`
    is looked at.
    """
    return any(_class_fits(one, other) for one in _classes(made) for other in _classes(taken))


def _class_fits(made: Any, taken: Any) -> bool:
    if made is None or taken is None or taken in _numbers.get(made, ()):
        return True
    return issubclass(made, taken) or issubclass(taken, made)


def _classes(hint: Any) -> list[type | None]:
    """The concrete classes that a hint allows; `None` means anything."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [cls for part in typing.get_args(hint) for cls in _classes(part)]
    if origin is typing.Annotated:
        return _classes(typing.get_args(hint)[0])
    cls = origin or hint
    if not isinstance(cls, type) or cls is object or _is_open(cls):
        return [None]
    return [cls]


def _is_open(cls: type) -> bool:
    """Whether values of unrelated classes count as instances: abstract classes, protocols, typed dicts."""
    return cls is Any or isinstance(cls, abc.ABCMeta) or typing.is_typeddict(cls)
