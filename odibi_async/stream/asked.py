"""What a stream is asked for, and what is opened for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from odibi_async.abc import Observer
from odibi_async.building import Planned
from odibi_async.errors import OptionError
from odibi_async.runner import Runner, Steps, runner_of_loop
from odibi_async.runner.options import Journaling
from odibi_async.runner.plans import plan
from odibi_async.stream.batches import Patience
from odibi_async.stream.ledger import Ledger
from odibi_async.stream.runs import BatchRuns, check_into
from odibi_async.stream.source import Source


class Opened(NamedTuple):
    """What a stream works with, while it does."""

    ledger: Ledger
    runs: BatchRuns


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    What a stream is asked for; `run_stream` tells what each of it means.

    Attributes:
        runner: What runs the batches; `None` for one that all bare runs of the loop share.
        is_borrowed: Whether nobody owns the runner.
    """

    steps: Steps
    source: Source
    into: str
    inputs: Mapping[str, Any]
    name: str | None
    journal: Journaling
    runner: Runner | None
    is_borrowed: bool
    patience: Patience
    keep_last: int
    observers: Sequence[Observer]
    options: Mapping[str, Any]
    now: Callable[[], float]

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Opened]:
        """
        The journal, and the pipeline, made once.

        Raises:
            GraphError: The steps do not make a pipeline.
            OptionError: There is no journal, or the pipeline has no such input.
        """
        runner = self.runner or runner_of_loop()
        async with runner.borrowed() if self.is_borrowed else contextlib.nullcontext():
            journal = await runner.journal(self.journal)
            if journal is None:
                raise OptionError("A journal is needed: journal=DIRECTORY, here or where the runner is made.")
            planned, options = await self._planned()
            check_into(planned.graph, self.into)
            runs = BatchRuns(
                runner=runner,
                planned=planned,
                into=self.into,
                inputs=self.inputs,
                journal=journal,
                options=options,
            )
            yield Opened(Ledger(journal, self.name or planned.name, planned.name, self.keep_last), runs)

    async def _planned(self) -> tuple[Planned, Mapping[str, Any]]:
        """The pipeline by its name, and the options of its runs."""
        options = dict(self.options)
        functions, nodes = options.pop("functions", None), options.pop("nodes", None)
        found = await plan(self.steps, {**self.inputs, self.into: None}, functions, nodes)
        if options.get("cache") is None:
            options["cache"] = found.caching
        planned = Planned(found.graph, found.name, found.planned.source)
        return planned, {**options, "observers": self.observers}
