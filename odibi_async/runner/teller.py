"""What a result of a run is told by: its drawing and its story, loaded when somebody asks for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from odibi_async.events import StepOutline
from odibi_async.result import RunResult


class ResultTeller:
    """
    Draws the result of a run and writes its story.

    Args:
        graph: What the steps of the run are.
    """

    def __init__(self, graph: Mapping[str, StepOutline]) -> None:
        self._graph = graph

    def story(self, result: RunResult, path: str | os.PathLike[str], explanations: Mapping[str, Any] | None) -> str:
        """Writes the story of the run; its path."""
        from odibi_async.observers.record import RunRecord
        from odibi_async.observers.story import tell_story

        return tell_story(RunRecord.of(result, self._graph), path, explanations)

    def html(self, result: RunResult) -> str:
        """The result as a notebook shows it."""
        from odibi_async.observers.notebook import html_of

        return html_of(result, self._graph)
