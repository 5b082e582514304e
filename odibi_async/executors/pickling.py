"""Functions, arguments and context variables as bytes for another process, and back."""

from __future__ import annotations

import decimal
import functools
import importlib
import io
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, ContextVar, copy_context
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import FunctionType
from typing import Any, Final

import cloudpickle

from odibi_async.cancellation import CURRENT
from odibi_async.errors import RemoteTraceback, portable
from odibi_async.steps import Step

Special = Callable[[Any], Any]
"""Tells how a value travels, as `reducer_override` does; `NotImplemented` for those that travel as they are."""
ABSENT: Final = "odibi_async: no default"


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """
    Pickles by name what the other process can import, and all else by value.

    Args:
        file: Takes the bytes.
        special: Tells how some values travel.
    """

    def __init__(self, file: io.BytesIO, special: Special) -> None:
        super().__init__(file, protocol=5)
        self._special = special

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, ContextVar):
            return _variable, _address_of(value)
        if isinstance(value, Step) and not is_importable(str(getattr(value.value, "__module__", ""))):
            return object.__reduce_ex__(value, 5)
        if isinstance(value, FunctionType):
            if not is_importable(value.__module__ or ""):
                _by_value(value.__module__)
            elif _is_of_step(value):
                return _function_of_step, (value.__module__, value.__qualname__)
        elif isinstance(value, type):
            if not is_importable(value.__module__):
                _by_value(value.__module__)
        elif (told := self._special(value)) is not NotImplemented:
            return told
        return super().reducer_override(value)


def dumps(value: Any, special: Special = lambda _: NotImplemented) -> bytes:
    """The bytes of a value. Whatever is in it decides what this raises."""
    file = io.BytesIO()
    Pickler(file, special).dump(value)
    return file.getvalue()


@functools.cache
def is_importable(module: str) -> bool:
    """Whether another process with the same `sys.path` finds a module."""
    top = module.partition(".")[0]
    if top in ("", "__main__", "__mp_main__"):
        return False
    return any(finder.find_spec(top) is not None for finder in (BuiltinImporter, FrozenImporter, PathFinder))


def _by_value(module: str | None) -> None:
    """What a module that the other process does not find holds travels by value."""
    if module and module in sys.modules and module not in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.register_pickle_by_value(sys.modules[module])


# -- functions of steps: their module has the step under their name ---------------------------------------


def _found(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _is_of_step(fn: FunctionType) -> bool:
    if "<" in fn.__qualname__ or fn.__module__ not in sys.modules:
        return False
    found = _found(fn.__module__, fn.__qualname__)
    return isinstance(found, Step) and found.value is fn


def _function_of_step(module: str, name: str) -> Any:
    return _found(module, name).value


# -- context variables -------------------------------------------------------------------------------------

Address = tuple[str, str, int, Any]
_addresses: dict[ContextVar[Any], Address] = {}
_others: dict[tuple[str, int], ContextVar[Any]] = {}


def _address_of(variable: ContextVar[Any]) -> Address:
    """Where another process finds a variable: its module and its name there, else a number that only it has."""
    if variable not in _addresses:
        module, name = next(_places_of(variable), ("", variable.name))
        _addresses[variable] = (module, name, 0 if module else id(variable), Context().run(variable.get, ABSENT))
    return _addresses[variable]


def _places_of(variable: ContextVar[Any]) -> Iterator[tuple[str, str]]:
    for module, held in list(sys.modules.items()):
        for name, value in list(getattr(held, "__dict__", {}).items()):
            if value is variable and is_importable(module):
                yield module, name


def _variable(module: str, name: str, number: int, default: Any) -> ContextVar[Any]:
    if module:
        found: ContextVar[Any] = getattr(importlib.import_module(module), name)
        return found
    key = (name, number)
    if key not in _others:
        _others[key] = ContextVar(name) if default == ABSENT else ContextVar(name, default=default)
    return _others[key]


Variable = tuple[Address, Any] | bytes
"""A context variable and its value: plain ones go along with the call, others are bytes of their own."""
PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes))


def variables_of(context: Context) -> list[Variable]:
    """The context variables, those that can travel; nobody's call depends on the others being elsewhere."""
    packed: list[Variable] = []
    for variable, value in context.items():
        if variable is CURRENT:
            continue
        if type(value).__module__ == "decimal":  # its variable has no name that one could import
            if _decimal(value) != _AS_SHIPPED:
                packed.append(dumps((None, value)))
            continue
        address = _address_of(variable)
        if address[0].startswith("distributed."):  # Dask's own: its client, its worker
            continue
        if _is_plain(value) and _is_plain(address[3]):
            packed.append((address, value))
            continue
        try:
            packed.append(dumps((variable, value)))
        except Exception:  # the value decides what its pickling raises
            continue
    return packed


def _decimal(context: decimal.Context) -> tuple[object, ...]:
    """What calculations with decimals depend on."""
    traps = frozenset(signal for signal, is_on in context.traps.items() if is_on)
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps


_AS_SHIPPED: Final = _decimal(
    decimal.Context(
        prec=28,
        rounding=decimal.ROUND_HALF_EVEN,
        Emin=-999999,
        Emax=999999,
        capitals=1,
        clamp=0,
        flags=[],
        traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
    )
)
"""The default of a process in which nobody has changed it: `decimal.DefaultContext` is anybody's to change."""


def _is_plain(value: Any) -> bool:
    """Whether a value pickles, fast, and without code of anybody's."""
    return type(value) in PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def context_with(packed: Iterable[Variable]) -> Context:
    """A context with these variables; those that this process cannot make are left out."""
    context = copy_context()
    for each in packed:
        try:
            if isinstance(each, bytes):
                variable, value = cloudpickle.loads(each)
            else:
                variable, value = _variable(*each[0]), each[1]
        except Exception:  # a class, or a module, that is not here
            continue
        context.run(decimal.setcontext if variable is None else variable.set, value)
    return context


# -- errors ------------------------------------------------------------------------------------------------


def packed_error(error: BaseException) -> bytes:
    """An error with the text of its traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        packed = dumps((error, text))
        if type(cloudpickle.loads(packed)[0]) is type(error):
            return packed
    except Exception:  # an error is anybody's object
        pass
    return dumps((portable(error), text))


def unpacked_error(packed: bytes) -> BaseException:
    """The error, whose cause is its traceback in the other process."""
    error: BaseException
    error, text = cloudpickle.loads(packed)
    _CAUSE.__set__(error, RemoteTraceback(text))
    return error


_CAUSE: Any = BaseException.__dict__["__cause__"]
