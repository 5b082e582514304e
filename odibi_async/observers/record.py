"""The record of a run: what its events said of it, in one place for the lineage and the story."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from traceback import TracebackException
from typing import Any, Final

from odibi_async.dataset import ABSENT, Handle, engine_of
from odibi_async.errors import in_a_line
from odibi_async.events import (
    CacheBypassed,
    CacheDamaged,
    Event,
    LoopBlocked,
    RunFinished,
    RunStarted,
    StepAbandoned,
    StepEvent,
    StepFinished,
    StepOutline,
    StepRetrying,
    StepStarted,
)
from odibi_async.observers.snapshot import Snapshots, text_of
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.secret import Secret, secrets_in

_log = logging.getLogger("odibi_async")
LINES: Final = 50
"""Lines of a step's log that are kept."""
DEEPEST: Final = 10
"""Frames of a traceback that are kept, those closest to the error."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    An attempt that failed and was followed by another one.

    Attributes:
        at: When it failed, in seconds since the epoch.
        error: The class of what it raised and its first line.
        wait: Seconds until the next one.
        element: Which element of a mapped step it was; `None` for other steps.
    """

    at: float
    error: str
    wait: float
    element: int | None


@dataclass(frozen=True, slots=True)
class Warned:
    """
    Something that deserves attention though it failed nothing.

    Attributes:
        step: The step that it is about.
        text: What it is, in a sentence.
    """

    step: str
    text: str


class Raised:
    """
    What is known of an error. It keeps nothing of the data that the error's frames hold.

    Attributes:
        text: The class and the whole message.
        line: The class and the first line of the message.
        where: The file and line that raised it; empty where that is not known.
    """

    __slots__ = ("_trace", "line", "text", "where")

    def __init__(self, error: BaseException | None, line: str = "") -> None:
        self._trace: TracebackException | None = None
        self.line, self.text, self.where = line, line, ""
        if error is not None:
            self._take(error)

    @classmethod
    def said(cls, line: str) -> Raised:
        """An error of which only the class and the first line of the message are known."""
        return cls(None, line)

    def _take(self, error: BaseException) -> None:
        self.text = f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")
        self.line = in_a_line(error)
        try:
            self._trace = TracebackException.from_exception(error, limit=-DEEPEST, lookup_lines=False)
        except Exception:  # it is anybody's class
            _log.debug("The traceback of a %s cannot be taken.", type(error).__qualname__)
        frame = self._trace.stack[-1] if self._trace is not None and self._trace.stack else None
        self.where = "" if frame is None else f"{PurePath(frame.filename).name}, line {frame.lineno}"

    @property
    def traceback(self) -> str:
        """The traceback as Python prints it. Reads the lines from their files."""
        return "" if self._trace is None else "".join(self._trace.format())


@dataclass(slots=True)
class StepRecord:
    """
    What is known of a step so far.

    Attributes:
        outline: What it is in its graph.
        began: When its first attempt began, in seconds since the epoch; `None` before.
        retries: The attempts that failed and were followed by another.
        result: How it ended, without its error; `None` before.
        raised: Its error, if it failed.
        thread: The name of the thread that called it last; `None` for one that was not called.
        log: The last lines that its code logged.
    """

    outline: StepOutline
    began: float | None = None
    retries: list[Attempt] = field(default_factory=list)
    result: StepResult | None = None
    raised: Raised | None = None
    thread: str | None = None
    log: deque[str] = field(default_factory=functools.partial(deque, maxlen=LINES))

    def end(self, result: StepResult) -> None:
        """Takes in how it ended."""
        if result.error is not None:
            self.raised = Raised(result.error)
            result = replace(result, error=None)
        self.result = result
        if result.at is not None:
            self.began = result.at

    @property
    def status(self) -> str:
        """How it ended, or how far it has come: `pending`, `running`, `retrying`."""
        if self.result is not None:
            return str(self.result.status)
        if self.retries:
            return "retrying"
        return "pending" if self.began is None else "running"

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds since the epoch; `None` for a step that did not begin, or is not over."""
        if self.result is None or self.result.at is None:
            return None
        return self.result.at + self.result.run_seconds

    @property
    def ready(self) -> float | None:
        """When its inputs were there."""
        if self.result is None or self.result.at is None:
            return self.began
        return self.result.at - self.result.queue_seconds


class RunRecord:
    """
    What is known of a run, kept up to date by its events.

    Args:
        run_id: The run.
        began: When it began, in seconds since the epoch.
        steps: What each of its steps is, in topological order.
        snapshots: What its datasets looked like.

    Attributes:
        heard: When the last event happened.
        status: How it ended; `running` before.
        secrets: Texts that nothing told of the run may show.
        warned: What deserves attention.
        again: What to do to resume the run; empty where it is not in a journal.
    """

    def __init__(
        self, run_id: str, began: float, steps: Mapping[str, StepOutline], snapshots: Snapshots | None = None
    ) -> None:
        self.run_id = run_id
        self.began = self.heard = began
        self.steps = {name: StepRecord(outline) for name, outline in steps.items()}
        self.snapshots = snapshots or Snapshots()
        self.status = Status.RUNNING
        self.secrets = {secret.reveal() for outline in steps.values() for secret in outline.secrets}
        self.warned: list[Warned] = []
        self.again = ""
        self._peek: Callable[[str], Any] = lambda dataset: ABSENT

    @classmethod
    def started(cls, event: RunStarted, snapshots: Snapshots) -> RunRecord:
        """The record of a run that begins."""
        record = cls(event.run_id, event.at, {name: event.graph[name] for name in event.steps}, snapshots)
        record.secrets.update(secret.reveal() for secret in event.secrets)
        record._peek = event.peek
        return record

    @classmethod
    def of(cls, result: RunResult, graph: Mapping[str, StepOutline], secrets: Iterable[Secret] = ()) -> RunRecord:
        """The record of a run that is over, made of its result alone: without the times of failed attempts."""
        record = cls(result.run_id, result.started_at.timestamp(), {name: graph[name] for name in result.steps})
        record.secrets.update(secret.reveal() for secret in secrets)
        for name, each in result.steps.items():
            record.steps[name].end(each)
        record._finished(result)
        record.heard = record.began + result.seconds
        return record

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until the last event."""
        return self.heard - self.began

    @property
    def failed(self) -> Sequence[str]:
        """The steps that failed."""
        return [name for name, step in self.steps.items() if step.status == Status.FAILED]

    def hear(self, event: Event) -> None:
        """Takes in an event of the run."""
        self.heard = event.at
        match event:
            case StepFinished():
                self._step_finished(event)
            case StepStarted():
                self.steps[event.step].began = event.at
            case StepRetrying():
                again = Attempt(event.at, in_a_line(event.error), event.wait, event.element)
                self.steps[event.step].retries.append(again)
            case RunFinished():
                self._finished(event.result)
            case StepEvent():
                if text := _warning(event):
                    self.warned.append(Warned(event.step, text))

    def _step_finished(self, event: StepFinished) -> None:
        step = self.steps[event.step]
        step.end(event.result)
        for dataset in step.outline.makes:
            value = self._peek(dataset)
            if engine_of(value):
                self.snapshots.take(dataset, value)

    def _finished(self, result: RunResult) -> None:
        """
        Looks at what the run gives. What a step read and made is what it still shows at the end, since every reader has
        a dataset to itself.
        """
        self.status = result.status
        self._peek = lambda dataset: ABSENT
        self.secrets.update(text for value in result.outputs.values() for text in secrets_in(value))
        for dataset, value in result.outputs.items():
            if dataset not in self.snapshots and not isinstance(value, Handle):
                self.snapshots.take(dataset, value)


def _warning(event: StepEvent) -> str:
    """What an event says that deserves attention; empty for nothing."""
    match event:
        case StepAbandoned():
            return "it was cancelled and did not end; its thread runs on."
        case LoopBlocked():
            return f"it held the event loop for {event.seconds:.2f} s at {event.file}, line {event.line}."
        case CacheBypassed():
            return f"it was not cached: {event.reason}"
        case CacheDamaged():
            return f"what the cache had of it was damaged, and it ran after all: {event.reason}"
    return ""
