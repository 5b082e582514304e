"""The policies around one call of a step, each entered only where a step asks for it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio
import anyio.to_thread

from odibi_async.retry import Retry, asked_delay


class TimeLimit:
    """
    Limits what an attempt may take: `async with TimeLimit(...)`.

    When the time is over the task gets one `cancel()`, so that its clean-up may await, and after each
    further grace another one. `asyncio.timeout` would stop at the first, an `anyio` cancel scope would cut
    every `await` of the clean-up.

    Args:
        seconds: The limit; `None` for no limit.
        grace: Seconds that the clean-up has before the task is cancelled again.
        message: What the `TimeoutError` says.
    """

    def __init__(self, seconds: float | None, grace: float, message: str) -> None:
        self._seconds = seconds
        self._grace = grace
        self._message = message
        self._cancels = 0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        if self._seconds is not None:
            self._loop = asyncio.get_running_loop()
            self._task: asyncio.Task[Any] | None = asyncio.current_task()
            self._timer = self._loop.call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        assert self._task is not None
        self._cancels += 1
        self._task.cancel()
        self._timer = self._loop.call_later(self._grace, self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._cancels:
            return
        assert self._task is not None
        others = self._task.cancelling() - self._cancels
        for _ in range(self._cancels):
            self._task.uncancel()
        if others <= 0 and isinstance(error, asyncio.CancelledError):
            raise TimeoutError(self._message) from None


async def try_again(
    policy: Retry,
    error: BaseException,
    attempt: Callable[[], Awaitable[Any]],
    on_retry: Callable[[int, BaseException, float], None],
) -> Any:
    """
    Makes the further attempts after a first one that failed.

    Args:
        policy: It covers `error`.
        error: What the first attempt raised; it counts as attempt 1.
        attempt: Makes one attempt.
        on_retry: Hears the number of the attempt that failed, its error and the seconds until the next.

    Raises:
        BaseException: What the last attempt raised.
    """
    tenacity = await _tenacity()
    first: BaseException | None = error

    async def next_attempt() -> Any:
        nonlocal first
        if first is not None:
            pending, first = first, None
            raise pending
        return await attempt()

    backoff = (tenacity.wait_random_exponential if policy.jitter else tenacity.wait_exponential)(
        multiplier=policy.wait, max=policy.max_wait
    )

    def wait(state: Any) -> float:
        asked = asked_delay(state.outcome.exception())
        return backoff(state) if asked is None else min(asked, policy.max_wait)

    def before_sleep(state: Any) -> None:
        on_retry(state.attempt_number, state.outcome.exception(), state.upcoming_sleep)

    return await tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(policy.covers),
        before_sleep=before_sleep,
        sleep=asyncio.sleep,
        reraise=True,
    )(next_attempt)


async def _tenacity() -> Any:
    """The library; the first time it is imported off the loop."""
    global _loaded
    if _loaded is None:
        _loaded = await anyio.to_thread.run_sync(importlib.import_module, "tenacity", limiter=anyio.CapacityLimiter(1))
    return _loaded


_loaded: Any = None
