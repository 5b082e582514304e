"""Running a plan from a shell, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.listeners import EventFile, Lines, Scribe, StatusLine, Warnings, step_record
from odibi_async.cli.output import is_rich, without_passwords
from odibi_async.cli.plan import Plan
from odibi_async.cli.signals import Signals
from odibi_async.dataset import is_frame
from odibi_async.errors import GraphError, OptionError, RunError, in_a_line
from odibi_async.limits import Limits
from odibi_async.pipeline import Pipeline
from odibi_async.result import RunResult
from odibi_async.runner import Runner, RunOptions
from odibi_async.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToRun:
    """What the flags of `run` say of the run itself; see there."""

    concurrency: int | None
    threads: int | None
    pools: Mapping[str, int]
    timeout: float | None
    cache: bool | str | None
    keep_going: bool
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
        text="" if problems and not how.keep_going else _summary(plan, result),
        data=_data(plan, result),
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
    except (GraphError, OptionError) as error:  # pools, limits
        raise Refused(*problems_of(error, plan.document)) from error
    except (SystemExit, KeyboardInterrupt) as error:  # those go through every loop; a signal is an `Interrupted`
        message = f"an async step raised {in_a_line(error)}, which ends any run at once."
        raise Refused(Problem(code="OA301", message=message, error=error)) from error
    return result, []


async def _run(plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals) -> RunResult:
    limits = Limits(concurrency=how.concurrency, threads=how.threads, pools=how.pools)
    options: RunOptions = {
        "targets": last_steps(plan.pipeline),
        "timeout": how.timeout,
        "cache": how.cache,
        "on_error": "continue" if how.keep_going else "raise",
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
    """What the loop tells of errors that nobody looks at; `_ended` looks at those that end it."""
    if not isinstance(context.get("exception"), SystemExit | KeyboardInterrupt):
        loop.default_exception_handler(context)


def last_steps(pipeline: Pipeline) -> list[Step[..., Any, Any]]:
    """The steps that no other step waits for; what the others make is dropped after its last reader."""
    waited_for = {name for names in pipeline.upstream().values() for name in names}
    return [step for step in pipeline.steps if step.name not in waited_for]


def _data(plan: Plan, result: RunResult) -> dict[str, Any]:
    return {
        "configuration": plan.document.source.name,
        "run_id": result.run_id,
        "status": result.status,
        "stats": result.stats(),
        "steps": [step_record(record) for record in result.steps.values()],
        "outputs": {name: _shape(value) for name, value in _made(plan, result)},
    }


def _made(plan: Plan, result: RunResult) -> Iterator[tuple[str, Any]]:
    """The datasets that the run was for."""
    for step in last_steps(plan.pipeline):
        yield from ((name, result.outputs[name]) for name in step.datasets if name in result.outputs)


def _shape(value: Any) -> dict[str, Any]:
    """What is told of a dataset: of a frame its size, of a plain value the value."""
    found: dict[str, Any] = {"type": type(value).__name__}
    if is_frame(value):
        columns = [str(name) for name in getattr(value, "columns", ())]
        return {**found, "rows": len(value), "columns": columns}
    return {**found, "value": reprlib.repr(value)}


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _summary(plan: Plan, result: RunResult) -> str:
    """The headline of the run, what it made and what it wrote."""
    told: dict[str, str] = {}
    for name, value in _made(plan, result):
        shape = _shape(value)
        told[name] = (
            shape.get("value") or f"{_counted(shape['rows'], 'row')}, {_counted(len(shape['columns']), 'column')}"
        )
    for step in plan.document.steps:
        record = result.steps.get(step.name)
        if record is not None and record.is_done and not step.datasets and step.layer in ("store", "publish"):
            told[step.name] = f"wrote {without_passwords(str(step.value))}"
    width = max(map(len, told), default=0)
    headline = str(result).partition("\n")[0]
    return "\n".join((headline, *(f"  {name.ljust(width)}  {text}" for name, text in told.items())))
