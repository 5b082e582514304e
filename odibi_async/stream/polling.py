"""A function that is asked from time to time."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from odibi_async.durations import seconds_of
from odibi_async.errors import OptionError, PositionDamaged
from odibi_async.steps import is_async
from odibi_async.stream.source import Batch, Found, Memory


@dataclass(frozen=True, slots=True)
class Polled:
    """
    What a function of `Polling` returns when it knows where it goes on.

    Attributes:
        data: The batch; `None` for nothing.
        position: What the function is given the next time: anything that JSON can hold.
        more: Whether there is more already, so that it is called again at once.
        watermark: How far it has come, if that can be said: a time, a number.
    """

    data: Any
    position: Any = None
    more: bool = False
    watermark: Any = None


class Polling:
    """
    A source that calls a function from time to time; a batch is what it returns, unless that is `None`.

        async def orders(since):                            # since: None at first
            found = await client.orders(since=since)
            return Polled(found, found[-1]["id"]) if found else None

        run_stream(pipeline, Polling(orders, 30), into="orders", journal="journal")

    What it raises is an error of the source, which is tried again.

    Args:
        fn: An async function, or a blocking one, which is called in a worker thread. If it has a parameter, it is given
            the position of the last `Polled` whose batch was committed.
        interval: Seconds between two calls.
    """

    def __init__(self, fn: Callable[..., Any], interval: float = 60.0) -> None:
        if not callable(fn):
            raise OptionError(f"Polling({fn!r}): a function is needed.")
        self._fn = fn
        self._interval: float = seconds_of("interval", interval, above_zero=True)
        self._takes_position = _takes_one(fn)

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def batches(self, position: str | None, memory: Memory) -> AsyncIterator[Found]:
        """What the function returns now; what it has more at once, too."""
        count, since = _parsed(position)
        more = True
        while more:
            found = await self._called(since)
            polled = found if isinstance(found, Polled) else Polled(found, since)
            if polled.data is None:
                return
            count, since, more = count + 1, polled.position, polled.more
            yield Batch(
                data=polled.data,
                position=json.dumps([count, since]),
                watermark=polled.watermark,
                label=f"poll {count}",
            )

    async def _called(self, since: Any) -> Any:
        given = (since,) if self._takes_position else ()
        if is_async(self._fn):
            return await self._fn(*given)
        return await anyio.to_thread.run_sync(
            self._fn, *given, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=True
        )

    async def changed(self) -> bool:
        """Returns after the interval."""
        await asyncio.sleep(self._interval)
        return True

    async def close(self) -> None:
        """Nothing is to be closed."""


def _takes_one(fn: Callable[..., Any]) -> bool:
    """Whether a function can be given a value by its place."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # of C, and it does not say
        return False
    return any(each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in parameters)


def _parsed(position: str | None) -> tuple[int, Any]:
    """How many batches there were, and what the function is given."""
    if position is None:
        return 0, None
    try:
        count, since = json.loads(position)
        return int(count), since
    except (ValueError, TypeError) as error:
        raise PositionDamaged("", f"{position!r} is not that of Polling.") from error
