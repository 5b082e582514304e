"""What is wrong with a stream."""

from __future__ import annotations

from odibi_async.errors.base import OdibiError


class StreamError(OdibiError):
    """A stream cannot go on. Its position, and the batch that it was at, are in the journal."""

    code = "OA362"


class StreamAlive(StreamError):
    """
    A stream was to begin while one of the same name is running, in this process or in another one.

    Attributes:
        stream: The name of the stream.
        journal: The journal that both use.
    """

    code = "OA361"

    def __init__(self, stream: str, journal: str) -> None:
        super().__init__(stream, journal)
        self.stream = stream
        self.journal = journal

    def __str__(self) -> str:
        return (
            f"Stream {self.stream!r} is running already, with journal {self.journal!r}. Stop it first, give this one"
            " another name=, or wait for its end with when_held='wait'."
        )


class SourceFailed(StreamError):
    """
    A source could not be read, as often as it was tried; the cause says why.

    Attributes:
        stream: The name of the stream.
        reason: What the last attempt raised, in a line.
        attempts: How often it was tried in a row.
    """

    def __init__(self, stream: str, reason: str, attempts: int) -> None:
        super().__init__(stream, reason, attempts)
        self.stream = stream
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times in a row"
        return f"The source of stream {self.stream!r} failed {times}: {self.reason}"


class BatchFailed(StreamError):
    """
    A batch failed as often as it was tried, and `on_poison` is `"stop"`; the cause says why.

    Attributes:
        stream: The name of the stream.
        batch: The batch: a file, rows up to a watermark, ...
        run_id: The run of the batch.
        reason: What the last attempt raised, in a line.
        attempts: How often it was tried.
    """

    code = "OA363"

    def __init__(self, stream: str, batch: str, run_id: str, reason: str, attempts: int) -> None:
        super().__init__(stream, batch, run_id, reason, attempts)
        self.stream = stream
        self.batch = batch
        self.run_id = run_id
        self.reason = reason
        self.attempts = attempts

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return (
            f"Stream {self.stream!r} has stopped: batch {self.batch!r} (run {self.run_id}) failed {times}:"
            f" {self.reason}\nStarted again, the stream goes on with this batch."
        )


class StreamOvertaken(StreamError):
    """
    Another process has moved the position of a stream while this one thought that the stream was its own.

    Attributes:
        stream: The name of the stream.
    """

    code = "OA364"

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return (
            f"The position of stream {self.stream!r} is not what this process committed last: another process has"
            " taken the stream over. This one stops; nothing of it was committed since."
        )


class PositionDamaged(StreamError):
    """
    What the journal says of a stream cannot be read, or does not fit its source.

    Attributes:
        stream: The name of the stream.
        reason: What is wrong with it.
    """

    code = "OA365"

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(stream, reason)
        self.stream = stream
        self.reason = reason

    def __str__(self) -> str:
        return f"The position of stream {self.stream!r} cannot be used: {self.reason}"


class BatchUnknown(StreamError):
    """
    A batch was to be replayed that is not set aside, or whose data is gone.

    Attributes:
        stream: The name of the stream.
        run_id: The run of the batch.
        reason: Why it cannot be replayed.
    """

    code = "OA366"

    def __init__(self, stream: str, run_id: str, reason: str) -> None:
        super().__init__(stream, run_id, reason)
        self.stream = stream
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Batch {self.run_id!r} of stream {self.stream!r} cannot be replayed: {self.reason}"
