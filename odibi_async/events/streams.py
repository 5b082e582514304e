"""The events of streams: of pipelines that run once for each batch of a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from odibi_async.events.runs import Event
from odibi_async.result import Status


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
