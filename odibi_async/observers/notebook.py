"""Runs in a notebook: a graph that shows how far the run is, and stays as it ended; results as a graph and a table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping
from time import monotonic
from typing import Any, Final

from odibi_async.events import Event, RunFinished, RunStarted, StepFinished, StepOutline, StepRetrying, StepStarted
from odibi_async.graph.svg import Box, svg
from odibi_async.observers.story.html import Html, joined, table, tag
from odibi_async.result import RunResult, notes_of, seconds_text
from odibi_async.secret import redacted

PAUSE: Final = 0.25
"""Seconds between two updates of a live graph."""
ROWS: Final = 200
"""Steps in the table of a result."""
_shown: dict[str, int] = {}
"""Runs that were shown live -> the number of the cell."""


def shell() -> Any:
    """The shell of the notebook that this process is the kernel of; `None` elsewhere. Imports nothing."""
    module = sys.modules.get("IPython")
    found = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return found if found is not None and hasattr(found, "kernel") else None


def live() -> tuple[LiveGraph, ...]:
    """An observer for the runs of a notebook's cell; none elsewhere."""
    found = shell()
    return () if found is None else (LiveGraph(found),)


class LiveGraph:
    """
    Shows the graph of a run in the output of a cell, at most four times a second, and at the end as it ended.

    Args:
        shell: The notebook's shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._statuses: dict[str, str] = {}
        self._handle: Any = None
        self._painted = 0.0
        self._waiting: asyncio.TimerHandle | None = None
        self._outline: Mapping[str, StepOutline] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._outline = {name: event.graph[name] for name in event.steps}
                self._statuses = dict.fromkeys(event.steps, "")
            case StepStarted():
                self._statuses[event.step] = "running"
            case StepRetrying():
                self._statuses[event.step] = "retrying"
            case StepFinished():
                self._statuses[event.step] = str(event.status)
            case RunFinished():
                self._end(event.result)
                return
        self._soon()

    def _soon(self) -> None:
        left = self._painted + PAUSE - monotonic()
        if left <= 0:
            self._paint()
        elif self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(left, self._paint)

    def _paint(self) -> None:
        from IPython.display import HTML, display

        self._waiting, self._painted = None, monotonic()
        drawn = HTML(graph_of(self._outline, self._statuses))  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(drawn, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(drawn)

    def _end(self, result: RunResult) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._paint()
        _shown.clear()
        _shown[result.run_id] = self._shell.execution_count


def graph_of(outline: Mapping[str, StepOutline], statuses: Mapping[str, str]) -> str:
    """The drawing of a run's graph as it stands."""
    place = {name: number for number, name in enumerate(outline)}
    boxes = [Box(name, step.layer, statuses.get(name, "")) for name, step in outline.items()]
    upstream = [[place[other] for other in step.upstream if other in place] for step in outline.values()]
    return svg(boxes, upstream)


def html_of(result: RunResult, graph: Mapping[str, StepOutline], secrets: Collection[str]) -> str:
    """
    A result as a notebook shows it: a line, the graph unless it stands above already, and a table of steps.

    Args:
        result: The result.
        graph: What its steps are.
        secrets: Texts that are not to be shown.
    """
    found = shell()
    stands = found is not None and _shown.get(result.run_id) == found.execution_count
    statuses = {name: str(step.status) for name, step in result.steps.items()}
    drawn = "" if stands else graph_of({name: graph[name] for name in result.steps}, statuses)
    return joined((tag("p", result.headline), Html(drawn), _table(result, secrets)))


def _table(result: RunResult, secrets: Collection[str]) -> Html:
    rows = [
        (
            name,
            step.status,
            seconds_text(step.run_seconds) if step.at is not None else "",
            "" if step.rows is None else f"{step.rows:,}",
            redacted(notes_of(step), secrets),
        )
        for name, step in list(result.steps.items())[:ROWS]
    ]
    left = len(result.steps) - len(rows)
    more = tag("p", f"{left:,} more steps") if left else None
    return joined((table(("Step", "Status", "Took", "Rows", ""), rows, aria_label="Steps"), more))
