"""Configured pipelines: files and rows that say in words what to do. What reads them is loaded when it is asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odibi_async.config.checks import looked_at_closely
    from odibi_async.config.document import Document
    from odibi_async.config.loading import ConfigLoader, examine, json_schema, load_document, load_steps

__all__ = ["ConfigLoader", "Document", "examine", "json_schema", "load_document", "load_steps", "looked_at_closely"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from odibi_async.config import checks, loading

    return getattr(checks if name == "looked_at_closely" else loading, name)
