"""How long a run would take, from what a journal knows of earlier ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.output import table
from odibi_async.cli.plan import Plan
from odibi_async.cli.runs import opened
from odibi_async.errors import OptionError
from odibi_async.graph.planning import Estimate
from odibi_async.journal import Journal
from odibi_async.result import Status, seconds_text

WORKERS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""For how many workers a run is simulated."""


def estimated(plan: Plan, journal: str | None) -> Answer:
    """
    Simulates the chosen steps with so many workers, up to the number from which on further ones do nothing.

    Raises:
        Refused: No journal is named, or it lacks one of the steps.
    """
    name = plan.document.source.name
    with opened(journal) as found:
        runs = found.runs(name)
        if not runs:
            raise Refused(Problem(code="OA316", message=f"the journal has no run of {name!r} yet."))
        best = next((run for run in runs if run.status is Status.SUCCEEDED), runs[0])
        history, sizes = _history(found, name, best.run_id, plan)
    estimates: list[Estimate] = []
    try:
        for workers in WORKERS:
            estimates.append(plan.pipeline.estimate(history, workers=workers, sizes=sizes))
            if estimates[-1].seconds <= estimates[-1].chain_seconds:
                break
    except OptionError as error:  # steps that no run has called yet
        raise Refused(*problems_of(error)) from error
    return Answer(text=_text(estimates), data={"estimates": [asdict(each) for each in estimates]})


def _history(
    journal: Journal, pipeline: str, run_id: str, plan: Plan
) -> tuple[Mapping[str, float | Sequence[float]], Mapping[str, int]]:
    """How long each step takes, or each of its elements, and the bytes of each dataset that the journal keeps."""
    history: dict[str, float | Sequence[float]] = dict(journal.seconds(pipeline))
    datasets = {step.name: step.datasets for step in plan.pipeline.steps}
    elements: defaultdict[str, list[float]] = defaultdict(list)
    sizes: defaultdict[str, int] = defaultdict(int)
    for record in journal.steps(run_id):
        if record.element is not None:
            elements[record.step].append(record.seconds)
        for dataset, kept in zip(datasets.get(record.step, ()), record.kept or (), strict=False):
            sizes[dataset] += kept.bytes
    return history | elements, sizes


def _text(estimates: Sequence[Estimate]) -> str:
    rows = [("WORKERS", "TAKES", "BUSY", "PEAK", "MOVED", "LIMITED BY")]
    rows += [
        (
            f"{each.workers:,}",
            seconds_text(each.seconds),
            f"{each.utilisation:.0%}",
            _megabytes(each.peak_bytes),
            _megabytes(each.moved_bytes),
            each.limited_by,
        )
        for each in estimates
    ]
    last = estimates[-1]
    chain = " -> ".join(last.chain if len(last.chain) <= 5 else (*last.chain[:2], "...", *last.chain[-2:]))
    return "\n".join((table(rows), f"The longest chain takes {seconds_text(last.chain_seconds)}: {chain}"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
