"""What Ctrl-C and `kill` do."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final


class Interrupted(BaseException):
    """
    A signal came while nothing was there that could be cancelled.

    Attributes:
        exit_code: What the process ends with.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


CANCELLED: Final = "the run is cancelled and its steps clean up. Once more ends it at once."


class Signals:
    """
    The first SIGINT or SIGTERM cancels, the second one aborts; while the outcome is printed, they wait.

    They are handled as Python handles them, not by the loop: a step that blocks the loop cannot hold them up.

    Args:
        abort: Ends the process at once, with this exit code.

    Attributes:
        exit_code: What the process ends with because of the first one; 0 when none came.
    """

    def __init__(self, abort: Callable[[int], None]) -> None:
        self.exit_code = 0
        self._abort = abort
        self._cancel: Callable[[], object] | None = None
        self._hurry: Callable[[], object] | None = None
        self._said = CANCELLED
        self._is_over = False
        self._told: int | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in _numbers}
        try:
            yield
        finally:
            if self._told is None:
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def cancelling(
        self, cancel: Callable[[], object], hurry: Callable[[], object] | None = None, told: str = CANCELLED
    ) -> Iterator[None]:
        """
        Meanwhile the first signal calls `cancel`; at once, where it came already.

        Args:
            cancel: Has what is going on end.
            hurry: Has it end at once; called by the second signal, and only the third one aborts.
            told: What people read when the first one comes.
        """
        before = self._cancel, self._hurry, self._said
        self._cancel, self._hurry, self._said = cancel, hurry, told
        try:
            if self.exit_code:
                cancel()
            yield
        finally:
            self._cancel, self._hurry, self._said = before

    def over(self) -> None:
        """From now on signals change nothing: the outcome is certain, and is printed in full."""
        self._is_over = True

    def only_hurry(self, exit_code: int) -> None:
        """From now on they end the process with this, which was told; when Python takes itself down, not even that."""
        self._told = exit_code
        for number in _numbers:
            atexit.register(signal.signal, number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._told is not None:
            os._exit(self._told)
        if self._is_over:
            return
        if self.exit_code:
            hurry, self._hurry = self._hurry, None
            if hurry is None:
                self._abort(128 + number)
            else:
                hurry()
            return
        self.exit_code = 128 + number
        if self._cancel is None:
            raise Interrupted(number)
        self._cancel()
        with contextlib.suppress(OSError):
            os.write(2, f"\nInterrupted: {self._said}\n".encode())


_numbers = (signal.SIGINT, signal.SIGTERM)
