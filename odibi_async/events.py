"""The events of a run, as observers receive them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from odibi_async.dataset import ABSENT
from odibi_async.lazy import LazyMapping
from odibi_async.result import RunResult, Status, StepResult
from odibi_async.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutline:
    """
    What a step is in its graph.

    Attributes:
        layer: What kind of work it does.
        upstream: The steps that it waits for.
        reads: The datasets that it reads, those that come from outside included.
        makes: The datasets that it makes.
        secrets: What its params hold and no text about the run may show.
        value: What it calls: a function, or what its configuration says.
    """

    layer: str
    upstream: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    secrets: tuple[Secret, ...] = ()
    value: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what it calls, which need not survive pickling."""
        return _outline, (self.layer, self.upstream, self.reads, self.makes, self.secrets)


def _outline(layer: str, upstream: Any, reads: Any, makes: Any, secrets: Any) -> StepOutline:
    return StepOutline(layer=layer, upstream=upstream, reads=reads, makes=makes, secrets=secrets)


class Outline(LazyMapping[str, StepOutline]):
    """The steps of a graph and their edges, by name: made the first time that somebody looks, once a graph."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Outline, (functools.partial(dict, dict(self)),)


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something that happened in a run.

    Attributes:
        run_id: The run.
        seq: 0, 1, 2, ... within the run, in the order in which observers hear of it.
        at: When it happened, in seconds since the epoch.
    """

    run_id: str
    seq: int
    at: float

    @property
    def time(self) -> datetime:
        """When it happened (UTC)."""
        return datetime.fromtimestamp(self.at, timezone.utc)


def _nothing(dataset: str) -> Any:
    return ABSENT


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """
    A run began.

    Attributes:
        steps: The names of the steps that it is to run, in topological order.
        graph: What these steps are, and those of the graph that it leaves out.
        secrets: What was given as inputs and no text about the run may show; see also `StepOutline.secrets`.
        peek: Gives a dataset, by its name, as the run has it now: `ABSENT` where it is not made yet or dropped, a
            `Handle` where it is not in memory. It keeps nothing of the run alive. Whoever keeps a value copies it first
            (`odibi_async.dataset.reader_copy`).
    """

    steps: tuple[str, ...]
    graph: Outline = field(repr=False)
    secrets: tuple[Secret, ...] = field(default=(), repr=False)
    peek: Callable[[str], Any] = field(default=_nothing, repr=False, compare=False, metadata={"told": False})

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStarted, (self.run_id, self.seq, self.at, self.steps, self.graph, self.secrets)


@dataclass(frozen=True, slots=True)
class StepEvent(Event):
    """
    Something that happened to a step. Where nothing is to be added to that, a subclass is no dataclass of its own.

    Attributes:
        step: The name of the step.
    """

    step: str


class StepStarted(StepEvent):
    """A step's inputs are there and its first attempt begins."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class StepRetrying(StepEvent):
    """
    An attempt of a step failed, and another one will follow.

    Attributes:
        attempt: The attempt that failed; the first is 1.
        error: What it raised.
        wait: Seconds until the next attempt.
        element: Which element of a mapped step it is; `None` for other steps.
    """

    attempt: int
    error: BaseException
    wait: float
    element: int | None = None


@dataclass(frozen=True, slots=True)
class StepProgressed(StepEvent):
    """
    An element of a mapped step is done.

    Attributes:
        done: How many are.
        total: How many there are.
        element: Which one it is, counted from 0.
    """

    done: int
    total: int
    element: int


@dataclass(frozen=True, slots=True)
class StepStreamed(StepEvent):
    """
    A streaming step has made batches. Told of its first one, and then at most ten times a second.

    Attributes:
        batches: How many it has made so far.
        rows: How many rows they have: of frames, lists and tuples; `None` where there are others among them.
    """

    batches: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class CacheEvent(StepEvent):
    """
    What became of a step, or of an element of a mapped step, that was to come from the cache or to go there.

    Attributes:
        reason: Why.
        element: Which element of a mapped step it is; `None` for other steps.
    """

    reason: str
    element: int | None = None


class CacheMissed(CacheEvent):
    """It is not in the cache and will be called: something has changed since, or what was kept then is gone."""

    __slots__ = ()


class CacheBypassed(CacheEvent):
    """
    It cannot be cached: it runs, or ran, uncached.

    Something has no content to identify it by, or cannot be kept exactly, or the disk is full.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CacheNotShared(Event):
    """
    The directory that the cache shares with the workers of a cluster is only read from, or not used.

    Attributes:
        reason: What cannot be done there, and what follows.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class CacheDamaged(StepEvent):
    """
    What a step had made was found damaged when it was to be loaded; the step is called after all.

    Attributes:
        reason: What was found.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class JournalBypassed(StepEvent):
    """
    What a step made, or an element of one, cannot be taken from the journal: it runs again when the run is resumed.

    Attributes:
        reason: Why.
        element: Which element of a mapped step it is; `None` for other steps.
    """

    reason: str
    element: int | None = None


class ResourceOpened(StepEvent):
    """A resource was entered, and its readers may start. `StepFinished` follows when it was exited."""

    __slots__ = ()


class StepAbandoned(StepEvent):
    """
    A blocking step was cancelled and did not end within the grace.

    The run goes on without it; its thread runs on, and counts as taken, until its function returns.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LoopBlocked(StepEvent):
    """
    An async step held the event loop: nothing else of the process's loop ran meanwhile.

    Told when the loop is free again, at the latest before the end of the run.

    Attributes:
        seconds: How long, at least; the guard may have noticed it a moment after it began.
        file: Where its code stood when it was noticed: a file of the user's, where there is one.
        line: Which line of the file.
    """

    seconds: float
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class StepFinished(StepEvent):
    """
    A step has its final status; also for steps that were skipped or cancelled before they began.

    Attributes:
        status: How it ended.
        result: The whole record.
    """

    status: Status
    result: StepResult = field(repr=False)


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """
    A run is over; nothing of it is still running except threads reported as abandoned.

    Attributes:
        status: How it ended.
        result: What its caller gets, or finds in the error that is raised.
    """

    status: Status
    result: RunResult = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleEvent(Event):
    """
    Something that happened to a schedule; observers of `Schedules` hear of it. `run_id` is empty where no run is meant.

    Attributes:
        schedule: The name of the schedule.
    """

    schedule: str


@dataclass(frozen=True, slots=True)
class ScheduleFired(ScheduleEvent):
    """
    A firing was claimed: its run begins now, or when those before it have ended.

    Attributes:
        scheduled_at: The time that it stands for (UTC).
        trigger: What fired, as text.
        late: Seconds from that time until it was claimed.
    """

    scheduled_at: datetime
    trigger: str
    late: float


@dataclass(frozen=True, slots=True)
class ScheduleSkipped(ScheduleEvent):
    """
    A firing does not lead to a run.

    Attributes:
        scheduled_at: The time that it stands for (UTC).
        trigger: What fired, as text.
        reason: Why not.
    """

    scheduled_at: datetime
    trigger: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleMissed(ScheduleEvent):
    """
    Times went by at which no server was there to fire, and they are not made up for.

    Attributes:
        first: The first of them (UTC).
        last: The last of those that were counted (UTC).
        count: How many were counted; there may be more when it is in the hundreds.
    """

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class ScheduleEnded(ScheduleEvent):
    """
    The run of a firing ended.

    Attributes:
        scheduled_at: The time that the firing stands for (UTC).
        status: How it ended.
        error: What went wrong; `None` where nothing did.
    """

    scheduled_at: datetime
    status: Status
    error: BaseException | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ScheduleTroubled(ScheduleEvent):
    """
    Something keeps a schedule from going on as it should; it is tried again.

    Attributes:
        error: What.
    """

    error: BaseException


class ScheduleStopped(ScheduleTroubled):
    """A schedule does not fire any more, until the server is started again; the others go on."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SchedulesLed(Event):
    """
    Of the servers that have the same schedules, it is another one now that fires.

    Attributes:
        is_leading: Whether it is this one.
    """

    is_leading: bool


@dataclass(frozen=True, slots=True)
class StreamEvent(Event):
    """
    Something that happened to a stream. `run_id` is the run of the batch that it is about, or empty, and `seq` counts
    the events of the stream.

    Attributes:
        stream: The name of the stream.
    """

    stream: str


class StreamStarted(StreamEvent):
    """A stream holds its name and knows its position."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class BatchEvent(StreamEvent):
    """
    Something that happened to a batch.

    Attributes:
        batch: What it is: a file, rows up to a watermark, ...
        rows: How many rows it has; `None` where it is no frame, list or the like.
        attempt: Which attempt it is; the first is 1.
    """

    batch: str
    rows: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class BatchStarted(BatchEvent):
    """
    An attempt of a batch begins; `RunStarted` follows.

    Attributes:
        resumed: Whether the run has begun before: in an earlier attempt, or in a process that is gone.
    """

    resumed: bool


@dataclass(frozen=True, slots=True)
class BatchRetrying(BatchEvent):
    """
    An attempt of a batch failed, and another one will follow.

    Attributes:
        error: What it raised.
        wait: Seconds until the next attempt.
    """

    error: BaseException
    wait: float


@dataclass(frozen=True, slots=True)
class BatchSetAside(BatchEvent):
    """
    A batch failed as often as it may. It is kept in the journal with its error, and the stream goes on.

    Attributes:
        error: What the last attempt raised.
    """

    error: BaseException


@dataclass(frozen=True, slots=True)
class BatchFinished(BatchEvent):
    """
    A batch succeeded, and the position behind it is committed.

    Attributes:
        seconds: From the moment it was read until its position was committed.
        watermark: How far the stream has come, as its source says: the time of a file, the highest value of a column.
        lag: Seconds from the watermark to now, where that is a time.
        pending: How much more the source knows of: files, events; `None` where it cannot tell.
        rate: Rows a second (batches, where they have no rows), over the last batches.
    """

    seconds: float
    watermark: Any
    lag: float | None
    pending: int | None
    rate: float


@dataclass(frozen=True, slots=True)
class StreamLagged(StreamEvent):
    """
    A stream has taken all that its source had when it looked, or was not able to read it.

    Attributes:
        watermark: As in `BatchFinished`.
        lag: Seconds from the watermark to now, where that is a time.
        error: What kept the source from being read; `None` where all is taken.
        wait: Seconds after which a source that could not be read is tried again; 0 where all is taken.
    """

    watermark: Any
    lag: float | None
    error: BaseException | None = None
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class RowsLate(StreamEvent):
    """
    Rows came later than the source's bound allows. They are in no batch.

    Attributes:
        rows: How many were found since the last time.
        before: They are before this value of the column.
    """

    rows: int
    before: Any


@dataclass(frozen=True, slots=True)
class StreamFinished(StreamEvent):
    """
    A stream is over; nothing of it is still running.

    Attributes:
        status: How it ended.
        error: What went wrong.
    """

    status: Status
    error: BaseException | None = None
