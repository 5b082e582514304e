"""What a run was: a record of each step, and the datasets that it made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from enum import StrEnum
from typing import Any, Protocol, TypeVar, overload

from odibi_async.errors import (
    DatasetMissing,
    OptionError,
    RunError,
    StepError,
    did_you_mean,
    in_a_line,
    one_line,
    portable,
)
from odibi_async.steps import Step, name_of

T = TypeVar("T")


class Teller(Protocol):
    """What a result cannot know: how its run is drawn and told."""

    def story(self, result: RunResult, path: str | os.PathLike[str], explanations: Mapping[str, Any] | None, /) -> str:
        """Writes the story of the run; its path."""

    def html(self, result: RunResult, /) -> str:
        """The result as a notebook shows it."""

    def masked(self, text: str, /) -> str:
        """A text without the secrets of the run."""


class Status(StrEnum):
    """How a step or a run ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    RESUMED = "resumed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class CacheUse:
    """
    What the cache did for a step.

    Attributes:
        hit: Whether all that it made came from the cache.
        reason: Why not: what changed, or what kept the step from being cached. Empty for a hit.
        key: The cache key of the step's code and inputs; `None` for a step that has none, and for
            mapped steps, whose elements have one each.
    """

    hit: bool
    reason: str = ""
    key: str | None = None

    def __str__(self) -> str:
        return "hit" if self.hit else f"miss: {self.reason}"


@dataclass(frozen=True, slots=True)
class StepResult:
    """
    What became of one step in one run.

    Attributes:
        name: The step.
        status: How it ended.
        attempts: How often it was called.
        queue_seconds: Seconds from the moment its inputs were there until it began.
        run_seconds: Seconds from its beginning to its end, waits between attempts included.
        at: When its first attempt began, in seconds since the epoch; `None` if none did.
        error: What its last attempt raised.
        skipped_because: Why it was skipped: the step that failed, or whose `when` was false (it may be
            the step itself).
        rows: Rows of the frame that it made, or of the batches; `None` if it made something else, or several datasets.
        cache: What the cache did for it; `None` where it was not asked.
        element: Which element of a mapped step failed, counted from 0; `None` for other steps.
        batches: How many batches it made; `None` for a step that makes none.
    """

    name: str
    status: Status
    attempts: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    at: float | None = None
    error: BaseException | None = None
    skipped_because: str | None = None
    rows: int | None = None
    cache: CacheUse | None = None
    element: int | None = None
    batches: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        members = [getattr(self, member.name) for member in fields(self)]
        error = None if self.error is None else portable(self.error)
        return StepResult, tuple(error if member is self.error else member for member in members)

    @property
    def started_at(self) -> datetime | None:
        """When its first attempt began (UTC); `None` if none did."""
        return None if self.at is None else datetime.fromtimestamp(self.at, timezone.utc)

    @property
    def is_done(self) -> bool:
        """Whether what the step was there for is done."""
        return self.status in (Status.SUCCEEDED, Status.CACHED, Status.RESUMED)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RunResult:
    """
    What a run did. `result["clean"]` and `result[clean]` give a dataset.

    Attributes:
        run_id: The run.
        status: How it ended.
        steps: The record of each step that was to run, in topological order.
        outputs: The datasets that were asked for (all, unless `targets` says otherwise), inputs included.
        failures: The error of each failed step, in the order they failed.
        started_at: When it began (UTC).
        seconds: How long it took.
        producers: Each dataset that a step of the pipeline makes, and that step.
        partial: What elements of a failed mapped step made: the step -> the element's number -> its result (a tuple
            where the step has several datasets).
        teller: Draws it and writes its story.
    """

    run_id: str
    status: Status
    steps: Mapping[str, StepResult]
    outputs: Mapping[str, Any]
    failures: Mapping[str, StepError]
    started_at: datetime
    seconds: float
    producers: Mapping[str, str] = field(default_factory=dict)
    partial: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    teller: Teller | None = field(default=None, repr=False)

    def to_story(
        self, path: str | os.PathLike[str] = "story.html", explanations: Mapping[str, Any] | None = None
    ) -> str:
        """
        Writes the story of the run: one page of HTML that needs nothing but itself. Blocks.

        A `Tracker` among the observers tells more: what datasets looked like that are gone, when attempts failed.

        Args:
            path: The file; its folder is made if it is not there.
            explanations: Step -> what to say about it: a text, or a mapping of headings to texts.

        Returns:
            The path in full.

        Raises:
            OptionError: The result was not made by a run.
        """
        if self.teller is None:
            raise OptionError("This result was not made by a run, so nobody knows its graph.")
        return self.teller.story(self, path, explanations)

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was cancelled."""
        return self.status is Status.SUCCEEDED

    def raise_for_failures(self) -> RunResult:
        """
        The result itself, when no step failed.

        Raises:
            RunError: A step failed.
        """
        if self.failures:
            raise RunError(self.failures, self)
        return self

    @overload
    def __getitem__(self, key: str, /) -> Any: ...
    @overload
    def __getitem__(self, key: Step[..., Any, T], /) -> T: ...
    @overload
    def __getitem__(self, key: Callable[..., Coroutine[Any, Any, T]], /) -> T: ...
    @overload
    def __getitem__(self, key: Callable[..., T], /) -> T: ...
    def __getitem__(self, key: Any, /) -> Any:
        """
        The dataset of this name, or that this step made; a tuple if the step makes several.

        Raises:
            DatasetMissing: The run did not make it, or did not keep it.
        """
        names = key.datasets if isinstance(key, Step) else (name_of(key),)
        values = tuple(map(self._dataset, names))
        return values[0] if len(values) == 1 else values

    def __contains__(self, key: object) -> bool:
        names = key.datasets if isinstance(key, Step) else (name_of(key),)
        return all(name in self.outputs for name in names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def _dataset(self, name: str) -> Any:
        if name in self.outputs:
            return self.outputs[name]
        raise DatasetMissing(name, self._why_missing(name))

    def _why_missing(self, name: str) -> str:
        producer = self.producers.get(name)
        if producer is None:
            return f"no step makes it and it was not given.{did_you_mean(name, self.producers)}"
        record = self.steps.get(producer)
        if record is None:
            return f"no target needs step {producer!r}, so it did not run."
        if record.is_done:
            return "it was dropped after its last reader; name it among the targets to keep it."
        if record.error is not None:
            return f"step {producer!r} failed: {self.masked(in_a_line(record.error))}"
        because = f" because of {record.skipped_because!r}" if record.skipped_because else ""
        return f"step {producer!r} was {record.status}{because}."

    def stats(self) -> dict[str, Any]:
        """
        The run in numbers.

        Returns:
            `steps`, and how many of them ended in each way; `retries`; `rows` made; `seconds` of the whole
            run, `step_seconds` summed over steps, and `queue_seconds`, the longest that a step waited.
        """
        records = self.steps.values()
        statuses = Counter(record.status for record in records)
        ends = (Status.SUCCEEDED, Status.CACHED, Status.RESUMED, Status.FAILED, Status.SKIPPED, Status.CANCELLED)
        return {
            "steps": len(self.steps),
            **{str(status): statuses[status] for status in ends},
            "retries": sum(max(0, record.attempts - 1) for record in records),
            "rows": sum(record.rows or 0 for record in records),
            "seconds": self.seconds,
            "step_seconds": sum(record.run_seconds for record in records),
            "queue_seconds": max((record.queue_seconds for record in records), default=0.0),
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What a notebook shows: the graph and a table, and a text form."""
        bundle = {"text/plain": str(self)}
        return bundle if self.teller is None else bundle | {"text/html": self.teller.html(self)}

    def __repr__(self) -> str:
        return f"<RunResult {self.run_id}: {self.status} in {seconds_text(self.seconds)}>"

    def __str__(self) -> str:
        """A line about the run, and one for each step."""
        rows = [(*_row(record), one_line(self.masked(notes_of(record)))) for record in self.steps.values()]
        return "\n".join((self.headline, *_table([_heading, *rows])))

    def masked(self, text: str) -> str:
        """The text without the secrets among the params of the steps and the inputs, and the passwords of URLs."""
        return text if self.teller is None else self.teller.masked(text)

    @property
    def headline(self) -> str:
        """A line about the run: how it ended, how long it took, how many steps ended in which way."""
        counts = Counter(str(record.status) for record in self.steps.values())
        ended = ", ".join(f"{count} {status}" for status, count in counts.items())
        noun = "step" if len(self.steps) == 1 else "steps"
        return f"Run {self.run_id} {self.status} in {seconds_text(self.seconds)}: {len(self.steps)} {noun}, {ended}"


_heading = ("step", "status", "began", "took", "rows", "")


def _row(record: StepResult) -> tuple[str, ...]:
    began = f"{record.started_at:%H:%M:%S.%f}"[:-3] if record.started_at else ""
    took = seconds_text(record.run_seconds) if record.started_at else ""
    rows = "" if record.rows is None else f"{record.rows:,}"
    return one_line(record.name), str(record.status), began, took, rows


def notes_of(record: StepResult) -> str:
    """What is worth telling of a step beside how it ended: its batches, its attempts, why it was skipped, its error."""
    notes = []
    if record.batches is not None:
        notes.append(f"{record.batches:,} batches" if record.batches != 1 else "1 batch")
    if record.attempts > 1:
        notes.append(f"{record.attempts} attempts")
    if record.skipped_because:
        notes.append(f"because of {record.skipped_because}")
    if record.error is not None:
        where = "" if record.element is None else f"element {record.element}: "
        notes.append(where + in_a_line(record.error))
    return "; ".join(notes)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Lines of aligned columns; the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, status, began, took, count, notes in rows:
        cells = (
            name.ljust(widths[0]),
            status.ljust(widths[1]),
            began.ljust(widths[2]),
            took.rjust(widths[3]),
            count.rjust(widths[4]),
            notes,
        )
        yield "  " + "  ".join(cells).rstrip()


def seconds_text(seconds: float) -> str:
    """Seconds in a form for reading: `0.4 ms`, `12 ms`, `3.21 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
