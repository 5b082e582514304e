"""What a closer look at configured steps finds: queries that do not parse, files that two steps write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from odibi_async.engines import asked_engine
from odibi_async.errors import GraphFault
from odibi_async.steps import Step


def looked_at_closely(steps: Iterable[Step[..., Any, Any]], engine: str | None = None) -> Iterator[GraphFault]:
    """
    The faults of configured steps that only running them would show otherwise. Loads DuckDB.

    Args:
        steps: The steps.
        engine: That of the run, for steps that name none. Queries on Spark are not parsed: that takes a session.
    """
    from odibi_async.engines.queries import syntax_fault

    writers: dict[str, str] = {}
    for step in steps:
        if not isinstance(step.value, str) or not step.is_configured:
            continue
        if (
            step.type == "sql"
            and step.layer == "transform"
            and (asked_engine(step.engine) or engine or "pandas") == "pandas"
            and step.value.strip()
        ):
            wrong = syntax_fault(step.value)
            if wrong:
                yield GraphFault(
                    "OA120", f"Step {step.name!r}: its query does not parse: {wrong}", step.name, ("value",)
                )
        if step.layer in ("store", "publish") and step.type == "config_op" and _is_one_file(step):
            other = writers.setdefault(os.path.normpath(step.value), step.name)
            if other != step.name:
                message = f"Step {step.name!r} writes the file that step {other!r} writes too: {step.value!r}."
                yield GraphFault("OA121", message, step.name, ("value",))


def _is_one_file(step: Step[..., Any, Any]) -> bool:
    """Whether it writes a file, and all of it."""
    in_database = {"connection", "table"} & step.params.keys() or "://" in str(step.value)
    return not in_database and step.params.get("mode") not in ("append", "ignore")
