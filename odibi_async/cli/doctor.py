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
from odibi_async.engines.spark.session import java
from odibi_async.limits import default_threads, usable_cpus

LIBRARIES = ("duckdb", "pandas", "pyarrow", "pydantic", "PyYAML", "anyio", "tenacity", "cyclopts")


def findings() -> dict[str, Any]:
    """What was found, by what was looked for; `None` for what is not there."""
    return {
        "odibi_async": version_of("odibi_async"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "usable_cpus": usable_cpus(),
        "threads": default_threads(),
        "libraries": {name: version_of(name) for name in LIBRARIES},
        "spark": {"pyspark": version_of("pyspark"), "java": java(), "session": "one is started by a run that needs it"},
        "extras": _extras(),
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


def version_of(library: str) -> str | None:
    """The version of what is installed under this name."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, bool]:
    """Each extra, and whether all that it brings is installed."""
    try:
        requirements = metadata.requires("odibi_async") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return {}
    found: dict[str, bool] = {}
    for requirement in requirements:
        if needed := _of_an_extra(requirement):
            library, extra = needed.groups()
            found[extra] = found.get(extra, True) and version_of(library) is not None
    return dict(sorted(found.items()))


_of_an_extra = re.compile(r"""([\w.-]+).*extra == ["']([^"']+)["']""").match


def _configuration() -> str | None:
    try:
        return str(configuration(None))
    except Refused as error:
        [problem] = error.problems
        return None if problem.code == "OA402" else f"{problem.file}: {problem.message}"
