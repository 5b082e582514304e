"""One attempt's time limit, and the attempts after the first."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from odibi_async.retry import Retry, asked_delay
from odibi_async.run.cancelling import again_after
from odibi_async.run.tracebacks import freed


class TimeLimit:
    """
    Limits what an attempt may take: `async with TimeLimit(...)`.

    When the time is over the task gets one `cancel()`, so that its clean-up may await, and after each
    further grace another one. `asyncio.timeout` would stop at the first, an `anyio` cancel scope would cut
    every `await` of the clean-up. An attempt whose time is over has failed, whatever it returns.

    Args:
        seconds: The limit; `None` for no limit.
        grace: Seconds that the clean-up has before the task is cancelled again.
        at_once: Whether the time runs from the beginning; else from the call of `start`.

    Raises:
        TimeoutError: The time was over.
    """

    def __init__(self, seconds: float | None, grace: float, *, at_once: bool = True) -> None:
        self._seconds = seconds
        self._grace = grace
        self._at_once = at_once
        self._cancels = 0
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling_before = task.cancelling()
        if self._at_once:
            self.start()
        return self

    def start(self) -> None:
        """The time runs from now on, also if it ran before: a worker has died, and another one calls the function."""
        if self._seconds is not None and not self._cancels and not self._is_over:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self.expire)

    def pause(self) -> None:
        """The time stands still, and is a whole one again at the next `start`."""
        if self._timer is not None and not self._cancels:
            self._timer.cancel()
            self._timer = None

    @property
    def has_expired(self) -> bool:
        """Whether the time is over."""
        return self._cancels > 0

    def expire(self) -> None:
        """The time is over."""
        self._cancels += 1
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(again_after(self._grace), self.expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.was_ended(error):
            raise TimeoutError(f"no result within {self._seconds:g} s") from None

    def was_ended(self, error: BaseException | None) -> bool:
        """Ends the limit; whether it has ended the block, which raised `error`."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._cancels:
            return False
        for _ in range(self._cancels):
            self._task.uncancel()
        cancelled_by_others = self._task.cancelling() > self._cancelling_before
        return (error is None or isinstance(error, asyncio.CancelledError)) and not cancelled_by_others


class Leash:
    """
    Limits what an attempt may take each time, and ends it when nobody needs it any more: `async with Leash(...)`.

    Args:
        seconds: What may pass between `start` and `pause`; `None` for no limit.
        grace: Seconds that the clean-up has before the task is cancelled again.

    Attributes:
        limit: The time limit.
        is_cut: Whether it was ended since nobody needs it.

    Raises:
        TimeoutError: The time was over.
    """

    def __init__(self, seconds: float | None, grace: float) -> None:
        self._seconds = seconds
        self.limit = TimeLimit(seconds, grace, at_once=False)
        self.is_cut = False
        self._is_over = False

    def cut(self) -> None:
        """Ends the block: its task is cancelled, and that is no failure; if its time is over, it ends for that."""
        if not (self.is_cut or self._is_over or self.limit.has_expired):
            self.is_cut = True
            self.limit.expire()

    async def __aenter__(self) -> Self:
        await self.limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._is_over = True
        if not self.limit.was_ended(error):
            return False
        if not self.is_cut:
            raise TimeoutError(f"no batch within {self._seconds:g} s") from None
        return True


async def try_again(
    policy: Retry,
    error: BaseException,
    attempt: Callable[[], Awaitable[Any]],
    worth: Callable[[BaseException], bool],
    on_retry: Callable[[int, BaseException, float], None],
) -> Any:
    """
    Makes the further attempts after a first one that failed.

    Args:
        policy: How often, and how patiently.
        error: What the first attempt raised; it counts as attempt 1.
        attempt: Makes one attempt.
        worth: Whether an error is worth another one.
        on_retry: Hears the number of the attempt that failed, its error and the seconds until the next.

    Raises:
        BaseException: What the last attempt raised.
    """
    if policy.attempts == 1 or not worth(error):
        raise error
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

    def retry(state: Any) -> bool:
        raised = state.outcome.exception() if state.outcome.failed else None
        return raised is not None and (state.attempt_number == 1 or worth(freed(raised)))

    def before_sleep(state: Any) -> None:
        on_retry(state.attempt_number, state.outcome.exception(), state.upcoming_sleep)

    return await tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=wait,
        retry=retry,
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
