"""Running a plan from a shell: signals cancel it, a thread of its own tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import queue
import reprlib
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, cast

from odibi_async.cli.answer import Answer, Problem, Refused, problems_of
from odibi_async.cli.output import complain, is_rich, plain
from odibi_async.cli.plan import Plan
from odibi_async.cli.signals import Signals
from odibi_async.dataset import is_frame
from odibi_async.errors import GraphError, OptionError, RunError, in_a_line
from odibi_async.events import (
    Event,
    Outline,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepFinished,
    StepRetrying,
    StepStarted,
)
from odibi_async.limits import Limits
from odibi_async.pipeline import Pipeline, Runner, RunOptions
from odibi_async.result import RunResult, StepResult
from odibi_async.secret import masked
from odibi_async.steps import Step

Listener = Callable[[Event], None]


class Scribe:
    """
    An observer that hands on events to listeners in a thread of its own, where they may block.

    Args:
        tick: Called each second in which nothing happens.

    Attributes:
        has_abandoned: Whether a step was left to itself.
    """

    def __init__(self, listeners: Sequence[Listener], tick: Callable[[], None] = lambda: None) -> None:
        self.has_abandoned = False
        self._listeners = listeners
        self._tick = tick
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._hand_on, name="odibi-async events")

    def __call__(self, event: Event) -> None:
        self.has_abandoned |= isinstance(event, StepAbandoned)
        self._events.put(event)

    def __enter__(self) -> Scribe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.put(None)
        self._thread.join()

    def _hand_on(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=1)
            except queue.Empty:
                self._tick()
                continue
            if event is None:
                return
            for listener in self._listeners:
                listener(event)


class EventFile:
    """
    Writes each event as a line of JSON.

    Attributes:
        error: What kept it from writing all of them.
    """

    def __init__(self, path: str, secrets: Collection[str]) -> None:
        self.error: OSError | None = None
        self._path = path
        self._secrets = secrets

    def __enter__(self) -> EventFile:
        try:
            self._file = open(self._path, "w", encoding="utf-8", buffering=1)  # closed by __exit__
        except OSError as error:
            raise Refused(_unwritten(self._path, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._noting_errors():
            self._file.close()

    def __call__(self, event: Event) -> None:
        if self.error is not None:
            return
        found: dict[str, Any] = {"event": type(event).__name__, "time": event.time}
        for field in dataclasses.fields(event):
            if field.name != "at":
                found[field.name] = _told(getattr(event, field.name))
        with self._noting_errors():
            self._file.write(json.dumps(plain(found, self._secrets)) + "\n")

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    @property
    def problems(self) -> list[Problem]:
        return [] if self.error is None else [_unwritten(self._path, self.error)]


def _unwritten(path: str, error: OSError) -> Problem:
    return Problem(code="OA310", message=f"the events cannot be written to {path!r}: {error.strerror}")


def _told(value: Any) -> Any:
    """What stands in the event's line for one of its values."""
    if isinstance(value, StepResult):
        return step_record(value)
    if isinstance(value, Outline):
        return {name: {"layer": step.layer, "upstream": step.upstream} for name, step in value.items()}
    return value.stats() if isinstance(value, RunResult) else value


def step_record(record: StepResult) -> dict[str, Any]:
    """A step's record, for JSON."""
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name != "at"}
    return {**found, "started_at": record.started_at}


class Lines:
    """Tells of each event in a line on stderr."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = secrets

    def __call__(self, event: Event) -> None:
        if text := _line(event):
            complain(f"{event.time.astimezone():%H:%M:%S} {masked(text, self._secrets)}")


def _line(event: Event) -> str:
    match event:
        case StepStarted():
            return f"{event.step}: started"
        case StepRetrying():
            error = in_a_line(event.error)
            return f"{event.step}: attempt {event.attempt} failed, again in {event.wait:.1f} s: {error}"
        case StepFinished():
            because = f" because of {event.result.skipped_because}" if event.result.skipped_because else ""
            rows = f", {event.result.rows:,} rows" if event.result.rows is not None else ""
            return f"{event.step}: {event.status}{because} after {event.result.run_seconds:.3f} s{rows}"
    return ""


class StatusLine:
    """One line on a terminal that says how far the run is, at most ten times a second."""

    def __init__(self) -> None:
        self._running: dict[str, None] = {}
        self._done = self._total = 0
        self._began = self._written = monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._total = len(event.steps)
            case StepStarted():
                self._running[event.step] = None
            case StepFinished():
                self._running.pop(event.step, None)
                self._done += 1
            case RunFinished():
                self._write("")
                return
        if monotonic() - self._written > 0.1:
            self.tick()

    def tick(self) -> None:
        """Writes it anew."""
        names = ", ".join(self._running)
        self._write(f"{self._done} of {self._total} steps, {monotonic() - self._began:.0f} s: {names}")
        self._written = monotonic()

    def _write(self, text: str) -> None:
        complain(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="")


def warn_of_abandoned(event: Event) -> None:
    """Tells of a step that does not end."""
    if isinstance(event, StepAbandoned):
        complain(f"step {event.step!r} does not end; its thread ends with the process")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HowToRun:
    """What the flags of `run` say of the run itself; see there."""

    concurrency: int | None
    threads: int | None
    pools: Mapping[str, int]
    timeout: float | None
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
    listeners = [each for each in (status, lines, warn_of_abandoned, events) if each is not None]
    with events or contextlib.nullcontext(), Scribe(listeners, *([status.tick] if status else [])) as scribe:
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
    return result, []


async def _run(plan: Plan, how: HowToRun, scribe: Scribe, signals: Signals) -> RunResult:
    limits = Limits(concurrency=how.concurrency, threads=how.threads, pools=how.pools)
    options: RunOptions = {
        "targets": last_steps(plan.pipeline),
        "timeout": how.timeout,
        "on_error": "continue" if how.keep_going else "raise",
    }
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with Runner(limits=limits, observers=[scribe]) as runner:
        with signals.cancelling(lambda: loop.call_soon_threadsafe(stop.set)):
            run = await runner.start(plan.pipeline, plan.given, **options)
            ending, stopping = asyncio.create_task(run.result()), asyncio.create_task(stop.wait())
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await run.cancel()
            stopping.cancel()
            return await ending


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
            told[step.name] = f"wrote {step.value}"
    width = max(map(len, told), default=0)
    headline = repr(result).partition("\n")[0]
    return "\n".join((headline, *(f"  {name.ljust(width)}  {text}" for name, text in told.items())))
