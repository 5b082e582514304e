"""Engines: what a dataset is, and how it is read, written and queried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, overload

from odibi_async.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from odibi_async.engines.pandas import PandasEngine
    from odibi_async.engines.spark.engine import SparkEngine

ENGINES: Final = ("pandas", "spark")
"""The names of the engines."""


class LeftToRun(str):
    """The engine of a configured step that names none: as it reads, unless the run names another."""

    __slots__ = ()


DEFAULT: Final = LeftToRun("pandas")


def asked_engine(engine: str | None) -> str | None:
    """The engine that a step asks for; `None` where it leaves it to the run."""
    return None if isinstance(engine, LeftToRun) else engine


@overload
def create_engine_context(engine: Literal["pandas"] = "pandas", **options: Any) -> PandasEngine: ...
@overload
def create_engine_context(engine: Literal["spark"], **options: Any) -> SparkEngine: ...
@overload
def create_engine_context(engine: str, **options: Any) -> PandasEngine | SparkEngine: ...
def create_engine_context(engine: str = "pandas", **options: Any) -> PandasEngine | SparkEngine:
    """
    The engine of that name, made with `options`; see `PandasEngine` and `SparkEngine` for what they are.

    Raises:
        OptionError: There is no such engine.
        EngineError: Spark does not start.
        ExtraMissing: The engine's library is not installed.
    """
    if engine == "spark":
        from odibi_async.engines.spark.engine import SparkEngine  # loads pyarrow, and pyspark when it is made

        return SparkEngine(**options)
    if engine != "pandas":
        raise OptionError(f"There is no engine {engine!r}.{did_you_mean(engine, ENGINES)}")
    from odibi_async.engines.pandas import PandasEngine  # loads pandas

    return PandasEngine(**options)
