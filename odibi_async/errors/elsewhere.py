"""What is wrong with calls in other processes and on clusters."""

from __future__ import annotations

from odibi_async.errors.base import OdibiError


class WorkerLost(OdibiError):
    """
    The worker that called a step is gone, and with it this attempt. `Retry` calls the step again by default.

    Attributes:
        step: The name of the step.
        reason: What happened to the worker, in a sentence.
    """

    code = "OA321"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"The worker that called step {self.step!r} is lost: {self.reason}"


class DataLost(WorkerLost):
    """What a step made, or reads, was on a worker that is gone. The run makes it again where it can."""


class ClusterError(OdibiError):
    """A cluster cannot be used: it does not answer, or has other versions; the text says what to do."""

    code = "OA323"


class NotPortable(OdibiError, TypeError):
    """
    Something cannot travel between this process and the one that calls the step.

    Attributes:
        step: The name of the step.
        reason: What cannot travel, and why.
    """

    code = "OA322"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"Step {self.step!r} cannot be called in another process: {self.reason}"


class RemoteTraceback(Exception):
    """
    Stands as the cause of an error that was raised in another process.

    Attributes:
        text: The traceback, as it was there.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
