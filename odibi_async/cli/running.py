"""Running a plan from a shell, and reporting it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from odibi_async.cli import summary
from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.listeners import EventFile, Lines, Scribe, StatusLine, Warnings
from odibi_async.cli.output import is_rich
from odibi_async.cli.plan import Plan
from odibi_async.cli.signals import Signals
from odibi_async.errors import GraphError, JournalError, OptionError, RunError, in_a_line
from odibi_async.limits import Limits
from odibi_async.result import RunResult
from odibi_async.runner import Runner, RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToRun:
    """What the flags of `run` say of the run itself; see there."""

    concurrency: int | None
    threads: int | None
    pools: Mapping[str, int]
    timeout: float | None
    cache: bool | str | None
    keep_going: bool
    journal: str | None
    run_id: str | None
    resume: bool
    events: str | None
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
    status = StatusLine() if is_rich(sys.stderr) and not (how.quiet or how.verbose) else None
    lines = Lines(secrets) if how.verbose else None
    listeners = [each for each in (status, lines, Warnings(secrets, how.quiet), events) if each is not None]
    noting = signals.cancelling(lambda: None)  # no thread, no loop that is made or closed is to be interrupted
    with events or contextlib.nullcontext(), noting, Scribe(listeners, *([status.tick] if status else [])) as scribe:
        result, problems = _ended(plan, how, scribe, signals)
    return Answer(
        text=summary.text(plan, result),
        data=summary.data(plan, result),
        problems=[*problems, *(events.problems if events else ())],
        secrets=secrets,
        must_end=scribe.has_abandoned,
    )


def _ended(plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals) -> tuple[RunResult, list[Problem]]:
    """What the run did, and what went wrong in it."""
    try:
        result = asyncio.run(_run(plan, how, scribe, signals))
        result.raise_for_failures()
    except RunError as error:
        return cast(RunResult, error.result), problems_of(error, plan.document)
    except (GraphError, OptionError, JournalError) as error:  # pools, limits; a run that cannot be resumed
        raise Refused(*problems_of(error, plan.document)) from error
    except (SystemExit, KeyboardInterrupt) as error:  # those go through every loop; a signal is an `Interrupted`
        message = f"an async step raised {in_a_line(error)}, which ends any run at once."
        raise Refused(Problem(code="OA301", message=message, error=error)) from error
    return result, []


async def _run(plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals) -> RunResult:
    limits = Limits(concurrency=how.concurrency, threads=how.threads, pools=how.pools)
    options: RunOptions = {
        "targets": summary.last_steps(plan.pipeline),
        "timeout": how.timeout,
        "cache": how.cache,
        "on_error": "continue" if how.keep_going else "raise",
        "journal": how.journal,
        "run_id": how.run_id,
        "resume": how.resume,
    }
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(_tell_of_errors)
    async with Runner(limits=limits, observers=[scribe]) as runner:
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
