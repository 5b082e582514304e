"""What a schedule runs: its pipeline, checked before anything fires."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from odibi_async.errors import NotScheduled
from odibi_async.pipeline import Pipeline
from odibi_async.runner.options import RunOptions
from odibi_async.schedule.configured import schedule_of
from odibi_async.schedule.schedule import Schedule, with_given


class Planned(NamedTuple):
    """
    A schedule and what it runs.

    Attributes:
        schedule: The schedule.
        pipeline: Its pipeline.
        options: How it is run.
    """

    schedule: Schedule
    pipeline: Pipeline
    options: RunOptions


def is_read(given: Schedule | Path) -> bool:
    """Whether a file has to be read to know what runs."""
    return isinstance(given, Path) or isinstance(given.pipeline, str | os.PathLike)


def planned(name: str, given: Schedule | Path) -> Planned:
    """
    A schedule and what it runs. Blocks where `is_read` says so.

    Raises:
        ConfigError: The configuration cannot be read, or says what cannot be.
        NotScheduled: It does not say when it is to run.
        GraphError: The steps do not make a pipeline.
    """
    pipeline: Any = given if isinstance(given, Path) else given.pipeline
    if isinstance(given, Schedule) and isinstance(pipeline, Pipeline):
        return Planned(given, pipeline, given.options)
    options = RunOptions() if isinstance(given, Path) else given.options.copy()
    inputs = {} if isinstance(given, Path) else given.inputs
    known = list(inputs) if isinstance(inputs, Mapping) else []
    functions, nodes = options.pop("functions", None), options.pop("nodes", None)
    if not isinstance(pipeline, str | os.PathLike):
        assert isinstance(given, Schedule)
        return Planned(given, with_given(pipeline, known, functions, nodes, name), options)
    from odibi_async.config import load_document  # loads pydantic

    document = load_document(pipeline)
    if isinstance(given, Path):
        if document.schedule is None:
            raise NotScheduled(str(given))
        given = schedule_of(document.schedule, pipeline)
    if document.cache is not None:
        options.setdefault("cache", document.cache)
    made = with_given(document.steps, known, functions, nodes, os.path.basename(pipeline))
    made.source = os.path.abspath(pipeline)
    return Planned(given, made, options)
