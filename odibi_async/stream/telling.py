"""What a stream tells its observers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from odibi_async.events import BatchEvent, StreamEvent
from odibi_async.run.telling import Telling
from odibi_async.stream.ledger import Open
from odibi_async.stream.values import from_json, moment_of

RATED: Final = 20
"""Over how many batches the rate is taken."""


class StreamTelling:
    """
    The events of a stream, in their order.

    Args:
        stream: Its name.
        telling: Who hears of them.
        now: The clock: seconds since the epoch.
        timer: What seconds are counted with; it is never set back.
    """

    def __init__(self, stream: str, telling: Telling, now: Callable[[], float], timer: Callable[[], float]) -> None:
        self._stream = stream
        self._telling = telling
        self._now = now
        self._timer = timer
        self._recent: deque[tuple[float, int]] = deque([(timer(), 0)], maxlen=RATED + 1)

    def tell(self, kind: type[StreamEvent], *about: Any, run_id: str = "") -> None:
        """Tells of something that happens now."""
        if self._telling.observers:
            self._telling.hear(kind(run_id, self._telling.seq, self._now(), self._stream, *about))

    def about(self, kind: type[BatchEvent], batch: Open, attempt: int, *about: Any) -> None:
        """Tells of something that happens to a batch."""
        self.tell(kind, batch.label, batch.rows, attempt, *about, run_id=batch.run_id)

    def lag(self, watermark: Any) -> float | None:
        """Seconds from a watermark, as JSON has it, until now; `None` where it is no time."""
        moment = moment_of(from_json(watermark))
        return None if moment is None else self._now() - moment

    def rate(self, rows: int | None) -> float:
        """Rows a second, of the last batches and of one that has just been done."""
        self._recent.append((self._timer(), 1 if rows is None else rows))
        seconds = self._recent[-1][0] - self._recent[0][0]
        done = sum(rows for _, rows in list(self._recent)[1:])
        return done / seconds if seconds > 0 else 0.0
