"""What functions and classes are called: by people, and by the libraries that export them."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
from collections.abc import Callable
from typing import Any, Final

from odibi_async.fingerprint.encoding import module_of, type_name

_TYPES: Final = {id(cls): name for name, cls in vars(types).items() if isinstance(cls, type)}


def label_of(value: Any) -> str:
    """What a function or class that is referred to is called, in keys and to people."""
    if isinstance(value, types.FunctionType):
        name = value.__code__.co_qualname.replace("<locals>.", "")
        return f"the helper {value.__globals__.get('__name__', '')}.{name}"
    return f"the class {type_name(value)}" if isinstance(value, type) else "an object()"


def library_name(value: Any, is_local: Callable[[str], bool]) -> tuple[str, str] | None:
    """The module and the name under which a library exports exactly this value; `None` if none does."""
    name = _importable_name(value)
    if name is None or is_local(name[0]):
        return None
    is_stand_in = isinstance(value, types.FunctionType) and is_local(str(value.__globals__.get("__name__")))
    return None if is_stand_in else name  # local code may have put its own in the place of a library's


def _importable_name(value: Any) -> tuple[str, str] | None:
    if id(value) in _TYPES:
        return "types", _TYPES[id(value)]
    try:
        names = [getattr(value, name, None) for name in ("__qualname__", "__name__", "_name")]
        modules = [getattr(value, "__module__", None), module_of(type(value)).partition(".")[0]]
    except Exception:  # an object may raise anything when asked for an attribute: it has no name then
        return None
    for module, name in itertools.product(modules, names):
        if isinstance(name, str) and isinstance(module, str) and _named_in(module, name) is value:
            return module, name
    return None


def _named_in(module: str, name: str) -> Any:
    """What a loaded module has under a dotted name, without asking the module to make it up."""
    first, *rest = name.split(".")
    found = getattr(sys.modules.get(module), "__dict__", {}).get(first)
    for part in rest:
        found = inspect.getattr_static(found, part, None)
    return found.__func__ if isinstance(found, staticmethod) else found


def core_of(fn: Any) -> Any:
    """The function in the middle of steps, partials, methods and wrappers; an object's `__call__`."""
    for _ in range(100):  # wrappers may go in circles
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType | staticmethod | classmethod):
            fn = fn.__func__
        elif type(fn).__name__ == "Step" and callable(getattr(fn, "value", None)):
            fn = fn.value
        elif (inner := inspect.getattr_static(fn, "__wrapped__", None)) is not None:
            fn = inner
        elif not isinstance(fn, types.FunctionType | type) and isinstance(
            inspect.getattr_static(type(fn), "__call__", None), types.FunctionType
        ):
            fn = type(fn).__call__
        else:
            break
    return fn


def short_name(fn: Any) -> str:
    """The name of a function as people say it."""
    if isinstance(fn, types.FunctionType):
        return fn.__code__.co_qualname.rpartition("<locals>.")[2]
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))
