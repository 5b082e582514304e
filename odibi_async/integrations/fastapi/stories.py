"""The stories of runs as pages. Everything here blocks."""

from __future__ import annotations

from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.journal.journal import Journal
from odibi_async.journal.told import told
from odibi_async.observers.record import RunRecord
from odibi_async.observers.story.page import page


def story_of_entry(entry: Entry) -> str:
    """The story of a run of this process that is over."""
    assert entry.result is not None
    started = entry.log.started
    secrets = () if started is None else started.secrets
    return page(RunRecord.of(entry.result, entry.offer.planned.graph.outline, secrets), {})


def story_of_recorded(journal: Journal, run_id: str, offer: Offer) -> str:
    """The story of a run as the journal has it."""
    return page(told(journal, run_id, offer.planned.graph.outline), {})
