"""Whether a module is a library's, identified by its version, or local code, identified by its content."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PYTHON: Final = "Python"
"""The name under which the standard library is listed."""
DATA: Final = ("pandas", "numpy", "pyarrow", "bottleneck", "numexpr")
"""What computes on frames, also for functions that name none of it: their arguments do."""
_OWN: Final = __name__.partition(".")[0]


def library_of(module: str | None) -> str | None:
    """The top-level name of the library that a module is part of, `Python`, or `None` for local code."""
    if module is None:  # a function that was made by `exec`
        return None
    top = module.partition(".")[0]
    if top == _OWN:
        return _OWN
    return _library_at(top, _file_of(module, top))


def versions(library: str) -> Mapping[str, str]:
    """A library and those that it needs, each with its version; what is not installed is left out."""
    if library == PYTHON:
        return {PYTHON: f"{platform.python_implementation()} {platform.python_version()}"}
    return _versions(library)


def _file_of(module: str, top: str) -> str | None:
    """Where a module was loaded from or, when it is not loaded, its top level would be."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        held = vars(loaded)  # and nothing that the module makes up when asked
        folder = next(iter(held.get("__path__") or ()), None)  # all that a namespace package has
        return held.get("__file__") or folder or _origin(held.get("__spec__"))
    try:
        return _origin(importlib.util.find_spec(top))
    except (ImportError, ValueError):  # it is half loaded, or there is no such module: nobody's code
        return None


def _origin(spec: importlib.machinery.ModuleSpec | None) -> str | None:
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


@functools.lru_cache(maxsize=4096)
def _library_at(top: str, file: str | None) -> str | None:
    if file in ("built-in", "frozen"):
        return PYTHON
    if file is None:
        return None
    path = Path(os.path.realpath(file))
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return top if _distributions(top) else None
    if any(path.is_relative_to(folder) for folder in _standard()):
        return PYTHON
    return top if any(_was_installed_at(each, path) for each in _distributions(top)) else None


@functools.cache
def _standard() -> tuple[str, ...]:
    return tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})


def _was_installed_at(distribution: importlib.metadata.Distribution, path: Path) -> bool:
    """Not so for what is installed in place (editable), whose files may change under one version."""
    root = os.path.realpath(str(distribution.locate_file("")))
    return distribution.read_text("RECORD") is not None and path.is_relative_to(root)


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _distributions(top: str) -> tuple[importlib.metadata.Distribution, ...]:
    return tuple(importlib.metadata.distribution(name) for name in sorted(set(_providers().get(top, ()))))


@functools.cache
def _versions(library: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    waiting: list[Any] = list(_distributions(library))
    while waiting:
        distribution = waiting.pop()
        name = _normal(distribution.metadata["Name"])
        if name not in found:
            found[name] = distribution.version
            waiting += _required_by(distribution)
    return found


def _required_by(distribution: importlib.metadata.Distribution) -> Iterator[importlib.metadata.Distribution]:
    """The libraries that it cannot do without, those that are installed."""
    for requirement in distribution.requires or ():
        name, _, marker = requirement.partition(";")
        if "extra" not in marker and (match := re.match(r"[\w.-]+", name)):
            try:
                yield importlib.metadata.distribution(match[0])
            except importlib.metadata.PackageNotFoundError:
                continue  # for another platform or Python


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
