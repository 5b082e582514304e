"""
Content digests of values, functions and files: what results are known again by.

    digest_of(frame)            the same for every equal frame, in every process; different for any other
    code_of(clean)              what the function's result depends on beside its arguments, name by name
    combined(code_of(clean))    all of it in one digest

Digests are BLAKE3, as 64 hex letters. They depend on content alone: never on addresses, times, hash seeds, pickles or
what `repr` says. What has no content raises `Undigestible`, which says what it is and why; a digest that could
be wrong is never given.

What a function is seen to read of the world outside (files, the clock, chance, the environment, networks, databases) is
told beside its digest (`examined`). Not seen is what it reaches by names that are made at run time. Annotations of
functions and docstrings do not count.
"""

from __future__ import annotations

import builtins
import collections
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final, NamedTuple, cast

from blake3 import blake3

from odibi_async.fingerprint.bytecode import Read, reading
from odibi_async.fingerprint.encoding import SLICE, Undigestible, hashed, text
from odibi_async.fingerprint.libraries import DATA, PYTHON, library_of, versions
from odibi_async.fingerprint.mutable import is_mutable
from odibi_async.fingerprint.names import core_of, label_of, library_name, short_name
from odibi_async.fingerprint.outside import DIFFERS, ZONED, local_zone, read_outside
from odibi_async.fingerprint.patches import Added, added, home_of, patches
from odibi_async.fingerprint.values import Walker

__all__ = ["FORMAT", "Undigestible", "code_of", "combined", "digest_of", "digest_of_file", "examined", "is_mutable"]

FORMAT: Final = "1"
"""The version of all digests; another one whenever the digest of anything changes."""

FAR_REACHING: Final = (builtins.globals, builtins.eval, builtins.exec, builtins.__import__, importlib.import_module)
FAR_REACHING_ATTRIBUTES: Final = frozenset(("__globals__", "__builtins__", "f_globals"))
"""What lets a function read anything at all."""
ASKING: Final = frozenset({"builtins.getattr", "operator.attrgetter", "operator.methodcaller"})
"""What takes attributes whose names are texts."""
LEFT_OUT: Final = frozenset(("__annotations__", "__doc__", "__subclasses__"))
"""What functions and classes have that their digests do not hold."""


def digest_of_file(path: str | PathLike[str]) -> str:
    """
    The digest of what a file holds, read a slice at a time; its name and times do not count.

    Raises:
        OSError: It cannot be read.
    """
    hasher, buffer = blake3(), memoryview(bytearray(SLICE))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
    return hasher.hexdigest()


def digest_of(
    value: Any,
    *,
    name: str = "the value",
    ordered: bool = False,
    paths: bool = True,
    files: Callable[[PathLike[str]], str] = digest_of_file,
) -> str:
    """
    The digest of a value: of all that a function given it could tell, down to the types of cells.

    Frames are equal when their columns, index, names, dtypes, cells, attributes and flags are, however they
    are laid out. A path to a file counts by its text and by what the file holds. Objects of local classes and
    of data classes count by their state and by the code of their class, functions by `code_of`.

    Args:
        value: Anything.
        name: What the value is called in the path that an `Undigestible` names.
        ordered: Whether the order of the entries of a dict counts. A function that goes through a dict can
            tell; as arguments by name, reordered ones are the same.
        paths: Whether it may contain paths, whose digest is that of the file's current content.
        files: What digests the file at a path.

    Raises:
        Undigestible: The value, or something in it, has no content to identify it by.
    """
    walker = Walker(ordered=ordered, files=files, paths=paths)
    parts = [text(FORMAT), walker.encode(value, name)]
    if walker.referred or walker.libraries:
        first = [_itself(each) for each in walker.referred]
        components = _components(first, library_names=walker.libraries)
        parts.append(text(combined(components)))
    return hashed(parts).hex()


def combined(parts: Mapping[str, str]) -> str:
    """One digest of named digests, whatever their order."""
    return hashed(text(name) + text(part) for name, part in sorted(parts.items())).hex()


class Code(NamedTuple):
    """
    What a function is made of.

    Attributes:
        parts: What its result depends on beside its arguments: readable component -> digest or version.
        outside: What it, or a helper of it, is seen to do with the world outside, in words; see `outside`.
        mutable: Those of the parts whose values code could change.
    """

    parts: dict[str, str]
    outside: list[str]
    mutable: frozenset[str] = frozenset()


def code_of(fn: Callable[..., Any]) -> dict[str, str]:
    """
    What the result of a function depends on beside its arguments: readable component -> digest or version.

    See `examined` for what is looked at.

    Raises:
        Undigestible: Something it reads has no content to identify it by, or what it reads cannot be told.
    """
    return examined(fn).parts


def examined(fn: Callable[..., Any], files: Callable[[PathLike[str]], str] = digest_of_file) -> Code:
    """
    What the result of a function depends on beside its arguments, and what it does with the world outside.

    The code objects tell which names are read: globals, constants of other modules, enclosing variables, local
    functions and classes, and these are followed in turn. Local is what neither belongs to Python nor was
    installed as a library, and all that shares the function's own top-level package. Libraries count by
    their version. Values are looked at as they are now.

    Local modules that a function imports in its body are imported; call it where that may take its time.

    Args:
        fn: A function, method, class, partial, `Step` or other callable.
        files: What digests the file at a path that it reads from a variable.

    Raises:
        Undigestible: Something it reads has no content to identify it by, or what it reads cannot be told.
    """
    core = core_of(fn)
    module = getattr(core, "__module__", None) or type(core).__module__
    package = None if library_of(module) in (PYTHON, *DATA) else module.partition(".")[0]
    is_itself = isinstance(fn, types.FunctionType | type) and _is_local(package, fn.__module__ or "")
    first = _itself(fn) if is_itself else _Place("the call", f"how {short_name(core)} is called", fn)
    titles = {id(core): f"the code of {short_name(core)}"} if isinstance(core, types.FunctionType) else {}
    outside: dict[str, None] = {}
    mutable: set[str] = set()
    parts = _components([first], package, titles, {*DATA, PYTHON}, outside, mutable, files)
    return Code(parts, list(outside), frozenset(mutable))


@dataclass(frozen=True, slots=True)
class _Place:
    """
    Something that code depends on.

    Attributes:
        key: What it is known again by.
        label: Its name in messages.
        value: Its value.
        is_itself: Whether it is a function, a class or a bare object, to be looked into; else its content counts.
    """

    key: Hashable
    label: str
    value: Any
    is_itself: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """
    What one place comes to.

    Attributes:
        digest: Of its own content, without that of the places it leads to.
        leads_to: What it refers to, in an order that its content fixes.
        libraries: The libraries that it uses.
        outside: What it does with the world outside.
        whole: The modules of libraries that it holds, whatever is then taken of them.
        attributes: What it takes of anything.
    """

    digest: bytes
    leads_to: Sequence[_Place] = ()
    libraries: frozenset[str] = frozenset()
    outside: Sequence[str] = ()
    whole: Set[str] = frozenset()
    attributes: Set[str] = frozenset()


def _components(
    first: Iterable[_Place],
    package: str | None = None,
    titles: Mapping[Any, str] | None = None,
    library_names: Iterable[str] = (),
    outside: dict[str, None] | None = None,
    mutable: set[str] | None = None,
    files: Callable[[PathLike[str]], str] = digest_of_file,
) -> dict[str, str]:
    """Everything that some places lead to; each place has a unique name, by which others refer to it."""
    titles, libraries = titles or {}, set(library_names)
    parts: dict[Hashable, _Part] = {}
    names: dict[Hashable, str] = {}
    taken: set[str] = set()
    waiting, now = collections.deque(first), added()
    while waiting:
        place = waiting.popleft()
        if place.key in parts:
            continue
        names[place.key] = _unlike(taken, titles.get(place.key, place.label))
        part = parts[place.key] = _part(place, package, files, now)
        if mutable is not None and not place.is_itself and is_mutable(place.value):
            mutable.add(names[place.key])
        libraries |= part.libraries
        if outside is not None:
            outside.update(dict.fromkeys(part.outside))
        waiting += part.leads_to
    if outside is not None:
        attributes = set().union(*(part.attributes for part in parts.values()))
        whole = set().union(*(part.whole for part in parts.values()))
        uses = [(f"{module}.{name}",) for module in sorted(whole) for name in sorted(attributes)]
        outside.update(dict.fromkeys(read_outside(uses)))
    found = {
        names[key]: hashed([part.digest, *(text(names[to.key]) for to in part.leads_to)]).hex()
        for key, part in parts.items()
    }
    return found | _library_versions(libraries)


def _unlike(taken: set[str], label: str) -> str:
    """The label, with a number if another place has it."""
    name, number = label, 1
    while name in taken:
        number += 1
        name = f"{label} ({number})"
    taken.add(name)
    return name


def _part(place: _Place, package: str | None, files: Callable[[PathLike[str]], str], added: Added) -> _Part:
    value = place.value
    walker = _walker(package, files)
    if not place.is_itself:
        return _part_of(walker.encode(value, place.label), walker)
    if isinstance(value, types.FunctionType):
        return _FunctionReader(value, package, added).part()
    if isinstance(value, type):
        return _part_of(walker.encode_class(value, place.label), walker)
    return _Part(b"object()")


class _FunctionReader:
    """Looks up, as they are now, the names that a function reads."""

    def __init__(self, fn: types.FunctionType, package: str | None, added: Added) -> None:
        self.fn = fn
        self.package = package
        self.added = added
        self.says: list[bytes] = []
        self.leads_to: list[_Place] = []
        self.libraries: set[str] = set()
        self.used: list[tuple[str, ...]] = []
        self.whole: set[str] = set()
        self.classes: list[type] = []

    def part(self) -> _Part:
        code = reading(self.fn.__code__)
        for read in code.reads:
            self.says.append(text(f"{read.scope} {'.'.join(read.names)}"))
            self._look_up(read)
        names = {name for names in self.used for name in names}
        attributes = code.attributes
        if ASKING & names:
            attributes |= {part for each in code.texts for part in each.split(".")}
        for name in sorted(FAR_REACHING_ATTRIBUTES & attributes):
            raise self._undigestible(f"uses {name}, which can reach anything")
        for name in sorted(LEFT_OUT & attributes if self._is_local(home_of(self.fn)) else ()):
            raise self._undigestible(f"uses {name}, which keys leave out")
        for place in self._own():
            self._lead_to(place)
        for cls, name, member in patches(attributes | code.texts, self.added, self._is_local, self.classes):
            key, is_itself = (id(cls), name), isinstance(member, types.FunctionType | type)
            self._lead_to(_itself(member) if is_itself else _Place(key, f"{cls.__name__}.{name}", member))
        own: tuple[bytes, ...] = (text(self.fn.__name__), text(self.fn.__qualname__), code.digest)
        if ZONED & attributes:
            own = (*own, text(local_zone()))
        outside = read_outside(self.used, code, attributes)
        if self.fn.__name__ == "__hash__" or home_of(self.fn) == "dataclasses":  # hashes and addresses stay in there
            outside = [each for each in outside if not each.startswith(DIFFERS)]
        return _Part(
            hashed([*own, *self.says]), self.leads_to, frozenset(self.libraries), outside, self.whole, attributes
        )

    def _own(self) -> Iterator[_Place]:
        """What the function itself holds: defaults, the variables of enclosing functions, attributes."""
        fn, code = self.fn, self.fn.__code__
        if code is _SINGLE_DISPATCH:  # it keeps what it has found, too
            yield self._place("the implementations", dict(fn.registry))  # type: ignore[attr-defined]
            return
        defaults = fn.__defaults__ or ()
        named = zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True)
        for name, value in (*named, *sorted((fn.__kwdefaults__ or {}).items())):
            yield self._place(f"the default of {name!r}", value)
        for name, value in self._enclosing().items():
            if not isinstance(value, types.ModuleType):
                yield self._place(f"the closure value {name!r}", value)
        if fn.__dict__:
            yield self._place("the attributes", dict(fn.__dict__))

    def _place(self, what: str, value: Any) -> _Place:
        return _Place((id(self.fn), what), f"{what} of {short_name(self.fn)}", value)

    def _enclosing(self) -> dict[str, Any]:
        """The variables of enclosing functions that have a value yet."""
        found = {}
        for name, cell in zip(self.fn.__code__.co_freevars, self.fn.__closure__ or (), strict=True):
            try:
                found[name] = cell.cell_contents
            except ValueError:
                self._say(f"{name} has no value yet")
        return found

    def _look_up(self, read: Read) -> None:
        name, *attributes = read.names
        scope = self.fn.__globals__
        if read.scope == "import":
            module = self._imported(name, read.level)
            if module is not None:
                self._follow(module, attributes, read.is_import)
            elif not read.is_import:
                self.used.append((".".join(read.names),))
        elif read.scope == "free":
            value = self._enclosing().get(name)
            if isinstance(value, types.ModuleType):
                self._follow(value, attributes, False)
        elif name in scope:
            self._found(scope[name], str(scope.get("__name__")), name, scope, attributes)
        elif name in (known := cast(Any, self.fn).__builtins__):
            self._found(known[name], "builtins", name, known, attributes)
        else:
            self._say(f"{name} is missing")

    def _imported(self, name: str, level: int) -> types.ModuleType | None:
        """The module that the function imports; a library's only when it is loaded, since its version is enough."""
        package = self.fn.__globals__.get("__package__") or ""
        try:
            module = importlib.util.resolve_name("." * level + name, package) if level else name
            if self._is_local(module) or not self._note(module):
                return importlib.import_module(module)
        except ImportError:
            self._say(f"{name} is missing")
            return None
        except Exception as error:  # importing runs any code
            raise self._undigestible(f"imports {name}, which fails: {type(error).__name__}: {error}") from error
        return sys.modules.get(module)

    def _follow(self, module: types.ModuleType, attributes: Sequence[str], is_import: bool) -> None:
        """Goes from a module to what the code reads of it, through modules inside."""
        name = module.__name__
        is_local = self._is_local(name)
        if not is_local:
            self._note(name)
        if not attributes:
            self._say(f"the module {name}")
            if not is_import:
                self.used.append((name,))
                self.whole.add(name)
            if is_local and not is_import:
                raise self._undigestible(f"uses the module {name} as a whole, so what it reads of it cannot be seen")
            return
        attribute, *rest = attributes
        held = vars(module).get(attribute, sys.modules.get(f"{name}.{attribute}", _ABSENT))
        if held is _ABSENT and is_local and is_import:
            self._imported(f"{name}.{attribute}", 0)
            held = sys.modules.get(f"{name}.{attribute}", _ABSENT)
        if held is not _ABSENT:
            self._found(held, name, attribute, vars(module), rest, is_import)
        elif is_local and "__getattr__" in vars(module):
            raise self._undigestible(f"reads {name}.{attribute}, which the module makes up when asked")
        else:
            self._say(f"{name}.{attribute} is {'missing' if is_local else 'of the library'}")
            self.used.append((".".join((name, *attributes)),))

    def _found(
        self,
        value: Any,
        module: str,
        name: str,
        scope: Mapping[str, Any],
        attributes: Sequence[str],
        is_import: bool = False,
    ) -> None:
        """Follows the value bound to a name of a module."""
        if isinstance(value, types.ModuleType):
            self._follow(value, attributes, is_import)
            return
        if any(value is each for each in FAR_REACHING) or value is sys.modules:
            raise self._undigestible(f"uses {name}, which can reach anything")
        given = library_name(value, self._is_local) if isinstance(value, _NAMED) else None
        if given is not None:
            self._note(given[0])
            self._say(".".join(given))
            here = () if self._is_local(module) else (".".join((module, name, *attributes)),)
            self.used.append((*here, ".".join((*given, *attributes))))
            if isinstance(value, type):
                self.classes.append(value)
        elif isinstance(value, types.FunctionType | type):
            self._lead_to(_itself(value))
        elif not self._is_local(module) or self._is_reexported(value, name):
            self._note(module)
            self._say(f"{module}.{name} of the library")
            home = type(value).__module__ if self._is_local(module) else module
            self.used.append((".".join((home, name, *attributes)),))
        else:
            self._lead_to(_Place((id(scope), name), f"the constant {module}.{name}", value))

    def _is_reexported(self, value: Any, name: str) -> bool:
        """Whether a name is bound to what its library exports under that name (`from loguru import logger`)."""
        library = sys.modules.get(type(value).__module__.partition(".")[0])
        found = library is not None and not self._is_local(library.__name__) and vars(library).get(name) is value
        if found and library is not None:
            self._note(library.__name__)
        return found

    def _is_local(self, module: str) -> bool:
        return _is_local(self.package, module)

    def _note(self, module: str) -> bool:
        library = library_of(module)
        if library is not None:
            self.libraries.add(library)
        return library is not None

    def _say(self, what: str) -> None:
        self.says.append(text(what))

    def _lead_to(self, place: _Place) -> None:
        self.says.append(b"leads to")
        self.leads_to.append(place)

    def _undigestible(self, why: str) -> Undigestible:
        return Undigestible(label_of(self.fn), why)


_ABSENT: Final = object()
_SINGLE_DISPATCH: Final = vars(functools)["singledispatch"](len).__code__
_NAMED: Final = (types.FunctionType, types.BuiltinFunctionType, type)


def _itself(value: Any) -> _Place:
    return _Place(id(value), label_of(value), value, is_itself=True)


def _walker(package: str | None, files: Callable[[PathLike[str]], str]) -> Walker:
    is_local = functools.partial(_is_local, package)
    return Walker(ordered=True, files=files, is_local=is_local, identities=True)


def _is_local(package: str | None, module: str | None) -> bool:
    return module is None or library_of(module) is None or (package is not None and module.split(".")[0] == package)


def _part_of(encoding: bytes, walker: Walker) -> _Part:
    leads_to, libraries = [_itself(each) for each in walker.referred], frozenset(walker.libraries)
    outside = read_outside([(name,) for name in walker.named], attributes=walker.attributes)
    return _Part(encoding, leads_to, libraries, outside, walker.whole)


def _library_versions(libraries: Iterable[str]) -> dict[str, str]:
    found = {name: version for library in libraries for name, version in versions(library).items()}
    return {name if name == PYTHON else f"the library {name}": found[name] for name in sorted(found)}
