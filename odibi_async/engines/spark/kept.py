"""Spark frames as files that a cache keeps: Parquet with the schema beside it, read back lazily."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from odibi_async.engines.spark.failures import first_lines
from odibi_async.errors import CrossingError

_SORTED: Final = re.compile(r"Sort \[.*?\], true|TakeOrderedAndProject")


def saved(frame: Any, folder: Path) -> bytes:
    """
    Writes a frame as Parquet files into a folder that does not exist yet; what `restored` needs besides.

    A frame that is sorted as a whole becomes one file, so that its order stays.

    Raises:
        CrossingError: Parquet could not carry it as it is.
    """
    schema = frame.schema
    if _SORTED.search(_plan_of(frame)):
        frame = frame.coalesce(1)
    try:
        frame.write.option("compression", "zstd").parquet(f"file://{folder}")
    except Exception as error:
        if "AnalysisException" in {base.__name__ for base in type(error).__mro__}:
            raise CrossingError("it", "Parquet", first_lines(error)) from error
        raise
    return json.dumps(schema.jsonValue(), sort_keys=True).encode()


def _plan_of(frame: Any) -> str:
    return (
        str(frame._explain_string(extended=False))
        if hasattr(frame, "_explain_string")
        else str(frame.sparkSession._jvm.PythonSQLUtils.explainString(frame._jdf.queryExecution(), "simple"))
    )


def restored(session: Any, places: Sequence[str], about: bytes) -> Any:
    """The lazy frame of the files at these places."""
    from pyspark.sql.types import StructType

    schema = StructType.fromJson(json.loads(about))
    if not places:
        return session.createDataFrame([], schema)
    return session.read.schema(schema).parquet(*places)


def different(schema: Any, kept: Any) -> str:
    """What is not the same in the schema of a frame and in that of its files, NULL being allowed or not apart."""
    if kept is None:
        return ""
    for asked, found in zip(schema, kept, strict=True):
        if asked.name != found.name or _kind(asked) != _kind(found):
            return f"its column {asked.name!r} is {_kind(asked)}, in Parquet it is {_kind(found)}."
    return ""


def _kind(field: Any) -> str:
    return str(field.dataType.simpleString())
