"""Batches that are set aside, run once more."""

from __future__ import annotations

from collections.abc import Sequence

from odibi_async.errors import BatchUnknown
from odibi_async.result import RunResult
from odibi_async.stream.ledger import Ledger
from odibi_async.stream.runs import BatchRuns
from odibi_async.stream.waiting import whole


async def replayed(ledger: Ledger, runs: BatchRuns, run_ids: Sequence[str]) -> dict[str, RunResult | None]:
    """
    Run -> what it made, of batches that are set aside; of all of them when none is named.

    Raises:
        BatchUnknown: One is not set aside, or its data could not be kept.
        RunError: One failed again.
    """
    chosen = run_ids or [each.run_id for each in await whole(ledger.set_aside)]
    return {run_id: await _replayed(ledger, runs, run_id) for run_id in chosen}


async def _replayed(ledger: Ledger, runs: BatchRuns, run_id: str) -> RunResult | None:
    aside, result = await whole(ledger.aside, run_id), None
    if aside.was_read:
        _, given = await whole(ledger.given, run_id)
        if runs.into not in given:
            kept = f" as {runs.into!r}, but as {', '.join(map(repr, given))}" if given else ""
            raise BatchUnknown(ledger.stream, run_id, f"the journal does not have its data{kept}.")
        result = await runs.run(run_id, given[runs.into], resume=True)
    await whole(ledger.take_back, aside)
    return result
