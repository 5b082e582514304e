"""What a journal has of the datasets of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from odibi_async.errors import Damaged
from odibi_async.integrations.fastapi.problems import ServiceProblem, unknown
from odibi_async.integrations.fastapi.served import Offer
from odibi_async.integrations.fastapi.shared import Recorded
from odibi_async.journal.journal import Journal
from odibi_async.store.kept import Kept


def recorded_values(journal: Journal, found: Recorded, offer: Offer, names: Iterable[str]) -> dict[str, Any]:
    """Those of some datasets that the journal has. Blocks."""
    values = {}
    for name in names:
        kept = _kept(found, offer, name)
        if kept is not None and kept.kind != "spark":
            try:
                values[name] = journal.store_at(found.record.store).load(kept)
            except Damaged:
                continue
    return values


def recorded_value(journal: Journal, found: Recorded, offer: Offer, name: str) -> Any:
    """
    A dataset. Blocks.

    Raises:
        ServiceProblem: The journal does not have it.
    """
    kept = _kept(found, offer, name)
    if kept is None:
        unknown(f"Run {found.record.run_id!r} has no dataset {name!r}: it was not made, or is not kept.")
    if kept.kind == "spark":
        raise ServiceProblem(406, "OA336", f"Dataset {name!r} is a frame of Spark; read it where that keeps it.")
    try:
        return journal.store_at(found.record.store).load(kept)
    except Damaged as error:
        raise ServiceProblem(410, "OA421", f"Dataset {name!r} is not there any more: {error}") from error


def _kept(found: Recorded, offer: Offer, name: str) -> Kept | None:
    graph = offer.planned.graph
    step = graph.makers.get(name)
    record = next((each for each in found.steps if each.step == step), None)
    if step is None or record is None or record.kept is None:
        return None
    names = [graph.datasets[each] for each in graph.nodes[graph.names[step]].outputs]
    return record.kept[names.index(name)] if len(names) == len(record.kept) else None
