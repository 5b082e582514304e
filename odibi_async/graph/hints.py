"""Whether what one function returns can ever be what another one takes, by their annotations."""

from __future__ import annotations

import abc
import functools
import inspect
import re
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Any

Kind = typing.Literal["async", "plain"]
_numbers = {int: (float, complex), float: (complex,), bool: (float, complex)}


def hints_of(fn: Any) -> dict[str, Any]:
    """The annotations of a callable as types; those that cannot be resolved are left out."""
    try:
        return typing.get_type_hints(_annotated(fn))
    except Exception:  # an annotation may be any text, and evaluating it may raise anything
        return {}


def iterators_of(fn: Any) -> dict[str, Kind]:
    """The parameters that are annotated as iterators, each with the kind; `Iterable` may be a list, so it is none."""
    inner = _annotated(fn)
    raw = getattr(inner, "__annotations__", None) or {}
    if not any(map(_may_be_iterator, raw.values())):
        return {}
    hints = hints_of(fn)
    kinds = {
        parameter: _kind_of_iterator(hints[parameter]) if parameter in hints else _kind_spelled(annotation, inner)
        for parameter, annotation in raw.items()
        if parameter != "return"
    }
    return {parameter: kind for parameter, kind in kinds.items() if kind is not None}


def _may_be_iterator(annotation: Any) -> bool:
    """Whether it is worth resolving a function's annotations: that takes microseconds each."""
    return not isinstance(annotation, str) or "Async" in annotation or "Iter" in annotation


def _kind_of_iterator(hint: Any) -> Kind | None:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _kind_of_iterator(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        kinds = {_kind_of_iterator(part) for part in typing.get_args(hint) if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else None
    cls = origin or hint
    if cls in (AsyncIterator, AsyncIterable, AsyncGenerator):
        return "async"
    return "plain" if cls is Iterator else None


def _kind_spelled(annotation: Any, fn: Any) -> Kind | None:
    """The same of a text that cannot be resolved: what is in the iterator may be known to type checkers only."""
    if not isinstance(annotation, str):
        return _kind_of_iterator(annotation)
    found = _SPELLED.fullmatch(annotation.strip())
    if found is None:
        return None
    scope, name = getattr(fn, "__globals__", {}), found["name"]
    cls = scope.get(name.split(".")[0])
    for part in name.split(".")[1:]:
        cls = getattr(cls, part, None)
    if cls is None:
        return _NAMED.get(name.split(".")[-1])
    return _kind_of_iterator(typing.get_origin(cls) or cls)


_SPELLED: typing.Final = re.compile(
    r"(None *\| *)?(?P<optional>(typing\.)?Optional\[)? *(?P<name>[\w.]+) *(\[.*\])? *(?(optional)\])( *\| *None)?",
    re.S,
)
_NAMED: typing.Final[dict[str, Kind]] = {
    "AsyncIterator": "async",
    "AsyncIterable": "async",
    "AsyncGenerator": "async",
    "Iterator": "plain",
}


def _annotated(fn: Any) -> Any:
    """What has the annotations of a callable."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isclass(fn):
        return fn.__init__
    return fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004


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
