"""
The content of values: containers, objects of local classes, callables, and through other files arrays and frames.

Functions and classes of local code are not looked into here. A value refers to them (`Reference`), by a name and a
number; whoever asked follows them, in whatever circles they lead.
"""

from __future__ import annotations

import _thread
import abc
import collections
import collections.abc
import contextlib
import dataclasses
import datetime
import enum
import functools
import importlib
import itertools
import logging
import operator
import re
import types
import typing
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, Final

from blake3 import blake3

from odibi_async.dataset import engine_of
from odibi_async.fingerprint import models
from odibi_async.fingerprint.encoding import (
    LEAVES,
    Digesting,
    Undigestible,
    hashed,
    header,
    leaf,
    module_of,
    moment,
    sealed,
    shown,
    text,
    type_name,
)
from odibi_async.fingerprint.key import secret_key
from odibi_async.fingerprint.libraries import library_of
from odibi_async.fingerprint.names import label_of, library_name
from odibi_async.secret import Secret

HOLDERS: Final = {
    "numpy": "arrays",
    "pyarrow": "arrow",
    "pandas": "frames",
    "pydantic": "models",
    "pydantic_core": "models",
}
"""Library -> the file here that knows its values, which is loaded with the first of them."""
NOT_CONTENT: Final = frozenset(
    (
        *("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"),
        *("__annotations_cache__", "__classdictcell__"),
        *("_value2member_map_", "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_"),
    )
)
"""
Members of classes that do not change what they do; those of enums grow with use. Annotations may change it: classes are
often made to be read by them.
"""


class Walker:
    """
    Encodes one value with all that is in it, without recursion.

    Args:
        ordered: Whether the order of a dict's entries counts.
        files: What digests the file at a path.
        paths: Whether there may be paths.
        is_local: Whether a module (by its name) is local code.
        identities: Whether bare `object()`s may be distinguished by identity.

    Attributes:
        libraries, named, whole: The libraries that it refers to; what of them, by full names; whole modules of them.
        attributes: The names of attributes that what it holds takes of others.
    """

    def __init__(
        self,
        *,
        ordered: bool,
        files: Callable[[Path], str],
        paths: bool = True,
        is_local: Callable[[str], bool] = lambda module: library_of(module) is None,
        identities: bool = False,
    ) -> None:
        self.ordered = ordered
        self.files = files
        self.paths = paths
        self.references: dict[int, tuple[bytes, Any]] = {}
        self.libraries: set[str] = set()
        self.named: set[str] = set()
        self.whole: set[str] = set()
        self.attributes: set[str] = set()
        self._is_local = is_local
        self._identities = identities
        self._same_name: collections.Counter[str] = collections.Counter()
        self._open: set[int] = set()
        self._sorting = 0

    @property
    def referred(self) -> tuple[Any, ...]:
        """The functions and classes that the value refers to, by name and number: sets have no order."""
        found = sorted(self.references.values(), key=operator.itemgetter(0))
        return tuple(value for _, value in found)

    def encode(self, value: Any, name: str = "") -> bytes:
        """
        The encoding of a value.

        Raises:
            Undigestible: It, or something in it, has no content to identify it by; `name` stands first in its path.
        """
        return self._reached(self._start, value, name)

    def encode_class(self, cls: type, name: str) -> bytes:
        """The encoding of what a class does: its name, bases, metaclass and own members."""
        return self._reached(self._members, cls, name)

    def _reached(self, start: Callable[[Any], bytes | Digesting], value: Any, name: str) -> bytes:
        path: list[tuple[str, Any]] = []
        try:
            made = start(value)
            return made if isinstance(made, bytes) else self._walk(made, id(value), path)
        except Undigestible as fault:
            places = "".join(template.format(shown(key)) for template, key in path)
            raise Undigestible(name + places + fault.what, fault.why) from fault.__cause__

    def _walk(self, start: Digesting, identity: int, path: list[tuple[str, Any]]) -> bytes:
        stack = [(start, identity)]
        self._open.add(identity)
        sent: Any = None
        while True:
            try:
                child, template, key = stack[-1][0].send(sent)
            except StopIteration as done:
                sent = done.value
                self._open.discard(stack.pop()[1])
                if not stack:
                    return bytes(sent)
                path.pop()
                continue
            path.append((template, key))
            sent = self._start(child)
            if isinstance(sent, bytes):
                path.pop()
            else:
                stack.append((sent, id(child)))
                self._open.add(id(child))
                sent = None

    def _start(self, value: Any) -> bytes | Digesting:
        """The encoding of a plain value, or what makes that of one with parts."""
        encode = LEAVES.get(type(value))
        if encode is not None:
            return encode(value)
        if id(value) in self._open and not isinstance(value, type):  # a class is only referred to
            raise Undigestible("", "contains itself")
        return self._digesting(value)

    def _digesting(self, value: Any) -> Digesting:
        cls = type(value)
        if cls in _CONTAINERS:
            return _CONTAINERS[cls](self, value)
        if cls in (operator.attrgetter, operator.methodcaller):
            names = (each.split(".") for each in _getter(value)[1] if isinstance(each, str))
            self.attributes.update(itertools.chain(*names))
        if cls in _PARTS:
            return _in_parts(header(cls), _PARTS[cls](value))
        if issubclass(cls, type | types.FunctionType):  # and not isinstance, which asks the value
            return self._by_name(value)
        if issubclass(cls, enum.Enum):
            return _in_parts(header(enum.Enum), (cls, value._name_, value._value_, _given(value)))
        holder = HOLDERS.get(module_of(cls).partition(".")[0])
        made: Digesting | None = None if holder is None else _holder(holder).digesting(value)
        return self._unusual(value) if made is None else made

    def _unusual(self, value: Any) -> Digesting:
        cls = type(value)
        if (name := library_name(value, self._is_local)) is not None:
            return self._named(*name)
        module = module_of(cls)
        if module.startswith("pytz") and getattr(value, "zone", None) is not None:
            parts = value.zone, getattr(value, "_utcoffset", None), getattr(value, "_tzname", None)
            return _in_parts(header(cls), parts)
        if issubclass(cls, _TYPING):
            parts = getattr(value, "__origin__", None), value.__args__, getattr(value, "__metadata__", ())
            return _in_parts(header(cls), parts)
        if module == "odibi_async.steps" and cls.__name__ == "Step":  # its reader may read any of its fields
            return _in_parts(header(cls), tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
        if self._is_local(module) or dataclasses.is_dataclass(cls):
            return self._object(value)
        raise Undigestible("", f"is a {type_name(cls)}, which has no content to identify it by")

    def _by_name(self, value: Any) -> Digesting:
        """A function or class: a library's by its name, since the version says the rest; others are followed."""
        name = library_name(value, self._is_local)
        return self._refer(value) if name is None else self._named(*name)

    def _named(self, module: str, name: str) -> Digesting:
        yield from ()
        if (library := library_of(module)) is not None:
            self.libraries.add(library)
        self.named.add(f"{module}.{name}".rstrip("."))
        return leaf(header(_Named), text(module) + text(name))

    def _refer(self, value: Any) -> Digesting:
        yield from ()
        if id(value) not in self.references:
            label = label_of(value)
            if self._sorting and self._same_name[label]:
                raise Undigestible("", f"stands in a set or among keys beside another one of its name ({label})")
            number = self._same_name[label]
            self._same_name[label] += 1
            self.references[id(value)] = leaf(header(_Reference), text(label) + number.to_bytes(8, "little")), value
        return self.references[id(value)][0]

    def _bare_object(self, value: object) -> Digesting:
        if self._identities:
            return self._refer(value)
        raise Undigestible("", "is a bare object(), which is nothing but itself")

    def _module(self, module: types.ModuleType) -> Digesting:
        if self._is_local(module.__name__):
            raise Undigestible("", f"is the module {module.__name__}, of which code may read anything")
        self.whole.add(module.__name__)
        return self._named(module.__name__, "")

    def _bound_builtin(self, value: Any) -> Digesting:
        if (name := library_name(value, self._is_local)) is not None:
            return self._named(*name)
        if isinstance(value.__self__, types.ModuleType):
            raise Undigestible("", f"is a compiled function of the local module {value.__self__.__name__}")
        if isinstance(value.__self__, type) and (home := library_name(value.__self__, self._is_local)) is not None:
            self.named.add(".".join((*home, value.__name__)))
        return _in_parts(header(type(value)), (value.__self__, value.__name__))

    def _path(self, path: Path) -> Digesting:
        yield from ()
        if not self.paths:
            raise Undigestible("", "is a path, and what is there may change or disappear")
        content = b""
        try:
            if path.is_file():
                content = bytes.fromhex(self.files(path))
            elif path.exists():
                raise Undigestible("", "is the path of something other than a file, which has no digest")
        except (OSError, ValueError) as error:
            raise Undigestible("", f"is the path of a file that cannot be read: {error}") from error
        return leaf(header(type(path)), text(str(path)) + content)

    def _pure_path(self, path: PurePath) -> Digesting:
        return _in_parts(header(type(path)), (str(path),))

    def _zone(self, zone: zoneinfo.ZoneInfo) -> Digesting:
        if zone.key is None:
            raise Undigestible("", "is a time zone without a name")
        return _in_parts(header(zoneinfo.ZoneInfo), (zone.key,))

    def _secret(self, secret: Secret) -> Digesting:
        yield from ()
        raw = secret.reveal().encode("utf-8", "surrogatepass")
        return sealed(header(Secret), blake3(raw, key=secret_key()).digest())

    def _sequence(self, value: Any) -> Digesting:
        parts = [len(value).to_bytes(8, "little")]
        for place, item in enumerate(value):
            encode = LEAVES.get(type(item))
            parts.append((yield item, "[{}]", place) if encode is None else encode(item))
        return sealed(header(type(value)), hashed(parts))

    def _set(self, value: Any) -> Digesting:
        parts = []
        self._sorting += 1
        for item in tuple(value):
            encode = LEAVES.get(type(item))
            parts.append((yield item, ", element {}", item) if encode is None else encode(item))
        self._sorting -= 1
        return sealed(header(type(value)), hashed([len(parts).to_bytes(8, "little"), *sorted(parts)]))

    def _mapping(self, value: dict[Any, Any]) -> Digesting:
        items, keys = list(value.items()), []
        self._sorting += not self.ordered
        for key, _ in items:
            encode = LEAVES.get(type(key))
            keys.append((yield key, ", key {}", key) if encode is None else encode(key))
        self._sorting -= not self.ordered
        parts = [len(items).to_bytes(8, "little")]
        for place in range(len(items)) if self.ordered else sorted(range(len(items)), key=keys.__getitem__):
            key, item = items[place]
            encode = LEAVES.get(type(item))
            parts += (keys[place], (yield item, "[{}]", key) if encode is None else encode(item))
        return sealed(header(dict), hashed(parts))

    def _object(self, value: Any) -> Digesting:
        """An object whose state lies open: of a local class or a data class, with open bases throughout."""
        cls = type(value)
        if engine_of(value) == "spark":
            raise Undigestible("", "is a Spark frame, whose content is known only where its step is cached")
        content: list[Any] = []
        for base in cls.__mro__[:-1]:
            if base in _BUILTIN:
                content.append(_BUILTIN[base](value))
            elif not (_is_open(base) or self._is_local(module_of(base))):
                raise Undigestible(
                    "", f"is a {type_name(cls)}, and what its base {type_name(base)} holds has no digest"
                )
        parts = [(yield cls, "'s class", None), (yield content, "", None)]
        state = state_of(value)
        for name, held in state if self.ordered else sorted(state, key=lambda each: str(each[0])):
            parts += ((yield name, "'s attribute {}", name), (yield held, "'s attribute {}", name))
        return sealed(header(_Object), hashed(parts))

    def _members(self, cls: type) -> Digesting:
        parts = [(yield (cls.__module__, cls.__qualname__, type(cls), cls.__bases__), "", None)]
        for name, member in vars(cls).items():
            if name in NOT_CONTENT or (name.startswith(models.MADE_BY_IT) and name not in models.SAID_IN_IT):
                continue
            if name == "_abc_impl":
                member = frozenset(known() for known in abc._get_dump(cls)[0])  # type: ignore[attr-defined]  # registered
            if isinstance(member, _COMPILED) and cls is getattr(
                member, "__objclass__", getattr(member, "__self__", None)
            ):
                raise Undigestible("", "is compiled, and what it does cannot be seen")
            before = set(self.named)
            parts += ((yield name, "'s member {}", name), (yield member, "'s member {}", name))
            if name in ("__annotations__", "__dataclass_fields__"):  # nobody calls those; `__init__` has the defaults
                self.named = before
        return sealed(header(type), hashed(parts))


def _is_open(base: type) -> bool:
    """Whether what a class of a library holds lies open in its values."""
    if base in _STATELESS or vars(base).get("__slots__") == ():
        return True
    return dataclasses.is_dataclass(base) or models.is_base(base)


class _Named:
    """Stands in encodings for what a library makes: its name."""


class _Reference:
    """Stands in encodings for functions and classes that are followed."""


class _Object:
    """Stands in encodings for objects of open classes."""


@functools.cache
def _holder(name: str) -> Any:
    return importlib.import_module(f"odibi_async.fingerprint.{name}")


def _in_parts(head: bytes, parts: tuple[Any, ...]) -> Digesting:
    return leaf(head, (yield parts, "", None))


def _given(member: enum.Enum) -> dict[str, Any]:
    """What an enum's member was given beside what all have."""
    common = ("_name_", "_value_", "__objclass__", "_sort_order_", "_inverted_")
    return {name: value for name, value in sorted(vars(member).items()) if name not in common}


def state_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """The attributes of an object, whether they lie in a dict or in slots."""
    for base in type(value).__mro__:
        for name, slot in vars(base).items():
            if name == "__dict__":
                if not isinstance(slot, types.GetSetDescriptorType):
                    raise Undigestible("", f"is a {type_name(type(value))}, which hides its attributes")
                yield from dict(slot.__get__(value)).items()
            elif isinstance(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # a slot with nothing in it
                    yield f"{base.__qualname__}.{name}", slot.__get__(value)


def _getter(value: Any) -> tuple[Any, ...]:
    """An `itemgetter` and its like: the class and the arguments that make another one."""
    return tuple(value.__reduce__())


def _attributes(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple(getattr(value, name) for name in names)


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


_field = _attributes(
    "name", "type", "default", "default_factory", "init", "repr", "hash", "compare", "metadata", "kw_only"
)
_lru: Any = type(functools.lru_cache(len))
_params: Any = type(dataclasses.make_dataclass("_", ()).__dataclass_params__)  # type: ignore[attr-defined]

_PARTS: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    slice: _attributes("start", "stop", "step"),
    collections.OrderedDict: lambda value: (list(value.items()), vars(value)),
    collections.defaultdict: lambda value: (value.default_factory, dict(value)),
    collections.Counter: lambda value: (dict(value), vars(value)),
    collections.deque: lambda value: (value.maxlen, list(value)),
    types.MappingProxyType: lambda value: (dict(value),),
    types.SimpleNamespace: lambda value: (vars(value),),
    datetime.timezone: lambda value: value.__getinitargs__(),
    re.Pattern: _attributes("pattern", "flags"),
    functools.partial: lambda value: (value.func, value.args, value.keywords, vars(value)),
    functools.partialmethod: _attributes("func", "args", "keywords"),
    functools.cached_property: _attributes("func", "attrname"),
    _lru: lambda value: (value.cache_parameters(), vars(value)),
    types.MethodType: _attributes("__self__", "__func__"),
    types.MethodWrapperType: _attributes("__self__", "__name__"),
    types.MethodDescriptorType: _attributes("__objclass__", "__name__"),
    types.WrapperDescriptorType: _attributes("__objclass__", "__name__"),
    types.ClassMethodDescriptorType: _attributes("__objclass__", "__name__"),
    types.GetSetDescriptorType: _attributes("__objclass__", "__name__"),
    types.MemberDescriptorType: _attributes("__objclass__", "__name__"),
    property: _attributes("fget", "fset", "fdel"),
    staticmethod: _attributes("__func__"),
    classmethod: _attributes("__func__"),
    operator.itemgetter: _getter,
    operator.attrgetter: _getter,
    operator.methodcaller: _getter,
    type(vars(collections.namedtuple("_", "x"))["x"]): _getter,
    dataclasses.Field: _field,
    dataclasses.InitVar: _attributes("type"),
    _params: lambda value: tuple(getattr(value, name) for name in value.__slots__),
    type(dataclasses.MISSING): _nothing,
    type(dataclasses._HAS_DEFAULT_FACTORY): _nothing,  # type: ignore[attr-defined]
    # What no result depends on, or what its name says all of.
    logging.Logger: _attributes("name"),
    logging.RootLogger: _attributes("name"),
    type(_thread.allocate_lock()): _nothing,
    _thread.RLock: _nothing,
    typing.TypeVar: _attributes("__name__"),
    typing.ParamSpec: _attributes("__name__"),
    typing.NewType: _attributes("__name__", "__supertype__"),
    typing.ForwardRef: _attributes("__forward_arg__"),
}
"""Exact type -> the parts that are all there is to its values."""

_CONTAINERS: Final[dict[type, Callable[[Walker, Any], Digesting]]] = {
    list: Walker._sequence,
    tuple: Walker._sequence,
    set: Walker._set,
    frozenset: Walker._set,
    dict: Walker._mapping,
    datetime.datetime: lambda _, value: moment(value),
    datetime.time: lambda _, value: moment(value),
    zoneinfo.ZoneInfo: Walker._zone,
    type(Path()): Walker._path,
    type(PurePath()): Walker._pure_path,
    Secret: Walker._secret,
    object: Walker._bare_object,
    types.ModuleType: Walker._module,
    types.BuiltinFunctionType: Walker._bound_builtin,
}
"""Exact type -> what encodes its values."""

_BUILTIN: Final[dict[type, Callable[[Any], Any]]] = {
    dict: lambda value: dict(dict.items(value)),
    list: list.copy,
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
}
"""Builtin class -> what gives the content of an object of a class derived from it, as a plain one."""

_STATELESS: Final = frozenset(
    {abc.ABC, typing.Generic, typing.Protocol} | {vars(collections.abc)[name] for name in collections.abc.__all__}
)
"""Bases that hold nothing."""
_TYPING: Final = (types.GenericAlias, types.UnionType, typing._GenericAlias)  # type: ignore[attr-defined]
_COMPILED: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
)
"""The types of what only compiled classes hold themselves."""
