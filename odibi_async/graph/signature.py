"""What binding needs to know of a function's parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from odibi_async.dataset import ABSENT
from odibi_async.steps import is_async, kind_of_generator

CO_YIELDS: Final = CO_GENERATOR | CO_ASYNC_GENERATOR
"""The flags of a function whose call gives a generator."""


class Parameter(NamedTuple):
    """
    One parameter of a function.

    Attributes:
        by_position: Whether it is given by position.
        default: `ABSENT` where there is none.
        is_fixed: Whether a partial gives it a value, so that no dataset fills it unless the step says so.
    """

    name: str
    by_position: bool
    default: Any
    is_fixed: bool = False


class Signature:
    """
    What binding needs to know of a function.

    Args:
        parameters: Those that are bound by name; `*args` never is.

    Attributes:
        names: Their names.
        takes_any: Whether there are `**kwargs`.
        takes_more: The name of `*args`, if there is such a parameter.
        is_async: Whether a call is to be awaited, or what it gives is to be iterated with `async for`.
        yields: Whether a call gives a generator.
    """

    __slots__ = ("is_async", "names", "parameters", "takes_any", "takes_more", "yields")

    def __init__(
        self,
        is_async: bool,
        parameters: tuple[Parameter, ...],
        takes_any: bool,
        takes_more: str | None,
        yields: bool,
    ) -> None:
        self.is_async = is_async
        self.yields = yields
        self.parameters = parameters
        self.takes_any = takes_any
        self.takes_more = takes_more
        self.names = frozenset([parameter.name for parameter in parameters])


def simple_names(fn: Any) -> tuple[str, ...] | None:
    """The names of its parameters, when it is a plain function that each must be given and may be by position."""
    if type(fn) is not FunctionType or fn.__dict__ or fn.__defaults__:
        return None
    code = fn.__code__
    if code.co_kwonlyargcount or code.co_posonlyargcount or code.co_flags & CO_VARARGS:
        return None
    return code.co_varnames[: code.co_argcount]


def signature_of(fn: Callable[..., Any]) -> Signature:
    """What binding needs to know of a function; a plain one is read off its code object, others by `inspect`."""
    if type(fn) is FunctionType and not fn.__dict__:
        return _read_off(fn, fn.__code__)
    return _inspected(fn)


def _read_off(fn: FunctionType, code: CodeType) -> Signature:
    """The signature of a plain function, as the layout of its code tells it."""
    by_position, only_named = code.co_argcount, code.co_kwonlyargcount
    names, defaults, named_defaults = code.co_varnames, fn.__defaults__ or (), fn.__kwdefaults__ or {}
    first_default = by_position - len(defaults)
    parameters = [
        Parameter(name, True, defaults[place - first_default] if place >= first_default else ABSENT)
        for place, name in enumerate(names[:by_position])
    ]
    ahead = by_position + only_named
    parameters += [Parameter(name, False, named_defaults.get(name, ABSENT)) for name in names[by_position:ahead]]
    takes_more = names[ahead] if code.co_flags & CO_VARARGS else None
    return Signature(
        bool(code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)),
        tuple(parameters),
        bool(code.co_flags & CO_VARKEYWORDS),
        takes_more,
        bool(code.co_flags & CO_YIELDS),
    )


def _inspected(fn: Callable[..., Any]) -> Signature:
    """
    The same by `inspect`. A wrapper shows the parameters of what it wraps, and is called as it can be itself; what a
    partial fixes by name is no parameter.
    """
    shown, own = _parameters(fn), _parameters(fn, follow_wrapped=False)
    fixed = _fixed_by_partials(fn)
    places = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in own.values())
    if any(p.kind is p.VAR_POSITIONAL for p in own.values()):
        places = len(shown)
    parameters, takes_any, takes_more = [], False, None
    for place, (name, parameter) in enumerate(shown.items()):
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is parameter.VAR_POSITIONAL:
            takes_more = name
        else:
            default = ABSENT if parameter.default is parameter.empty else parameter.default
            by_position = parameter.kind is not parameter.KEYWORD_ONLY and place < places
            parameters.append(Parameter(name, by_position, default, name in fixed))
    kind = kind_of_generator(fn)
    return Signature(is_async(fn) or kind == "async", tuple(parameters), takes_any, takes_more, kind is not None)


def _parameters(fn: Callable[..., Any], *, follow_wrapped: bool = True) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(fn, follow_wrapped=follow_wrapped).parameters
    except (TypeError, ValueError):  # some built-in callables tell nothing of their parameters
        return {}


def _fixed_by_partials(fn: Any) -> set[str]:
    fixed: set[str] = set()
    while True:
        if isinstance(fn, functools.partial):
            fixed |= fn.keywords.keys()
            fn = fn.func
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            return fixed
