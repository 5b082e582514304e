"""Running a plan from a shell, and reporting it."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from odibi_async.abc import Observer
from odibi_async.cli import summary
from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.listeners import EventFile, Lines, Scribe, Warnings
from odibi_async.cli.output import is_rich
from odibi_async.cli.plan import Plan
from odibi_async.cli.runs import journal_flag
from odibi_async.cli.signals import Signals
from odibi_async.errors import GraphError, JournalError, OdibiError, OptionError, RunError, in_a_line
from odibi_async.limits import Limits
from odibi_async.observers.progress import Progress
from odibi_async.observers.tracker import Tracker
from odibi_async.result import RunResult
from odibi_async.runner import Runner, RunOptions

STORY: Final = "story.html"
"""Where a story is written when nobody names a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToRun:
    """What the flags of `run` say of the run itself; see there."""

    concurrency: int | None
    threads: int | None
    pools: Mapping[str, int]
    timeout: float | None
    cache: bool | str | None
    journal: str | None
    resume: str | None
    chosen: Sequence[str]
    engine: str | None
    keep_going: bool
    events: str | None
    story: str | None
    open_story: bool
    quiet: bool
    verbose: bool


def executed(plan: Plan, how: HowToRun, signals: Signals) -> Answer:
    """
    Runs a plan.

    Raises:
        Refused: The run cannot begin.
    """
    secrets = plan.document.secrets
    events = None if how.events is None else EventFile(how.events, secrets)
    shows = is_rich(sys.stderr) and not (how.quiet or how.verbose)
    status = Progress(sys.stderr, secrets=secrets) if shows else None
    lines = Lines(secrets) if how.verbose else None
    listeners = [each for each in (status, lines, Warnings(secrets, how.quiet), events) if each is not None]
    noting = signals.cancelling(lambda: None)  # no thread, no loop that is made or closed is to be interrupted
    with events or contextlib.nullcontext(), noting, Scribe(listeners) as scribe:
        tracker = Tracker() if how.story is not None else None
        result, problems = _ended(plan, how, scribe, signals, tracker)
    again = _again(plan, how, result)
    page, unwritten = _told(how, tracker, again) if tracker is not None else ("", [])
    said = {"story": page, "resume": again}
    more = {name: text for name, text in said.items() if text}
    return Answer(
        text="\n".join((summary.text(plan, result), *(f"{name}: {text}" for name, text in more.items()))),
        data=summary.data(plan, result) | more,
        problems=[*problems, *(events.problems if events else ()), *unwritten],
        secrets=secrets,
        must_end=scribe.has_abandoned,
    )


def _again(plan: Plan, how: HowToRun, result: RunResult) -> str:
    """The command that resumes a run; empty where there is nothing to resume."""
    if how.journal is None or result.ok:
        return ""
    journal = journal_flag(how.journal)
    if plan.whole.source and not how.chosen:
        return f"odibi-async runs resume {shlex.quote(result.run_id)}{journal}"
    parts = (plan.whole.source or plan.document.source.name, *how.chosen, "--resume", result.run_id)
    return f"odibi-async run {shlex.join(parts)}{journal}"


def _told(how: HowToRun, tracker: Tracker, again: str) -> tuple[str, list[Problem]]:
    """Writes the story; its place, and what went wrong with that."""
    assert how.story is not None
    try:
        page = tracker.tell(how.story, again=again)
    except (OSError, OdibiError) as error:
        return "", [Problem(code="OA315", message=f"the story cannot be written to {how.story!r}: {in_a_line(error)}")]
    if how.open_story:
        webbrowser.open(Path(page).as_uri())
    return page, []


def _ended(
    plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals, tracker: Tracker | None
) -> tuple[RunResult, list[Problem]]:
    """What the run did, and what went wrong in it."""
    try:
        result = asyncio.run(_run(plan, how, scribe, signals, tracker))
        result.raise_for_failures()
    except RunError as error:
        return cast(RunResult, error.result), problems_of(error, plan.document)
    except (GraphError, OptionError, JournalError) as error:  # pools, limits, a run that is not there
        raise Refused(*problems_of(error, plan.document)) from error
    except (SystemExit, KeyboardInterrupt) as error:  # those go through every loop; a signal is an `Interrupted`
        message = f"an async step raised {in_a_line(error)}, which ends any run at once."
        raise Refused(Problem(code="OA301", message=message, error=error)) from error
    return result, []


async def _run(plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals, tracker: Tracker | None) -> RunResult:
    limits = Limits(concurrency=how.concurrency, threads=how.threads, pools=how.pools)
    options: RunOptions = {
        "targets": summary.last_steps(plan.pipeline),
        "timeout": how.timeout,
        "cache": how.cache,
        "engine": how.engine,
        "journal": how.journal,
        "on_error": "continue" if how.keep_going else "raise",
    }
    if how.resume is not None:
        options |= {"run_id": how.resume, "resume": True}
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(_tell_of_errors)
    observers: list[Observer] = [scribe] if tracker is None else [scribe, tracker]
    async with Runner(limits=limits, observers=observers) as runner:
        with signals.cancelling(lambda: loop.call_soon_threadsafe(stop.set)):
            run = await runner.start(plan.pipeline, plan.given, **options)
            ending, stopping = asyncio.create_task(run.result()), asyncio.create_task(stop.wait())
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await run.cancel()
            stopping.cancel()
            return await ending


def _tell_of_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Reports errors that nobody handles; `_ended` handles those that end the loop."""
    if not isinstance(context.get("exception"), SystemExit | KeyboardInterrupt):
        loop.default_exception_handler(context)
