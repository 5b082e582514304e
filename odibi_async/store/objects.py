"""
Values of classes that hold data and nothing else, taken apart and put together without calling their code.

Enums, named tuples, data classes and pydantic's models. What is written names their class; it is found again among the
modules that are loaded, and only if its code is the same: nothing is imported because of a file's content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import sys
from collections.abc import Iterable
from typing import Any

from odibi_async.errors import Damaged, Unstorable


def kind_of(value: Any) -> str | None:
    """`enum`, `namedtuple`, `model` or `dataclass`; `None` for a value of any other class."""
    cls = type(value)
    if issubclass(cls, enum.Enum):
        return "enum"
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and not hasattr(value, "__dict__"):
        return "namedtuple"
    if _is_model(cls):
        return "model"
    return "dataclass" if dataclasses.is_dataclass(cls) and vars(object)["__new__"] is cls.__new__ else None


def is_shared_safely(value: Any, kind: str) -> bool:
    """Whether nobody can change the value itself: that it stands somewhere twice cannot be told."""
    return kind in ("enum", "namedtuple") or bool(kind == "dataclass" and type(value).__dataclass_params__.frozen)


def taken_apart(value: Any, kind: str) -> tuple[Any, ...]:
    """
    The parts of a value.

    Raises:
        Unstorable: It cannot be put together from them.
    """
    cls = type(value)
    if kind == "enum":
        name = value._name_ if cls._member_map_.get(value._name_) is value else None
        return name, value._value_
    if kind == "namedtuple":
        return tuple(value)
    return _flattened(value.__getstate__().items() if kind == "model" else _state(value))


def put_together(cls: Any, kind: str, parts: Iterable[Any]) -> Any:
    """The value that was taken apart."""
    if kind == "enum":
        name, value = parts
        return cls(value) if name is None else cls._member_map_[name]
    if kind == "namedtuple":
        return tuple.__new__(cls, parts)
    made, held = object.__new__(cls), iter(parts)
    pairs = zip(held, held, strict=True)
    if kind == "model":
        made.__setstate__(dict(pairs))
    else:
        for name, value in pairs:
            object.__setattr__(made, name, value)
    return made


def described(cls: type) -> list[str]:
    """
    What a class is found again by: its module, its name there, and a digest of its code.

    Raises:
        Unstorable: It is not found by that.
    """
    if _found(cls.__module__, cls.__qualname__) is not cls:
        raise Unstorable(f"its class {cls.__module__}.{cls.__qualname__} is not found by this name.")
    from odibi_async.fingerprint.functions import Undigestible, digest_of

    try:
        return [cls.__module__, cls.__qualname__, digest_of(cls)]
    except Undigestible as error:
        raise Unstorable(str(error)) from error


def class_of(description: Any) -> type:
    """
    The class that `described` gave the description of.

    Raises:
        Damaged: It is not loaded, or its code is another.
    """
    from odibi_async.fingerprint.functions import Undigestible, digest_of

    module, name, digest = description
    cls = _found(module, name)
    with contextlib.suppress(Undigestible):
        if isinstance(cls, type) and digest_of(cls) == digest:
            return cls
    raise Damaged(f"the class {module}.{name} is not the one that it was.")


def _is_model(cls: type) -> bool:
    """Whether values of a class are models of pydantic's, which are copied and pickled in pydantic's own way."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not issubclass(cls, pydantic.BaseModel):
        return False
    ways = [getattr(cls, name).__module__ for name in ("__getstate__", "__setstate__")]
    return vars(object)["__new__"] is cls.__new__ and all(way.startswith("pydantic.") for way in ways)


def _state(value: Any) -> list[tuple[str, Any]]:
    from odibi_async.fingerprint.encoding import Undigestible
    from odibi_async.fingerprint.values import state_of

    try:
        state = [(name.rpartition(".")[2], held) for name, held in state_of(value)]
    except Undigestible as error:
        raise Unstorable(str(error)) from error
    if len({name for name, _ in state}) < len(state):
        raise Unstorable(f"two slots of {type(value).__qualname__} have one name.")
    return state


def _flattened(pairs: Iterable[tuple[str, Any]]) -> tuple[Any, ...]:
    return tuple(part for pair in pairs for part in pair)


def _found(module: str, name: str) -> Any:
    """What a loaded module has under a dotted name."""
    found: Any = sys.modules.get(module)
    for each in name.split("."):
        found = getattr(found, "__dict__", {}).get(each)
    return found
