"""What Ctrl-C and `kill` do."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(BaseException):
    """
    A signal came while nothing was there that could be cancelled.

    Attributes:
        exit_code: What the process ends with.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Signals:
    """
    The first SIGINT or SIGTERM cancels, the second one aborts.

    They are handled as Python handles them, not by the loop: a step that blocks the loop cannot hold them up.

    Args:
        abort: Ends the process at once, with this exit code.
    """

    def __init__(self, abort: Callable[[int], None]) -> None:
        self.exit_code = 0
        self._abort = abort
        self._cancel: Callable[[], object] | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Meanwhile the first signal calls `cancel`."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code:
            self._abort(128 + number)
        self.exit_code = 128 + number
        if self._cancel is None:
            raise Interrupted(number)
        self._cancel()
        with contextlib.suppress(OSError):
            os.write(2, b"\nInterrupted: the run is cancelled and its steps clean up. Once more ends it at once.\n")
