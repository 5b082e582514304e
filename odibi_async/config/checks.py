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

    writers: dict[tuple[str, ...], str] = {}
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
        if step.layer in ("store", "publish") and step.type == "config_op":
            target = _target(step)
            other = writers.setdefault(target, step.name) if target else step.name
            if other != step.name:
                what = f"{step.value!r}, table {step.params['table']!r}" if "table" in step.params else repr(step.value)
                message = f"Step {step.name!r} writes what step {other!r} writes too: {what}."
                yield GraphFault("OA121", message, step.name, ("value",))


def _target(step: Step[..., Any, Any]) -> tuple[str, ...]:
    """The file or table all of which a step writes; empty where it adds to one, or it cannot be told."""
    beside = [step.params.get(name, "") for name in ("connection", "table")]
    if step.params.get("mode") in ("append", "ignore") or not all(isinstance(each, str) for each in beside):
        return ()
    value = str(step.value)
    return (value if "://" in value else os.path.normpath(value), *beside)
