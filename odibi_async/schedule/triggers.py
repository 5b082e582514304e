"""What says when a pipeline runs: times, intervals, events, and any of several."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from odibi_async.cron import CronTimes
from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError
from odibi_async.schedule.firing import Firing

Clock = Callable[[], float]
"""Tells the time in seconds since the epoch, as `time.time` does."""
GLANCE: Final = 1.0
"""Seconds after which who waits looks at the clock again: somebody may have set it."""


def moment(at: float) -> datetime:
    """A time of a clock (UTC)."""
    return datetime.fromtimestamp(at, timezone.utc)


class Trigger(ABC):
    """
    Says when a pipeline runs. `cron | event` fires when any of them does.

    A subclass of yours has `next` and `text`; one that fires for other reasons than the time overrides `firings`, too,
    and its `next` gives `None`.
    """

    @property
    @abstractmethod
    def text(self) -> str:
        """What people read."""

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """The first time after another one; `None` where there is none, or nobody can know it."""

    @property
    def is_timed(self) -> bool:
        """Whether `next` says all of its times."""
        return type(self).firings is Trigger.firings

    @property
    def is_interval(self) -> bool:
        """Whether it is the distance of its times that counts, not what clocks show then."""
        return False

    @property
    def members(self) -> Sequence[Trigger]:
        """The triggers of which any may fire; the trigger alone, where it is one."""
        return (self,)

    def named(self, name: str) -> Trigger:
        """The trigger of the schedule of this name: what is up to chance differs from name to name."""
        return self

    def __or__(self, other: Trigger) -> Trigger:
        if not isinstance(other, Trigger):
            return NotImplemented
        return AnyOf((*self.members, *other.members))

    def __aiter__(self) -> AsyncIterator[Firing]:
        return self.firings()

    async def firings(self, clock: Clock = time.time) -> AsyncGenerator[Firing, None]:
        """Its firings from now on, as they come. Who is slow to ask for the next one misses those in between."""
        while (at := self.next(moment(clock()))) is not None:
            while (left := at.timestamp() - clock()) > 0:  # noqa: ASYNC110 (it is a clock that is waited for)
                await asyncio.sleep(min(left, GLANCE))
            yield Firing(at=at, trigger=self.text)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text}>"


class Cron(Trigger):
    """
    At the times that a cron expression names: `Cron("30 2 * * *", tz="Europe/Berlin")`.

    A time that a clock shows twice fires once. One that it leaves out, when it is set forward in spring, fires at
    that moment. Expressions whose minutes or hours begin with `*` go with the time that passes instead.

    Args:
        expression: `minute hour day-of-month month day-of-week`; or `@yearly`, `@monthly`, `@weekly`, `@daily`,
            `@hourly`.
        tz: The time zone.

    Raises:
        CronError: The expression is wrong, or never fires.
        ZoneUnknown: There is no such time zone.
    """

    def __init__(self, expression: str, tz: str | tzinfo = "UTC") -> None:
        self.times = CronTimes(expression, tz)

    @property
    def text(self) -> str:
        zone = self.times.zone
        return f"cron {self.times.text}" + ("" if zone is timezone.utc else f" ({zone})")

    def next(self, after: datetime) -> datetime | None:
        return self.times.next(after)


@dataclass(frozen=True, repr=False)
class Every(Trigger):
    """
    At an interval: `Every(300)`. Its times are multiples of the interval since 1970, so that all servers agree on them.

    Args:
        seconds: The interval, or a `timedelta`.
        jitter: Each time is later by up to so many seconds, at most by the interval. By how much depends on the
            name of the schedule and on the time, so that many schedules do not fire at the same moment.
    """

    seconds: float
    jitter: float = 0.0
    seed: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", seconds_of("Every: seconds", self.seconds, above_zero=True))
        object.__setattr__(self, "jitter", seconds_of("Every: jitter", self.jitter))
        if not (isinstance(self.seconds, int | float) and 0.001 <= self.seconds < 1e9):
            raise OptionError(f"Every({self.seconds!r}): a number of seconds from 0.001 to 1e9 is needed.")
        if self.jitter is None or not self.jitter <= self.seconds:
            raise OptionError(f"Every({self.seconds:g}, jitter={self.jitter!r}): at most the interval is needed.")

    @property
    def text(self) -> str:
        return f"every {self.seconds:g} s" + (f" and up to {self.jitter:g} s more" if self.jitter else "")

    @property
    def is_interval(self) -> bool:
        return True

    def named(self, name: str) -> Trigger:
        return replace(self, seed=name) if self.jitter and not self.seed else self

    def next(self, after: datetime) -> datetime | None:
        if after.tzinfo is None:
            raise OptionError(f"{after!r} has no time zone: next() needs one that has.")
        passed = after.astimezone(timezone.utc) - EPOCH
        number = passed // self._interval - 1  # the one before may be late enough
        try:
            while (at := self._time(number)) <= after:
                number += 1
        except OverflowError:
            return None
        return at

    @property
    def _interval(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    def _time(self, number: int) -> datetime:
        at = EPOCH + number * self._interval
        return at + timedelta(seconds=self.jitter * _chance(f"{self.seed}\0{number}")) if self.jitter else at


EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _chance(text: str) -> float:
    """A number from 0 to 1 that looks like chance and is always the same."""
    from blake3 import blake3

    return int.from_bytes(blake3(text.encode("utf-8", "surrogatepass")).digest(6), "big") / 2**48


class OnEvent(Trigger):
    """
    When somebody says so: `OnEvent("orders")` fires on `schedules.fire("orders", payload)`.

    Alone, as an async iterator, it fires on its own `fire`.

    Args:
        name: The name of the event.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise OptionError(f"OnEvent({name!r}): the name of an event is needed.")
        self.name = name
        self._listening: set[asyncio.Queue[Firing]] = set()

    @property
    def text(self) -> str:
        return f"event {self.name}"

    def next(self, after: datetime) -> datetime | None:
        return None

    def fire(self, payload: Any = None) -> None:
        """Has all who iterate over it fire. In their loop."""
        for queue in self._listening:
            queue.put_nowait(Firing(at=moment(time.time()), trigger=self.text, payload=payload))

    async def firings(self, clock: Clock = time.time) -> AsyncGenerator[Firing, None]:
        queue: asyncio.Queue[Firing] = asyncio.Queue()
        self._listening.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listening.discard(queue)


class AnyOf(Trigger):
    """
    When any of several triggers fires; `a | b` makes one.

    Args:
        members: The triggers.
    """

    def __init__(self, members: Sequence[Trigger]) -> None:
        self._members = tuple(members)

    @property
    def members(self) -> Sequence[Trigger]:
        return self._members

    @property
    def text(self) -> str:
        return " | ".join(member.text for member in self._members)

    @property
    def is_timed(self) -> bool:
        return all(member.is_timed for member in self._members)

    @property
    def is_interval(self) -> bool:
        return all(member.is_interval for member in self._members)

    def named(self, name: str) -> Trigger:
        return AnyOf([member.named(f"{name}\0{index}") for index, member in enumerate(self._members)])

    def next(self, after: datetime) -> datetime | None:
        return min(filter(None, (member.next(after) for member in self._members)), default=None)

    async def firings(self, clock: Clock = time.time) -> AsyncGenerator[Firing, None]:
        queue: asyncio.Queue[Firing | BaseException | None] = asyncio.Queue()

        async def pour(member: Trigger) -> None:
            try:
                async for firing in member.firings(clock):
                    await queue.put(firing)
                await queue.put(None)
            except Exception as error:  # whatever the member raises, who iterates gets it
                await queue.put(error)

        pouring = [asyncio.create_task(pour(member)) for member in self._members]
        try:
            left = len(pouring)
            while left:
                found = await queue.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    left -= 1
                else:
                    yield found
        finally:
            for task in pouring:
                task.cancel()
            await asyncio.gather(*pouring, return_exceptions=True)
