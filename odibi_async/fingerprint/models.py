"""The content of what pydantic's models are made of."""

from __future__ import annotations

from typing import Any, Final

from odibi_async.fingerprint.encoding import Digesting, header, leaf

MADE_BY_IT: Final = "__pydantic_"
"""What begins the names of members that pydantic adds to a model's class, all of them derived from the others."""
SAID_IN_IT: Final = frozenset({"__pydantic_fields__", "__pydantic_decorators__"})
"""Those that hold what the model says of its fields and validators."""
_DERIVED: Final = frozenset({"_complete", "_original_assignment", "_original_annotation", "_final"})
_MODELS: Final = frozenset({"BaseModel", "RootModel"})


def digesting(value: Any) -> Digesting | None:
    """What encodes a value of pydantic's, or nothing for those that need no rule of their own."""
    name = type(value).__name__
    if name in ("PydanticUndefinedType", "LazyClassAttribute"):  # the latter makes what the other members say
        return _parts(value, ())
    if name == "Decorator":  # its other parts contain the class's memory address
        return _parts(value, (value.cls_var_name, value.info))
    if name in ("FieldInfo", "ModelPrivateAttr"):
        slots = [each for each in type(value).__slots__ if each not in _DERIVED]
        return _parts(value, tuple((each, getattr(value, each, None)) for each in slots))
    return None


def is_base(cls: type) -> bool:
    """Whether a class is a base of all models: its state is in open slots."""
    return cls.__module__ in ("pydantic.main", "pydantic.root_model") and cls.__name__.partition("[")[0] in _MODELS


def _parts(value: Any, parts: tuple[Any, ...]) -> Digesting:
    return leaf(header(type(value)), (yield parts, "", None))
