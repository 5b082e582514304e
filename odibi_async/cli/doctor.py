"""What is there to run pipelines with."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from typing import Any

from odibi_async.cli.answer import Refused
from odibi_async.cli.lookup import VARIABLE, configuration
from odibi_async.limits import default_threads, usable_cpus

LIBRARIES = ("duckdb", "pandas", "pyarrow", "pydantic", "PyYAML", "anyio", "tenacity", "cyclopts")


def findings() -> dict[str, Any]:
    """What was found, by what was looked for; `None` for what is not there."""
    return {
        "odibi_async": _version("odibi_async"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "usable_cpus": usable_cpus(),
        "threads": default_threads(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "extras": {extra: _is_there(extra) for extra in _extras()},
        "configuration": _configuration(),
        VARIABLE: os.environ.get(VARIABLE),
        "directory": os.getcwd(),
        "encoding": sys.stdout.encoding if sys.stdout else None,
    }


def as_text(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        match value:
            case dict():
                rows += [(f"{name}:", "")] if value else []
                rows += [(f"  {inner}", _shown(each)) for inner, each in value.items()]
            case _:
                rows.append((name, _shown(value)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in rows)


def _shown(value: Any) -> str:
    return {True: "installed", False: "not installed", None: "none"}.get(value) or str(value)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    try:
        return metadata.requires("odibi_async") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return []


def _extras() -> list[str]:
    """The extras that bring a library."""
    return sorted({found[1] for each in _requirements() if (found := _extra_of(each)) and "odibi_async[" not in each})


def _extra_of(requirement: str) -> re.Match[str] | None:
    return re.search(r"""extra == ["']([^"']+)["']""", requirement)


def _is_there(extra: str) -> bool:
    """Whether all that an extra brings is installed."""
    names = [re.split(r"[^\w.-]", each)[0] for each in _requirements() if (m := _extra_of(each)) and m[1] == extra]
    return all(_version(name) is not None for name in names if name != "odibi_async")


def _configuration() -> str | None:
    try:
        return str(configuration(None))
    except Refused:
        return None
