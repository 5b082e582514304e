"""What a result of a run is told by: its drawing and its story, loaded when somebody asks for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from odibi_async.events import StepOutline
from odibi_async.result import RunResult
from odibi_async.secret import Secret, redacted


class ResultTeller:
    """
    Draws the result of a run and writes its story.

    Args:
        graph: What the steps of the run are.
        secrets: What was given to it and no text about it may show.
        is_journaled: Whether it can be resumed.
    """

    def __init__(self, graph: Mapping[str, StepOutline], secrets: Sequence[Secret], *, is_journaled: bool) -> None:
        self._graph = graph
        self._secrets = secrets
        self._is_journaled = is_journaled

    def story(self, result: RunResult, path: str | os.PathLike[str], explanations: Mapping[str, Any] | None) -> str:
        """Writes the story of the run; its path."""
        from odibi_async.observers.record import RunRecord
        from odibi_async.observers.story import tell_story

        record = RunRecord.of(result, self._graph, self._secrets)
        record.again = f"the same call with run_id={result.run_id!r}, resume=True" if self._is_journaled else ""
        return tell_story(record, path, explanations)

    def html(self, result: RunResult) -> str:
        """The result as a notebook shows it."""
        from odibi_async.observers.notebook import html_of

        return html_of(result, self._graph, self._texts())

    def masked(self, text: str) -> str:
        """A text without the secrets of the run and without the passwords of URLs."""
        return redacted(text, self._texts())

    def _texts(self) -> set[str]:
        own = (secret for outline in self._graph.values() for secret in outline.secrets)
        return {secret.reveal() for secret in (*own, *self._secrets)}
