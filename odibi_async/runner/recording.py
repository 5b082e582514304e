"""What a runner has to do with journals: which one its runs use, and which pipelines it can resume."""

from __future__ import annotations

import importlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from odibi_async.building import Planned
from odibi_async.errors import OptionError
from odibi_async.runner.aside import in_a_thread
from odibi_async.runner.options import Journaling, Steps, check_journal

if TYPE_CHECKING:
    from odibi_async.journal import Journal
    from odibi_async.journal.journals import Journals

REMEMBERED: Final = 16
"""How many pipelines a runner remembers for resuming their runs."""


class Recording:
    """
    The journals of a runner.

    Args:
        own: The journal of runs that name no other.
        grace: Seconds that a cancelled run waits for an answer.
    """

    def __init__(self, own: Journaling, grace: float) -> None:
        self.own = check_journal(own)
        self._grace = grace
        self._journals: Journals | None = None
        self._plans: OrderedDict[str, Planned] = OrderedDict()

    def asked(self, journal: Journaling) -> Journaling:
        """The journal that is asked for, else the runner's own."""
        return check_journal(self.own if journal is None else journal)

    async def journals(self) -> Journals:
        """Those that are open. Whoever has none never loads what they need."""
        if self._journals is None:
            await in_a_thread(importlib.import_module, "odibi_async.journal.journals")
            from odibi_async.journal.journals import Journals

            self._journals = self._journals or Journals(self._grace)
        return self._journals

    async def journal(self, asked: Journaling) -> Journal:
        """A journal as runs use it."""
        return (await self.journals()).journal(asked)

    def leave(self) -> None:
        """Forgets what belongs to another loop."""
        self._journals = None

    async def close(self) -> None:
        """Closes those that are open."""
        if self._journals is not None:
            await self._journals.close()

    # -- runs that are resumed, or told ----------------------------------------------------------------

    def remember(self, name: str, planned: Planned) -> None:
        """Remembers a pipeline for when one of its runs is to be resumed."""
        self._plans[name] = planned
        self._plans.move_to_end(name)
        while len(self._plans) > REMEMBERED:
            self._plans.popitem(last=False)

    async def steps_of(self, run_id: str, asked: Journaling) -> Steps:
        """
        The steps of a run that a journal knows.

        Raises:
            JournalError: It does not know the run.
            OptionError: Its pipeline is not remembered, and was not read from a file.
        """
        record = await in_a_thread((await self.journal(asked)).run, run_id)
        if record.pipeline in self._plans:
            return self._plans[record.pipeline]
        if record.source:
            return str(record.source)
        raise OptionError(
            f"This runner has not run pipeline {record.pipeline!r} yet: give its steps, resume({run_id!r}, steps)."
        )

    async def recalled(self, run_id: str, asked: Journaling) -> Mapping[str, Any]:
        """What a run was given when it began."""
        return await in_a_thread((await self.journals()).recalled, asked, run_id)

    async def story(self, run_id: str, asked: Journaling, path: str | os.PathLike[str] | None) -> str:
        """Writes the story of a run; the path in full."""
        return await in_a_thread(self._tell, await self.journal(asked), run_id, path)

    def _tell(self, journal: Journal, run_id: str, path: str | os.PathLike[str] | None) -> str:
        from odibi_async.journal.told import told
        from odibi_async.observers.story import name_of_page, tell_story

        known = self._plans.get(journal.run(run_id).pipeline)
        again = f"await runner.resume({run_id!r})"
        record = told(journal, run_id, {} if known is None else known.graph.outline, again)
        return tell_story(record, path or name_of_page(run_id))
