"""The runs of a stream's batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from odibi_async.building import Planned
from odibi_async.errors import (
    JournalUnavailable,
    OptionError,
    RunCancelled,
    RunError,
    RunExists,
    RunUnknown,
    did_you_mean,
    in_a_line,
)
from odibi_async.events import RunStarted
from odibi_async.graph.graph import Graph
from odibi_async.journal.journal import Journal
from odibi_async.observers.redaction import Redaction
from odibi_async.result import RunResult
from odibi_async.runner import Runner
from odibi_async.secret import given_secrets


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchRuns:
    """
    How the batches of a stream are run.

    Attributes:
        runner: What runs them.
        planned: The pipeline.
        into: The dataset that is given a batch.
        inputs: Dataset -> value, the same for all batches.
        journal: Where they are recorded.
        options: The other options of each run.
    """

    runner: Runner
    planned: Planned
    into: str
    inputs: Mapping[str, Any]
    journal: Journal
    options: Mapping[str, Any]

    async def run(self, run_id: str, data: Any, resume: bool) -> RunResult:
        """
        Runs a batch; one that the journal knows goes on where it was.

        Raises:
            RunError: It failed.
            JournalUnavailable: The journal cannot be used: nothing is wrong with the batch.
        """
        try:
            result = await self._run(run_id, data, resume)
        except RunExists:
            result = await self._run(run_id, data, resume=True)
        except RunUnknown:  # its journal keeps fewer runs than others have made meanwhile
            result = await self._run(run_id, data, resume=False)
        except RunCancelled:
            raise
        except RunError as error:
            raise _blamed(error) from error.__cause__
        if result.failures:
            raise _blamed(RunError(result.failures, result))
        return result

    def line(self, error: RunError) -> str:
        """What went wrong in a run, in a line, without the secrets of its steps and inputs."""
        summary = next((failure.summary for failure in error.failures.values()), None)
        graph, secrets = self.planned.graph, given_secrets(self.inputs.values())
        names = tuple(node.name for node in graph.nodes)
        return Redaction(RunStarted("", 0, 0.0, names, graph.outline, secrets)).line(summary or in_a_line(error))

    async def _run(self, run_id: str, data: Any, resume: bool) -> RunResult:
        return await self.runner.run(
            self.planned,
            {**self.inputs, self.into: data},
            run_id=run_id,
            resume=resume,
            journal=self.journal,
            **self.options,
        )


def _blamed(error: RunError) -> Exception:
    """The error of a run, or that of the journal, if it failed because of that."""
    for failure in error.failures.values():
        if isinstance(failure.error, JournalUnavailable):
            return failure.error
    return error


def check_into(graph: Graph, into: str) -> None:
    """
    Raises:
        OptionError: The pipeline has no such input.
    """
    if into not in graph.inputs:
        known = ", ".join(graph.inputs) or "none"
        raise OptionError(
            f"into={into!r} is no input of the pipeline.{did_you_mean(into, graph.inputs)} Inputs: {known}."
        )
