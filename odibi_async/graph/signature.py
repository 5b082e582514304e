"""What binding needs to know of a function's parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from odibi_async.dataset import ABSENT
from odibi_async.steps import is_async


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
        simple: The names, when each parameter is required and may be given by position; else `None`.
        parameters: Those that are bound by name; `*args` never is.

    Attributes:
        names: The names of its parameters.
        takes_any: Whether there are `**kwargs`.
        takes_more: The name of `*args`, if there is such a parameter.
        is_async: Whether a call is to be awaited.
    """

    __slots__ = ("_parameters", "is_async", "names", "simple", "takes_any", "takes_more")

    def __init__(
        self,
        is_async: bool,
        simple: tuple[str, ...] | None,
        parameters: tuple[Parameter, ...] | None = None,
        takes_any: bool = False,
        takes_more: str | None = None,
    ) -> None:
        self.is_async = is_async
        self.simple = simple
        self.takes_any = takes_any
        self.takes_more = takes_more
        self._parameters = parameters
        self.names = frozenset(simple if parameters is None else [parameter.name for parameter in parameters])  # type: ignore[arg-type]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, in order."""
        if self._parameters is None:
            self._parameters = tuple([Parameter(name, True, ABSENT) for name in self.simple or ()])
        return self._parameters


def signature_of(fn: Callable[..., Any]) -> Signature:
    """What binding needs to know of a function; a plain one is read off its code object, others by `inspect`."""
    if type(fn) is FunctionType and not fn.__dict__:
        code = fn.__code__
        simple = not (code.co_kwonlyargcount or code.co_posonlyargcount or fn.__defaults__ or code.co_flags & _STARS)
        if simple:
            return Signature(bool(code.co_flags & inspect.CO_COROUTINE), code.co_varnames[: code.co_argcount])
        return _read_off(fn, code)
    return _inspected(fn)


_STARS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


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
    takes_more = names[ahead] if code.co_flags & inspect.CO_VARARGS else None
    return Signature(
        bool(code.co_flags & inspect.CO_COROUTINE),
        None,
        tuple(parameters),
        bool(code.co_flags & inspect.CO_VARKEYWORDS),
        takes_more,
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
    return Signature(is_async(fn), None, tuple(parameters), takes_any, takes_more)


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
