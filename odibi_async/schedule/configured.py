"""From what a configuration says of its schedule to a schedule."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any, Final

from odibi_async.runner.options import RunOptions, Steps
from odibi_async.schedule.files import OnFiles
from odibi_async.schedule.schedule import Inputs, Schedule
from odibi_async.schedule.triggers import Cron, Every, OnEvent, Trigger

OPTIONS: Final = ("overlap", "missed", "within", "grace", "attempts")


def trigger_of(written: str | Mapping[str, Any]) -> Trigger:
    """The trigger of what stands behind `schedule`, which was checked when it was read."""
    said: Mapping[str, Any] = {"cron": written} if isinstance(written, str) else written
    tz = said.get("tz", "UTC")
    triggers: list[Trigger] = [Cron(expression, tz=tz) for expression in _listed(said.get("cron"))]
    if "every" in said:
        triggers.append(Every(said["every"], said.get("jitter", 0.0)))
    triggers += [OnFiles(glob) for glob in _listed(said.get("files"))]
    triggers += [OnEvent(name) for name in _listed(said.get("event"))]
    return functools.reduce(operator.or_, triggers)


def schedule_of(
    written: str | Mapping[str, Any],
    pipeline: Steps,
    inputs: Inputs | None = None,
    options: RunOptions | None = None,
) -> Schedule:
    """
    The schedule that a configuration says.

    Args:
        written: What stands behind `schedule`.
        pipeline: What runs.
        inputs: As for `Schedule`.
        options: As for `Schedule`.
    """
    said: Mapping[str, Any] = {} if isinstance(written, str) else written
    chosen = {name: said[name] for name in OPTIONS if name in said}
    return Schedule(
        pipeline=pipeline, trigger=trigger_of(written), inputs=inputs or {}, options=options or RunOptions(), **chosen
    )


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []
