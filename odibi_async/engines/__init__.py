"""Engines: what a dataset is, and how it is read, written and queried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from odibi_async.errors import OdibiError, OptionError, did_you_mean

if TYPE_CHECKING:
    from odibi_async.engines.pandas import PandasEngine

ENGINES: Final = ("pandas", "spark")
"""The names of the engines."""


def create_engine_context(engine: str = "pandas", **options: Any) -> PandasEngine:
    """
    The engine of that name, made with `options`; see `PandasEngine` for what they are.

    Raises:
        OptionError: There is no such engine.
        OdibiError: The engine is Spark, which is not there yet.
    """
    if engine == "spark":
        raise OdibiError("The Spark engine is not there yet: use 'pandas'.")
    if engine != "pandas":
        raise OptionError(f"There is no engine {engine!r}.{did_you_mean(engine, ENGINES)}")
    from odibi_async.engines.pandas import PandasEngine  # loads pandas

    return PandasEngine(**options)
