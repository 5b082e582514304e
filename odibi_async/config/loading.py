"""
Steps from the files people have: JSON, YAML, TOML, CSV and SQLite.

Reading (`formats`) gives plain values with places; models (`model`) say what may stand where; what they find wrong is
told all together, each fault with its place and with what would be right (`reader`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odibi_async.config import model as models
from odibi_async.config.document import Document
from odibi_async.config.formats.source import Source, check_file, text_of
from odibi_async.config.reader import Reader
from odibi_async.errors import ConfigError, Fault, did_you_mean
from odibi_async.steps import Step

Rows = Iterable[Mapping[str, Any]]


class ConfigLoader:
    """The door that ODIBI CORE had: `ConfigLoader().load("pipeline.db", project="sales")`."""

    def load(
        self,
        uri: str | os.PathLike[str],
        project: str | None = None,
        enabled_only: bool = True,
        layer: str | None = None,
    ) -> list[Step[..., Any, Any]]:
        """The steps of a file; the arguments are those of `load_steps`."""
        return load_steps(uri, project=project, enabled_only=enabled_only, layer=layer)


def load_steps(
    source: str | os.PathLike[str] | Mapping[str, Any] | Rows,
    *,
    project: str | None = None,
    enabled_only: bool = True,
    layer: str | None = None,
) -> list[Step[..., Any, Any]]:
    """
    The steps of a configuration, checked; `load_document` gives what else it says.

    `value` stays the text of the file: a SQL text, a path, the name of a function.

    Args:
        source: A file (.json, .yaml, .yml, .toml, .csv, .db, .sqlite), or what such a file holds: a list of
            mappings, or a mapping with `steps`.
        project: Only the steps of this project.
        enabled_only: Whether steps that are not enabled are left out.
        layer: Only the steps of this layer.

    Raises:
        ConfigError: With every fault that there is.
    """
    return list(load_document(source, project=project, enabled_only=enabled_only, layer=layer).steps)


def load_document(
    source: str | os.PathLike[str] | Mapping[str, Any] | Rows,
    *,
    project: str | None = None,
    enabled_only: bool = True,
    layer: str | None = None,
) -> Document:
    """All that a configuration says; the arguments are those of `load_steps`."""
    document, faults = examine(source, project=project, enabled_only=enabled_only, layer=layer)
    if faults:
        raise ConfigError(faults)
    return document


def examine(
    source: str | os.PathLike[str] | Mapping[str, Any] | Rows,
    *,
    project: str | None = None,
    enabled_only: bool = True,
    layer: str | None = None,
) -> tuple[Document, list[Fault]]:
    """
    A configuration without its faulty entries, and what is wrong with them; the arguments are those of `load_steps`.

    Raises:
        ConfigError: It cannot be read at all.
    """
    reader = Reader(*_source_of(source))
    document = reader.document(project, enabled_only, layer)
    return document, list(dict.fromkeys(reader.faults))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, for editors that complete and check while one types."""
    return models.json_schema()


SUFFIXES = (".json", ".yaml", ".yml", ".toml", ".csv", ".db", ".sqlite")


def _source_of(source: Any) -> tuple[Source, Path]:
    """
    The content of a source, and the folder that its paths are relative to.

    Raises:
        ConfigError: It cannot be read at all.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _read(path), path.parent
    value = dict(source) if isinstance(source, Mapping) else list(source)
    return Source("<rows>", value), Path()


def _read(path: Path) -> Source:
    """Reads a file; each format, and the library behind it, is loaded when a file asks for it."""
    name = str(path)
    match path.suffix.lower():
        case ".json":
            from odibi_async.config.formats import json

            return json.read(text_of(path), name)
        case ".yaml" | ".yml":
            from odibi_async.config.formats import yaml

            return yaml.read(text_of(path), name)
        case ".toml":
            from odibi_async.config.formats import toml

            return toml.read(text_of(path), name)
        case ".csv":
            from odibi_async.config.formats import tables

            return tables.read_csv(text_of(path), name)
        case ".db" | ".sqlite":
            from odibi_async.config.formats import tables

            return tables.read_sqlite(path, name)
        case suffix:
            check_file(path)
            hint = did_you_mean(suffix, SUFFIXES) or f" Known: {', '.join(SUFFIXES)}."
            raise ConfigError([Fault(name, "", f"the suffix {suffix!r} is not a known format.{hint}", "OA109")])
