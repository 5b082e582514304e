"""The commands about runs: which there were, what became of their steps, their story, and removing them."""

from __future__ import annotations

import os
import shlex
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from odibi_async.cli.answer import Answer, Problem, Refused
from odibi_async.cli.output import table
from odibi_async.errors import ConfigError, GraphError
from odibi_async.events import StepOutline
from odibi_async.journal import Journal
from odibi_async.journal.records import RunRecord, as_data
from odibi_async.journal.told import told
from odibi_async.observers.story import name_of_page, tell_story
from odibi_async.result import seconds_text
from odibi_async.secret import masked_urls

VARIABLE: Final = "ODIBI_ASYNC_JOURNAL"


def place_of(journal: str | None) -> str:
    """
    Where the journal is: as the command says, else as the environment does.

    Raises:
        Refused: Neither says it.
    """
    place = journal or os.environ.get(VARIABLE)
    if not place:
        message = f"no journal is named: --journal DIRECTORY, or the environment variable {VARIABLE}."
        raise Refused(Problem(code="OA412", message=message))
    return place


@contextmanager
def opened(journal: str | None) -> Iterator[Journal]:
    """A journal that is there."""
    place = place_of(journal)
    if "://" not in place and not Path(place).is_dir():
        raise Refused(Problem(code="OA412", message=f"there is no journal in {place!r}."))
    with Journal(place) as found:
        yield found


def listed(journal: str | None, pipeline: str | None) -> Answer:
    with opened(journal) as found:
        runs = found.runs(pipeline)
    rows = [("RUN", "PIPELINE", "STATUS", "BEGAN", "TOOK", "STEPS", "RESUMED", "ERROR")]
    rows += [_row(run) for run in runs]
    return Answer(text=table(rows), data={"runs": [as_data(run) for run in runs]})


def _row(run: RunRecord) -> tuple[str, str, str, str, str, str, str, str]:
    took = "" if run.seconds is None else seconds_text(run.seconds)
    resumed = str(run.resumed) if run.resumed else ""
    return run.run_id, run.pipeline, str(run.status), _time(run.started_at), took, str(run.steps), resumed, run.error


def shown(journal: str | None, run_id: str) -> Answer:
    with opened(journal) as found:
        run_id = known(found, run_id)
        run, steps = found.run(run_id), found.steps(run_id)
        usual = found.seconds(run.pipeline)
    rows = [("STEP", "STATUS", "ATTEMPTS", "BEGAN", "TOOK", "USUALLY", "ROWS", "")]
    for each in steps:
        name = each.step if each.element is None else f"{each.step} [{each.element}]"
        began = "" if each.started_at is None else _time(each.started_at)
        usually = seconds_text(usual[each.step]) if each.element is None and each.step in usual else ""
        count = "" if each.row_count is None else f"{each.row_count:,}"
        said = each.error or each.note
        rows.append(
            (name, str(each.status), str(each.attempts), began, seconds_text(each.seconds), usually, count, said)
        )
    head = f"Run {run.run_id} of {run.pipeline}: {run.status}, process {run.pid} on {run.host}"
    return Answer(
        text="\n".join((head, table(rows))),
        data={"run": as_data(run), "steps": [as_data(each) for each in steps], "usual_seconds": dict(usual)},
    )


def pruned(journal: str | None, keep_last: int) -> Answer:
    with opened(journal) as found:
        gone = found.prune(keep_last)
    return Answer(text=f"{len(gone)} runs removed", data={"removed": gone})


def story(journal: str | None, run_id: str, path: str | None, show: bool) -> Answer:
    with opened(journal) as found:
        run_id = known(found, run_id)
        run = found.run(run_id)
        record = told(found, run_id, _graph(run), _again(run, place_of(journal)))
        page = tell_story(record, path or name_of_page(run_id))
    if show:
        webbrowser.open(Path(page).as_uri())
    return Answer(text=f"story: {page}", data={"story": page})


def _again(run: RunRecord, journal: str) -> str:
    """What to do to resume a run."""
    from odibi_async.cli.python import is_python

    if run.source:
        return f"odibi-async runs resume {shlex.quote(run.run_id)}{journal_flag(journal)}"
    if is_python(run.pipeline):
        command = shlex.join((run.pipeline, "--resume", run.run_id))
        return f"odibi-async run {command}{journal_flag(journal)}"
    return f"await runner.resume({run.run_id!r}, steps)"


def journal_flag(place: str) -> str:
    """The journal in a command that is shown: without a password, and not at all where the environment says it."""
    return "" if place == os.environ.get(VARIABLE) else f" --journal {shlex.quote(masked_urls(place))}"


def resumption(journal: str, run_id: str, pipeline: str) -> tuple[str, Mapping[str, Any]]:
    """
    The run that is to be resumed, and what it was given when it began, as far as that is kept.

    Args:
        journal: The journal.
        run_id: The run; `last` for the last one of the pipeline.
        pipeline: What the journal calls the pipeline.
    """
    with opened(journal) as found:
        if run_id == "last":
            last = found.last(pipeline)
            if last is None:
                raise Refused(Problem(code="OA316", message=f"the journal has no run of {pipeline!r} yet."))
            run_id = last.run_id
        return run_id, found.inputs(run_id)


def known(journal: Journal, run_id: str) -> str:
    """The id of a run: `last` stands for the one that began last."""
    if run_id != "last":
        return run_id
    runs = journal.runs()
    if not runs:
        raise Refused(Problem(code="OA316", message="the journal has no runs yet."))
    return runs[0].run_id


def _graph(run: RunRecord) -> Mapping[str, StepOutline]:
    """The steps of a run's configuration, where it is still there and sound."""
    from odibi_async.config import load_steps
    from odibi_async.pipeline import Pipeline

    if not run.source:
        return {}
    try:
        graph: Any = Pipeline(load_steps(run.source)).graph.outline
    except (OSError, ConfigError, GraphError):
        return {}
    outline: Mapping[str, StepOutline] = graph
    return outline


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc).astimezone():%Y-%m-%d %H:%M:%S}"
