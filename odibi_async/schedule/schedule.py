"""What is to run when: the declaration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from odibi_async.building import Functions, Nodes
from odibi_async.durations import seconds_of
from odibi_async.errors import GraphError, OptionError, did_you_mean
from odibi_async.pipeline import Pipeline
from odibi_async.runner.options import RunOptions, Steps
from odibi_async.schedule.due import MISSED, Missed
from odibi_async.schedule.firing import Firing
from odibi_async.schedule.triggers import Trigger

Overlap: TypeAlias = Literal["skip", "queue", "allow"]
OVERLAP: Final = ("skip", "queue", "allow")
Inputs: TypeAlias = "Mapping[str, Any] | Callable[[Firing], Mapping[str, Any]]"
GIVEN: Final = ("scheduled_at", "payload")
"""What a pipeline is given of its firing, if it reads datasets of these names."""
LEAST_GRACE: Final = 1.0
"""Seconds by which any firing may be late: a loop is busy now and then."""
LONGEST: Final = 1e10
OURS: Final = ("run_id", "resume", "journal")
"""Options of a run that the server itself chooses."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """
    A pipeline and when it runs.

    Attributes:
        pipeline: A `Pipeline`, steps, or the path of a configuration file.
        trigger: When it runs.
        inputs: Dataset -> value for its runs, or what makes that of a `Firing`. A pipeline that reads `scheduled_at` or
            `payload` is given them anyway.
        overlap: What happens when it fires while a run is going: `"skip"` that time (files and all that have come
            with them wait), `"queue"` it, or `"allow"` both. Times that `missed="all"` makes up for queue anyway.
        missed: Which times are made up for that went by while no server was there: `"skip"`, `"latest"` or `"all"`.
        within: Seconds after which a missed time is never made up for.
        grace: Seconds, at least 1, by which a firing may be late without being missed.
        attempts: In how many processes a run is begun that takes its process down with it.
        options: As for `run_pipeline`: `timeout`, `retry`, `cache`, `targets`, `functions`, ...
    """

    pipeline: Steps
    trigger: Trigger
    inputs: Inputs = field(default_factory=dict)
    overlap: Overlap = "skip"
    missed: Missed = "skip"
    within: float = 86_400.0
    grace: float = 60.0
    attempts: int = 3
    options: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.trigger, Trigger):
            raise OptionError(f"trigger={self.trigger!r}: a trigger is needed, such as Cron('30 2 * * *').")
        for name, value, known in (("overlap", self.overlap, OVERLAP), ("missed", self.missed, MISSED)):
            if value not in known:
                raise OptionError(f"{name}={value!r} is none of {', '.join(known)}.{did_you_mean(str(value), known)}")
        for name, least in (("within", 0.0), ("grace", LEAST_GRACE)):
            seconds = seconds_of(name, getattr(self, name))
            if seconds is None or not least <= seconds <= LONGEST:
                raise OptionError(f"{name}={seconds!r}: seconds from {least:g} to {LONGEST:g} are needed.")
            object.__setattr__(self, name, float(seconds))
        if type(self.attempts) is not int or self.attempts < 1:
            raise OptionError(f"attempts={self.attempts!r}: a whole number from 1 on is needed.")
        if not (isinstance(self.inputs, Mapping) or callable(self.inputs)):
            raise OptionError(f"inputs={self.inputs!r}: a mapping is needed, or a function that makes one of a Firing.")
        known_options = [name for name in RunOptions.__annotations__ if name not in OURS]
        for name in self.options:
            if name not in known_options:
                raise OptionError(f"options: {name!r} is unknown here.{did_you_mean(name, known_options)}")

    @property
    def limits(self) -> tuple[timedelta, timedelta]:
        """How long a missed time counts, and how late a firing may be."""
        return timedelta(seconds=self.within), timedelta(seconds=self.grace)


def as_schedule(name: str, given: Any) -> Schedule | Path:
    """
    A schedule as it was given: itself, a pipeline and a trigger, or the configuration file that says both.

    Raises:
        OptionError: It is neither.
    """
    if isinstance(given, Schedule):
        return given
    if isinstance(given, str | os.PathLike):
        return Path(given)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Trigger):
        return Schedule(pipeline=given[0], trigger=given[1])
    raise OptionError(
        f"Schedule {name!r} is {given!r}: (pipeline, trigger) is needed, a Schedule(...), or the path of a "
        "configuration that has a schedule."
    )


def checked(schedules: Any) -> dict[str, Schedule | Path]:
    """
    Raises:
        OptionError: They are not schedules by name.
    """
    if not isinstance(schedules, Mapping):
        raise OptionError(f"schedules={schedules!r}: a mapping from names to (pipeline, trigger) is needed.")
    for name in schedules:
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise OptionError(f"The name of a schedule is a text that can be printed and is not empty, not {name!r}.")
    return {name: as_schedule(name, given) for name, given in schedules.items()}


def with_given(
    steps: Iterable[Any],
    given: Iterable[str] = (),
    functions: Functions | None = None,
    nodes: Nodes | None = None,
    name: str = "",
) -> Pipeline:
    """
    The pipeline of some steps, which may read what a firing gives.

    Raises:
        GraphError: The steps do not make a pipeline.
    """
    steps, names = list(steps), list(dict.fromkeys((*given, *GIVEN)))
    try:
        return Pipeline(steps, names, functions=functions, nodes=nodes, name=name)
    except GraphError as error:
        unread = [n for n in GIVEN if any(f.message.startswith(f"Input {n!r} is given") for f in error.faults)]
    names = [n for n in names if n not in unread or n in given]
    return Pipeline(steps, names, functions=functions, nodes=nodes, name=name)
