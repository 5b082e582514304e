"""Runs as a service shows them."""

from __future__ import annotations

from typing import Any, Final

from odibi_async.integrations.fastapi.entry import Entry
from odibi_async.integrations.fastapi.naming import in_path
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.integrations.fastapi.told import moment, short, step_document
from odibi_async.journal.journal import Journal
from odibi_async.journal.records import RunRecord, StepRecord
from odibi_async.result import Status, StepResult

PLAIN: Final = ("json", "text")
"""Kinds of inputs that are shown when they stand in the journal's row."""


def links_of(base: str, run_id: str, *, has_story: bool) -> dict[str, str]:
    """Where all that belongs to a run is."""
    place = f"{base}/runs/{in_path(run_id)}"
    found = {
        "self": place,
        "events": f"{place}/events",
        "cancel": f"{place}/cancel",
        "resume": f"{place}/resume",
        "results": f"{place}/results",
    }
    return found | ({"story": f"{place}/story"} if has_story else {})


def id_of(found: Entry | Recorded) -> str:
    """The name of a run."""
    return found.id if isinstance(found, Entry) else found.record.run_id


def status_of(found: Entry | Recorded) -> Status:
    """How a run stands."""
    return found.status if isinstance(found, Entry) else found.record.status


def error_of(found: Entry | Recorded) -> str | None:
    """What went wrong with a run, in a line; `None` where nothing did."""
    return found.error if isinstance(found, Entry) else short(found.record.error) or None


def summary(found: Entry | RunRecord) -> dict[str, Any]:
    """A run as a list has it, without its links."""
    if isinstance(found, Entry):
        return {
            "id": found.id,
            "pipeline": found.offer.name,
            "status": str(found.status),
            "started_at": moment(found.since),
            "finished_at": moment(found.ended),
            "error": found.error,
        }
    return {
        "id": found.run_id,
        "pipeline": found.pipeline,
        "status": str(found.status),
        "started_at": moment(found.started_at),
        "finished_at": None if found.status is Status.RUNNING else moment(found.ended_at),
        "error": short(found.error) or None,
    }


def shown_here(entry: Entry) -> dict[str, Any]:
    """A run of this process with its steps, without its links."""
    return {**summary(entry), "inputs": dict(entry.inputs), "steps": _steps(entry)}


def shown(found: Recorded, offer: Offer, journal: Journal) -> dict[str, Any]:
    """A run with its steps as the journal has it, without its links. Blocks."""
    graph = offer.planned.graph
    order = {graph.nodes[index].name: place for place, index in enumerate(graph.order)}
    inputs = _inputs(journal, found.record, offer)
    known = {each.step: _recorded_step(each) for each in found.steps}
    names = sorted({*known, *order}, key=lambda name: (order.get(name, len(order)), name))
    is_partial = found.record.targets is not None
    steps = [known.get(name) or _unmet(name) for name in names if name in known or not is_partial]
    return {**summary(found.record), "inputs": inputs, "steps": steps}


def _steps(entry: Entry) -> list[dict[str, Any]]:
    log = entry.log
    names = log.started.steps if log.started is not None else ()
    return [_live_step(entry, name) for name in names]


def _live_step(entry: Entry, name: str) -> dict[str, Any]:
    log = entry.log
    result = log.results.get(name)
    if result is not None:
        return step_document(result, log.errors.get(name))
    began, retried = log.began.get(name), log.retried.get(name, 0)
    status = "pending" if began is None else "retrying" if retried else "running"
    return {**_unmet(name), "status": status, "attempts": retried, "started_at": moment(began)}


def _unmet(name: str) -> dict[str, Any]:
    """A step that nothing is known of."""
    return {
        **step_document(StepResult(name, Status.RUNNING), None),
        "status": "pending",
        "queue_seconds": None,
        "run_seconds": None,
    }


def step_of(record: StepRecord) -> StepResult:
    """What the journal knows of a step, as a run tells it."""
    because = record.note.removeprefix("because of ") if record.note.startswith("because of ") else None
    return StepResult(
        name=record.step,
        status=record.status,
        attempts=record.attempts,
        run_seconds=record.seconds,
        at=record.started_at,
        rows=record.row_count,
        skipped_because=because,
    )


def _recorded_step(record: StepRecord) -> dict[str, Any]:
    return step_document(step_of(record), short(record.error) or None)


def _inputs(journal: Journal, record: RunRecord, offer: Offer) -> dict[str, Any]:
    """What a request gave a run, as far as it is short and plain."""
    store, found = journal.store_at(record.store), {}
    for name, given in record.inputs.items():
        if (
            name in offer.asks.inputs
            and given.kept is not None
            and given.kept.inline is not None
            and given.kept.kind in PLAIN
        ):
            found[name] = store.load(given.kept)
    return found
