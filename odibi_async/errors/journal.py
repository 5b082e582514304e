"""What is wrong with a journal, or with the runs in it."""

from __future__ import annotations

from collections.abc import Sequence

from odibi_async.errors.base import OdibiError
from odibi_async.errors.wording import did_you_mean, shortened


class JournalError(OdibiError):
    """A run cannot be journaled, or cannot be resumed."""

    code = "OA312"


class JournalUnavailable(JournalError):
    """
    The journal cannot be read or written.

    Attributes:
        journal: The journal.
        reason: Why not.
    """

    def __init__(self, journal: str, reason: str) -> None:
        super().__init__(journal, reason)
        self.journal = journal
        self.reason = reason

    def __str__(self) -> str:
        return f"The journal {self.journal!r} cannot be used: {self.reason}"


class RunUnknown(JournalError):
    """
    The journal has no run with this id.

    Attributes:
        run_id: The id.
        known: The ids of the runs that it has, the newest first.
    """

    code = "OA316"

    def __init__(self, run_id: str, known: Sequence[str]) -> None:
        super().__init__(run_id, known)
        self.run_id = run_id
        self.known = known

    def __str__(self) -> str:
        there = f" Runs: {shortened(self.known)}." if self.known else " It is empty."
        return f"The journal has no run {self.run_id!r}.{did_you_mean(self.run_id, self.known)}{there}"


class RunExists(JournalError):
    """
    A run was to begin whose id the journal has already.

    Attributes:
        run_id: The id.
    """

    code = "OA317"

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"The journal has a run {self.run_id!r} already. Resume it with resume=True, or use another run_id."


class RunAlive(JournalError):
    """
    A run was to be resumed that is still running.

    Attributes:
        run_id: The id.
        host: Where it is running.
        pid: The number of the process there.
    """

    code = "OA318"

    def __init__(self, run_id: str, host: str, pid: int) -> None:
        super().__init__(run_id, host, pid)
        self.run_id = run_id
        self.host = host
        self.pid = pid

    def __str__(self) -> str:
        where = f" in process {self.pid} on {self.host}" if self.pid else ""
        return f"Run {self.run_id!r} is still running{where}. It can be resumed when that has ended."
