"""What several runs of one loop want computed at the same time: one of them does it, the others wait for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Flight:
    """
    One run's place in what several runs want computed.

    Attributes:
        leads: Whether this run is to do it; else all who waited may, side by side.
        succeeded: Whether the others find now what they waited for; to be set by the run that leads.
    """

    leads: bool
    succeeded: bool = False


@dataclass(slots=True)
class _Wanted:
    """
    A key that somebody computes, or waits for.

    Attributes:
        lock: Held by the one that computes it.
        parties: How many hold it or wait.
        is_hopeless: Whether the one that computed it had nothing for the others.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    parties: int = 0
    is_hopeless: bool = False


class Flights:
    """
    What runs of one loop compute at the moment: for each key one of them does, the others wait for it.

    Attributes:
        locks: How many locks between processes they hold or wait for, which the runs themselves count.
    """

    def __init__(self) -> None:
        self.locks = 0
        self._wanted: dict[str, _Wanted] = {}

    @contextlib.asynccontextmanager
    async def of(self, key: str, *, waits: bool = True) -> AsyncIterator[Flight]:
        """
        A block that only one at a time is in for a key.

        When the leader failed, or says that the others will find nothing, those waiting go ahead side by
        side. When it was cancelled, the next one leads. Who does not wait goes ahead at once.
        """
        if not waits and key in self._wanted:
            yield Flight(leads=False)
            return
        wanted = self._wanted.setdefault(key, _Wanted())
        wanted.parties += 1
        try:
            async with wanted.lock:
                if not wanted.is_hopeless:
                    flight = Flight(leads=True)
                    try:
                        yield flight
                    except Exception:
                        wanted.is_hopeless = True
                        raise
                    wanted.is_hopeless = not flight.succeeded
                    return
            yield Flight(leads=False)
        finally:
            wanted.parties -= 1
            if not wanted.parties:
                del self._wanted[key]
