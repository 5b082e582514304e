"""
What a code object is and which names it reads, as far as the code alone tells.

The code is what runs: source may be stale or missing. What does not change what runs is left out: file names, line
numbers, comments, docstrings that nothing loads.
"""

from __future__ import annotations

import dis
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, Literal

from odibi_async.fingerprint.encoding import LEAVES, Undigestible, hashed, header, sealed, text, type_name

NAMES: Final = re.compile("(LOAD|STORE)_(?:FAST|DEREF|CLASSDEREF|NAME|GLOBAL|FROM_DICT)")
"""What the names of instructions say of variables; from Python 3.13 on, one instruction may load two."""
ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")
GLOBALS: Final = re.compile("LOAD_(?:GLOBAL|NAME|FROM_DICT_OR_GLOBALS)")


@dataclass(frozen=True, slots=True)
class Read:
    """
    One name that code reads, with the attributes it takes of it.

    Attributes:
        scope: `global`, also for builtins; `free` for a variable of an enclosing function; `import` for what
            the code itself imports.
        names: The name (for an import the module) and the attributes, in order.
        level: How many packages up a relative import starts; 0 for others.
        is_import: It is only imported here; what of it is used is read elsewhere.
    """

    scope: Literal["global", "free", "import"]
    names: tuple[str, ...]
    level: int = 0
    is_import: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """
    A code object as read.

    Attributes:
        digest: Of what it does.
        reads: The names it reads, code nested in it included; each once, in the order of the code.
        attributes: The names of all attributes that it takes, of whatever.
        methods: Those of them that it calls.
        given: Those of them that it does not only call without positional arguments.
        texts: The string constants in it, names of arguments included.
    """

    digest: bytes
    reads: tuple[Read, ...]
    attributes: frozenset[str]
    methods: frozenset[str]
    given: frozenset[str]
    texts: frozenset[str]


def reading(code: CodeType) -> Reading:
    """What a code object does and reads; remembered, since it never changes."""
    return _reading(code, code.co_flags, code.co_qualname)  # code objects may be equal that differ in these


@functools.lru_cache(maxsize=16_384)
def _reading(code: CodeType, _flags: int, _name: str) -> Reading:
    listings = [(each, _instructions(each)) for each in _nested(code)]
    bound = [found for _, listing in listings for found in _imports(listing)]
    imported: dict[str, list[Read]] = {}
    for variable, read in bound:
        imported.setdefault(variable, []).append(read)
    reads = [read for _, read in bound]
    for each, listing in listings:
        reads += _loads(each, listing, imported, code.co_freevars)
    taken = [
        (code, listing, place)
        for code, listing in listings
        for place, each in enumerate(listing)
        if each.opname in ATTRIBUTES
    ]
    attributes = frozenset(listing[place].argval for _, listing, place in taken)
    methods = frozenset(listing[place].argval for _, listing, place in taken if _is_called(listing[place]))
    given = frozenset(listing[place].argval for code, listing, place in taken if _is_given(code, listing, place))
    texts = frozenset(each for code, _ in listings for const in _consts(code) for each in _texts_in(const))
    return Reading(_digest(code), tuple(dict.fromkeys(reads)), attributes, methods, given, texts)


def _is_called(instruction: dis.Instruction) -> bool:
    """Whether an attribute is taken to be called; from Python 3.12 on, one instruction does both."""
    return instruction.opname == "LOAD_METHOD" or "NULL|self" in instruction.argrepr


def _is_given(code: CodeType, listing: list[dis.Instruction], place: int) -> bool:
    """Whether an attribute is called with positional arguments, or used in a way that does not show."""
    if not _is_called(listing[place]):
        return True
    depth, keywords = 0, 0  # of the stack above the method
    for before, each in itertools.pairwise(itertools.islice(listing, place, None)):
        arguments = each.arg or 0
        if each.opname in ("PRECALL", "CALL") and depth == arguments:  # the former comes first in Python 3.11
            return arguments > keywords
        if each.opname == "CALL_KW" and depth == arguments + 1:
            return arguments > len(before.argval)
        if each.opname == "KW_NAMES":
            keywords = len(code.co_consts[arguments])
        elif each.opname == "CALL":
            keywords = 0
        depth += dis.stack_effect(each.opcode, each.arg, jump=False)
    return True


def _texts_in(const: Any) -> Iterator[str]:
    if isinstance(const, str):
        yield const
    elif isinstance(const, tuple | frozenset):
        for each in const:
            yield from _texts_in(each)


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if each.opname not in ("CACHE", "EXTENDED_ARG")]


def _nested(code: CodeType) -> Iterator[CodeType]:
    """The code and all that is defined inside it."""
    waiting = [code]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]


def _digest(code: CodeType) -> bytes:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, (code.co_name, code.co_qualname)
    consts = [_const(each) for each in _consts(code)]
    parts = [code.co_code, code.co_exceptiontable, *map(_const, counts), *map(_const, names), *consts]
    return hashed(_const(len(consts)) + LEAVES[bytes](part) for part in parts)


def _consts(code: CodeType) -> tuple[Any, ...]:
    """Its constants, without a docstring that nothing else uses."""
    consts = code.co_consts
    if not consts or type(consts[0]) is not str:
        return consts
    used = {each.arg for each in dis.get_instructions(code) if each.opcode in dis.hasconst}
    return consts if 0 in used else (..., *consts[1:])


def _const(const: Any) -> bytes:
    """The encoding of a constant; sets are sorted, since their order differs between processes."""
    cls = type(const)
    if cls in LEAVES:
        return LEAVES[cls](const)
    if cls is CodeType:
        return sealed(header(cls), _digest(const))
    if cls is slice:
        const = (const.start, const.stop, const.step)
    elif cls not in (tuple, frozenset):
        raise Undigestible("", f"has a constant of the type {type_name(cls)}, which no code is known to have")
    parts = map(_const, const)
    return sealed(header(cls), hashed([text(str(len(const))), *(sorted(parts) if cls is frozenset else parts)]))


def _imports(listing: list[dis.Instruction]) -> Iterator[tuple[str, Read]]:
    """What code imports: the variable that each is bound to (empty for the module as a whole), and what it is."""
    for place, instruction in enumerate(listing):
        if instruction.opname == "IMPORT_NAME":
            module, level, names = instruction.argval, listing[place - 2].argval or 0, listing[place - 1].argval
            yield "", Read("import", (module,), level, is_import=True)
            yield from _bound(listing[place + 1 :], module, level, bool(names))


def _bound(following: Iterable[dis.Instruction], module: str, level: int, is_from: bool) -> Iterator[tuple[str, Read]]:
    """The variables that an import binds: `from m import a, b as c`, `import m.n as x`, `import m.n`."""
    whole: tuple[str, ...] = (module,) if is_from else (module.partition(".")[0],)
    names = whole
    for instruction in following:
        variables = _variables(instruction)
        if instruction.opname == "IMPORT_FROM":
            names = (whole if is_from else names) + (instruction.argval,)
        elif variables and variables[0][0] == "STORE":
            yield variables[0][1], Read("import", names, level, is_import=True)
            if instruction.opname == "STORE_NAME":  # in the body of a class, whose attribute anybody may read
                yield "", Read("import", names, level)
            if not is_from:
                return
        elif is_from or instruction.opname not in ("SWAP", "POP_TOP"):
            return


def _loads(
    code: CodeType, listing: list[dis.Instruction], imported: Mapping[str, list[Read]], free: Sequence[str]
) -> Iterator[Read]:
    """The globals, variables of enclosing functions and imported names that one code object loads."""
    for place, instruction in enumerate(listing):
        for verb, name in _variables(instruction):
            if verb == "STORE" or (_is_fast(instruction) and name in code.co_cellvars + code.co_freevars):
                continue  # a cell that goes on to a nested function, which is read itself
            attributes = _attributes(listing, place + 1)
            if GLOBALS.match(instruction.opname):
                yield Read("global", (name, *attributes))
            for read in imported.get(name, ()):
                yield Read("import", read.names + attributes, read.level)
            if name in free and name in code.co_freevars:
                yield Read("free", (name, *attributes))


def _is_fast(instruction: dis.Instruction) -> bool:
    return "FAST" in instruction.opname


def _variables(instruction: dis.Instruction) -> list[tuple[str, str]]:
    """The variables that an instruction loads or stores, as (verb, name)."""
    names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
    return list(zip(NAMES.findall(instruction.opname), names, strict=False))


def _attributes(listing: list[dis.Instruction], place: int) -> tuple[str, ...]:
    """The attributes that are taken, one of the other, of what was loaded just before."""
    following = itertools.takewhile(lambda each: each.opname in ATTRIBUTES, listing[place:])
    return tuple(each.argval for each in following)
