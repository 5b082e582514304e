"""Frozen dataclasses made in a fifth of the time."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def quick(cls: type[T]) -> Callable[..., T]:
    """
    A function that makes a `cls`, a frozen dataclass with slots, from all its fields by position.

    The `__init__` of a frozen dataclass sets each field through `object.__setattr__`: 0.75 us for six
    fields, more than an asyncio task has to spare. This one fills an unfrozen twin of the same layout
    and lets it become a `cls`: 0.17 us (Python 3.11). Neither defaults nor `__post_init__` apply.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    own = cls.__dict__["__slots__"]
    thawed = {"__slots__": own, "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    bases = getattr(cls, "__orig_bases__", cls.__bases__)
    twin = types.new_class(f"_{cls.__name__}", bases, exec_body=lambda scope: scope.update(thawed))
    lines = [f"def make({', '.join(names)}):", " it = new(twin)"]
    lines += [f" it.{name} = {name}" for name in names]
    lines += [" it.__class__ = cls", " return it"]
    scope: dict[str, Any] = {"new": object.__new__, "twin": twin, "cls": cls}
    exec("\n".join(lines), scope)
    make: Callable[..., T] = scope["make"]
    return make
