"""How much a service takes on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """
    How much a service takes on, in each of its worker processes.

    Attributes:
        runs: Runs that are not over. More are refused with 429.
        body: Bytes of a request.
        wait: Seconds that a request may wait for the end of its run.
        events: Events that are kept of a run, for those who listen later; older ones are dropped.
        listeners: Listeners of one run.
        stall: Seconds after which a listener that takes nothing is dropped.
        keepalive: Seconds of silence after which a listener is sent a comment.
        kept: Runs that are over and stay in memory. With a journal they are read from it afterwards, without one they
            are forgotten.
        kept_seconds: How long they stay, at most.
        kept_bytes: What the datasets of these runs may take; without a journal, those that are dropped are gone.
        rows: Rows of a dataset in one answer.
        inline_rows: Rows of a dataset in the answer to a request that waited.
        downloads: Answers with datasets that are sent at a time.
        key_seconds: How long an `Idempotency-Key` is remembered.
        poll: Seconds between two looks at what other workers ask for.
    """

    runs: int = 1_000
    body: int = 1_000_000
    wait: float = 60.0
    events: int = 10_000
    listeners: int = 1_000
    stall: float = 30.0
    keepalive: float = 15.0
    kept: int = 200
    kept_seconds: float = 600.0
    kept_bytes: int = 256_000_000
    rows: int = 1_000_000
    inline_rows: int = 100
    downloads: int = 16
    key_seconds: float = 86_400.0
    poll: float = 1.0

    def __post_init__(self) -> None:
        for member in fields(self):
            value, name = getattr(self, member.name), f"ServiceLimits: {member.name}"
            if member.type == "float":
                object.__setattr__(self, member.name, seconds_of(name, value, above_zero=True))
            elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise OptionError(f"{name} is a whole number from 0 on, not {value!r}.")
