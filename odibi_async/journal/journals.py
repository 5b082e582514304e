"""The journals that the runs of a runner use, opened when a run needs them, and the threads that ask them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import anyio.to_thread

from odibi_async.errors import RunExists
from odibi_async.executors.threads import Threads
from odibi_async.graph.graph import Graph
from odibi_async.graph.select import Selection
from odibi_async.journal.for_run import Asked, RunJournal
from odibi_async.journal.journal import Journal
from odibi_async.journal.layer import JournalLayer
from odibi_async.run.composition import Inside
from odibi_async.store.store import Store

THREADS: Final = 4
"""How many keep and load datasets for the journals of one runner at a time."""


class Journals:
    """
    The journals of a runner.

    Args:
        grace: Seconds that a cancelled run waits for an answer.
    """

    def __init__(self, grace: float) -> None:
        self._opened: dict[str, Journal] = {}
        self._threads = Threads(THREADS, grace)

    def journal(self, asked: str | os.PathLike[str] | Journal | None) -> Journal:
        """The journal that is given, or the one in a directory. Touches no disk."""
        assert asked is not None
        if isinstance(asked, Journal):
            return asked
        where = os.fspath(asked)
        if where not in self._opened:
            self._opened[where] = Journal(where)
        return self._opened[where]

    def asked(
        self,
        journal: str | os.PathLike[str] | Journal | None,
        run_id: str,
        resume: bool,
        pipeline: str,
        source: str,
        store: Store | None,
    ) -> Asked:
        """What a run asks; without a store, that of a cache, what its steps make goes to the journal's own."""
        known = self.journal(journal)
        return Asked(
            journal=known,
            run_id=run_id,
            resume=resume,
            pipeline=pipeline,
            source=source,
            store=store or known.store,
        )

    def recalled(self, journal: str | os.PathLike[str] | Journal | None, run_id: str) -> Mapping[str, Any]:
        """
        What a run was given when it began, as far as that is kept. Blocks.

        Raises:
            RunUnknown: The journal does not have it.
            JournalUnavailable: The journal cannot be read.
        """
        return self.journal(journal).inputs(run_id)

    def seconds(self, asked: Asked) -> Mapping[str, float]:
        """
        How long the steps of a pipeline take. Blocks.

        Raises:
            RunExists: The run is there, and is not to be resumed.
            RunUnknown: It is not there, and is to be.
            JournalUnavailable: The journal cannot be read.
        """
        if asked.resume:
            asked.journal.found(asked.run_id)
        elif asked.journal.backend.run(asked.run_id) is not None:
            raise RunExists(asked.run_id)
        return asked.journal.seconds(asked.pipeline)

    def guest(
        self, asked: Asked, graph: Graph, selection: Selection, given: Mapping[str, Any]
    ) -> Callable[[Inside], JournalLayer]:
        """What makes the journal's layer of a run."""
        return functools.partial(JournalLayer, RunJournal(asked, graph, selection, given), self._threads)

    async def close(self) -> None:
        """Closes the journals that were opened here."""
        opened, self._opened = self._opened, {}
        for journal in opened.values():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(journal.close, limiter=anyio.CapacityLimiter(1))
