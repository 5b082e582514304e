"""Which configuration is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from odibi_async.cli.answer import Problem, Refused
from odibi_async.config.formats.source import text_of
from odibi_async.errors import ConfigError, did_you_mean

VARIABLE = "ODIBI_ASYNC_CONFIG"
NAMES = ("odibi.yaml", "odibi.yml", "odibi.toml", "odibi.json")


def configuration(given: str | None) -> Path:
    """
    The path of the configuration that is given, else of the one that is found.

    Raises:
        Refused: There is none, or pyproject.toml does not say which.
    """
    if given is not None:
        return Path(given)
    if named := os.environ.get(VARIABLE):
        return _there(named, VARIABLE)
    for folder in folders():
        for name in NAMES:
            if (folder / name).is_file():
                return Path(name) if folder == Path.cwd() else folder / name
        if (folder / "pyproject.toml").is_file() and (named := _named_in(folder / "pyproject.toml")):
            return _there(folder / named, str(folder / "pyproject.toml"))
    names = f"{', '.join(NAMES)} or [tool.odibi_async] in pyproject.toml"
    where = " or the folders above it, up to the repository's" if len(list(folders())) > 1 else ""
    message = f"there is no configuration: no {names} in the current directory{where}, and {VARIABLE} is not set."
    raise Refused(Problem(code="OA402", message=message))


def _there(named: str | Path, by: str) -> Path:
    """
    Raises:
        Refused: There is nothing of this name, which was not typed but is named elsewhere.
    """
    if not Path(named).exists():
        message = f"there is no such file, which {by} names as the configuration."
        raise Refused(Problem(code="OA401", message=message, file=str(named)))
    return Path(named)


def folders() -> Iterator[Path]:
    """The current directory, and those above it up to the root of the repository that it is in."""
    here = Path.cwd()
    above = [here, *here.parents]
    root = next((folder for folder in above if (folder / ".git").exists()), here)
    yield from above[: above.index(root) + 1]


def _named_in(project: Path) -> str | None:
    """The path that `[tool.odibi_async]` names, if there is such a table."""
    import tomllib

    try:
        table = tomllib.loads(text_of(project)).get("tool", {}).get("odibi_async")
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise Refused(Problem(code="OA101", message=f"{error}", file=str(project))) from None
    if table is None:
        return None
    named = table.get("config") if isinstance(table, dict) else None
    if isinstance(named, str) and len(table) == 1:
        return named
    others = [key for key in table if key != "config"] if isinstance(table, dict) else []
    hint = "".join(f" {key!r} is unknown.{did_you_mean(key, ['config'])}" for key in others)
    message = f'[tool.odibi_async] needs config = "path" and knows nothing else.{hint}'
    raise Refused(Problem(code="OA119", message=message, file=str(project)))
